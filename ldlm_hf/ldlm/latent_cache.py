"""Latents computed once: the autoencoder is frozen in stage 2, so no training step needs to run it."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from ..training import map_once
from .modeling_text_latent_autoencoder import TextLatentAutoencoder


LATENT_COLUMNS = ("prompt_latents", "target_latents")


def cache_latents(
    dataset: Dataset,
    autoencoder: TextLatentAutoencoder,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | Path | None = None,
    batch_size: int = 512,
    num_proc: int | None = None,
) -> Dataset:
    """Return the standardised latents of each row's prompt and target, as torch tensors.

    Args:
        dataset (`Dataset`): with the columns `prompt` and `target` (strings).
        autoencoder ([`TextLatentAutoencoder`]): with fitted statistics.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        cache_dir (`str` or `Path`, *optional*): where to keep the file for later runs; in memory by default.
        batch_size (`int`, *optional*, defaults to 512): texts at a time.
        num_proc (`int`, *optional*): processes that encode, on the CPU; see [`map_once`].

    Returns:
        `Dataset`: columns `prompt_latents` and `target_latents`, each row `latent_length * latent_dim` float32 values.

    Raises:
        ValueError: if the statistics of the autoencoder were not fitted, or as [`map_once`].
    """
    if not autoencoder.has_latent_statistics:
        raise ValueError(
            "The latent statistics of `autoencoder` were never fitted. Train it with AutoencoderTrainer, or call its "
            "set_latent_statistics with the latents of at least 10,000 training texts."
        )
    size = autoencoder.latent_mean.numel()

    def encode(rows: dict[str, list[str]]) -> dict[str, list]:
        return {
            f"{column}_latents": _encode_texts(autoencoder, tokenizer, rows[column]).flatten(1).numpy()
            for column in ("prompt", "target")
        }

    latents = map_once(
        dataset.select_columns(["prompt", "target"]),
        encode,
        Features({column: List(Value("float32"), length=size) for column in LATENT_COLUMNS}),
        autoencoder,
        tokenizer,
        cache_dir=cache_dir,
        name="latents",
        batch_size=batch_size,
        num_proc=num_proc,
    )
    return latents.with_format("torch")


def latent_moments(latents: Dataset, max_rows: int = 10_000) -> tuple[float, float]:
    """Return the mean and the standard deviation of all values in evenly spread rows of cached latents."""
    rows = latents[:: max(1, len(latents) // max_rows)]
    values = torch.cat([rows[column] for column in LATENT_COLUMNS])
    return values.mean().item(), values.std().item()


def _encode_texts(autoencoder, tokenizer, texts: list[str]) -> torch.Tensor:
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(autoencoder.device)
    return autoencoder.encode(batch["input_ids"], batch["attention_mask"]).cpu()
