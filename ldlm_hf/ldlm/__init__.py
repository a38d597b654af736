"""The latent-diffusion reasoner of "Latent Diffusion with LLMs for Reasoning": autoencoder, denoiser, pipeline, trainers."""

from .configuration_text_latent_autoencoder import TextLatentAutoencoderConfig
from .modeling_text_latent_autoencoder import TextLatentAutoencoder, TextLatentAutoencoderOutput
from .pipeline_latent_reasoning import LatentReasoningPipeline, LatentReasoningPipelineOutput
from .trainer_autoencoder import AutoencoderTrainer, AutoencoderTrainingArguments
from .trainer_denoiser import DenoiserTrainer, DenoiserTrainingArguments
from .transformer_latent_dit import LatentDiT, LatentDiTOutput


__all__ = [
    "AutoencoderTrainer",
    "AutoencoderTrainingArguments",
    "DenoiserTrainer",
    "DenoiserTrainingArguments",
    "LatentDiT",
    "LatentDiTOutput",
    "LatentReasoningPipeline",
    "LatentReasoningPipelineOutput",
    "TextLatentAutoencoder",
    "TextLatentAutoencoderConfig",
    "TextLatentAutoencoderOutput",
]
