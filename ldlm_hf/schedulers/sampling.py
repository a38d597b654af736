"""Candidates for masked tokens, and how sure of them the model is: what a step of masked diffusion is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import shown


def draw_tokens(
    logits: Tensor, is_masked: Tensor, temperature: float, generators: Sequence[torch.Generator | None]
) -> Tensor:
    """Sample the masks from `softmax(logits / temperature)` by Gumbel's trick; elsewhere return the likeliest tokens."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    vocab_size = logits.shape[-1]
    noise = [
        exponential_variates((count, vocab_size), generator, logits.device)
        for count, generator in zip(is_masked.sum(dim=-1).tolist(), generators, strict=True)
    ]
    perturbed = logits.clone()
    perturbed[is_masked] -= temperature * torch.cat(noise).log()
    return perturbed.argmax(dim=-1)


def exponential_variates(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return float32 exponential variates whose small values, which become the large Gumbel ones, are not cut off.

    A float32 uniform is a multiple of 2^-24: below that there is only zero, and a vocabulary of 126k draws that deep every
    hundred tokens. Integers of 48 bits keep their leading 24 when they are rounded to float32, however small they are.
    """
    source = device if generator is None else generator.device
    integers = torch.randint(1 << 48, shape, generator=generator, device=source)
    uniform = (integers.float().to(device) * 2.0**-48).clamp(2.0**-49, 1 - 2.0**-24)
    return -torch.log1p(-uniform)


def log_odds_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return `log(p / (1 - p))` of the tokens' probabilities, `(batch, positions)`."""
    others = logits.scatter(-1, tokens[..., None], -torch.inf)
    return logits.gather(-1, tokens[..., None])[..., 0] - others.logsumexp(dim=-1)


def confidence_of(
    remasking: str, logits: Tensor, is_masked: Tensor, generators: Sequence[torch.Generator | None]
) -> Tensor:
    """Return the confidence `(batch, positions)` of every rule but `"low_confidence"`."""
    if remasking == "topk_margin":
        first, second = (logits.topk(2).values - logits.logsumexp(dim=-1, keepdim=True)).exp().unbind(dim=-1)
        return first - second
    if remasking == "entropy":
        return -torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
    confidence = torch.zeros(is_masked.shape, device=logits.device)
    draws = [
        torch.rand(count, generator=generator, device=logits.device if generator is None else generator.device)
        for count, generator in zip(is_masked.sum(dim=-1).tolist(), generators, strict=True)
    ]
    confidence[is_masked] = torch.cat([draw.to(logits.device) for draw in draws])
    return confidence


def one_per_row(
    generator: torch.Generator | Sequence[torch.Generator] | None, batch_size: int
) -> Sequence[torch.Generator | None]:
    """Return a generator for each row; a single one serves the rows in turn, and None is torch's own."""
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * batch_size
    if not isinstance(generator, Sequence) or any(not isinstance(one, torch.Generator | None) for one in generator):
        raise ValueError(f"`generator` has to be a torch.Generator or a sequence of them, but is {shown(generator)}.")
    if len(generator) != batch_size:
        raise ValueError(
            f"`generator` has {len(generator)} generators for {batch_size} rows; pass one a row or a single one."
        )
    return generator
