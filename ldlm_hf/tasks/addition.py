"""Single-digit additions: 3 to 5 one-digit numbers, the answer first, then the chain (paper, §4.1 and Table 1).

The paper shows no example of its chain ("iteratively add the first two digits"); this is the natural one:
prompt `3+5+2+4`, target `14 8+2+4 10+4 14`. It holds out no problems; here the split is by the *multiset* of the numbers,
so neither a held-out problem nor any re-ordering of it is ever trained on.
"""

from __future__ import annotations

import random
import re
from functools import cached_property, lru_cache
from itertools import product

from .task import SPLITS, ChainReport, Problem, Task


class Addition(Task):
    """Add `min_terms` to `max_terms` one-digit numbers; 111,000 problems at 3 to 5."""

    name = "addition"
    prompt_format = "3 to 5 one-digit numbers joined by '+', such as '3+5+2+4'"

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
        if not 2 <= min_terms <= max_terms:
            raise ValueError(
                f"`min_terms` and `max_terms` have to fulfil 2 <= min_terms <= max_terms, but are {min_terms}, {max_terms}."
            )
        if answer_position not in ("first", "last"):
            raise ValueError(f"`answer_position` has to be 'first' or 'last', but is {answer_position!r}.")
        self.min_terms, self.max_terms, self.answer_position = min_terms, max_terms, answer_position
        self.prompt_format = f"{min_terms} to {max_terms} one-digit numbers joined by '+', such as '3+5+2+4'"

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: every problem once in seeded order, then all again in another order."""
        size = self.num_problems(split)
        order = _order(size, f"{self.name}/{split}/{seed}/{index // size}")
        return self.make(self._splits[split][order[index % size]])

    def num_problems(self, split: str) -> int:
        """Return how many distinct problems `split` holds."""
        return len(self._splits[split])

    def make(self, numbers: tuple[int, ...]) -> Problem:
        """Return the problem that adds `numbers` in this order."""
        prompt, chain = _expression(numbers), []
        while len(numbers) > 1:
            numbers = (numbers[0] + numbers[1], *numbers[2:])
            chain.append(_expression(numbers))
        words = [chain[-1], *chain] if self.answer_position == "first" else chain
        return Problem(prompt=prompt, target=" ".join(words), answer=chain[-1])

    def words(self) -> list[str]:
        """Return every number and sign that a prompt or target can hold."""
        return [*map(str, range(9 * self.max_terms + 1)), "+"]

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` adds the right number of one-digit numbers."""
        pattern = rf"[0-9](\+[0-9]){{{self.min_terms - 1},{self.max_terms - 1}}}"
        if re.fullmatch(pattern, prompt) is None:
            shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
            raise ValueError(f"`prompt` has to be {self.prompt_format}, but is {shown!r}.")

    def parse_answer(self, text: str) -> str | None:
        """Return the first (or last) word of `text` if it is a number."""
        words = text.split()
        if not words:
            return None
        word = words[0] if self.answer_position == "first" else words[-1]
        return word if re.fullmatch(r"[0-9]{1,4}", word) else None

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference step by step; consistent means that each step follows from the one before it."""
        steps, reference = self._chain(text), self._chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        follows = all(_reduce(before) == after for before, after in zip(steps, steps[1:], strict=False))
        starts = bool(steps) and "+" in steps[0]  # an answer repeated is no derivation
        consistent = starts and follows and steps[-1] == self.parse_answer(text)
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)

    def _chain(self, text: str) -> list[str]:
        words = text.split()
        return words[1:] if self.answer_position == "first" else words

    @cached_property
    def _splits(self) -> dict[str, list[tuple[int, ...]]]:
        splits: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
        split_of = lru_cache(maxsize=None)(self.split_of)  # 111,000 problems, 2,937 multisets
        for terms in range(self.min_terms, self.max_terms + 1):
            for numbers in product(range(10), repeat=terms):
                splits[split_of(_expression(tuple(sorted(numbers))))].append(numbers)
        return splits


@lru_cache(maxsize=64)
def _order(size: int, key: str) -> list[int]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return order


def _expression(numbers: tuple[int, ...]) -> str:
    return "+".join(map(str, numbers))


def _reduce(expression: str) -> str | None:
    """Return `expression` with its first two numbers added, or `None` where there is nothing to add."""
    numbers = expression.split("+")
    if len(numbers) < 2 or not all(re.fullmatch(r"[0-9]{1,4}", number) for number in numbers):
        return None
    return "+".join([str(int(numbers[0]) + int(numbers[1])), *numbers[2:]])
