"""Checks of what a pipeline is called with; every error names the argument and its value."""

from __future__ import annotations

import torch
from torch import Tensor


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is among `allowed`."""
    if value not in allowed:
        raise ValueError(f"`{name}` has to be one of {allowed}, but is {value!r}.")


def check_integer(name: str, value: int, limit: int | None = None) -> None:
    """Raise `ValueError` unless `value` is an integer from 1 to `limit`, or from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{name}` has to be an integer, but is {value!r}.")
    if value < 1 or (limit is not None and value > limit):
        allowed = "be at least 1" if limit is None else f"lie between 1 and {limit}"
        raise ValueError(f"`{name}` has to {allowed}, but is {value}.")


def check_noise(
    generator: torch.Generator | list[torch.Generator] | None,
    latents: Tensor | None,
    num_prompts: int,
    num_samples: int,
    shape: tuple[int, int],
) -> None:
    """Raise `ValueError` unless there are as many generators and noises of `shape` as prompts or samples need."""
    rows = num_prompts * num_samples
    if isinstance(generator, list) and len(generator) not in (num_prompts, rows):
        raise ValueError(
            f"`generator` has {len(generator)} generators for {num_prompts} prompts with {num_samples} samples each; give "
            "one for each prompt or one for each sample."
        )
    if latents is not None and tuple(latents.shape) != (rows, *shape):
        raise ValueError(f"`latents` has to be of shape {(rows, *shape)}, but is {tuple(latents.shape)}.")
