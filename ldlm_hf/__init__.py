"""Reasoning by diffusion, on the Hugging Face stack; importing the package registers its classes."""

from .ldlm import (
    AutoencoderTrainer,
    AutoencoderTrainingArguments,
    DenoiserTrainer,
    DenoiserTrainingArguments,
    LatentDiT,
    LatentDiTOutput,
    LatentReasoningPipeline,
    LatentReasoningPipelineOutput,
    TextLatentAutoencoder,
    TextLatentAutoencoderConfig,
    TextLatentAutoencoderOutput,
)
from .metrics import load_metric
from .registration import register
from .tasks import TASKS, Problem, Task, get_task
from .version import __version__


register()

__all__ = [
    "TASKS",
    "AutoencoderTrainer",
    "AutoencoderTrainingArguments",
    "DenoiserTrainer",
    "DenoiserTrainingArguments",
    "LatentDiT",
    "LatentDiTOutput",
    "LatentReasoningPipeline",
    "LatentReasoningPipelineOutput",
    "Problem",
    "Task",
    "TextLatentAutoencoder",
    "TextLatentAutoencoderConfig",
    "TextLatentAutoencoderOutput",
    "__version__",
    "get_task",
    "load_metric",
]
