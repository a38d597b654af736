"""What a property of an entry point is, and how one is tried: on arguments of the right types, and with one of them spoiled.

A call ends in a valid output or in an error that names the argument. One call may not take longer than a limit, and every
generated call is counted.
"""

from __future__ import annotations

import inspect
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from .strategies import junk


REFUSALS = (ValueError, TypeError, OSError)
MOST_SECONDS = 100  # for one call, so that what hangs is found on a busy machine too
SHARED = {"database": None, "deadline": None, "print_blob": False, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", derandomize=True, max_examples=12, **SHARED)
settings.register_profile("campaign", max_examples=100, **SHARED)
TRIED: Counter[tuple[str, str]] = Counter()  # by name of the entry point and what became of the call


@dataclass(frozen=True)
class EntryPoint:
    """A function or class of the package, what it is called with, and what holds for what it returns.

    Args:
        name (`str`): as users know it.
        call (`Callable`): what is called; by keywords.
        arguments (`SearchStrategy[dict]`): arguments of the right types, in range and out of it.
        holds (`Callable[[object, dict], bool | None]`): asserts or returns what has to hold for output and arguments.
        spoiled (`Sequence[str]`, *optional*): arguments of which one may be replaced by something else; all by default.
        grows (`Sequence[str]`, *optional*): those among them with which the work grows: they are never large.
        share (`float`, *optional*, defaults to 1.0): of the examples of a profile, less for slow ones.
        least_answered (`float`, *optional*, defaults to 0.04): share of the calls of a campaign that are to end in an output, so
            that what holds for outputs is tried.
        also (`Sequence[str]`, *optional*): what errors may name besides: arguments that are made of those here.
        covers (`Sequence[str]`, *optional*): further names that this tries.
    """

    name: str
    call: Callable
    arguments: st.SearchStrategy[dict]
    holds: Callable[[object, dict], bool | None]
    spoiled: Sequence[str] | None = None
    grows: Sequence[str] = ()
    share: float = 1.0
    least_answered: float = 0.04
    also: Sequence[str] = ()
    covers: Sequence[str] = ()


def check(entry: EntryPoint, profile: str = "ci", seed_value: int | None = None, factor: float = 1.0) -> int:
    """Try an entry point on as many calls as the profile says; raise what fails. Return how many."""
    base = settings.get_profile(profile)
    count = max(3, round(base.max_examples * entry.share * factor))

    @settings(base, max_examples=count)
    @given(st.data())
    def every_call_ends_well(data):
        try_call(entry, data)

    (every_call_ends_well if seed_value is None else seed(seed_value)(every_call_ends_well))()
    return count


def try_call(entry: EntryPoint, data: st.DataObject) -> None:
    """Draw one call and check how it ends."""
    arguments = data.draw(entry.arguments, label="arguments")
    names = [name for name in arguments if entry.spoiled is None or name in entry.spoiled]
    spoiled = None
    if names and data.draw(st.integers(0, 2), label="spoil one") == 2:
        spoiled = data.draw(st.sampled_from(sorted(names)), label="spoiled")
        arguments = {**arguments, spoiled: data.draw(junk(spoiled in entry.grows), label="by")}
    try:
        with time_limit(MOST_SECONDS):
            result = entry.call(**arguments)
    except REFUSALS as error:
        TRIED[entry.name, "refused"] += 1
        values = [str(value) for value in arguments.values() if isinstance(value, str | Path) and value]
        if isinstance(error, OSError) and any(value in str(error) for value in values):
            return
        assert names_argument(error, {*arguments, *entry.also, *inspect.signature(entry.call).parameters}, spoiled), (
            f"{type(error).__name__} does not name an argument: {error}"
        )
        return
    TRIED[entry.name, "answered"] += 1
    assert entry.holds(result, arguments) in (None, True), f"what has to hold does not for {result!r}"


def names_argument(error: Exception, known: set[str], spoiled: str | None) -> bool:
    """Return whether an error says which argument is wrong: the spoiled one by name, or any in backticks."""
    text = str(error)
    quoted = any(re.search(rf"`[^`]*\b{re.escape(name)}\b[^`]*`", text) for name in known)
    if spoiled is None:
        return quoted or any(re.search(rf"\b{re.escape(name)}\b", text) for name in known)
    return quoted or re.search(rf"\b{re.escape(spoiled)}\b", text) is not None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise what no call may raise in what takes longer, each second anew: what is raised in a collector's callback is lost."""

    def stop(*_):
        raise AssertionError(f"The call has not ended after {seconds} seconds.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
