"""What a split gives away: right guesses, and prompts or targets that the training problems hold, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datasets import Dataset

from .arguments import checked


@checked
def baselines_of_chance(train_answers: Sequence[str], test_answers: Sequence[str]) -> dict[str, float]:
    """Return the accuracy of a uniform guess among the training answers, and of always the most frequent one."""
    if not len(train_answers) or not len(test_answers):
        raise ValueError("`train_answers` and `test_answers` have to hold at least one answer each.")
    counts = Counter(train_answers)
    favourite = min(counts, key=lambda answer: (-counts[answer], answer))  # ties do not depend on the order
    return {"chance": 1 / len(counts), "majority": list(test_answers).count(favourite) / len(test_answers)}


@checked
def split_overlap(train: Dataset, test: Dataset) -> int:
    """Return how many test prompts are training prompts too; anything but 0 voids a result."""
    return len(_column(test, "test", "prompt") & _column(train, "train", "prompt"))


@checked
def share_of_known_targets(train: Dataset, test: Dataset) -> float:
    """Return for which share of the test problems some training problem has the same target, word for word.

    That is no fault of a split by problem: `6*(4*8)` and `6*(32*1)` are worked out alike once the brackets are. But it says
    how far a system that had found the right training problem for each test problem would come.

    Raises:
        ValueError: for a data set that lacks the column `target`, or no test problems.
    """
    known = _column(train, "train", "target")
    _column(test, "test", "target")
    if not len(test):
        raise ValueError("`test` has to hold at least one problem.")
    return sum(target in known for target in test["target"]) / len(test)


def _column(dataset: Dataset, name: str, column: str) -> set[str]:
    if column not in dataset.column_names:
        raise ValueError(f"`{name}` has to have the column {column!r}, but has {dataset.column_names}.")
    return set(dataset[column])
