"""The arithmetic of Countdown against a search that combines two numbers at a time, and against texts made to do harm."""

import ast
import itertools
import operator
import random
from fractions import Fraction

import pytest

from ldlm_hf.tasks.countdown_solver import find_solutions, read_expression, solve, solve_all


WORK = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(text: str) -> Fraction:
    """Work an expression out by Python's reading of it."""

    def work_out(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        return WORK[type(node.op)](work_out(node.left), work_out(node.right))

    return work_out(ast.parse(text, mode="eval").body)


def numbers_of(text: str) -> list[int]:
    return sorted(node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))


def reached(numbers: list[Fraction], operations: str, whole: bool) -> set[Fraction]:
    """Return all that can be made, by putting the result of any two numbers in their place."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        one, other = numbers[i], numbers[j]
        rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
        results = {"+": one + other, "-": one - other, "*": one * other, "/": one / other if other else None}
        for sign in operations:
            result = results[sign]
            if result is not None and not (whole and result.denominator != 1):
                found |= reached([*rest, result], operations, whole)
    return found


def draws(count: int, size: int, largest: int) -> list[list[int]]:
    generator = random.Random(0)
    return [[generator.randint(0, largest) for _ in range(size)] for _ in range(count)]


@pytest.mark.parametrize("operations", ["+-", "+-*", "+-*/"])
@pytest.mark.parametrize(("count", "size", "largest"), [(60, 2, 9), (60, 3, 9), (30, 3, 30), (3, 4, 9)])
def test_whatever_can_be_made_of_whole_numbers_is_found(operations, count, size, largest):
    for numbers in draws(count, size, largest):
        found = reached([Fraction(number) for number in numbers], operations, whole=True)
        best = solve_all(numbers, operations)
        assert set(best) == {number for number in found if number >= 0}
        for target, text in best.items():
            assert value(text) == target
            assert numbers_of(text) == sorted(numbers)
            assert set(text) - set("0123456789()") <= set(operations)


@pytest.mark.parametrize("numbers", [*draws(12, 3, 9), [8, 8, 3, 3], [5, 5, 5, 1]])
def test_whatever_can_be_made_with_fractions_is_found(numbers):
    found = reached([Fraction(number) for number in numbers], "+-*/", whole=False)
    for target in range(41):
        texts = find_solutions(numbers, target)
        assert bool(texts) == (target in found) == (solve(numbers, target) is not None)
        assert len(set(texts)) == len(texts)
        assert all(value(text) == target and numbers_of(text) == sorted(numbers) for text in texts)
        assert set(texts) >= {solve(numbers, target)} - {None}


@pytest.mark.parametrize(
    ("numbers", "target", "text"),
    [
        ([19, 36, 55], 72, "55+36-19"),
        ([30, 100, 93], 23, "93+30-100"),
        ([2, 5, 8], 15, "8+5+2"),
        ([10, 2, 5], 40, "(10-2)*5"),
        ([6, 3, 4], 8, "6*4/3"),
        ([2, 2, 4], 4, "4+2-2"),  # not 2*4/2, which has a division
        ([8, 3, 8, 3], 24, "8/(3-8/3)"),  # the only way, through a fraction
        ([7], 7, "7"),
        ([7], 8, None),
        ([1, 2, 3], 100, None),
        ([0, 5], 0, "5*0"),
        ([1, 1, 1, 1, 1], 5, "1+1+1+1+1"),
    ],
)
def test_the_simplest_way_is_chosen(numbers, target, text):
    for order in itertools.permutations(numbers):
        assert solve(order, target) == text


def test_the_simplest_way_has_no_more_brackets_than_any_other_and_then_no_more_divisions():
    def rank(text: str) -> tuple[int, ...]:
        return tuple(map(text.count, "(/*-"))

    for numbers in draws(15, 4, 12):
        whole = solve_all(numbers)
        for target in range(0, 40, 7):
            texts = find_solutions(numbers, target)
            assert [rank(text) for text in texts] == sorted(map(rank, texts))
            if target in whole:  # the others may be simpler by way of fractions
                assert rank(whole[target]) >= rank(texts[0])
                assert solve(numbers, target) == whole[target]


def test_ways_that_differ_in_order_only_are_one():
    assert find_solutions([1, 2, 3], 6) == ["3+2+1", "3*2*1", "3*2/1"]
    assert find_solutions([5, 5], 0) == ["5-5"]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("55+36-19", 72),
        (" 55 + 36 -19\n", 72),
        ("((55+36))-(19)", 72),
        ("2-3-4", -5),
        ("2-(3-4)", 3),
        ("7/2", Fraction(7, 2)),
        ("8/(3-8/3)", 24),
        ("12/3/2", 2),
        ("2+3*4", 14),
        ("0", 0),
        ("(" * 49 + "1" + ")" * 49, 1),
        ("9" * 99, int("9" * 99)),
    ],
)
def test_expressions_are_worked_out_exactly(text, result):
    expression = read_expression(text)
    assert expression.value == result
    assert expression.text == text.replace(" ", "").strip()
    assert list(expression.numbers) == numbers_of(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5+",
        "5 5",
        "5)(5",
        "()",
        "(5)(6)",
        "5(6)",
        "-3+5",
        "3+-5",
        "3--5",
        "+5",
        "05+1",
        "5.0+1",
        "5e1",
        "0x1",
        "1_0",
        "5=5",
        "5,5",
        "5//2",
        "5%2",
        "5&2",
        "5<<9",
        "5 if 5 else 5",
        "x",
        "5*x",
        "1j",
        "5+5 # yes",
        "5+5\n+5",
        "5/0",
        "5/(3-3)",
        "٥+5",
        "5−3",
        "9**9",
        "9**9**9**9",
        "9**(9**9)",
        "(" * 10_000 + "1" + ")" * 10_000,
        "(" * 10_000,
        "(" * 100,
        "1+" * 100_000 + "1",
        "9" * 10_000_000,
        "9*" * 49 + "9**9",
        "__import__('os').system('true')",
        "().__class__",
        "[1]*9",
        "\x00",
        "5+5\x00",
        "5\\\n+5",
    ],
)
def test_anything_else_is_refused(text):
    assert read_expression(text) is None


@pytest.mark.parametrize(
    ("text", "operations", "is_read"), [("6*2", "+-", False), ("6/2", "+-*", False), ("6-2", "+-", True)]
)
def test_signs_that_are_not_allowed_are_refused(text, operations, is_read):
    assert (read_expression(text, operations) is not None) is is_read


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([], 1), r"`numbers` have to be one to 5 .* but are \[\] and 1"),
        (([1] * 6, 1), r"`numbers` have to be one to 5 .* but are \[1, 1, 1, 1, 1, 1\] and 1"),
        (([1, -2], 1), r"neither they nor `target` negative, but are \[1, -2\] and 1"),
        (([1, 2], -1), r"neither they nor `target` negative, but are \[1, 2\] and -1"),
        (([1, 2], 1, "+/"), r"`operations` has to be one of \('\+-', .*\), but is '\+/'"),
    ],
)
def test_problems_that_are_none_are_refused(arguments, match):
    for function in (solve, find_solutions):
        with pytest.raises(ValueError, match=match):
            function(*arguments)
