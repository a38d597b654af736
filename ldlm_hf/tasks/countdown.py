"""Countdown: make a number out of others, using each exactly once (a task of d1, arXiv 2504.12216, with three numbers).

The prompt is the numbers and what they shall make, `19,36,55=72`; the target is the simplest expression that does,
`55+36-19`: always the same of all the ways there are, so that it can be learned. Any other right one counts as well. What
differs from d1: its scorer runs what a model writes, and can be hung, where this one reads a syntax tree; it holds out the
last lines of a file, where here two problems with the same numbers in another order are in one split.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..arguments import checked
from .countdown_solver import OPERATIONS, read_expression, solve, solve_all
from .ordering import shuffled
from .task import SPLITS, ChainReport, Problem, Task, check_place


NUMBER = "(?:0|[1-9][0-9]{0,5})"


class Countdown(Task):
    """Make a number out of others, which can be done with whole numbers only on the way."""

    name = "countdown"
    held_out = (
        "the split is by numbers and target: no held-out problem, nor the same with its\n"
        "numbers in another order, is in the training data."
    )
    metrics = ("answer_accuracy",)

    def __init__(
        self,
        num_numbers: int = 3,
        max_number: int = 30,
        min_target: int = 1,
        max_target: int = 100,
        operations: str = "+-*/",
        train_size: int = 50_000,
        heldout_size: int = 1_000,
    ) -> None:
        """Make the task.

        Args:
            num_numbers (`int`, *optional*, defaults to 3): numbers in a problem, 2 to 4; with four, making a problem
                takes some milliseconds.
            max_number (`int`, *optional*, defaults to 30): the largest of them; in d1's problems it is 100.
            min_target (`int`, *optional*, defaults to 1): the smallest number to be made.
            max_target (`int`, *optional*, defaults to 100): the largest one.
            operations (`str`, *optional*, defaults to `"+-*/"`): the signs that may be used: `"+-"`, `"+-*"` or `"+-*/"`.
            train_size (`int`, *optional*, defaults to 50000): how many problems `num_problems` states for the training
                split, unless it has fewer; `problem` goes on through all there are (37,187 with the defaults).
            heldout_size (`int`, *optional*, defaults to 1000): the same for the other two splits.

        Raises:
            ValueError: for other `num_numbers` or `operations`, targets that are negative or in the wrong order, or a
                `max_number` or size below 1.
        """
        if not 2 <= num_numbers <= 4:
            raise ValueError(f"`num_numbers` has to be 2, 3 or 4, but is {num_numbers}.")
        if not 0 <= min_target <= max_target:
            raise ValueError(
                "`min_target` and `max_target` have to be at least 0 and in this order, but are "
                f"{min_target} and {max_target}."
            )
        if operations not in OPERATIONS:
            raise ValueError(f"`operations` has to be one of {OPERATIONS}, but is {operations!r}.")
        least = {"max_number": max_number, "train_size": train_size, "heldout_size": heldout_size}
        for argument, value in least.items():
            if value < 1:
                raise ValueError(f"`{argument}` has to be at least 1, but is {value}.")
        self.num_numbers, self.max_number, self.operations = num_numbers, max_number, operations
        self.min_target, self.max_target = min_target, max_target
        self.prompt_format = (
            f"{num_numbers} numbers up to {max_number} and a target from {min_target} to {max_target} that can be made of "
            f"them by {operations}, written like '19,26,5=12'"
        )
        self._sizes = {split: train_size if split == "train" else heldout_size for split in SPLITS}
        self._listed: dict[tuple[str, int], tuple[list, Iterator]] = {}  # as far as was asked for, and the rest

    def __getstate__(self) -> dict:
        """Return what a copy is made from; it lists its problems again."""
        return {**vars(self), "_listed": {}}

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: each once in seeded order, then all again with their numbers rearranged.

        Raises:
            ValueError: for a `split` that has no problem.
        """
        check_place(split, index)
        listed = self._list(split, seed, index + 1)
        if not listed:
            raise ValueError(
                f"`split` {split!r} has no problem with `max_number` {self.max_number} and targets from {self.min_target} to "
                f"{self.max_target}; widen them."
            )
        numbers, target = listed[index % len(listed)]
        numbers = random.Random(f"{self.name}/{split}/{seed}/{index}").sample(numbers, len(numbers))
        expression = solve_all(numbers, self.operations)[target]
        return Problem(prompt=_write_prompt(numbers, target), target=expression, answer=expression)

    def num_problems(self, split: str) -> int:
        """Return how many distinct problems make a data set of `split`: as the constructor was told, or all there are."""
        check_place(split)
        return len(self._list(split, 0, self._sizes[split])[: self._sizes[split]])

    def words(self) -> list[str]:
        """Return every number that a prompt or target can hold, and every sign."""
        return [*map(str, range(max(self.max_number, self.max_target) + 1)), *"+-*/(),="]

    def kind(self, prompt: str) -> str:
        """Return whether adding and subtracting are enough."""
        return "sums" if solve(*_read_prompt(prompt), "+-") is not None else "products"

    def canonical(self, prompt: str) -> str:
        """Return the prompt with its numbers in ascending order: its split is `split_of(canonical(prompt))`."""
        return _write_prompt(*_read_prompt(prompt), in_order=True)

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` is a problem within the bounds of this task that has a solution."""
        numbers, target = _read_prompt(prompt, self.prompt_format)
        fits = len(numbers) == self.num_numbers and 1 <= min(numbers) and max(numbers) <= self.max_number
        fits = fits and self.min_target <= target <= self.max_target
        if not fits or solve(numbers, target, self.operations) is None:
            raise _refuse(prompt, self.prompt_format)

    def parse_answer(self, text: str) -> str | None:
        """Return the expression that `text` is, without spaces, or `None` if it is none or has no value."""
        expression = read_expression(text, self.operations)
        return None if expression is None else expression.text

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Return a report of one step, the expression; consistent means that it has numbers and value of the reference."""
        expression, reference = read_expression(text, self.operations), read_expression(target, self.operations)
        if expression is None or reference is None:
            return ChainReport(num_steps=1, num_correct_steps=0, is_consistent=False)
        is_same = expression.text == reference.text
        is_right = (expression.numbers, expression.value) == (reference.numbers, reference.value)
        return ChainReport(num_steps=1, num_correct_steps=int(is_same), is_consistent=is_right)

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` makes the target out of exactly the given numbers, be it in the way of `answer` or not."""
        numbers, target = _read_prompt(prompt)
        expression = read_expression(text, self.operations)
        return expression is not None and (expression.numbers, expression.value) == (tuple(sorted(numbers)), target)

    def _list(self, split: str, seed: int, count: int) -> list[tuple[tuple[int, ...], int]]:
        """Return numbers and target of the first problems of `split`, at least `count` unless there are fewer."""
        if (split, seed) not in self._listed:
            self._listed[split, seed] = [], self._instances(split, seed)
        listed, more = self._listed[split, seed]
        listed += islice(more, max(0, count - len(listed)))
        return listed

    def _instances(self, split: str, seed: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield every problem of `split`: one with each set of numbers, in seeded order, then another with each."""
        key = f"{self.name}/{split}/{seed}"
        size = math.comb(self.max_number + self.num_numbers - 1, self.num_numbers)
        sets = (self._numbers_at(shuffled(place, size, key)) for place in range(size))
        left = ((numbers, self._targets(numbers, split, key)) for numbers in sets)
        while left:
            again = []
            for numbers, targets in left:
                if targets:
                    yield numbers, targets.pop()
                    again.append((numbers, targets))
            left = again

    def _numbers_at(self, place: int) -> tuple[int, ...]:
        """Return number `place` of all sets of numbers, each in ascending order and some numbers alike."""
        numbers: list[int] = []
        value = 1
        while len(numbers) < self.num_numbers:
            missing = self.num_numbers - len(numbers) - 1
            count = math.comb(self.max_number - value + missing, missing)  # of those that go on with this value
            if place < count:
                numbers.append(value)
            else:
                place, value = place - count, value + 1
        return tuple(numbers)

    def _targets(self, numbers: tuple[int, ...], split: str, key: str) -> list[int]:
        """Return what can be made of `numbers` in a problem of `split`, in an order that `key` chooses."""
        found = [
            target
            for target in solve_all(numbers, self.operations)
            if self.min_target <= target <= self.max_target and self.split_of(_write_prompt(numbers, target)) == split
        ]
        random.Random(f"{key}/{numbers}").shuffle(found)
        return found


@checked
def read_countdown_jsonl(path: str | Path) -> list[Problem]:
    """Return the problems of a file with lines such as `{"input": "19,36,55", "output": "72"}`, as d1's test set has.

    A task with numbers up to 100 may have them in its training split: those are unseen for which
    `task.split_of(task.canonical(problem.prompt))` is `"test"`.

    Args:
        path (`str` or `Path`): the file.

    Raises:
        ValueError: for a line that holds no problem, or one without a solution; the message names it.
    """
    problems = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            prompt = f"{row['input']}={row['output']}"
            expression = solve(*_read_prompt(prompt))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"`path` {str(path)!r} holds no problem in line {number}, {line!r}: {error}") from error
        if expression is None:
            raise ValueError(f"`path` {str(path)!r} holds a problem without a solution in line {number}, {line!r}.")
        problems.append(Problem(prompt=prompt, target=expression, answer=expression))
    return problems


def _write_prompt(numbers: Sequence[int], target: int, in_order: bool = False) -> str:
    return f"{','.join(map(str, sorted(numbers) if in_order else numbers))}={target}"


def _read_prompt(
    prompt: str, expected: str = "numbers and a target, written like '19,26,5=12'"
) -> tuple[list[int], int]:
    if re.fullmatch(f"{NUMBER}(,{NUMBER})*={NUMBER}", prompt) is None:
        raise _refuse(prompt, expected)
    numbers, _, target = prompt.partition("=")
    return [int(number) for number in numbers.split(",")], int(target)


def _refuse(prompt: str, expected: str) -> ValueError:
    shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
    return ValueError(f"`prompt` has to be {expected}, but is {shown!r}.")
