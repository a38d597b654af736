"""Forward processes: what noising does to latents and to tokens, and where the noise comes from.

The noise of a training step is a pure function of `(seed, step, row)`: one generator a row, seeded by all three. A resumed
run, another number of processes or another gradient accumulation therefore sees the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import check_integer, check_shapes, checked


_MASK = (1 << 64) - 1


@checked
def row_generators(seed: int, step: int, first_row: int, num_rows: int) -> list[torch.Generator]:
    """Return one CPU generator for each of the rows `first_row … first_row + num_rows - 1` of training step `step`."""
    check_integer("num_rows", num_rows, least=0)
    seed, step, first_row = int(seed), int(step), int(first_row)  # NumPy's do not hold 64 bits without a sign
    step_key = _mix(_mix(seed & _MASK) ^ (step & _MASK))
    return [torch.Generator().manual_seed(_mix(step_key ^ row) >> 1) for row in range(first_row, first_row + num_rows)]


@checked
def sample_generators(
    generator: torch.Generator | list[torch.Generator] | None, num_prompts: int, num_samples: int
) -> torch.Generator | list[torch.Generator] | None:
    """Return what the noise of `num_prompts x num_samples` rows is drawn from.

    With one generator a prompt, sample 0 reads it just as a lone sample would, and sample `j > 0` has a new one, whose seed
    is the j-th integer of a *copy* of it. A sample therefore depends neither on the other prompts nor on `num_samples`, at
    the start and in every step, and the generators are left as after one sample each.

    Args:
        generator (`torch.Generator` or a list, *optional*): one for each prompt, or one for each row, which are returned as
            they are. A single one for several prompts, or `None`, draws all rows at once: a row then depends on its batch.
        num_prompts (`int`): prompts in the batch.
        num_samples (`int`): samples of each.

    Raises:
        ValueError: for another number of generators, or less than one prompt or sample.
    """
    check_integer("num_prompts", num_prompts)
    check_integer("num_samples", num_samples)
    if isinstance(generator, list) and len(generator) not in (num_prompts, num_prompts * num_samples):
        raise ValueError(
            f"`generator` has {len(generator)} generators for {num_prompts} prompts with {num_samples} rows each; give one for "
            "each prompt or one for each row."
        )
    if isinstance(generator, torch.Generator) and num_prompts == 1 and num_samples > 1:
        generator = [generator]
    if not isinstance(generator, list) or len(generator) == num_prompts * num_samples:
        return generator
    return [one for own in generator for one in (own, *new_generators(_copy(own), num_samples - 1))]


def new_generators(source: torch.Generator | None, count: int) -> list[torch.Generator]:
    """Return generators on the device of `source`, each seeded by the next integer drawn from it (None: torch's own)."""
    device = torch.device("cpu") if source is None else source.device
    # One at a time, so that the first seeds are the same however many are drawn.
    seeds = [torch.randint(2**63 - 1, (), generator=source, device=device).item() for _ in range(count)]
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


@checked
def randn_rows(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Return a `(len(generators), *shape)` float32 standard normal tensor, each row from its own generator."""
    _check_any(generators)
    for size in shape:
        check_integer("shape", size, least=0)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@checked
def rand_rows(generators: list[torch.Generator]) -> Tensor:
    """Return a `(len(generators),)` float32 tensor, uniform in `[0, 1)`, each element from its own generator."""
    _check_any(generators)
    return torch.cat([torch.rand(1, generator=generator) for generator in generators])


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return `x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise` (DDPM, eq. 4), in float32.

    Args:
        x0 (`Tensor` of shape `(batch, …)`): clean latents.
        noise (`Tensor` of the same shape): standard normal noise.
        alpha_bar (`Tensor` of shape `(batch,)`): cumulative product of `1 - beta` at each sample's timestep.

    Raises:
        ValueError: for shapes that do not fit, or an `alpha_bar` outside [0, 1], which is looked at on the CPU only.
    """
    check_shapes(x0=(x0, "float: batch …"), noise=(noise, "float: batch …"), alpha_bar=(alpha_bar, "float: batch"))
    is_looked_at = alpha_bar.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_looked_at and not bool(((alpha_bar >= 0) & (alpha_bar <= 1)).all()):
        raise ValueError(f"`alpha_bar` has to hold numbers in [0, 1], but is {alpha_bar}.")
    # In bfloat16 only 193 of 1,000 noise levels are distinct and the first 21 add none, hence float32 whatever comes in.
    alpha_bar = alpha_bar.float().reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0.float() + (1 - alpha_bar).sqrt() * noise.float()


def signal_to_noise_ratio(alpha_bar: Tensor) -> Tensor:
    """Return `SNR = alpha_bar / (1 - alpha_bar)` of the same shape (Min-SNR, §3.1)."""
    check_shapes(alpha_bar=(alpha_bar, "float: …"))
    return alpha_bar / (1 - alpha_bar)


@checked
def mask_tokens(
    input_ids: Tensor,
    probability: Tensor,
    generators: Sequence[torch.Generator | None],
    mask_token_id: int,
    maskable: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace each token independently by the mask, with its row's probability (LLaDA, §2.2).

    A row draws one number for each of its positions from left to right, so that padding on its right changes none of them. It
    may end up without a single mask, as the process has it: the loss has to expect that.

    Args:
        input_ids (`Tensor` of shape `(batch, length)`): int64 tokens.
        probability (`Tensor` of shape `(batch,)`): float, of a mask in each row.
        generators (`Sequence[torch.Generator]`): one CPU generator for each row; None is torch's own.
        mask_token_id (`int`): what stands for a masked token.
        maskable (`Tensor` of shape `(batch, length)`, *optional*): bool, what may be masked; everything by default.

    Returns:
        `tuple[Tensor, Tensor]` of shapes `(batch, length)`: the noised tokens, and bool, where they were masked.

    Raises:
        ValueError: for shapes or dtypes that disagree, a probability outside [0, 1], or another number of generators than rows.
    """
    _check_masking(input_ids, probability, generators, maskable)
    length = input_ids.shape[1]
    uniform = torch.stack([torch.rand(length, generator=generator) for generator in generators])
    is_masked = uniform.to(input_ids.device) < probability.to(input_ids.device).float()[:, None]
    if maskable is not None:
        is_masked &= maskable
    return input_ids.masked_fill(is_masked, mask_token_id), is_masked


def _check_masking(
    input_ids: Tensor,
    probability: Tensor,
    generators: Sequence[torch.Generator | None],
    maskable: Tensor | None,
) -> None:
    """Refuse what `mask_tokens` cannot work with."""
    batch_size = check_shapes(input_ids=(input_ids, "int64: batch length"))["batch"]
    check_shapes(probability=(probability, "float: …"))
    _check_any(generators)
    if probability.shape != (batch_size,) or not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError(f"`probability` has to hold {batch_size} numbers in [0, 1], one a row, but is {probability}.")
    if len(generators) != batch_size:
        raise ValueError(f"`generators` has {len(generators)} generators for {batch_size} rows; pass one a row.")
    if maskable is not None:
        check_shapes(input_ids=(input_ids, "batch length"), maskable=(maskable, "bool: batch length"))


def _check_any(generators: Sequence[torch.Generator | None]) -> None:
    if not generators:
        raise ValueError("`generators` has to hold at least one generator, but is empty.")


def _copy(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def _mix(value: int) -> int:
    """Scramble 64 bits (the splitmix64 finaliser), so that neighbouring steps and rows get unrelated seeds."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
