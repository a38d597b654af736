"""Solutions of a problem and their keys, which order and brackets do not change."""

from __future__ import annotations

import random

import pytest

from ldlm_hf.tasks.countdown_solutions import expression_key, solutions
from ldlm_hf.tasks.countdown_solver import read_expression


def random_expression(numbers: list[int], generator: random.Random) -> str:
    """Return numbers joined by random signs in random brackets."""
    parts = list(map(str, numbers))
    while len(parts) > 1:
        left, right = (parts.pop(generator.randrange(len(parts))) for _ in range(2))
        parts.append(f"({left}{generator.choice('+-*')}{right})")
    return parts[0]


@pytest.mark.parametrize("numbers", [[3, 5], [7, 2, 9], [2, 3, 5, 8], [4, 4, 9, 1]])
def test_a_right_expression_has_the_key_of_one_of_the_listed_solutions(numbers):
    generator, found = random.Random(0), 0
    for _ in range(400):
        text = random_expression(generator.sample(numbers, len(numbers)), generator)
        value = read_expression(text).value
        if value < 1:
            continue
        prompt = f"{','.join(map(str, numbers))}={value}"
        assert expression_key(text) in set(map(expression_key, solutions(prompt)))
        found += 1
    assert found > 50


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("3+5-2", "5-(2-3)", True),
        ("(3-5)*(2-7)", "(7-2)*(5-3)", True),
        ("9-2*(3-5)", "9+(5-3)*2", True),
        ("4*1+3", "3+1*4", True),
        ("3-2", "2-3", False),
        ("2*3+4", "2*(3+4)", False),
        ("12-(11-10)*11", "12+(11-10)*11", False),
    ],
)
def test_keys_tell_apart_what_the_laws_of_arithmetic_do_not_make_one(one, other, are_one):
    assert (expression_key(one) == expression_key(other)) is are_one


def test_what_is_no_expression_has_no_key():
    assert expression_key("3+") is None
    assert expression_key("3/2") is None


def test_equal_numbers_swapped_are_no_further_solution():
    assert len(solutions("7,7,1=14")) == 2
