"""Arithmetic of Countdown: every way to make a number out of others, and expressions read without running them.

Expressions are listed up to the laws of arithmetic, as sums and differences of products and products and quotients of sums:
at most 68 of three numbers and 1,260 of four.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, product
from math import prod
from typing import NamedTuple

from ..arguments import checked


OPERATIONS = ("+-", "+-*", "+-*/")  # with fewer, laws that the listing stands on would not hold
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
LONGEST = 100  # characters of an expression; one of five numbers in all the brackets it needs takes a third
MOST_NUMBERS = 5
BRACKET, DIVISION, PRODUCT, DIFFERENCE = 1000, 100, 10, 1  # costs; no expression has ten of one


@dataclass(frozen=True)
class Expression:
    """An expression that was read.

    Attributes:
        text (`str`): the expression without spaces.
        value (`Fraction`): what it comes to.
        numbers (`tuple[int, ...]`): the numbers in it, in ascending order.
    """

    text: str
    value: Fraction
    numbers: tuple[int, ...]


@checked
def read_expression(text: str, operations: str = "+-*/") -> Expression | None:
    """Return the expression that `text` is; `None` if it is none, divides by zero or is longer than 100 characters.

    Whole numbers, brackets and the given signs between two numbers make an expression; the sign in front of `-3+5` does not.

    Args:
        text (`str`): what was written; it is parsed and worked out in exact fractions, not run.
        operations (`str`, *optional*, defaults to `"+-*/"`): the signs that may be used.
    """
    text, numbers = text.strip(), []
    if len(text) > LONGEST or re.fullmatch("[0-9()+*/ -]+", text) is None:
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body, operations, numbers)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None
    return Expression(text=text.replace(" ", ""), value=value, numbers=tuple(sorted(numbers)))


@checked
def solve(numbers: Sequence[int], target: int, operations: str = "+-*/") -> str | None:
    """Return the simplest expression that makes `target` out of `numbers`, or `None` if there is none.

    One with whole numbers only on the way is simpler than one with fractions; then count, in this order, the brackets, the
    divisions, the products and the differences; larger numbers come first.

    Args:
        numbers (`Sequence[int]`): one to five numbers, none negative, each to be used exactly once.
        target (`int`): what to make of them, not negative.
        operations (`str`, *optional*, defaults to `"+-*/"`): the signs that may be used: `"+-"`, `"+-*"` or `"+-*/"`.

    Raises:
        ValueError: for too few or many numbers, negative ones, or other operations.
    """
    _check(numbers, target, operations)
    whole = solve_all(numbers, operations).get(target)
    return whole or next(iter(find_solutions(numbers, target, operations)), None)


@checked
def solve_all(numbers: Sequence[int], operations: str = "+-*/") -> dict[int, str]:
    """Return every number from 0 on that `numbers` make, with its simplest expression; only whole numbers on the way.

    Args:
        numbers (`Sequence[int]`): one to five numbers, none negative, each to be used exactly once.
        operations (`str`, *optional*, defaults to `"+-*/"`): the signs that may be used: `"+-"`, `"+-*"` or `"+-*/"`.

    Raises:
        ValueError: for too few or many numbers, negative ones, or other operations.
    """
    _check(numbers, 0, operations)
    return _solve_all(tuple(sorted(numbers, reverse=True)), operations)


@checked
def find_solutions(numbers: Sequence[int], target: int, operations: str = "+-*/") -> list[str]:
    """Return all expressions that make `target` out of `numbers`, fractions on the way included, the simplest first.

    Those that differ only in the order of summands or factors, or in needless brackets, are one.

    Args:
        numbers (`Sequence[int]`): one to five numbers, none negative, each to be used exactly once.
        target (`int`): what to make of them, not negative.
        operations (`str`, *optional*, defaults to `"+-*/"`): the signs that may be used: `"+-"`, `"+-*"` or `"+-*/"`.

    Raises:
        ValueError: for too few or many numbers, negative ones, or other operations.
    """
    _check(numbers, target, operations)
    ways = _ways(tuple(sorted(numbers, reverse=True)), operations, whole=False)
    found = sorted((way for way in ways if way.value == target), key=lambda way: way.cost)
    return list(dict.fromkeys(way.text for way in found))  # equal numbers bring the same text twice


class _Way(NamedTuple):
    """An expression, or a part of one."""

    value: int | Fraction
    text: str
    cost: int


@lru_cache(maxsize=8192)  # all triples of numbers up to 30
def _solve_all(numbers: tuple[int, ...], operations: str) -> dict[int, str]:
    best: dict[int, _Way] = {}
    for way in _ways(numbers, operations, whole=True):
        if way.value >= 0 and (way.value not in best or way.cost < best[way.value].cost):
            best[way.value] = way
    return {value: way.text for value, way in best.items()}


def _ways(numbers: tuple[int, ...], operations: str, whole: bool) -> Iterator[_Way]:
    """Yield every expression."""
    if len(numbers) == 1:
        yield _Way(numbers[0], str(numbers[0]), 0)
    yield from _sums(numbers, operations, whole)
    yield from _products(numbers, operations, whole)


def _sums(numbers: tuple[int, ...], operations: str, whole: bool) -> Iterator[_Way]:
    """Yield the expressions that add and subtract two terms or more."""
    for plus, minus in _deals(numbers, _terms, operations, whole):
        value, text, cost = plus[0]
        for term in plus[1:]:
            value, text, cost = value + term.value, f"{text}+{term.text}", cost + term.cost
        for term in minus:
            value, text, cost = value - term.value, f"{text}-{term.text}", cost + term.cost + DIFFERENCE
        yield _Way(value, text, cost)


def _products(numbers: tuple[int, ...], operations: str, whole: bool) -> Iterator[_Way]:
    """Yield the expressions that multiply and divide two factors or more."""
    if "*" not in operations:
        return
    for over, under in _deals(numbers, _factors, operations, whole):
        value, text, cost = over[0]
        for factor in over[1:]:
            value, text, cost = value * factor.value, f"{text}*{factor.text}", cost + factor.cost + PRODUCT
        divisor = prod(factor.value for factor in under)
        if divisor == 0 or (under and "/" not in operations) or (whole and value % divisor):
            continue
        value = Fraction(value) / divisor if value % divisor else value // divisor
        for factor in under:
            text, cost = f"{text}/{factor.text}", cost + factor.cost + DIVISION
        yield _Way(value, text, cost)


@lru_cache(maxsize=512)
def _terms(numbers: tuple[int, ...], operations: str, whole: bool) -> list[_Way]:
    """Return what can be added: a number or a product."""
    return list(_ways(numbers, operations, whole) if len(numbers) == 1 else _products(numbers, operations, whole))


@lru_cache(maxsize=512)
def _factors(numbers: tuple[int, ...], operations: str, whole: bool) -> list[_Way]:
    """Return what can be multiplied: a number or a sum in brackets."""
    if len(numbers) == 1:
        return list(_ways(numbers, operations, whole))
    # A negative one is not needed: turned round it goes with the opposite sign outside.
    sums = (way for way in _sums(numbers, operations, whole) if way.value >= 0)
    return [_Way(way.value, f"({way.text})", way.cost + BRACKET) for way in sums]


def _deals(
    numbers: tuple[int, ...], parts_of: Callable[..., list[_Way]], operations: str, whole: bool
) -> Iterator[tuple[list[_Way], list[_Way]]]:
    """Yield two or more parts made of the numbers, dealt out to two sides of which the first is not empty."""
    for blocks in _partitions(len(numbers)):
        choices = [parts_of(tuple([numbers[i] for i in block]), operations, whole) for block in blocks]
        for parts in product(*choices):
            for side, other in _sides(len(blocks)):
                yield [parts[i] for i in side], [parts[i] for i in other]


@lru_cache(maxsize=MOST_NUMBERS)
def _partitions(count: int) -> list[tuple[tuple[int, ...], ...]]:
    """Return every way to break the first numbers from 0 up into two blocks or more, each in ascending order."""
    found: list[list[tuple[int, ...]]] = [[]]
    for number in range(count):
        joined = [[*p[:i], (*p[i], number), *p[i + 1 :]] for p in found for i in range(len(p))]
        found = [*joined, *([*p, (number,)] for p in found)]
    return [tuple(partition) for partition in found if len(partition) > 1]


@lru_cache(maxsize=MOST_NUMBERS)
def _sides(count: int) -> list[tuple[list[int], list[int]]]:
    """Return every way to deal the first numbers from 0 out to two sides of which the first is not empty."""
    places = range(count)
    firsts = [side for size in range(count, 0, -1) for side in combinations(places, size)]
    return [(list(side), [place for place in places if place not in side]) for side in firsts]


def _value(node: ast.expr, operations: str, numbers: list[int]) -> Fraction:
    """Return the value of a syntax tree, and append its numbers to `numbers`; `ValueError` if it holds anything else."""
    if isinstance(node, ast.Constant):  # of the characters that are let in only whole numbers can be made
        numbers.append(node.value)
        return Fraction(node.value)
    sign = SIGNS.get(type(node.op)) if isinstance(node, ast.BinOp) else None
    if sign is None or sign not in operations:
        raise ValueError(f"{type(node).__name__} with the sign {sign} is not allowed.")
    left, right = _value(node.left, operations, numbers), _value(node.right, operations, numbers)
    if sign in "+-":
        return left + right if sign == "+" else left - right
    return left * right if sign == "*" else left / right


def _check(numbers: Sequence[int], target: int, operations: str) -> None:
    if operations not in OPERATIONS:
        raise ValueError(f"`operations` has to be one of {OPERATIONS}, but is {operations!r}.")
    if not 1 <= len(numbers) <= MOST_NUMBERS or min(*numbers, target) < 0:
        raise ValueError(
            f"`numbers` have to be one to {MOST_NUMBERS} and neither they nor `target` negative, but are {list(numbers)} and "
            f"{target}."
        )
