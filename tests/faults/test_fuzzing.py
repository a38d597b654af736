"""A few calls of the campaign of generated calls, and whether it tells what fails; the suite's own are in tests/fuzz."""

import pytest
from hypothesis import strategies as st

from ldlm_hf.voting import majority_vote
from tests.faults.fuzzing import try_entry_point
from tests.fuzz.entry_points import EntryPoint
from tests.fuzz.votes import ballots, one_of_the_answers


NUMBERS = st.fixed_dictionaries({"value": st.integers(0, 9)})


def half(value: int) -> float:
    """Return half of a number, or fail."""
    if value == 7:
        raise KeyError(value)
    return value / 2


def same(value: int) -> int:
    """Return a number."""
    return value


def none(value: int) -> int:
    """Refuse every number."""
    raise ValueError(f"`value` has to be something else than {value}.")


def test_every_call_of_the_campaign_is_a_case():
    cases = try_entry_point(EntryPoint("a majority", majority_vote, ballots(), one_of_the_answers), 3, 40)
    assert len(cases) == 40
    assert all(case.passed for case in cases)
    assert {case.detail for case in cases} == {"answered", "refused"}


@pytest.mark.parametrize(
    ("call", "holds", "told"),
    [
        (half, lambda found, _: True, "KeyError"),
        (same, lambda found, _: found < 3, "what has to hold does not"),
        (none, lambda found, _: True, "only 0 of"),
    ],
)
def test_a_failure_is_told(call, holds, told, capsys):
    name = f"{call.__name__}, {told}"
    *_, last = try_entry_point(EntryPoint(name, call, NUMBERS, holds, spoiled=(), also=("keyword",)), 0, 60)
    assert not last.passed
    assert told in last.detail
