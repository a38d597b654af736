"""Every public entry point on generated calls: a valid output, or an error that names the argument; never anything else.

The campaign `tests/faults/fuzzing.py` tries the same on more calls.
"""

from __future__ import annotations

import inspect

import pytest
from hypothesis import strategies as st

import ldlm_hf

from . import (
    configurations,
    diffusion,
    evaluation,
    judges,
    language_models,
    losses,
    models,
    paths,
    pipelines,
    results,
    rewards,
    sampling,
    tasks,
    texts,
    training,
    vote_pipelines,
    votes,
    weights,
)
from .entry_points import EntryPoint, check, names_argument


AREAS = (
    *(votes, paths, texts, tasks, losses, diffusion, sampling, configurations, models, language_models, pipelines),
    *(vote_pipelines, weights, training, rewards, evaluation, results, judges),
)
ENTRIES = [entry for area in AREAS for entry in area.ENTRIES]
NOT_TRIED = {  # by name, why
    **dict.fromkeys(
        (
            "AutoencoderTrainer",
            "DenoiserTrainer",
            "LaDiRTrainer",
            "MaskedDiffusionTrainer",
            "ThoughtVAETrainer",
            "DiffuGRPOTrainer",
        ),
        "takes seconds to make; its arguments, collators, losses and models are tried, and `LossWatch` in tests/training",
    ),
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_call_ends_in_a_result_or_in_an_error_that_names_the_argument(entry):
    check(entry)


def test_every_public_name_is_tried_or_has_a_reason_not_to_be():
    tried = {name for entry in ENTRIES for name in (*entry.name.replace(",", "").split(), *entry.covers)}
    public = {name for name in ldlm_hf.__all__ if callable(getattr(ldlm_hf, name))}
    assert public - tried == set(NOT_TRIED)


def test_no_two_entry_points_have_one_name():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def broken(value: float) -> float:
    """Fail in ways that no entry point may."""
    if value is None:
        raise KeyError("value")
    if value == 1:
        raise ValueError("math domain error")
    if value == 2:
        return float("nan")
    raise ValueError(f"`value` has to be 1, but is {value}.")


@pytest.mark.parametrize(
    ("values", "failure"),
    [
        (st.none(), KeyError),
        (st.just(1), "does not name an argument: math domain error"),
        (st.just(2), "what has to hold does not"),
    ],
)
def test_what_may_not_happen_is_found(values, failure):
    arguments = st.fixed_dictionaries({"value": values})
    entry = EntryPoint("broken", broken, arguments, lambda found, _: found == found, spoiled=())
    if inspect.isclass(failure):
        with pytest.raises(failure):
            check(entry)
    else:
        with pytest.raises(AssertionError, match=failure):
            check(entry)


def test_an_error_names_the_argument_that_was_spoiled_or_any_in_backticks():
    known = {"value", "other"}
    assert names_argument(ValueError("`other` is wrong"), known, "value")
    assert names_argument(ValueError("the value is wrong"), known, "value")
    assert names_argument(ValueError("the other is wrong"), known, None)
    assert not names_argument(ValueError("the other is wrong"), known, "value")
    assert not names_argument(ValueError("values are wrong"), known, "value")
