"""How well the VAE gives blocks back, also under noise, and whether it reads the latents: the reasoner's gate.

What stands before a block, its context, is a tuple: the question, then the steps so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..noise import randn_rows, row_generators
from ..tokenization import TOKENIZER_LOCK
from .modeling_thought_vae import ThoughtVAE


NOISE_LEVELS = (0.25, 0.5)


@torch.no_grad()
def reconstruction_accuracy(
    vae: ThoughtVAE,
    tokenizer: PreTrainedTokenizerBase,
    blocks: list[str],
    noise: float = 0.0,
    shuffled: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    contexts: Sequence[tuple[str, ...]] | None = None,
) -> float:
    """Return the share of blocks that come back exactly from the means of their posteriors.

    Args:
        vae ([`ThoughtVAE`]): the model.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        blocks (`list[str]`): held-out blocks.
        noise (`float`, *optional*, defaults to 0.0): standard deviation of Gaussian noise on the latents, in units of
            their own standard deviation.
        shuffled (`bool`, *optional*, defaults to `False`): give each distinct block the latents of the next one. A
            decoder that reads them then gives nothing back.
        batch_size (`int`, *optional*, defaults to 256): blocks at a time; has no influence on the result.
        seed (`int`, *optional*, defaults to 0): seed of the noise.
        contexts (`list[tuple[str, ...]]`, *optional*): what stands before each block, where the decoder reads it.

    Raises:
        ValueError: if there are no blocks, fewer than two distinct ones to shuffle, or not as many contexts, or none
            where the decoder reads them.
    """
    if contexts is None:
        if vae.config.decoder_reads_context:
            raise ValueError("`contexts` are missing: the decoder of `vae` reads what stands before each block.")
        contexts = [()] * len(blocks)
    if len(contexts) != len(blocks):
        raise ValueError(f"`contexts` has to have one for each of {len(blocks)} `blocks`, but has {len(contexts)}.")
    if shuffled:
        before = dict(zip(blocks, contexts, strict=True))  # an equal neighbour's latents would do as well
        blocks, contexts = list(before), list(before.values())
    if len(blocks) < 1 + shuffled:
        raise ValueError(f"`blocks` has to hold at least {1 + shuffled} distinct blocks, but has {len(blocks)}.")
    sources = blocks[1:] + blocks[:1] if shuffled else blocks
    was_training = vae.training
    vae.eval()
    correct = 0
    for start in range(0, len(blocks), batch_size):
        wanted, batch = blocks[start : start + batch_size], sources[start : start + batch_size]
        tokens = tokenize_blocks(tokenizer, batch)
        latents = vae.encode(tokens["input_ids"].to(vae.device), tokens["attention_mask"].to(vae.device))
        if noise:
            rows = row_generators(seed, 0, start, len(batch))
            latents = latents + noise * randn_rows(latents.shape[1:], rows).to(latents.device)
        own = tokenize_blocks(tokenizer, wanted)
        read = contexts[start : start + batch_size]
        written = write_blocks(vae, tokenizer, latents, own["input_ids"].shape[1] + 1, read)
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in own["ids"]]
        correct += sum(one == other for one, other in zip(written, texts, strict=True))
    vae.train(was_training)
    return correct / len(blocks)


def reconstruction_report(
    vae: ThoughtVAE,
    tokenizer: PreTrainedTokenizerBase,
    blocks: list[str],
    seed: int = 0,
    contexts: Sequence[tuple[str, ...]] | None = None,
) -> dict[str, float]:
    """Return exact reconstruction: plain, under noise of 0.25 and 0.5 standard deviations, and from shuffled latents.

    Args:
        vae ([`ThoughtVAE`]): with fitted statistics.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        blocks (`list[str]`): held-out blocks.
        seed (`int`, *optional*, defaults to 0): seed of the noise.
        contexts (`list[tuple[str, ...]]`, *optional*): what stands before each block, where the decoder reads it.

    Raises:
        ValueError: if there are no blocks, or not as many contexts, or none where the decoder reads them.
    """
    share = partial(reconstruction_accuracy, vae, tokenizer, blocks, contexts=contexts)
    report = {"exact_reconstruction": share()}
    for noise in NOISE_LEVELS:
        report[f"exact_reconstruction_noise_{noise}"] = share(noise=noise, seed=seed)
    if len(set(blocks)) > 1:
        report["shuffled_reconstruction"] = share(shuffled=True)
    return report


def write_blocks(
    vae: ThoughtVAE,
    tokenizer: PreTrainedTokenizerBase,
    latents: Tensor,
    max_new_tokens: int,
    contexts: Sequence[tuple[str, ...]] = (),
) -> list[str]:
    """Return what standardised `(batch, latents_per_block, latent_dim)` latents read as, after their contexts, if it matters."""
    read = {}
    if vae.config.decoder_reads_context:
        read = {name: ids.to(vae.device) for name, ids in tokenize_contexts(tokenizer, contexts).items()}
    tokens = vae.decode(latents, max_new_tokens=max_new_tokens, **read)
    return tokenizer.batch_decode(tokens, skip_special_tokens=True)


def tokenize_contexts(tokenizer: PreTrainedTokenizerBase, contexts: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
    """Return what stands before blocks as a [`ThoughtVAE`] takes it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the VAE's LM.
        contexts (`list[tuple[str, ...]]`): of each block, the question and the steps so far.

    Returns:
        `context_ids` and `context_mask`, `(batch, longest)` int64, padded on the right: ⟨bos⟩, where the tokenizer has
        one, the question, and the steps with spaces between them, as the language model reads them.
    """
    padded = pad_right(context_tokens(tokenizer, contexts))
    return {"context_ids": padded["input_ids"], "context_mask": padded["attention_mask"]}


def context_tokens(tokenizer: PreTrainedTokenizerBase, contexts: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Return the token ids of [`tokenize_contexts`] without padding."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    questions = token_ids(tokenizer, [question for question, *_ in contexts])
    steps = token_ids(tokenizer, [" ".join(steps) for _, *steps in contexts])
    return [[*start, *one, *other] for one, other in zip(questions, steps, strict=True)]


def tokenize_blocks(tokenizer: PreTrainedTokenizerBase, blocks: list[str]) -> dict:
    """Return `input_ids` and `attention_mask`, `(batch, length)` int64 padded on the right, and `ids`, the plain lists.

    There are no special tokens in them, and padding need not be a token of the tokenizer, since the mask tells it.
    """
    ids = token_ids(tokenizer, blocks)
    return {**pad_right(ids), "ids": ids}


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return the token ids of texts, without special tokens; from several threads one after the other."""
    with TOKENIZER_LOCK:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]


def pad_right(rows: list[list[int]], pad: int = 0) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask`, both `(batch, longest)` int64, of rows of token ids."""
    longest = max(1, *map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }
