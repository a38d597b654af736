"""Make the package's classes known to transformers and diffusers; importing `ldlm_hf` runs this once.

diffusers resolves the parts of a pipeline by library name, and downloads a third-party part only if it knows the library.
"""

from __future__ import annotations

from diffusers.pipelines import pipeline_loading_utils
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from .hex import ExactDenoiser, ExactDenoiserConfig
from .ladir import LaDiRConfig, LaDiRForReasoning, ThoughtVAE, ThoughtVAEConfig
from .ldlm import TextLatentAutoencoder, TextLatentAutoencoderConfig
from .llada import LLaDAConfig, LLaDAForMaskedDiffusion, LLaDAModel


_SAVE_AND_LOAD = ["save_pretrained", "from_pretrained"]
COMPONENTS = dict.fromkeys(
    (
        *("TextLatentAutoencoder", "LatentDiT", "LLaDAForMaskedDiffusion", "LLaDAModel", "ExactDenoiser"),
        *("MaskedDiffusionScheduler", "LaDiRForReasoning", "ThoughtVAE"),
    ),
    _SAVE_AND_LOAD,
)


def register() -> None:
    """Register models with transformers and pipeline components with diffusers; doing it again changes nothing."""
    AutoConfig.register(TextLatentAutoencoderConfig.model_type, TextLatentAutoencoderConfig, exist_ok=True)
    AutoModel.register(TextLatentAutoencoderConfig, TextLatentAutoencoder, exist_ok=True)
    AutoConfig.register(LLaDAConfig.model_type, LLaDAConfig, exist_ok=True)
    AutoModel.register(LLaDAConfig, LLaDAModel, exist_ok=True)
    for auto_class in (AutoModelForCausalLM, AutoModelForMaskedLM):  # a published config.json names the first
        auto_class.register(LLaDAConfig, LLaDAForMaskedDiffusion, exist_ok=True)
    for config_class, model_class in ((ThoughtVAEConfig, ThoughtVAE), (LaDiRConfig, LaDiRForReasoning)):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModel.register(config_class, model_class, exist_ok=True)
    AutoConfig.register(ExactDenoiserConfig.model_type, ExactDenoiserConfig, exist_ok=True)
    AutoModelForMaskedLM.register(ExactDenoiserConfig, ExactDenoiser, exist_ok=True)
    pipeline_loading_utils.LOADABLE_CLASSES["ldlm_hf"] = COMPONENTS
    pipeline_loading_utils.ALL_IMPORTABLE_CLASSES.update(COMPONENTS)
