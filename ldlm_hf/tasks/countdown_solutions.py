"""All solutions of a Countdown problem, and keys by which two expressions of `+`, `-` and `*` are told apart.

The laws of arithmetic make one of many texts: the order of terms and factors, brackets that change nothing, `9-2*(3-5)` and
`9+2*(5-3)`. Expressions with the same key are one solution.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from .countdown_solver import find_solutions, read_expression


Key = tuple  # of an expression, the same for all that the laws of arithmetic make one
PLUS_MINUS = {ast.Add: 1, ast.Sub: -1}


def solutions(prompt: str, operations: str = "+-*") -> tuple[str, ...]:
    """Return every solution of a problem such as `19,36,5=22`, the simplest first, one for each key."""
    numbers, _, target = prompt.partition("=")
    return _solutions(tuple(sorted(map(int, numbers.split(",")))), int(target), operations)


@lru_cache(maxsize=100_000)
def _solutions(numbers: tuple[int, ...], target: int, operations: str) -> tuple[str, ...]:
    simplest_last = reversed(find_solutions(numbers, target, operations))
    by_key = {expression_key(text): text for text in simplest_last}  # equal numbers swapped have the same key
    return tuple(by_key.values())[::-1]


def expression_key(text: str) -> Key | None:
    """Return what an expression of `+`, `-` and `*` has in common with all that differ in order and brackets only.

    Args:
        text (`str`): the expression, which is parsed, not run.

    Returns:
        A nested tuple to compare, or `None` where the text is no expression.
    """
    if read_expression(text, "+-*") is None:
        return None
    return _turned(_sum(ast.parse(text.strip(), mode="eval").body))


def _sum(node: ast.expr) -> tuple[list[Key], list[Key]]:
    """Return the keys of the terms that are added, and of those that are subtracted."""
    sides: tuple[list[Key], list[Key]] = ([], [])
    for sign, term in _terms(node, 1):
        own, key = _product(term)
        sides[0 if sign * own > 0 else 1].append(key)
    return sorted(sides[0], key=repr), sorted(sides[1], key=repr)


def _terms(node: ast.expr, sign: int) -> list[tuple[int, ast.expr]]:
    if isinstance(node, ast.BinOp) and type(node.op) in PLUS_MINUS:
        return [*_terms(node.left, sign), *_terms(node.right, sign * PLUS_MINUS[type(node.op)])]
    return [(sign, node)]


def _product(node: ast.expr) -> tuple[int, Key]:
    """Return the sign that factors turned round leave outside, and the key of their product."""
    sign, keys = 1, []
    for factor in _factors(node):
        if isinstance(factor, ast.Constant):
            keys.append(factor.value)
        else:
            own, key = _turned(_sum(factor))
            sign, keys = sign * own, [*keys, key]
    return sign, keys[0] if len(keys) == 1 else ("*", *sorted(keys, key=repr))


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def _turned(sides: tuple[list[Key], list[Key]]) -> tuple[int, Key]:
    """Return a sum or the same turned round, whichever comes first, so that `(3-5)` and `(5-3)` differ in sign only."""
    plus, minus = sides
    if len(plus) == 1 and not minus:
        return 1, plus[0]
    sign = 1 if repr(plus) <= repr(minus) and plus else -1
    return (1, ("+", tuple(plus), tuple(minus))) if sign == 1 else (-1, ("+", tuple(minus), tuple(plus)))
