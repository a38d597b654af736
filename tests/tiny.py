"""The package's real classes at a size that runs in milliseconds."""

from __future__ import annotations

from functools import lru_cache

import torch
from datasets import Dataset
from diffusers import DDPMScheduler
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from ldlm_hf import LatentDiT, LatentReasoningPipeline, TextLatentAutoencoder, TextLatentAutoencoderConfig
from ldlm_hf.ldlm.recipe import SCHEDULER, small_bart_config
from ldlm_hf.tasks import Addition
from ldlm_hf.tokenization import build_tokenizer


LATENT_LENGTH, LATENT_DIM = 4, 8


@lru_cache(maxsize=1)
def tiny_task() -> Addition:
    """Return the task, whose 111,000 problems are listed once."""
    return Addition()


def tiny_problems(split: str = "train", size: int = 64) -> Dataset:
    """Return a few problems."""
    return tiny_task().to_dataset(split, size)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the task."""
    return build_tokenizer([], tiny_task().words(), model_max_length=32)


def tiny_bart_config(**fields) -> BartConfig:
    """Return the configuration of a BART, 32 wide with one layer each."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return small_bart_config(tiny_tokenizer(), {**sizes, **heads, **fields})


def tiny_bart(seed: int = 0, **fields) -> BartForConditionalGeneration:
    """Return a random BART."""
    torch.manual_seed(seed)
    return BartForConditionalGeneration(tiny_bart_config(**fields)).eval()


def tiny_autoencoder(seed: int = 0, fitted: bool = True, **fields) -> TextLatentAutoencoder:
    """Return a random autoencoder, with latent statistics fitted to a few texts."""
    torch.manual_seed(seed)
    sizes = {"latent_length": LATENT_LENGTH, "latent_dim": LATENT_DIM, "decoder_length": 6, "num_layers": 1}
    values = {"seq2seq_config": tiny_bart_config(), "num_attention_heads": 2, **sizes, **fields}
    model = TextLatentAutoencoder(TextLatentAutoencoderConfig(**values)).eval()
    if fitted:
        problems = tiny_problems()
        batch = tiny_tokenizer()([*problems["prompt"], *problems["target"]], padding=True, return_tensors="pt")
        with torch.no_grad():
            model.set_latent_statistics(model.encode(batch["input_ids"], batch["attention_mask"]))
    return model


def tiny_denoiser(seed: int = 0, randomized: bool = True, **arguments) -> LatentDiT:
    """Return a denoiser; randomized, so that it does not predict zero as a fresh one does."""
    torch.manual_seed(seed)
    sizes = {"latent_length": LATENT_LENGTH, "latent_dim": LATENT_DIM, "hidden_size": 32, "num_layers": 2}
    model = LatentDiT(**{**sizes, "num_attention_heads": 2, **arguments}).eval()
    if randomized:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def tiny_scheduler(**config) -> DDPMScheduler:
    """Return the paper's scheduler."""
    return DDPMScheduler(**{**SCHEDULER, **config})


def tiny_pipeline(**components) -> LatentReasoningPipeline:
    """Return a pipeline of random parts, without a progress bar."""
    parts = {
        "autoencoder": components.get("autoencoder") or tiny_autoencoder(),
        "denoiser": components.get("denoiser") or tiny_denoiser(),
        "scheduler": components.get("scheduler") or tiny_scheduler(),
        "tokenizer": components.get("tokenizer") or tiny_tokenizer(),
    }
    pipeline = LatentReasoningPipeline(**parts, task=components.get("task", "addition"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
