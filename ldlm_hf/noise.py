"""Forward processes: what noising does to latents, and where the noise comes from.

The noise of a training step is a pure function of `(seed, step, row)`: one generator a row, seeded by all three. A resumed
run, another number of processes or another gradient accumulation therefore sees the same noise.
"""

from __future__ import annotations

import torch
from torch import Tensor


_MASK = (1 << 64) - 1


def row_generators(seed: int, step: int, first_row: int, num_rows: int) -> list[torch.Generator]:
    """Return one CPU generator for each of the rows `first_row … first_row + num_rows - 1` of training step `step`."""
    step_key = _mix(_mix(seed & _MASK) ^ (step & _MASK))
    return [torch.Generator().manual_seed(_mix(step_key ^ row) >> 1) for row in range(first_row, first_row + num_rows)]


def randn_rows(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Return a `(len(generators), *shape)` float32 standard normal tensor, each row from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def rand_rows(generators: list[torch.Generator]) -> Tensor:
    """Return a `(len(generators),)` float32 tensor, uniform in `[0, 1)`, each element from its own generator."""
    return torch.cat([torch.rand(1, generator=generator) for generator in generators])


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return `x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise` (DDPM, eq. 4), in float32.

    Args:
        x0 (`Tensor` of shape `(batch, …)`): clean latents.
        noise (`Tensor` of the same shape): standard normal noise.
        alpha_bar (`Tensor` of shape `(batch,)`): cumulative product of `1 - beta` at each sample's timestep.
    """
    # In bfloat16 only 193 of 1,000 noise levels are distinct and the first 21 add none, hence float32 whatever comes in.
    alpha_bar = alpha_bar.float().reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0.float() + (1 - alpha_bar).sqrt() * noise.float()


def signal_to_noise_ratio(alpha_bar: Tensor) -> Tensor:
    """Return `SNR = alpha_bar / (1 - alpha_bar)` of the same shape (Min-SNR, §3.1)."""
    return alpha_bar / (1 - alpha_bar)


def _mix(value: int) -> int:
    """Scramble 64 bits (the splitmix64 finaliser), so that neighbouring steps and rows get unrelated seeds."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
