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
from .registration import register
from .tasks import TASKS, Problem, Task


__version__ = "0.1.0"

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
]
