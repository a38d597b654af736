"""What every trainer shares: seeded noise, exact resume, averaged weights, losses by timestep, recipes."""

from .checkpoints import last_complete_checkpoint
from .ema import EMACallback
from .optimizers import MuonWithAdamW
from .problems import load_problems
from .progress import TimestepBuckets
from .recipes import merge_recipes, read_recipe, read_section, recipe_names, run_stage
from .trainer import ReproducibleTrainer, ReproducibleTrainingArguments


__all__ = [
    "EMACallback",
    "MuonWithAdamW",
    "ReproducibleTrainer",
    "ReproducibleTrainingArguments",
    "TimestepBuckets",
    "last_complete_checkpoint",
    "load_problems",
    "merge_recipes",
    "read_recipe",
    "read_section",
    "recipe_names",
    "run_stage",
]
