"""Single-digit additions: 3 to 5 one-digit numbers, the answer first, then the chain (paper, §4.1 and Table 1).

The paper shows no example of its chain ("iteratively add the first two digits"); this is the natural one:
prompt `3+5+2+4`, target `14 8+2+4 10+4 14`. It holds out no problems; here the split is by the *multiset* of the numbers,
so neither a held-out problem nor any re-ordering of it is ever trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from .task import ChainReport, EnumeratedTask, Problem


class Addition(EnumeratedTask):
    """Add `min_terms` to `max_terms` one-digit numbers; 111,000 problems at 3 to 5."""

    name = "addition"
    prompt_format = "3 to 5 one-digit numbers joined by '+', such as '3+5+2+4'"
    held_out = (
        "the split is by the multiset of the numbers: no held-out problem, nor any\n"
        "re-ordering of one, is in the training data."
    )
    answer_pattern = "[0-9]{1,4}"

    def __init__(self, min_terms: int = 3, max_terms: int = 5, answer_position: str = "first") -> None:
        """Make the task.

        Args:
            min_terms (`int`, *optional*, defaults to 3): fewest numbers in a problem, at least 2.
            max_terms (`int`, *optional*, defaults to 5): most numbers in a problem.
            answer_position (`str`, *optional*, defaults to `"first"`): `"first"` puts the answer before the chain, as
                the paper does; `"last"` leaves only the chain, whose last step is the answer.

        Raises:
            ValueError: for an empty range of terms or an unknown `answer_position`.
        """
        super().__init__(answer_position)
        if not 2 <= min_terms <= max_terms:
            raise ValueError(
                f"`min_terms` and `max_terms` have to fulfil 2 <= min_terms <= max_terms, but are {min_terms}, {max_terms}."
            )
        self.min_terms, self.max_terms = min_terms, max_terms
        self.prompt_format = f"{min_terms} to {max_terms} one-digit numbers joined by '+', such as '3+5+2+4'"

    def instances(self) -> Iterator[tuple[int, ...]]:
        """Yield the numbers of every problem."""
        for terms in range(self.min_terms, self.max_terms + 1):
            yield from product(range(10), repeat=terms)

    def canonical(self, instance: tuple[int, ...]) -> str:
        """Return the sum with its numbers in ascending order."""
        return _expression(tuple(sorted(instance)))

    def make(self, instance: tuple[int, ...]) -> Problem:
        """Return the problem that adds the numbers in this order."""
        prompt, chain = _expression(instance), []
        while len(instance) > 1:
            instance = (instance[0] + instance[1], *instance[2:])
            chain.append(_expression(instance))
        words = [chain[-1], *chain] if self.answer_position == "first" else chain
        return Problem(prompt=prompt, target=" ".join(words), answer=chain[-1])

    def words(self) -> list[str]:
        """Return every number and sign that a prompt or target can hold."""
        return [*map(str, range(9 * self.max_terms + 1)), "+"]

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` adds the right number of one-digit numbers."""
        if re.fullmatch(rf"[0-9](\+[0-9]){{{self.min_terms - 1},{self.max_terms - 1}}}", prompt) is None:
            raise self.refuse(prompt)

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference step by step; consistent means that each step follows from the one before it."""
        steps, reference = self.chain(text), self.chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        follows = all(_reduce(before) == after for before, after in zip(steps, steps[1:], strict=False))
        starts = bool(steps) and "+" in steps[0]  # an answer repeated is no derivation
        consistent = starts and follows and steps[-1] == self.parse_answer(text)
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)


def _expression(numbers: tuple[int, ...]) -> str:
    return "+".join(map(str, numbers))


def _reduce(expression: str) -> str | None:
    """Return `expression` with its first two numbers added, or `None` where there is nothing to add."""
    numbers = expression.split("+")
    if len(numbers) < 2 or not all(re.fullmatch(r"[0-9]{1,4}", number) for number in numbers):
        return None
    return "+".join([str(int(numbers[0]) + int(numbers[1])), *numbers[2:]])
