"""LaDiR: a VAE turns reasoning steps into blocks of latents, and one LLM denoises block after block, then answers."""

from .block_splitter import BlockSplitter
from .configuration_ladir import LaDiRConfig
from .configuration_thought_vae import ThoughtVAEConfig
from .diagonal_gaussian import DiagonalGaussian
from .diversity import RepulsionGuidance
from .modeling_ladir import LaDiRForReasoning, LaDiROutput
from .modeling_thought_vae import ThoughtVAE
from .pipeline_ladir import LaDiRPipeline
from .pipeline_output import LaDiRPipelineOutput, ThoughtStep
from .reconstruction import reconstruction_accuracy, reconstruction_report, tokenize_contexts
from .thought_vae_output import ThoughtVAEOutput
from .trainer_ladir import LaDiRTrainer, LaDiRTrainingArguments
from .trainer_thought_vae import ThoughtVAETrainer, ThoughtVAETrainingArguments


__all__ = [
    "BlockSplitter",
    "DiagonalGaussian",
    "LaDiRConfig",
    "LaDiRForReasoning",
    "LaDiROutput",
    "LaDiRPipeline",
    "LaDiRPipelineOutput",
    "LaDiRTrainer",
    "LaDiRTrainingArguments",
    "RepulsionGuidance",
    "ThoughtStep",
    "ThoughtVAE",
    "ThoughtVAEConfig",
    "ThoughtVAEOutput",
    "ThoughtVAETrainer",
    "ThoughtVAETrainingArguments",
    "reconstruction_accuracy",
    "reconstruction_report",
    "tokenize_contexts",
]
