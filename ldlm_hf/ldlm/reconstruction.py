"""How well the autoencoder gives texts back: the gate of stage 2, and the decodability curve that predicts its ceiling."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase

from ..noise import randn_rows, row_generators
from .modeling_text_latent_autoencoder import TextLatentAutoencoder


def reconstruction_accuracy(
    autoencoder: TextLatentAutoencoder,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    noise: float = 0.0,
    batch_size: int = 256,
    seed: int = 0,
    prompts: list[str] | None = None,
) -> float:
    """Return the share of `texts` that come back exactly from their latents plus Gaussian noise.

    Args:
        autoencoder ([`TextLatentAutoencoder`]): the model.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        texts (`list[str]`): held-out texts.
        noise (`float`, *optional*, defaults to 0.0): standard deviation of the noise, in standardised latents.
        batch_size (`int`, *optional*, defaults to 256): texts at a time; has no influence on the result.
        seed (`int`, *optional*, defaults to 0): seed of the noise.
        prompts (`list[str]`, *optional*): the prompt of each text; needed where the configuration has
            `decoder_reads_prompt`, of no influence where it has not.

    Raises:
        ValueError: if there are no texts, or the decoder reads prompts and there is not one for each text.
    """
    if not texts:
        raise ValueError("`texts` has to hold at least one text to reconstruct.")
    reads_prompt = autoencoder.config.decoder_reads_prompt
    if reads_prompt and (prompts is None or len(prompts) != len(texts)):
        given = "None" if prompts is None else f"{len(prompts)} for {len(texts)} texts"
        raise ValueError(
            f"`prompts` is {given}, but this decoder reads prompts (`decoder_reads_prompt`): give one for each text."
        )
    texts = list(texts)
    cut = tokenizer(texts, truncation=True)["input_ids"]
    wanted = tokenizer.batch_decode(cut, skip_special_tokens=True)
    written = reconstruct(autoencoder, tokenizer, texts, noise, batch_size, seed, prompts)
    return sum(one == other for one, other in zip(written, wanted, strict=True)) / len(texts)


@torch.no_grad()
def reconstruct(
    autoencoder: TextLatentAutoencoder,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    noise: float = 0.0,
    batch_size: int = 256,
    seed: int = 0,
    prompts: list[str] | None = None,
) -> list[str]:
    """Return what comes back of `texts` from their latents plus Gaussian noise; arguments as of [`reconstruction_accuracy`]."""
    was_training = autoencoder.training
    autoencoder.eval()
    written = []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        encoded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(autoencoder.device)
        latents = autoencoder.encode(encoded["input_ids"], encoded["attention_mask"])
        if noise:
            rows = row_generators(seed, 0, start, len(batch))
            latents = latents + noise * randn_rows(latents.shape[1:], rows).to(latents.device)
        # A text that runs on is wrong anyway; the LM decoder has no positions beyond its own limit.
        longest = min(encoded["input_ids"].shape[1] + 1, autoencoder.generation_config.max_new_tokens)
        read = {}
        if autoencoder.config.decoder_reads_prompt:
            tokens = tokenizer(prompts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
            read = {f"prompt_{name}": tokens[name].to(latents.device) for name in ("input_ids", "attention_mask")}
        tokens = autoencoder.decode(latents, max_new_tokens=longest, **read)
        written += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    autoencoder.train(was_training)
    return written
