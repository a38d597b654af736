"""Files of results: written whole or not at all, or growing while a run goes on, so that one that was stopped goes on."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .arguments import checked, shown
from .checkpoints import write_whole, writing


class ResultLog:
    """Results in the order in which they came, one line of JSON each, after a line with the settings they were made with.

    A last line that was not written whole is dropped. Results are never mixed with those of other settings.

    Args:
        path (`str` or `Path`): the file; its folder is made where it is missing.
        settings (`dict`): what the results depend on, as JSON can say it.
        remedy (`str`, *optional*): what the error about other settings tells to do.

    Raises:
        ValueError: if the file holds results of other settings, or is no such file.
    """

    def __init__(
        self, path: str | Path, settings: dict, remedy: str = "delete the file or write to another place"
    ) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._results, size = _read_whole_lines(self.path, settings, remedy)
        if size == 0:
            self._write(_first_line(settings), "wb")
        elif size < self.path.stat().st_size:
            os.truncate(self.path, size)  # never written anew, since a kill would then lose what is there

    def __len__(self) -> int:
        """Return how many results there are."""
        return len(self._results)

    def __iter__(self) -> Iterator:
        """Go through the results, the oldest first."""
        return iter(self._results)

    def append(self, result: dict | list) -> None:
        """Add one result; it is on the disk when this returns."""
        self.extend([result])

    def extend(self, results: Iterable[dict | list]) -> None:
        """Add some results, in one go; they are on the disk when this returns."""
        lines = [json.dumps(result) for result in results]
        if not lines:
            return
        self._write("".join(f"{line}\n" for line in lines).encode(), "ab")
        self._results += map(json.loads, lines)

    def _write(self, content: bytes, mode: str) -> None:
        with writing(self.path), self.path.open(mode, buffering=0) as file:
            size, left = file.tell(), memoryview(content)
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:  # the disk is full: the next result must not follow half of this one
                os.truncate(self.path, size)
                raise


def read_results(path: str | Path, settings: dict, remedy: str = "delete the file or write to another place") -> list:
    """Return the results in the file of a [`ResultLog`], which may be growing; change nothing.

    Args:
        path (`str` or `Path`): the file; without it there are no results.
        settings (`dict`): what they have to be made with.
        remedy (`str`, *optional*): what the error about other settings tells to do.

    Raises:
        ValueError: if the file holds results of other settings, or is no such file.
    """
    return _read_whole_lines(Path(path), settings, remedy)[0]


@contextmanager
def only_writer(path: str | Path) -> Iterator[Path]:
    """Keep all others who ask for the same from a file; the system ends that with the process, however it ends.

    Raises:
        ValueError: if somebody else has the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{str(path)!r} is being written by another process; wait for it, end it, or write to another place."
            ) from None
        yield path


def _read_whole_lines(path: Path, settings: dict, remedy: str) -> tuple[list, int]:
    """Return the results of a file, and how many bytes its whole lines have."""
    content = path.read_bytes() if path.is_file() else b""
    size = content.rfind(b"\n") + 1
    lines = content[:size].splitlines()
    if not lines:
        return [], 0
    if lines[0] != _first_line(settings).rstrip():
        raise ValueError(f"{str(path)!r} has results of other settings: {_difference(lines[0], settings)}; {remedy}.")
    try:
        return [json.loads(line) for line in lines[1:]], size
    except ValueError as error:
        raise ValueError(f"{str(path)!r} has a line that is no result ({error}); {remedy}.") from None


def _first_line(settings: dict) -> bytes:
    return json.dumps({"settings": settings}, sort_keys=True).encode() + b"\n"


def _difference(line: bytes, settings: dict) -> str:
    """Say in which settings the first line of a file differs."""
    try:
        found = json.loads(line)["settings"]
    except (ValueError, TypeError, KeyError):
        return f"its first line, {line[:100].decode(errors='replace')}, holds none"
    wanted = json.loads(_first_line(settings))["settings"]
    names = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    return ", ".join(
        f"{name} is {json.dumps(found.get(name))[:200]}, not {json.dumps(wanted.get(name))[:200]}" for name in names
    )


@checked
def write_results(path: str | Path, results: dict) -> None:
    """Write results as JSON, whole or not at all.

    Raises:
        ValueError: if a value is not finite, or none that JSON can say; the message says which.
        OSError: if there is no room for them; what was there stays.
    """
    check_json("results", results, f"nothing was written to {str(path)!r}")
    write_whole(path, json.dumps(results, indent=2, allow_nan=False) + "\n")


def check_json(name: str, value: object, outcome: str) -> None:
    """Raise `ValueError`, naming the place in it, for a value that JSON cannot say: other types, NaN, infinity, or itself.

    Args:
        name (`str`): what the message calls the value.
        value (`object`): dictionaries, lists and what they hold.
        outcome (`str`): what the message says of the consequence.
    """
    try:
        leaves = list(_leaves(value, name))
    except RecursionError as error:
        raise ValueError(f"`{name}` holds itself, or is too deep; {outcome}.") from error
    for place, leaf in leaves:
        if not isinstance(leaf, str | int | float | None):
            raise ValueError(f"`{place}` is {shown(leaf)}, which JSON cannot say; {outcome}.")
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(f"`{place}` has to be finite, but is {leaf}; {outcome}.")


def _leaves(value: object, place: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int | None):
                raise ValueError(f"`{place}` has the key {shown(key)}, which JSON cannot say.")
            yield from _leaves(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{place}[{i}]")
    else:
        yield place, value
