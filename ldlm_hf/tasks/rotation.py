"""Rotation: turn along a cycle of four directions, back and forth (paper, §4.3 and Table 4).

The cycle is up → down → left → right → up. It starts at `up`, turns as many places as the first number says, then back by
the second, forth by the third, and so on. The target is the final direction, then every direction passed, in order, but
for the last: `1 3` gives `left up down up right`, the paper's own example. It holds out no problems; here all problems
that swap turns of the same sense, which end alike, are in one split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise, product

from .task import ChainReport, EnumeratedTask, Problem


DIRECTIONS = ("up", "down", "left", "right")


class Rotation(EnumeratedTask):
    """Turn `num_turns` times by 0 to 9 places; 10,000 problems at 4 turns."""

    name = "rotation"
    held_out = (
        "the split is by the turns of each sense: no held-out problem, nor the same\n"
        "with turns swapped that go the same way, is in the training data."
    )
    answer_pattern = "|".join(DIRECTIONS)

    def __init__(self, num_turns: int = 4, answer_position: str = "first") -> None:
        """Make the task.

        Args:
            num_turns (`int`, *optional*, defaults to 4): numbers in a problem.
            answer_position (`str`, *optional*, defaults to `"first"`): `"first"` puts the final direction before the ones
                passed, as the paper does; `"last"` writes them all in order.

        Raises:
            ValueError: for a `num_turns` below 1 or an unknown `answer_position`.
        """
        super().__init__(answer_position)
        if num_turns < 1:
            raise ValueError(f"`num_turns` has to be at least 1, but is {num_turns}.")
        self.num_turns = num_turns
        self.prompt_format = f"{num_turns} one-digit numbers with a space between, such as '1 3 0 7'"

    def instances(self) -> Iterator[tuple[int, ...]]:
        """Yield the turns of every problem."""
        return product(range(10), repeat=self.num_turns)

    def canonical(self, instance: tuple[int, ...]) -> str:
        """Return the turns forth in ascending order, then the turns back."""
        forth, back = sorted(instance[::2]), sorted(instance[1::2])
        return f"{' '.join(map(str, forth))}/{' '.join(map(str, back))}"

    def make(self, instance: tuple[int, ...]) -> Problem:
        """Return the problem that turns by these numbers."""
        place, passed = 0, [DIRECTIONS[0]]
        for i, number in enumerate(instance):
            for _ in range(number):
                place += 1 if i % 2 == 0 else -1
                passed.append(DIRECTIONS[place % len(DIRECTIONS)])
        answer = passed[-1]
        words = [answer, *passed[:-1]] if self.answer_position == "first" else passed
        return Problem(prompt=" ".join(map(str, instance)), target=" ".join(words), answer=answer)

    def words(self) -> list[str]:
        """Return the digits and the directions."""
        return [*map(str, range(10)), *DIRECTIONS]

    def kind(self, prompt: str) -> str:
        """Return how many places are passed, in tens."""
        self.check_prompt(prompt)
        places = sum(map(int, prompt.split()))
        return f"{places // 10 * 10} to {places // 10 * 10 + 9} places"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` holds the right number of one-digit numbers."""
        if re.fullmatch(rf"[0-9]( [0-9]){{{self.num_turns - 1}}}", prompt) is None:
            raise self.refuse(prompt)

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference; consistent means a walk from `up`, place by place, that ends in the answer."""
        steps, reference = self.chain(text), self.chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        answer = self.parse_answer(text)
        walk = [*steps, answer] if self.answer_position == "first" else steps
        valid = answer is not None and walk[0] == DIRECTIONS[0] and all(word in DIRECTIONS for word in walk)
        consistent = valid and all(_places_apart(*pair) == 1 for pair in pairwise(walk))
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)


def _places_apart(one: str, other: str) -> int:
    places = abs(DIRECTIONS.index(one) - DIRECTIONS.index(other))
    return min(places, len(DIRECTIONS) - places)
