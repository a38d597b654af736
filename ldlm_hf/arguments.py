"""Checks of what users call the package with; every error names the argument and its value.

[`checked`] refuses arguments of other types than a function is annotated with, [`check_field_types`] does so for data classes. What
types cannot say, such as ranges and shapes, the functions below say in a line each.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor


Parameters, Result = ParamSpec("Parameters"), TypeVar("Result")
NUMBERS = (int, float, bool, NoneType)
LARGEST_INTEGER, LARGEST_FLOAT = 2**63 - 1, sys.float_info.max  # that tensors and floats hold
MOST_SHOWN = 200  # characters of a value in a message
MOST_GUIDANCE = 1e6  # more would overflow where guided predictions are guided again
MOST_TEMPERATURE = 1e9  # more would overflow where it is multiplied by noise


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a function raise `ValueError`, naming the argument, for one of another type than it is annotated with.

    As everywhere in Python an integer is a `float` too, and a tuple will do for a list, but `bool` is no number here, and a text no sequence of texts.

    Args:
        function (`Callable`): whose annotations can be read when it is first called.
    """
    names = list(signature(function).parameters)

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        expected = _hints(function)
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in expected and not _fits(value, expected[name]):
                _refuse(name, value, function.__annotations__[name], expected[name])
        return function(*args, **kwargs)

    return call


def check_field_types(instance: object, base: type = object) -> None:
    """Raise `ValueError`, naming the field, for one of a data class that is NaN or of another type than its annotation.

    Args:
        instance (`object`): of the data class.
        base (`type`, *optional*): a class that reads texts for some of its own fields; of those only plain numbers are checked.
    """
    expected, known = _hints(type(instance)), getattr(base, "__dataclass_fields__", {})
    for field in fields(instance):
        value, kind = getattr(instance, field.name), expected[field.name]
        if field.name in known and kind not in NUMBERS and {*get_args(kind)} - {*NUMBERS}:
            continue
        if not _fits(value, kind) or value != value:
            _refuse(field.name, value, field.type, kind)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Raise `ValueError` that names the argument where what is made of it takes other keywords."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"`{name}`: {error}.") from error


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless `value` is among `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` has to be one of {tuple(allowed)}, but is {shown(value)}.")


def check_integer(name: str, value: int, limit: int | None = None, least: int = 1) -> None:
    """Raise `ValueError` unless `value` is an integer from `least` to `limit`, or from `least` on, that 64 bits hold."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"`{name}` has to be an integer, but is {shown(value)}.")
    if not least <= value <= (LARGEST_INTEGER if limit is None else limit):
        allowed = (
            f"be at least {least}"
            if limit is None and value < least
            else f"lie between {least} and {limit or LARGEST_INTEGER}"
        )
        raise ValueError(f"`{name}` has to {allowed}, but is {shown(value)}.")


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `ValueError` unless `value` is a finite number from `least` to `most`."""
    if not _fits(value, float):
        raise ValueError(f"`{name}` has to be a number, but is {shown(value)}.")
    if not least <= value <= most or not -LARGEST_FLOAT <= value <= LARGEST_FLOAT:
        allowed = "be finite" if least == -math.inf else f"be at least {least}"
        allowed = allowed if most == math.inf else f"lie between {least} and {most}"
        raise ValueError(f"`{name}` has to {allowed}, but is {shown(value)}.")


def check_device(name: str, device: str | torch.device | None) -> None:
    """Raise `ValueError` for what names no device."""
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`{name}` is {shown(device)}: {error}") from error


def check_text(name: str, text: str) -> None:
    """Raise `ValueError` for what is no text, or one with half a character, which no tokenizer reads."""
    if not isinstance(text, str):
        raise ValueError(f"`{name}` has to hold texts, but holds {shown(text)} of type {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` {shown(text)} is no text: {error}.") from error


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raise `ValueError` for what is no list of texts, at least one."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence) or not len(texts):
        raise ValueError(f"`{name}` has to be a list of at least one text, but is {shown(texts)}.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"`{name}` has to hold texts only, but number {i} is {shown(text)}; give '' for an empty one."
            )


def each_text(name: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield texts as they come; raise `ValueError` at one that is none."""
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"`{name}` has to hold texts only, but holds {shown(text)}.")
        yield text


def check_shapes(**tensors: tuple[Tensor, str]) -> dict[str, int | tuple[int, ...]]:
    """Return the length of each named dimension; raise `ValueError`, naming the tensor, where they do not fit.

    Args:
        tensors (`tuple[Tensor, str]`): by name, a tensor and its form, such as `"batch length"` or `"int64: batch length"`.
            Dimensions of one name have to be equally long, a number is the length itself, and `…` is any dimensions, the same
            for all tensors. Kinds are `int64`, `bool`, `mask` (bool or numbers), `float` (of any width), or any numbers.
    """
    known: dict[str, int | tuple[int, ...]] = {}
    if torch.compiler.is_compiling():  # what is compiled was checked when it was traced
        return known
    for name, (tensor, form) in tensors.items():
        kind, _, dims = form.rpartition(":")
        names = dims.split()
        if not isinstance(tensor, Tensor):
            raise ValueError(f"`{name}` has to be a tensor of shape ({', '.join(names)}), but is {shown(tensor)}.")
        lengths: list[int | tuple[int, ...]] = list(tensor.shape)
        if "…" in names and tensor.ndim >= len(names) - 1:
            first, last = names.index("…"), tensor.ndim - len(names) + names.index("…") + 1
            lengths = [*lengths[:first], tuple(lengths[first:last]), *lengths[last:]]
        pairs = list(zip(names, lengths, strict=False))
        wanted = [int(dim) if dim.isdigit() else known.get(dim, length) for dim, length in pairs]
        if len(lengths) != len(names) or wanted != lengths or not _is_of_kind(tensor.dtype, kind):
            given = ", ".join(f"{dim} {known[dim]}" if dim in known else dim for dim in names)
            found = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"`{name}` has to be ({given}) {kind or 'numbers'}, but is {found}.")
        known |= dict(pairs)
    return known


def present(**tensors: tuple[Tensor | None, str]) -> dict[str, tuple[Tensor, str]]:
    """Return those of the tensors that are not `None`, for [`check_shapes`]."""
    return {name: pair for name, pair in tensors.items() if pair[0] is not None}


def check_finite(name: str, tensor: Tensor, advice: str) -> None:
    """Raise `ValueError` for NaN and infinite values; this waits for an accelerator, so it is for what is looked at once.

    Args:
        name (`str`): what the message calls them.
        tensor (`Tensor` of any shape): numbers.
        advice (`str`): what may be wrong, or is to be done.
    """
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"`{name}`: values are NaN or infinite; {advice}.")


def check_any_label(labels: Tensor) -> None:
    """Raise `ValueError` if all labels are -100: the mean of no losses is NaN. On the CPU only, as for token ids."""
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    if not bool((labels != -100).any()):
        raise ValueError("`labels` are -100 everywhere, so that there is nothing to learn; leave such batches out.")


def check_not_empty(name: str, tensor: Tensor) -> None:
    """Raise `ValueError` for a tensor without a row or a position, of which no attention can be computed."""
    if not torch.compiler.is_compiling() and not tensor.numel():
        raise ValueError(f"`{name}` has to hold at least one token, but is of the shape {tuple(tensor.shape)}.")


def check_token_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    """Raise `ValueError` for token ids outside the vocabulary; on the CPU only, where looking at them costs nothing.

    Args:
        name (`str`): what the message calls them.
        ids (`Tensor` of any shape): int64.
        vocab_size (`int`): how many tokens there are.
    """
    if torch.compiler.is_compiling() or ids.device.type != "cpu" or not ids.numel():
        return
    least, most = (int(value) for value in ids.aminmax())
    if least < 0 or most >= vocab_size:
        wrong = least if least < 0 else most
        raise ValueError(f"`{name}` has to hold token ids below {vocab_size}, the vocabulary, but holds {wrong}.")


def check_tensor_inputs(names: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless a callback asks only for tensors that the pipeline hands out."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"`callback_on_step_end_tensor_inputs` has to be among {list(allowed)}, but has {unknown}.")


class LogitsWatch:
    """Goes along with `generate` as a logits processor and remembers the largest logits, for one check at the end."""

    def __init__(self) -> None:
        """Start without any."""
        self._largest: Tensor | None = None

    def __call__(self, input_ids: Tensor | None, scores: Tensor) -> Tensor:
        """Return the scores as they are.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`, *optional*): not looked at.
            scores (`Tensor` of shape `(batch, vocab)`): of the next token; `-inf` is allowed, unless all are.

        Returns:
            `Tensor` of shape `(batch, vocab)`.
        """
        largest = scores.detach().amax(dim=-1).float().abs().amax()  # NaN stays NaN
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        return scores

    def check(self, name: str, advice: str) -> None:
        """Raise `ValueError` as [`check_finite`] does, if any logits were NaN or infinite."""
        if self._largest is not None:
            check_finite(name, self._largest, advice)


def check_changes(changed: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that a callback changed; raise `ValueError` unless it returned some of its own, in their shapes.

    Args:
        changed (`dict[str, Tensor]`): what `callback_on_step_end` returned.
        tensors (`dict[str, Tensor]`): what it may return, as it was.
    """
    if not isinstance(changed, dict):
        raise ValueError(
            f"`callback_on_step_end` has to return a dictionary of tensors, but returned {shown(changed)}."
        )
    own = {name: tensor for name, tensor in changed.items() if name in tensors}
    for name, tensor in own.items():
        if not isinstance(tensor, Tensor) or tensor.shape != tensors[name].shape:
            shape, found = tuple(tensors[name].shape), tensor.shape if isinstance(tensor, Tensor) else shown(tensor)
            raise ValueError(f"`callback_on_step_end` has to return {name!r} of shape {shape}, but returned {found}.")
    return own


def shown(value: object) -> str:
    """Return what a message shows of a value."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _refuse(name: str, value: object, written: object, expected: object) -> None:
    kind = written if isinstance(written, str) else getattr(written, "__name__", written)
    found = f"is {shown(value)} of type {type(value).__name__}"
    if isinstance(value, list | tuple):  # say which of them is wrong, if they can be told apart
        places = [place for place, item in enumerate(value) if not _fits([item], expected)]
        found = f"number {places[0]} is {shown(value[places[0]])}" if 0 < len(places) < len(value) else found
    raise ValueError(f"`{name}` has to be of type {kind}, but {found}.")


@cache
def _hints(annotated: Callable | type) -> dict[str, object]:
    return get_type_hints(annotated, localns={"torch": torch})  # which transformers imports for type checkers only


def _is_of_kind(dtype: torch.dtype, kind: str) -> bool:
    if kind in ("int64", "bool"):
        return dtype == getattr(torch, kind)
    if kind == "float":
        return dtype.is_floating_point
    return not dtype.is_complex and (kind == "mask" or dtype != torch.bool)


def _fits(value: object, expected: object) -> bool:
    """Return whether a value is of an annotated type; what is inside containers is looked at too, iterators are not."""
    if isinstance(expected, TypeVar):
        expected = expected.__bound__ or object
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return isinstance(value, str | int) and value in inner
    kind = origin or expected
    if kind in (int, float):  # NumPy's count as well
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is list and isinstance(value, tuple):
        kind = tuple
    if kind is Callable or origin is Callable:
        return callable(value)
    if not isinstance(kind, type) or is_typeddict(
        kind
    ):  # an annotation that says nothing, or only what keys there are
        return isinstance(value, dict) if is_typeddict(kind) else True
    if kind is Iterable and isinstance(value, Tensor):
        return False
    if not isinstance(value, kind) or (isinstance(value, str | bytes) and kind not in (str, bytes, object, Hashable)):
        return False
    return _contents_fit(value, inner)


def _contents_fit(value: object, inner: tuple) -> bool:
    if isinstance(value, Mapping) and len(inner) == 2:
        return all(_fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items())
    if isinstance(value, tuple) and inner and inner[-1] is not Ellipsis and len(inner) > 1:
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(value, Sequence | set | frozenset) and inner:
        return all(_fits(item, inner[0]) for item in value)
    return True
