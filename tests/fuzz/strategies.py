"""What entry points are called with: texts, numbers, tensors and generators of the right types, and what is of none."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


NAN, INF = float("nan"), float("inf")
SMALL_JUNK = [
    *(None, True, False, -1, 0, 1, 2, 3, 0.5, 1.0, -0.5, NAN, INF, -INF, 1e308, -1e308, 1e-320, 1j),
    *("", "x", " ", "\ud800", b"x", [], [1], [None], ["x"], [NAN], (), (2, 2), {}, {"x": 1}, set(), range(3)),
    *(Fraction(1, 3), Decimal("0.5"), np.float32(0.5), object, len),
]
LARGE_JUNK = [2**31, 2**63, 2**80, -(2**70), 10**400, "9" * 500, "x" * 3000, [1] * 500]
ARRAYS = [
    *(lambda: torch.tensor(2), lambda: torch.tensor([1.0, NAN]), lambda: torch.zeros(0), lambda: torch.zeros(2, 3, 4)),
    *(lambda: torch.zeros(2, 3, dtype=torch.long), lambda: torch.ones(3, dtype=torch.bool), lambda: np.zeros(3)),
    *(lambda: np.int64(2), lambda: torch.Generator(), lambda: torch.ones(1, 2, dtype=torch.complex64)),
]


def junk(small: bool = False) -> st.SearchStrategy:
    """Return values of all kinds, most of them wrong wherever they are put; only small ones where work grows with them."""
    arrays = st.sampled_from(ARRAYS).map(lambda make: make())
    return st.sampled_from(SMALL_JUNK) | arrays | (st.nothing() if small else st.sampled_from(LARGE_JUNK))


def texts(max_size: int = 40) -> st.SearchStrategy[str]:
    """Return texts of any characters, lone surrogates among them, and of those that answers are made of."""
    anything = st.text(st.characters(), max_size=max_size)
    signs = st.text("0123456789+-*/=().,{}[]\\$%^_ <>&#\nabcdeABCDExyz:;?!'\"|~", max_size=max_size)
    pieces = st.sampled_from(
        [
            *(
                "\\boxed{",
                "}",
                "\\frac",
                "{1}{2}",
                "<answer>",
                "</answer>",
                "<reasoning>\n",
                "\n</reasoning>",
                "The answer is ",
            ),
            *(
                "#### ",
                "1,200",
                "-3.5",
                "2/0",
                "0",
                " ",
                "\n",
                "3+5",
                "1e99",
                "9" * 30,
                "²",
                "٣",
                "½",
                "\\text{",
                "$",
                "=",
                "```\n",
            ),
        ]
    )
    return st.one_of(anything, signs, st.lists(pieces, max_size=8).map("".join))


def mostly(fitting: st.SearchStrategy, other: st.SearchStrategy) -> st.SearchStrategy:
    """Return what fits three times out of four, so that most calls get beyond the first check."""
    return st.integers(0, 3).flatmap(lambda turn: other if turn == 3 else fitting)


@st.composite
def varied(draw, fitting: dict[str, st.SearchStrategy], other: dict[str, st.SearchStrategy] | None = None) -> dict:
    """Return arguments that fit together, or all but one of them."""
    drawn = {name: draw(strategy, label=name) for name, strategy in fitting.items()}
    if other and draw(st.booleans(), label="vary"):
        name = draw(st.sampled_from(sorted(other)), label="varied")
        drawn[name] = draw(other[name], label=name)
    return drawn


def words(max_size: int = 4) -> st.SearchStrategy[str]:
    """Return short words, so that some are alike."""
    return st.text("ab1 ", max_size=max_size)


def numbers(least: float = -10.0, most: float = 10.0) -> st.SearchStrategy[float]:
    """Return whole and other numbers, mostly within limits."""
    inside = st.floats(least, most, allow_nan=False) | st.integers(int(least), int(most))
    return inside | st.floats() | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1e300, -1e300])


def floats(shape: tuple[int, ...] | st.SearchStrategy, finite: bool = False) -> st.SearchStrategy[Tensor]:
    """Return float tensors of a shape: of noise, all zeros, large and small numbers, in one of three dtypes, perhaps not finite."""
    shapes = st.just(shape) if isinstance(shape, tuple) else shape
    kinds = ("noise", "zeros", "large", "small") if finite else ("noise", "zeros", "large", "small", "nan", "inf")
    dtypes = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
    return st.builds(_float_tensor, shapes, st.sampled_from(kinds), st.sampled_from(dtypes), st.integers(0, 9))


def integers(shape: tuple[int, ...] | st.SearchStrategy, least: int = 0, most: int = 9) -> st.SearchStrategy[Tensor]:
    """Return int64 tensors of a shape with numbers from `least` to `most`."""
    shapes = st.just(shape) if isinstance(shape, tuple) else shape
    return st.builds(_int_tensor, shapes, st.just(least), st.just(most), st.integers(0, 9))


def masks(shape: tuple[int, ...] | st.SearchStrategy) -> st.SearchStrategy[Tensor]:
    """Return bool tensors of a shape."""
    return integers(shape, 0, 1).map(torch.Tensor.bool)


def shapes(min_dims: int = 0, max_dims: int = 4, most: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Return shapes, empty ones among them."""
    return st.lists(st.integers(0, most), min_size=min_dims, max_size=max_dims).map(tuple)


def tensors() -> st.SearchStrategy[Tensor]:
    """Return tensors of any shape and dtype."""
    return floats(shapes()) | integers(shapes(), -1, 9) | masks(shapes())


def generators(count: int | None = None) -> st.SearchStrategy:
    """Return a seeded generator, or so many of them."""
    one = st.integers(0, 2**63 - 1).map(lambda seed: torch.Generator().manual_seed(seed))
    return one if count is None else st.lists(one, min_size=count, max_size=count)


def some_generators(most: int = 3) -> st.SearchStrategy:
    """Return no generator, one, or a list of a few."""
    return st.none() | generators() | st.integers(0, most).flatmap(generators)


def is_finite(value: Tensor | float) -> bool:
    """Return whether a number, or all of a tensor's, is finite."""
    return bool(torch.as_tensor(value).isfinite().all())


def _float_tensor(shape: tuple[int, ...], kind: str, dtype: torch.dtype, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scale = {"zeros": 0.0, "large": 1e30, "small": 1e-30}.get(kind, 1.0)
    values = (values * scale).to(dtype)
    if kind in ("nan", "inf") and values.numel():
        values.view(-1)[seed % values.numel()] = float(kind)
    return values


def _int_tensor(shape: tuple[int, ...], least: int, most: int, seed: int) -> Tensor:
    return torch.randint(least, most + 1, shape, generator=torch.Generator().manual_seed(seed))
