"""The paths of a vote: which block schedules, which seeds, in which order (HEX, §3 and Tables 2 and 7)."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..arguments import check_integer, checked
from ..noise import row_generators


BlockSchedule = int | tuple[int, ...]


@dataclass(frozen=True)
class Path:
    """One generation: a block schedule and the number of a seed.

    Attributes:
        block_length (`int` or `tuple[int, ...]`): one length for all blocks, or the length of each.
        seed (`int`): number of the seed, from 0.
    """

    block_length: BlockSchedule
    seed: int

    def generator_seed(self, question_seed: int) -> int:
        """Return the seed of this path's generator for a question; it depends on nothing else."""
        key = self.block_length
        if not isinstance(key, int):
            key = (1 << 32) + zlib.crc32(repr(tuple(key)).encode())
        return row_generators(question_seed, key, self.seed, 1)[0].initial_seed()


@dataclass(frozen=True)
class Candidates:
    """All paths of a question.

    Attributes:
        paths (`list[Path]`): in order of preference, by which ties are broken.
        order (`list[int]`): in which they are sampled: seed by seed through all schedules, so that few votes are diverse too.
    """

    paths: list[Path]
    order: list[int]


@checked
def list_candidates(block_lengths: Sequence[BlockSchedule], num_seeds: int, smallest_first: bool) -> Candidates:
    """Return the paths of every schedule with every seed.

    Args:
        block_lengths (`Sequence`): schedules, all of them different.
        num_seeds (`int`): seeds of each.
        smallest_first (`bool`): prefer small blocks (by the mean length of a schedule's); else prefer what is listed first.

    Raises:
        ValueError: for no schedules, the same twice, blocks without tokens, or less than one seed.
    """
    check_integer("num_seeds", num_seeds)
    check_schedules("block_lengths", block_lengths)
    listed = [Path(schedule, seed) for schedule in block_lengths for seed in range(num_seeds)]
    paths = sorted(listed, key=lambda path: _mean_length(path.block_length)) if smallest_first else listed
    asked = [Path(schedule, seed) for seed in range(num_seeds) for schedule in block_lengths]
    place = {path: i for i, path in enumerate(paths)}
    return Candidates(paths, [place[path] for path in asked])


@checked
def paper_block_lengths(gen_length: int) -> tuple[int, ...]:
    """Return the five block lengths that the paper votes over: 1/32 to 1/2 of the length, 8 to 128 for 256 tokens.

    Raises:
        ValueError: for a `gen_length` that is no multiple of 32.
    """
    if gen_length < 32 or gen_length % 32:
        raise ValueError(
            f"`gen_length` is {gen_length}, of which the paper's block lengths (1/32 to 1/2 of it) are no whole numbers; give "
            "`block_lengths`."
        )
    return tuple(gen_length // 32 * factor for factor in (1, 2, 4, 8, 16))


@checked
def random_block_schedules(
    gen_length: int, count: int, choices: Sequence[int], generator: torch.Generator | None = None
) -> list[tuple[int, ...]]:
    """Return different schedules whose blocks have random lengths (the paper's dynamic schedules, Table 2).

    Each next length is drawn from those of `choices` that still fit, and with which the rest can be filled.

    Args:
        gen_length (`int`): tokens to generate.
        count (`int`): schedules.
        choices (`Sequence[int]`): lengths to draw from.
        generator (`torch.Generator`, *optional*): where the draws come from; torch's own by default.

    Raises:
        ValueError: if `gen_length` is no sum of `choices`, or has fewer than `count` different ones.
    """
    check_integer("gen_length", gen_length)
    check_integer("count", count)
    for length in choices:
        check_integer("choices", length)
    fits = _reachable(gen_length, choices)
    if not fits[gen_length]:
        raise ValueError(f"`gen_length` {gen_length} cannot be filled with blocks of `choices` {list(choices)}.")
    draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
    found: dict[tuple[int, ...], None] = {}
    for _ in range(100 * count):
        rest, schedule = gen_length, []
        while rest:
            schedule.append(draw.choice([length for length in choices if length <= rest and fits[rest - length]]))
            rest -= schedule[-1]
        found[tuple(schedule)] = None
        if len(found) == count:
            return list(found)
    raise ValueError(
        f"`count` is {count}, but of `choices` {list(choices)} only {len(found)} different schedules that fill `gen_length` "
        f"{gen_length} were found."
    )


def check_schedules(name: str, schedules: Sequence[BlockSchedule]) -> None:
    """Raise `ValueError`, naming the argument, unless there are schedules, all different, whose blocks have tokens."""
    lengths = [length for one in schedules for length in ([one] if isinstance(one, int) else one or [0])]
    if not schedules or len(set(schedules)) < len(schedules) or min(lengths) < 1:
        raise ValueError(
            f"`{name}` has to hold different schedules of blocks of at least one token, but is {schedules}."
        )


def _reachable(gen_length: int, choices: Sequence[int]) -> list[bool]:
    """Return for each length up to `gen_length` whether it is a sum of `choices`."""
    fits = [True]
    for length in range(1, gen_length + 1):
        fits.append(any(0 < choice <= length and fits[length - choice] for choice in choices))
    return fits


def _mean_length(schedule: BlockSchedule) -> float:
    return schedule if isinstance(schedule, int) else sum(schedule) / len(schedule)
