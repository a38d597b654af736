"""Masked diffusion language models: load, convert, sample, score and fine-tune LLaDA and its kin."""

from .collator import MaskedDiffusionCollator
from .configuration_llada import LLaDAConfig
from .conversion import from_causal_lm
from .likelihood import conditional_log_likelihood, exact_log_likelihood_bound
from .losses import masked_cross_entropy, masked_diffusion_loss
from .masked_language_model import MaskedLanguageModel
from .modeling_llada import LLaDAForMaskedDiffusion, LLaDAModel
from .pipeline_masked_diffusion import MaskedDiffusionPipeline
from .pipeline_output import MaskedDiffusionPipelineOutput, UnmaskingStep
from .trainer_masked_diffusion import MaskedDiffusionTrainer, MaskedDiffusionTrainingArguments


__all__ = [
    "LLaDAConfig",
    "LLaDAForMaskedDiffusion",
    "LLaDAModel",
    "MaskedDiffusionCollator",
    "MaskedDiffusionPipeline",
    "MaskedDiffusionPipelineOutput",
    "MaskedDiffusionTrainer",
    "MaskedDiffusionTrainingArguments",
    "MaskedLanguageModel",
    "UnmaskingStep",
    "conditional_log_likelihood",
    "exact_log_likelihood_bound",
    "from_causal_lm",
    "masked_cross_entropy",
    "masked_diffusion_loss",
]
