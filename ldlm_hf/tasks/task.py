"""What every task is: problems in, scores out, in pure Python.

A task is a finite or virtual list of problems. Problem `i` of a split is a pure function of `(seed, i)`, so data sets are
never stored, and the split of a problem is a hash of its *canonical form*, so no re-ordering or re-formatting of a
held-out problem can slip into training.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from ..arguments import check_integer, check_option, checked


if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
# What hashes a table for `datasets` puts another `sys.stdout` in place meanwhile: of two threads, one would leave it there.
DATASETS_LOCK = threading.RLock()
ANSWER_POSITIONS = ("first", "last")
CHECKED = (  # methods of every task whose arguments have to be of the annotated types
    *("__init__", "problem", "num_problems", "check_prompt", "parse_answer", "check_chain", "is_correct"),
    *("partial_score", "kind", "split_of"),
)


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
    held_out: str = "the split is by problem: no held-out problem is in the training data."  # one sentence for cards
    metrics: tuple[str, ...] = ("answer_accuracy", "chain_accuracy")  # modules of `ldlm_hf.metrics` that judge it
    truncates: bool = False  # whether texts are cut at the model's length, as is usual for natural text, or refused
    splits: tuple[str, ...] = SPLITS  # those that it has
    test_fraction: float = 0.10
    validation_fraction: float = 0.02

    def __init_subclass__(cls, **kwargs) -> None:
        """Let the methods of a subclass refuse arguments of other types than they are annotated with."""
        super().__init_subclass__(**kwargs)
        for name in CHECKED:
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

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

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether a written `text` answers `prompt`; the given `answer` is the right one, or one of them."""
        return self.parse_answer(text) == answer

    @property
    def has_several_right_answers(self) -> bool:
        """Whether an answer is judged by the problem, since the given one is not the only right one."""
        return type(self).is_correct is not Task.is_correct

    def partial_score(self, text: str, prompt: str, answer: str) -> float | None:
        """Return how much of a written `text` is right, from 0 to 1; `None` where an answer is right or wrong."""
        return None

    def chance_levels(self, problems: list[Problem]) -> dict[str, float]:
        """Return the accuracy on `problems` of guesses that know the format, by what they do; none by default."""
        return {}

    def kind(self, prompt: str) -> str | None:
        """Return which kind of problem `prompt` is, for accuracy by kind; `None` where a task has one kind only."""
        return None

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

        check_place(split)
        if size is not None:
            check_integer("size", size)
        size = self.num_problems(split) if size is None else size
        problems = [self.problem(split, index, seed) for index in range(size)]
        columns = {name: [getattr(problem, name) for problem in problems] for name in ("prompt", "target", "answer")}
        with DATASETS_LOCK:
            return Dataset.from_dict(columns)


class EnumeratedTask(Task):
    """A task whose problems can all be listed: a subclass gives the list, the canonical form and the text of each.

    Args:
        answer_position (`str`, *optional*, defaults to `"first"`): `"first"` puts the answer before the chain, as the paper
            does; `"last"` leaves only the chain, whose last word is the answer.

    Raises:
        ValueError: for an unknown `answer_position`.
    """

    answer_pattern: str = ""  # regular expression of a valid answer

    def __init__(self, answer_position: str = "first") -> None:
        """Make the task."""
        check_option("answer_position", answer_position, ANSWER_POSITIONS)
        self.answer_position = answer_position

    def instances(self) -> Iterator[tuple]:
        """Yield every problem as the tuple that `make` takes, always in the same order."""
        raise NotImplementedError

    def extra_instances(self) -> Iterator[tuple]:
        """Yield problems of another form that are in the training split only; none by default."""
        return iter(())

    def canonical(self, instance: tuple) -> str:
        """Return the form that all problems share which have to be in one split."""
        raise NotImplementedError

    def make(self, instance: tuple) -> Problem:
        """Return the problem of an instance."""
        raise NotImplementedError

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: every problem once in seeded order, then all again in another order."""
        check_place(split, index)
        size = self.num_problems(split)
        order = _order(size, f"{self.name}/{split}/{seed}/{index // size}")
        return self.make(self._splits[split][order[index % size]])

    def num_problems(self, split: str) -> int:
        """Return how many distinct problems `split` holds."""
        check_place(split)
        return len(self._splits[split])

    def parse_answer(self, text: str) -> str | None:
        """Return the first (or last) word of `text` if it is a valid answer."""
        words = text.split()
        if not words:
            return None
        word = words[0] if self.answer_position == "first" else words[-1]
        return word if re.fullmatch(self.answer_pattern, word) else None

    def chain(self, text: str) -> list[str]:
        """Return the words of the chain in `text`."""
        words = text.split()
        return words[1:] if self.answer_position == "first" else words

    def refuse(self, prompt: str) -> ValueError:
        """Return the error that names a prompt and the form it should have."""
        shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
        return ValueError(f"`prompt` has to be {self.prompt_format}, but is {shown!r}.")

    @cached_property
    def _splits(self) -> dict[str, list[tuple]]:
        splits: dict[str, list[tuple]] = {split: [] for split in SPLITS}
        split_of = lru_cache(maxsize=None)(self.split_of)  # many problems share a canonical form
        for instance in self.instances():
            splits[split_of(self.canonical(instance))].append(instance)
        splits["train"].extend(self.extra_instances())
        return splits


def check_place(split: str, index: int = 0) -> None:
    """Raise `ValueError` unless there is such a split, and `index` is no less than 0."""
    check_option("split", split, SPLITS)
    check_integer("index", index, least=0)


@lru_cache(maxsize=64)
def _order(size: int, key: str) -> list[int]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return order
