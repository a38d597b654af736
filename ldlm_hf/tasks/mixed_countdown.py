"""Countdown with problems of two, three or four numbers in one data set, each solved in a way drawn from all there are.

Where every chain has as many steps, a model that decides when to stop has nothing to learn, so the number of numbers varies
from row to row. Where a problem always has the same solution, a model is taught to give one, so training rows of the same
problem, which come again with their numbers rearranged, are solved in different ways. Any right way counts, and the splits
are those of the task `countdown`: by numbers and target, whatever their order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

from .countdown import Countdown
from .countdown_solutions import solutions
from .task import Problem, check_place


OPERATIONS = ("+-", "+-*")  # the laws that make two expressions one solution are those of whole numbers


class MixedCountdown(Countdown):
    """Make a number out of two, three or four others, in any way."""

    name = "mixed_countdown"

    def __init__(
        self,
        num_numbers: Sequence[int] = (2, 3, 3, 3),
        max_number: int = 12,
        operations: str = "+-*",
        train_size: int = 60_000,
        heldout_size: int = 1_000,
    ) -> None:
        """Make the task.

        Args:
            num_numbers (`Sequence[int]`, *optional*, defaults to `(2, 3, 3, 3)`): how many numbers row after row has, 2
                to 4, over and over; one that stands there twice comes up twice as often.
            max_number (`int`, *optional*, defaults to 12): the largest number.
            operations (`str`, *optional*, defaults to `"+-*"`): the signs that may be used: `"+-"` or `"+-*"`.
            train_size (`int`, *optional*, defaults to 60000): rows of the training split, in which problems come again.
            heldout_size (`int`, *optional*, defaults to 1000): problems of the other two, each once, unless they have
                fewer.

        Raises:
            ValueError: for no or other `num_numbers`, other `operations`, or a `max_number` or size below 1.
        """
        if not num_numbers:
            raise ValueError("`num_numbers` has to hold at least one of 2, 3 and 4, but is empty.")
        if operations not in OPERATIONS:
            raise ValueError(f"`operations` has to be one of {OPERATIONS}, but is {operations!r}.")
        settings = {"max_number": max_number, "operations": operations, "train_size": train_size}
        self._tasks = {size: Countdown(size, **settings) for size in dict.fromkeys(num_numbers)}
        super().__init__(max(num_numbers), **settings, heldout_size=heldout_size)
        self.num_numbers = tuple(num_numbers)
        sizes = " or ".join(map(str, sorted(self._tasks)))
        self.prompt_format = f"{sizes}{self.prompt_format.removeprefix(str(max(num_numbers)))}"
        for task in self._tasks.values():
            task.prompt_format = self.prompt_format

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`; those that are held out come once, and then all of them again.

        Raises:
            ValueError: for a `split` that has no problem with so many numbers.
        """
        check_place(split, index)
        if split == "train":
            place, size, number = self._training_place(index)
        else:
            listed = self._list(split, seed, index + 1)
            place, size, number = listed[index % len(listed)]
        prompt = self._tasks[size].problem(split, number, seed).prompt
        expression = random.Random(f"{split}/{seed}/{place}").choice(solutions(prompt, self.operations))
        return Problem(prompt=prompt, target=expression, answer=expression)

    def num_problems(self, split: str) -> int:
        """Return how many problems make a data set of `split`: in training as the constructor was told, as they come again."""
        return self._sizes[split] if split == "train" else super().num_problems(split)

    def kind(self, prompt: str) -> str:
        """Return how many numbers there are."""
        return f"{_size(prompt)} numbers"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` is a problem within the bounds of this task that has a solution."""
        # With a number of numbers that there is no task for, any of them refuses it.
        self._tasks.get(_size(prompt), self._tasks[self.num_numbers[0]]).check_prompt(prompt)

    def split_of(self, canonical: str) -> str:
        """Return the split of the task `countdown`, whose problems these are."""
        return self._tasks[self.num_numbers[0]].split_of(canonical)

    def _training_place(self, index: int) -> tuple[int, int, int]:
        """Return place, number of numbers, and which of the problems with as many; worked out, as there is no end to list."""
        rounds, turn = divmod(index, len(self.num_numbers))
        size = self.num_numbers[turn]
        return index, size, rounds * self.num_numbers.count(size) + self.num_numbers[:turn].count(size)

    def _instances(self, split: str, seed: int) -> Iterator[tuple[int, int, int]]:
        """Yield place, number of numbers, and which of the problems with as many, of a split that is held out."""
        given, left = dict.fromkeys(self._tasks, 0), {*self._tasks}
        for place in count():
            size = self.num_numbers[place % len(self.num_numbers)]
            number, given[size] = given[size], given[size] + 1
            # The first of each whether there is one or not: `problem` then says that there is none.
            if 0 < number >= len(self._tasks[size]._list(split, seed, number + 1)):
                left.discard(size)
            if not left:
                return
            if size in left:
                yield place, size, number


def _size(prompt: str) -> int:
    return prompt.count(",") + 1
