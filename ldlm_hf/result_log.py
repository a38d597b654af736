"""A file of results that grows while a run goes on, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


class ResultLog:
    """Results in the order in which they came, one line of JSON each, after a line with the settings they were made with.

    A last line that was not written whole is dropped. Results are never mixed with those of other settings.

    Args:
        path (`str` or `Path`): the file; its folder is made where it is missing.
        settings (`dict`): what the results depend on, as JSON can say it.

    Raises:
        ValueError: if the file holds results of other settings, or is no such file.
    """

    def __init__(self, path: str | Path, settings: dict) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        first = json.dumps({"settings": settings}, sort_keys=True)
        text = self.path.read_text() if self.path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        found = whole.splitlines()
        if found and found[0] != first:
            raise ValueError(
                f"{str(self.path)!r} has results of other settings, {found[0][:300]}, not {first[:300]}; "
                "delete it or write to another place."
            )
        if not found:
            self.path.write_text(first + "\n")
        elif whole != text:
            self.path.write_text(whole)
        self._results = [json.loads(line) for line in found[1:]]

    def __len__(self) -> int:
        """Return how many results there are."""
        return len(self._results)

    def __iter__(self) -> Iterator:
        """Go through the results, the oldest first."""
        return iter(self._results)

    def append(self, result: dict | list) -> None:
        """Add one result; it is in the file when this returns."""
        line = json.dumps(result)
        with self.path.open("a") as file:
            file.write(line + "\n")
        self._results.append(json.loads(line))
