"""Paths of a vote: which schedules and seeds, presets, pools that votes are drawn from."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from ldlm_hf.hex.draws import VotePool, paired_difference
from ldlm_hf.hex.paths import list_candidates, paper_block_lengths, random_block_schedules
from ldlm_hf.hex.presets import PRESETS, hex_preset
from ldlm_hf.votes import Vote
from ldlm_hf.voting import (
    TIE_RULES,
)

from .entry_points import EntryPoint
from .strategies import generators, mostly, numbers
from .votes import tables


SCHEDULES = st.integers(1, 9) | st.lists(st.integers(1, 9), max_size=3).map(tuple)


def pooled(votes: list[Vote], correct: list[bool], num_seeds: int, num_draws: int, tie: str, select: str) -> list:
    """Return what draws of a pool come to, and how they differ from their own."""
    pool = VotePool(votes, correct)
    draws = pool.draw_seeds(list(pool.seeds), num_seeds, num_draws)
    outcome = pool.hold(draws, tie, select)
    return [outcome.summary(), paired_difference(outcome, outcome, 5)]


@st.composite
def pools(draw) -> dict:
    """Return what a pool is made of and asked."""
    votes = draw(tables())
    fitting = st.lists(st.booleans(), min_size=len(votes), max_size=len(votes))
    return {
        "votes": votes,
        "correct": draw(fitting),
        "num_seeds": draw(mostly(st.just(1), st.integers(0, 3))),
        "num_draws": draw(st.integers(0, 3)),
        "tie": draw(st.sampled_from(TIE_RULES)),
        "select": draw(st.sampled_from(["majority", "elbo"])),
    }


def no_difference(result: list, arguments: dict) -> None:
    """A way to vote does not differ from itself, and its figures are shares."""
    summary, difference = result
    assert all(value is None or math.isfinite(value) for value in summary.values())
    assert 0 <= summary["answer_accuracy"] <= summary["oracle"] <= 1
    assert difference == {"difference": 0.0, "low": 0.0, "high": 0.0}


def fill_the_length(schedules: list, arguments: dict) -> None:
    """Schedules are different, as many as asked for, of allowed blocks, and fill the text."""
    assert len(set(schedules)) == len(schedules) == arguments["count"]
    assert all(sum(schedule) == arguments["gen_length"] for schedule in schedules)
    assert {length for schedule in schedules for length in schedule} <= set(arguments["choices"])


def arguments_of_a_vote(found: dict, arguments: dict) -> None:
    """A preset names schedules and seeds."""
    assert found["gen_length"] == arguments["gen_length"]
    assert found["block_lengths"] and found["num_seeds"] >= 1


def every_path_once(candidates, arguments: dict) -> None:
    """Each schedule has each seed once, and the order asks each once."""
    count = len(arguments["block_lengths"]) * arguments["num_seeds"]
    assert len(set(candidates.paths)) == len(candidates.paths) == count
    assert sorted(candidates.order) == list(range(count))


PRESET = {
    "name": st.sampled_from(PRESETS),
    "gen_length": st.sampled_from([32, 64, 256, 7]),
    "block_lengths": st.none() | st.lists(st.sampled_from([2, 4, 8]), max_size=3),
    "num_seeds": st.integers(0, 4),
    "temperature": numbers(0, 2),
    "generator": st.none() | generators(),
}


RANDOM_SCHEDULES = {
    "gen_length": st.integers(0, 20),
    "count": st.integers(0, 3),
    "choices": st.lists(st.integers(1, 4), min_size=1, max_size=4) | st.lists(st.integers(-1, 4), max_size=3),
    "generator": st.none() | generators(),
}


PATHS = {
    "block_lengths": mostly(
        st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True), st.lists(SCHEDULES, max_size=3)
    ),
    "num_seeds": st.integers(0, 3),
    "smallest_first": st.booleans(),
}


ENTRIES = [
    EntryPoint("VotePool", pooled, pools(), no_difference, grows=("num_draws",)),
    EntryPoint(
        "hex_preset", hex_preset, st.fixed_dictionaries(PRESET), arguments_of_a_vote, grows=("gen_length", "num_seeds")
    ),
    EntryPoint(
        "random_block_schedules",
        random_block_schedules,
        st.fixed_dictionaries(RANDOM_SCHEDULES),
        fill_the_length,
        grows=("gen_length", "count"),
    ),
    EntryPoint(
        "list_candidates", list_candidates, st.fixed_dictionaries(PATHS), every_path_once, grows=("num_seeds",)
    ),
    EntryPoint(
        "paper_block_lengths",
        paper_block_lengths,
        st.fixed_dictionaries(
            {"gen_length": st.integers(-64, 512) | st.integers(1, 9).map(lambda factor: 32 * factor)}
        ),
        lambda lengths, arguments: all(arguments["gen_length"] % length == 0 for length in lengths),
    ),
]
