"""What every trainer shares: seeded noise, exact resume, averaged weights, losses by timestep, recipes."""

from .checkpoints import last_complete_checkpoint
from .ema import EMACallback
from .frozen_cache import cache_folder, check_moments, map_once
from .optimizers import MuonWithAdamW
from .problems import load_problems
from .progress import LossParts, TimestepBuckets
from .recipes import discard_stages, merge_recipes, read_recipe, read_section, recipe_names, run_stage
from .streams import check_not_streamed, column_names, map_rows, spread_rows
from .trainer import ReproducibleTrainer, ReproducibleTrainingArguments
from .wrapped import call_inside


__all__ = [
    "EMACallback",
    "LossParts",
    "MuonWithAdamW",
    "ReproducibleTrainer",
    "ReproducibleTrainingArguments",
    "TimestepBuckets",
    "cache_folder",
    "call_inside",
    "check_moments",
    "check_not_streamed",
    "column_names",
    "discard_stages",
    "last_complete_checkpoint",
    "load_problems",
    "map_once",
    "map_rows",
    "merge_recipes",
    "read_recipe",
    "read_section",
    "recipe_names",
    "run_stage",
    "spread_rows",
]
