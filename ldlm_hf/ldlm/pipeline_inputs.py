"""The check of what the pipeline starts from; an error names the argument and its value."""

from __future__ import annotations

import torch
from torch import Tensor


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
