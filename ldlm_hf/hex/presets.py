"""The rows of the paper's tables as arguments of [`HexPipeline`]: the vote itself, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..arguments import MOST_TEMPERATURE, check_integer, check_number, check_option, checked
from .paths import BlockSchedule, check_schedules, paper_block_lengths, random_block_schedules


PRESETS = (
    "hex",
    "one_seed",
    "one_schedule",
    "random_schedules",
    "full_block_low_confidence",
    "full_block_topk_margin",
    "full_block_random",
    "one_step_nll",
    "elbo",
)


@checked
def hex_preset(
    name: str,
    gen_length: int,
    block_lengths: Sequence[BlockSchedule] | None = None,
    num_seeds: int = 5,
    temperature: float = 0.9,
    generator: torch.Generator | None = None,
) -> dict[str, object]:
    """Return arguments of a call of [`HexPipeline`]; `pipe(prompt, **hex_preset("hex", 256))`.

    Args:
        name (`str`): `"hex"`, a vote over all schedules and seeds; `"one_seed"`, one path of each schedule; `"one_schedule"`, as
            many paths as `"hex"` of its middle schedule (Table 7; 32 of 256); `"random_schedules"`, as many paths, each with
            random block lengths (Table 2); `"full_block_…"`, one path with a single block, committed by confidence, by its
            margin, or in random order (Table 1), the first two greedily; `"one_step_nll"` and `"elbo"`, the likeliest of the
            paths of `"hex"` (Table 3).
        gen_length (`int`): tokens to generate.
        block_lengths (`Sequence`, *optional*): schedules; the paper's by default.
        num_seeds (`int`, *optional*, defaults to 5): of each schedule.
        temperature (`float`, *optional*, defaults to 0.9): of the samples.
        generator (`torch.Generator`, *optional*): draws random schedules.

    Raises:
        ValueError: for an unknown `name`, or a length that the schedules do not divide.
    """
    check_option("name", name, PRESETS)
    check_integer("gen_length", gen_length)
    check_integer("num_seeds", num_seeds)
    check_number("temperature", temperature, 0, MOST_TEMPERATURE)
    arguments: dict[str, object] = {"gen_length": gen_length, "temperature": temperature}
    if name.startswith("full_block"):
        rule = name.removeprefix("full_block_")
        return {**arguments, "block_lengths": [gen_length], "num_seeds": 1, "remasking": rule, "temperature": 0.0}
    schedules = list(paper_block_lengths(gen_length) if block_lengths is None else block_lengths)
    check_schedules("block_lengths", schedules)
    voters: dict[str, object] = {"block_lengths": schedules, "num_seeds": num_seeds}
    if name == "one_seed":
        voters["num_seeds"] = 1
    elif name == "one_schedule":
        voters = {"block_lengths": [schedules[len(schedules) // 2]], "num_seeds": len(schedules) * num_seeds}
    elif name == "random_schedules":
        drawn = random_block_schedules(gen_length, len(schedules) * num_seeds, schedules, generator)
        voters = {"block_lengths": drawn, "num_seeds": 1}
    elif name in ("one_step_nll", "elbo"):
        voters["select"] = name
    return {**arguments, **voters}
