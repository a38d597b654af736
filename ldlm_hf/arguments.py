"""Checks of what users call pipelines and schedulers with; every error names the argument and its value."""

from __future__ import annotations

from collections.abc import Sequence


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless `value` is among `allowed`."""
    if value not in allowed:
        raise ValueError(f"`{name}` has to be one of {tuple(allowed)}, but is {value!r}.")


def check_integer(name: str, value: int, limit: int | None = None) -> None:
    """Raise `ValueError` unless `value` is an integer from 1 to `limit`, or from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{name}` has to be an integer, but is {value!r}.")
    if value < 1 or (limit is not None and value > limit):
        allowed = "be at least 1" if limit is None else f"lie between 1 and {limit}"
        raise ValueError(f"`{name}` has to {allowed}, but is {value}.")


def check_tensor_inputs(names: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless a callback asks only for tensors that the pipeline hands out."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"`callback_on_step_end_tensor_inputs` has to be among {list(allowed)}, but has {unknown}.")
