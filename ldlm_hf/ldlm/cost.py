"""What a denoiser costs: its floating-point operations, and the time they take as a rate and an overhead per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .transformer_latent_dit import LatentDiT


def count_flops(denoiser: LatentDiT, batch_size: int, training: bool = False) -> int:
    """Return the floating-point operations of a forward pass, or with `training` of a forward and a backward pass.

    Only products of matrices count, two operations for a multiplication with an addition. The prompt's latents are given,
    nothing is recomputed, and no gradient is taken of what the denoiser is given.
    """
    config = denoiser.config
    hidden, length = config.hidden_size, config.diffusion_length or config.latent_length
    in_context = config.conditioning == "in_context"
    latents, width = batch_size * config.latent_length, hidden * length // config.latent_length
    channels_in = config.latent_dim * (2 if config.self_conditioning else 1)
    channels_out = config.latent_dim * (2 if config.learned_variance else 1)  # of both halves, in context

    first = latents * (channels_in + config.latent_dim) * width + batch_size * denoiser.time_proj.num_channels * hidden
    rest = batch_size * hidden * hidden * 3 + latents * width * channels_out  # time, output's modulation, output
    if config.conditioning == "adaln_zero":
        rest += batch_size * length * hidden * hidden
    tokens = length * (2 if in_context else 1)
    rest += config.num_layers * batch_size * _block_products(config, tokens, length)
    return 2 * (2 * first + 3 * rest if training else first + rest)


def _block_products(config, tokens: int, context: int) -> int:
    """Return the multiplications of a block for one sample of `tokens`, with a prompt of `context` tokens."""
    hidden = config.hidden_size
    products = 6 * hidden**2 + tokens * hidden**2 * (4 + 2 * config.mlp_ratio) + 2 * tokens**2 * hidden
    if config.conditioning == "cross_attention":
        products += 2 * (tokens + context) * hidden**2 + 2 * tokens * context * hidden
    return products


@dataclass(frozen=True)
class CostModel:
    """Time of a pass of the denoiser: operations at a rate, and an overhead for each layer."""

    rate: float  # operations a second
    seconds_per_layer: float

    def seconds(self, flops: float, num_layers: int, num_passes: int = 1) -> float:
        """Return the time of `num_passes` passes of `flops` each."""
        return num_passes * (flops / self.rate + num_layers * self.seconds_per_layer)


def fit_cost_model(flops: Sequence[float], num_layers: Sequence[int], seconds: Sequence[float]) -> CostModel:
    """Fit a cost model to the times of passes, by least squares of the relative errors.

    Args:
        flops (`Sequence[float]`): operations of each pass.
        num_layers (`Sequence[int]`): depth of the denoiser that ran it.
        seconds (`Sequence[float]`): time it took, above 0.

    Raises:
        ValueError: if there are fewer than two passes, or they do not tell the rate from the overhead.
    """
    if len(seconds) < 2 or min(seconds) <= 0:
        raise ValueError(f"`seconds` has to hold at least two times above 0, but is {list(seconds)}.")
    work = [count / second for count, second in zip(flops, seconds, strict=True)]
    layers = [count / second for count, second in zip(num_layers, seconds, strict=True)]
    # Normal equations of `work / rate + layers * overhead = 1`, a row for each pass.
    ww, wl, ll = (sum(map(float.__mul__, a, b)) for a, b in ((work, work), (work, layers), (layers, layers)))
    determinant = ww * ll - wl**2
    if determinant <= 1e-9 * ww * ll:
        raise ValueError("`flops` per layer has to differ between the passes, or rate and overhead are one.")
    per_operation = (sum(work) * ll - sum(layers) * wl) / determinant
    overhead = (sum(layers) * ww - sum(work) * wl) / determinant
    if overhead < 0:  # noise: an overhead that is none
        per_operation, overhead = sum(work) / ww, 0.0
    if per_operation <= 0:
        raise ValueError("`seconds` has to grow with `flops`.")
    return CostModel(rate=1 / per_operation, seconds_per_layer=overhead)
