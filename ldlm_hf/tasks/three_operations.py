"""Three one-digit numbers and two operations, brackets around the last two: GPT-3's one-digit composite (paper, Table 3).

GPT-3's example is `6+(4*8)` (Brown et al. 2020, §3.9.1); the paper shows no chain, and this is the natural one: target
`38 6+32 38`, a negative result in brackets, as in `10 3-(-7) 10`. It holds out no problems; here two problems that differ
only in the order of what the brackets add or multiply are always in one split.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from itertools import product

from .task import ChainReport, EnumeratedTask, Problem


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class ThreeOperations(EnumeratedTask):
    """Work out `a op (b op c)` with one-digit numbers and `op` among `+`, `-`, `*`; 9,000 problems."""

    name = "three_operations"
    prompt_format = "three one-digit numbers, the last two in brackets, joined by '+', '-' or '*', such as '6+(4*8)'"
    answer_pattern = "0|-?[1-9][0-9]{0,2}"

    def instances(self) -> Iterator[tuple[int, str, int, str, int]]:
        """Yield number, sign, number, sign, number of every problem."""
        return product(range(10), OPERATIONS, range(10), OPERATIONS, range(10))

    def canonical(self, instance: tuple[int, str, int, str, int]) -> str:
        """Return the problem with the smaller number first in brackets where their order does not matter."""
        a, outer, b, inner, c = instance
        b, c = (b, c) if inner == "-" else sorted((b, c))
        return f"{a}{outer}({b}{inner}{c})"

    def make(self, instance: tuple[int, str, int, str, int]) -> Problem:
        """Return the problem that works out the brackets, then the rest."""
        a, outer, b, inner, c = instance
        bracket = OPERATIONS[inner](b, c)
        answer = str(OPERATIONS[outer](a, bracket))
        chain = [f"{a}{outer}{bracket}" if bracket >= 0 else f"{a}{outer}({bracket})", answer]
        words = [answer, *chain] if self.answer_position == "first" else chain
        return Problem(prompt=f"{a}{outer}({b}{inner}{c})", target=" ".join(words), answer=answer)

    def words(self) -> list[str]:
        """Return every number that a chain or answer can hold, and every sign."""
        numbers = {str(abs(value)) for problem in map(self.make, self.instances()) for value in _numbers(problem.target)}
        return [*sorted(numbers, key=int), *OPERATIONS, "(", ")"]

    def kind(self, prompt: str) -> str:
        """Return the two operations, such as `a+(b*c)`."""
        return f"a{prompt[1]}(b{prompt[4]}c)"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` has the form `a op (b op c)`."""
        if re.fullmatch(r"[0-9][-+*]\([0-9][-+*][0-9]\)", prompt) is None:
            raise self.refuse(prompt)

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference step by step; consistent means that the rest works out to the answer."""
        steps, reference = self.chain(text), self.chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        rest = re.fullmatch(r"([0-9])([-+*])(\(-[0-9]\)|[0-9]{1,2})", steps[0]) if len(steps) == 2 else None
        consistent = False
        if rest is not None:
            value = OPERATIONS[rest[2]](int(rest[1]), int(rest[3].strip("()")))
            consistent = steps[1] == self.parse_answer(text) == str(value)
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", text)]
