"""LaDiR: a VAE turns reasoning steps into blocks of latents, and one LLM denoises block after block, then answers."""

from .block_splitter import BlockSplitter
from .configuration_ladir import LaDiRConfig
from .configuration_thought_vae import ThoughtVAEConfig
from .diversity import RepulsionGuidance
from .modeling_ladir import LaDiRForReasoning, LaDiROutput
from .modeling_thought_vae import DiagonalGaussian, ThoughtVAE, ThoughtVAEOutput
from .pipeline_ladir import LaDiRPipeline
from .pipeline_output import LaDiRPipelineOutput, ThoughtStep
from .reconstruction import reconstruction_accuracy, reconstruction_report
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
]
