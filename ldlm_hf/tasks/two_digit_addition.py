"""Two-digit addition: GPT-3's 2D+, two integers below 100 (paper, Table 2; Brown et al. 2020, §3.9.1).

The paper shows no chain for it; this one splits the sum by place, since that is what there is to reason about: prompt
`47+35`, target `82 12+70 82`. It holds out no problems; here `47+35` and `35+47` are always in one split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from .task import ChainReport, EnumeratedTask, Problem


FIRST_PLACES = ("units", "tens")


class TwoDigitAddition(EnumeratedTask):
    """Add two integers from 0 to 99; 10,000 problems."""

    name = "two_digit_addition"
    prompt_format = "two integers from 0 to 99 joined by '+', such as '47+35'"
    held_out = (
        "the split is by the pair of numbers: no held-out problem, nor the same with\n"
        "its numbers swapped, is in the training data."
    )
    answer_pattern = "[0-9]{1,3}"

    def __init__(self, first_place: str = "units", answer_position: str = "first") -> None:
        """Make the task.

        Args:
            first_place (`str`, *optional*, defaults to `"units"`): which sum the chain writes first, that of the `"units"`
                (`12+70`) or that of the `"tens"` (`70+12`).
            answer_position (`str`, *optional*, defaults to `"first"`): `"first"` puts the answer before the chain, as
                the paper does; `"last"` leaves only the chain, whose last step is the answer.

        Raises:
            ValueError: for an unknown `first_place` or `answer_position`.
        """
        super().__init__(answer_position)
        if first_place not in FIRST_PLACES:
            raise ValueError(f"`first_place` has to be one of {FIRST_PLACES}, but is {first_place!r}.")
        self.first_place = first_place

    def instances(self) -> Iterator[tuple[int, int]]:
        """Yield both numbers of every problem."""
        return product(range(100), repeat=2)

    def canonical(self, instance: tuple[int, int]) -> str:
        """Return the sum with the smaller number first."""
        return "+".join(map(str, sorted(instance)))

    def make(self, instance: tuple[int, int]) -> Problem:
        """Return the problem that adds the two numbers in this order."""
        one, other = instance
        places = [one % 10 + other % 10, one // 10 * 10 + other // 10 * 10]
        parts = places if self.first_place == "units" else places[::-1]
        answer = str(one + other)
        chain = ["+".join(map(str, parts)), answer]
        words = [answer, *chain] if self.answer_position == "first" else chain
        return Problem(prompt=f"{one}+{other}", target=" ".join(words), answer=answer)

    def words(self) -> list[str]:
        """Return every number and sign that a prompt or target can hold."""
        return [*map(str, range(199)), "+"]

    def kind(self, prompt: str) -> str:
        """Return whether the units carry."""
        self.check_prompt(prompt)
        one, other = map(int, prompt.split("+"))
        return "with a carry" if one % 10 + other % 10 > 9 else "without a carry"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` adds two integers from 0 to 99, written without leading zeros."""
        if re.fullmatch(r"([1-9]?[0-9])\+([1-9]?[0-9])", prompt) is None:
            raise self.refuse(prompt)

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference step by step; consistent means that the sums by place add up to the answer."""
        steps, reference = self.chain(text), self.chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        parts = re.fullmatch(r"([0-9]{1,3})\+([0-9]{1,3})", steps[0]) if len(steps) == 2 else None
        consistent = parts is not None and steps[1] == self.parse_answer(text) == str(sum(map(int, parts.groups())))
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)
