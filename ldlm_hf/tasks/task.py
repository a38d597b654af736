"""What every task is: problems in, scores out, in pure Python.

A task is a finite or virtual list of problems. Problem `i` of a split is a pure function of `(seed, i)`, so data sets are
never stored, and the split of a problem is a hash of its *canonical form*, so no re-ordering or re-formatting of a
held-out problem can slip into training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        prompt (`str`): what the model reads.
        target (`str`): what it shall write.
        answer (`str`): the answer inside what it shall write.
    """

    prompt: str
    target: str
    answer: str


@dataclass(frozen=True)
class ChainReport:
    """What became of the reasoning chain of one prediction, step by step."""

    num_steps: int  # steps in the reference chain
    num_correct_steps: int  # steps that stand, equal to the reference, at their place
    is_consistent: bool  # the chain follows its own rules from its first step on and ends in the stated answer


class Task:
    """Base class: a subclass says how problems are made, read and checked; this one splits and serves them."""

    name: str = ""
    prompt_format: str = ""  # one line for people: what a prompt looks like
    test_fraction: float = 0.10
    validation_fraction: float = 0.02

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`, a pure function of its arguments."""
        raise NotImplementedError

    def num_problems(self, split: str) -> int:
        """Return how many distinct problems `split` holds."""
        raise NotImplementedError

    def words(self) -> list[str]:
        """Return every word that a prompt or target of this task can hold, so that no tokenizer lacks one."""
        raise NotImplementedError

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError`, naming the prompt and the expected form, unless `prompt` is a problem of this task."""
        raise NotImplementedError

    def parse_answer(self, text: str) -> str | None:
        """Return the answer that a written `text` gives, or `None` where it gives no valid one."""
        raise NotImplementedError

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare the chain in `text` with that in `target`, and check that it obeys the rules of the task."""
        raise NotImplementedError

    def split_of(self, canonical: str) -> str:
        """Return the split that the problem with this canonical form belongs to; the same on every machine."""
        digest = hashlib.sha256(f"{self.name}:{canonical}".encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        if position < self.test_fraction:
            return "test"
        return "validation" if position < self.test_fraction + self.validation_fraction else "train"

    def to_dataset(self, split: str, size: int | None = None, seed: int = 0) -> Dataset:
        """Return problems `0 … size-1` of `split` as a data set with the columns `prompt`, `target` and `answer`.

        Args:
            split (`str`): `"train"`, `"validation"` or `"test"`.
            size (`int`, *optional*): number of rows; by default every distinct problem of the split, once.
            seed (`int`, *optional*, defaults to 0): which order of the problems.

        Raises:
            ValueError: for an unknown `split` or a `size` below 1.
        """
        from datasets import Dataset

        if split not in SPLITS:
            raise ValueError(f"`split` has to be one of {SPLITS}, but is {split!r}.")
        if size is not None and size < 1:
            raise ValueError(f"`size` has to be at least 1, but is {size}.")
        size = self.num_problems(split) if size is None else size
        problems = [self.problem(split, index, seed) for index in range(size)]
        columns = {name: [getattr(problem, name) for problem in problems] for name in ("prompt", "target", "answer")}
        return Dataset.from_dict(columns)
