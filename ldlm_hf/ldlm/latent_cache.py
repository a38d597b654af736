"""Latents computed once: the autoencoder is frozen in stage 2, so no training step needs to run it.

The cache is an Arrow file of the `datasets` library, memory-mapped and named by a fingerprint of the texts, the tokenizer
and every weight of the autoencoder, so that another autoencoder never reads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from .modeling_text_latent_autoencoder import TextLatentAutoencoder


LATENT_COLUMNS = ("prompt_latents", "target_latents")


@torch.no_grad()
def cache_latents(
    dataset: Dataset,
    autoencoder: TextLatentAutoencoder,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | Path | None = None,
    batch_size: int = 512,
) -> Dataset:
    """Return the standardised latents of each row's prompt and target, as torch tensors.

    Args:
        dataset (`Dataset`): with the columns `prompt` and `target` (strings).
        autoencoder ([`TextLatentAutoencoder`]): with fitted statistics.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        cache_dir (`str` or `Path`, *optional*): where to keep the file for later runs; in memory by default.
        batch_size (`int`, *optional*, defaults to 512): texts at a time.

    Returns:
        `Dataset`: columns `prompt_latents` and `target_latents`, each row `latent_length * latent_dim` float32 values.

    Raises:
        ValueError: if the statistics of the autoencoder were not fitted.
    """
    if not autoencoder.has_latent_statistics:
        raise ValueError(
            "The latent statistics of `autoencoder` were never fitted. Train it with AutoencoderTrainer, or call its "
            "set_latent_statistics with the latents of at least 10,000 training texts."
        )
    size = autoencoder.latent_mean.numel()
    features = Features({column: List(Value("float32"), length=size) for column in LATENT_COLUMNS})

    def encode(rows: dict[str, list[str]]) -> dict[str, list]:
        return {
            f"{column}_latents": _encode_texts(autoencoder, tokenizer, rows[column]).flatten(1).numpy()
            for column in ("prompt", "target")
        }

    was_training = autoencoder.training
    autoencoder.eval()
    fingerprint = _fingerprint(dataset, autoencoder, tokenizer)
    latents = dataset.select_columns(["prompt", "target"]).map(
        encode,
        batched=True,
        batch_size=batch_size,
        remove_columns=["prompt", "target"],
        features=features,
        cache_file_name=None if cache_dir is None else _cache_file(cache_dir, fingerprint),
        keep_in_memory=cache_dir is None,
        new_fingerprint=fingerprint,
        desc="Encoding latents",
    )
    autoencoder.train(was_training)
    return latents.with_format("torch")


def latent_moments(latents: Dataset, max_rows: int = 10_000) -> tuple[float, float]:
    """Return the mean and the standard deviation of all values in evenly spread rows of cached latents."""
    rows = latents[:: max(1, len(latents) // max_rows)]
    values = torch.cat([rows[column] for column in LATENT_COLUMNS])
    return values.mean().item(), values.std().item()


def _encode_texts(autoencoder, tokenizer, texts: list[str]) -> torch.Tensor:
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(autoencoder.device)
    return autoencoder.encode(batch["input_ids"], batch["attention_mask"]).cpu()


def _cache_file(cache_dir: str | Path, fingerprint: str) -> str:
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"latents-{fingerprint}.arrow")


def _fingerprint(dataset: Dataset, autoencoder: TextLatentAutoencoder, tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256(dataset._fingerprint.encode())
    backend = Tokenizer.from_str(
        tokenizer.backend_tokenizer.to_str()
    )  # a copy, without what its last call left behind
    backend.no_padding()
    backend.no_truncation()
    digest.update(backend.to_str().encode())
    digest.update(autoencoder.config.to_json_string().encode())
    for name, tensor in autoencoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
