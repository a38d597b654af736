"""The check of what the pipeline starts from; an error names the argument and its value."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.utils import logging

from ..arguments import MOST_GUIDANCE, check_finite, check_number, check_shapes


logger = logging.get_logger(__name__)


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
    if latents is not None:
        check_shapes(latents=(latents, f"float: {rows} {shape[0]} {shape[1]}"))
        check_finite("latents", latents, "give noise to start from")


def check_guidance(scale: float, rescale: float, interval: tuple[float, float], null_condition: Tensor) -> None:
    """Raise `ValueError` for guidance that is out of range; warn where `null_condition` still is what it began as, zero."""
    check_number("guidance_scale", scale, -MOST_GUIDANCE, MOST_GUIDANCE)
    check_number("guidance_rescale", rescale, 0, 1)
    for bound in interval:
        check_number("guidance_interval", bound)
    if interval[0] > interval[1]:
        raise ValueError(f"`guidance_interval` has to go from the lower to the upper bound, but is {interval}.")
    is_readable = not null_condition.is_meta  # as weights are that are offloaded one by one
    if scale != 1.0 and is_readable and not null_condition.any():
        logger.warning(
            f"`guidance_scale` is {scale}, but the denoiser never learned what no prompt is (its `null_condition` is zero, as "
            "after training with `condition_dropout` 0), so guidance leads nowhere in particular; leave it at 1."
        )
