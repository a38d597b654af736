"""What every trainer shares: seeded noise, exact resume, averaged weights, losses by timestep, recipes."""

from .checkpoints import last_complete_checkpoint
from .ema import EMACallback
from .progress import TimestepBuckets
from .trainer import ReproducibleTrainer, ReproducibleTrainingArguments


__all__ = [
    "EMACallback",
    "ReproducibleTrainer",
    "ReproducibleTrainingArguments",
    "TimestepBuckets",
    "last_complete_checkpoint",
]
