"""Masked diffusion language models: load, convert, sample, score and fine-tune LLaDA and its kin."""

from .configuration_llada import LLaDAConfig
from .conversion import from_causal_lm
from .masked_language_model import MaskedLanguageModel
from .modeling_llada import LLaDAForMaskedDiffusion, LLaDAModel
from .pipeline_masked_diffusion import MaskedDiffusionPipeline
from .pipeline_output import MaskedDiffusionPipelineOutput, UnmaskingStep


__all__ = [
    "LLaDAConfig",
    "LLaDAForMaskedDiffusion",
    "LLaDAModel",
    "MaskedDiffusionPipeline",
    "MaskedDiffusionPipelineOutput",
    "MaskedLanguageModel",
    "UnmaskingStep",
    "from_causal_lm",
]
