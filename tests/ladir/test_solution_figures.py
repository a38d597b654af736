"""What samples are worth: solved problems, different solutions out of all there are, and chains of equations."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest

from ldlm_hf.ladir.solution_figures import is_solving_chain, pass_at_k, solution_figures, thought_figures
from ldlm_hf.tasks.countdown_solutions import solutions


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for right, count, k in [(0, 5, 2), (2, 5, 2), (3, 6, 4), (5, 5, 1)]:
        subsets = list(combinations([True] * right + [False] * (count - right), k))
        assert pass_at_k(right, count, k) == pytest.approx(Fraction(sum(map(any, subsets)), len(subsets)))
    with pytest.raises(ValueError, match="`k`"):
        pass_at_k(1, 4, 5)


def test_figures_count_solved_problems_and_different_solutions():
    samples = [["3-2", "3-2", "2+3", "nonsense"], ["2*3+4", "4+3*2", "(4+1)*2", "10"]]
    figures = solution_figures(["2,3=1", "2,3,4=10"], samples)
    assert figures["pass@1"] == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert figures["pass@4"] == 1
    assert figures["unique_texts"] == (3 + 4) / 2
    assert figures["unique_valid"] == 1
    existing = [len(solutions("2,3=1")), len(solutions("2,3,4=10"))]
    assert figures["share_of_solutions"] == pytest.approx((1 / existing[0] + 1 / existing[1]) / 2)
    assert figures["by_count"] == {"2": 0.5, "3": 0.5}
    assert figures["majority"] == 1


def test_a_majority_counts_expressions_and_not_how_they_are_written():
    written = [["3-2", "2+3", "2+3", "3-2", "-2+3"], ["3-2", "2+3", "3+2", "nonsense", "nonsense"]]
    assert solution_figures(["2,3=1", "2,3=1"], written)["majority"] == 0.5


@pytest.mark.parametrize(
    ("chain", "is_right"),
    [
        (["9*4=36", "36-2=34"], True),
        (["9*4=36", "36-2=33"], False),
        (["9*4=35", "35-1=34"], False),
        (["9*4=36", "36-3=33"], False),
        (["9*4=36"], False),
        (["9*4=36", "36-2=34", "34*1=34"], False),
        (["2*2=4", "9*4=36", "36-2=34"], False),
        (["words"], False),
    ],
)
def test_a_chain_has_to_use_every_number_once(chain, is_right):
    assert is_solving_chain("9,2,4=34", chain) is is_right


def test_chains_and_texts_are_held_against_each_other():
    thoughts = [["9*4=36", "36-2=34"], ["2+3=6"]]
    figures = thought_figures(["9,2,4=34", "2,3=5"], thoughts, ["9*4-2", "2+3"])
    assert figures == {"true_equations": 2 / 3, "solving_chains": 0.5, "agreement": 0.5}
