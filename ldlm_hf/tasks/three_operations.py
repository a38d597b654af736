"""Three one-digit numbers and two operations, brackets around the last two: GPT-3's one-digit composite (paper, Table 3).

GPT-3's example is `6+(4*8)` (Brown et al. 2020, §3.9.1). The paper shows no chain; this one works out the brackets, then
the tens and the units apart, then the sum: target `38 6+32 30+8 38`, a negative number in brackets, as in
`10 3-(-7) 0+10 10`. It holds out no problems; here two problems that differ only in the order of what the brackets add or
multiply are always in one split.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from itertools import product

from .task import ChainReport, EnumeratedTask, Problem


CHAINS = ("by_place", "short")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LARGEST_BRACKET = 81  # 9*9


class ThreeOperations(EnumeratedTask):
    """Work out `a op (b op c)` with one-digit numbers and `op` among `+`, `-`, `*`; 9,000 problems."""

    name = "three_operations"
    prompt_format = "three one-digit numbers, the last two in brackets, joined by '+', '-' or '*', such as '6+(4*8)'"
    held_out = (
        "the split is by problem: no held-out problem, nor the same with the numbers\n"
        "swapped that its brackets add or multiply, is in the training data."
    )
    answer_pattern = "0|-?[1-9][0-9]{0,2}"

    def __init__(
        self, chain_form: str = "by_place", answer_position: str = "first", with_two_digits: bool = False
    ) -> None:
        """Make the task.

        Args:
            chain_form (`str`, *optional*, defaults to `"by_place"`): `"by_place"` works out tens and units apart once the
                brackets are gone, so that every step needs small numbers only; `"short"` goes to the answer at once.
            answer_position (`str`, *optional*, defaults to `"first"`): `"first"` puts the answer before the chain, as
                the paper does; `"last"` leaves only the chain, whose last step is the answer.
            with_two_digits (`bool`, *optional*, defaults to `False`): whether the training split also holds 15,240 problems
                with a number of two digits in the brackets, which come to 81 at most: every product, such as `7*(3*18)`,
                and the number and 0. Without them hardly anything shows how to multiply and to add what has three
                digits. The other splits stay the same.

        Raises:
            ValueError: for an unknown `chain_form` or `answer_position`.
        """
        super().__init__(answer_position)
        if chain_form not in CHAINS:
            raise ValueError(f"`chain_form` has to be one of {CHAINS}, but is {chain_form!r}.")
        self.chain_form = chain_form
        self.with_two_digits = with_two_digits

    def instances(self) -> Iterator[tuple[int, str, int, str, int]]:
        """Yield number, sign, number, sign, number of every problem."""
        return product(range(10), OPERATIONS, range(10), OPERATIONS, range(10))

    def extra_instances(self) -> Iterator[tuple[int, str, int, str, int]]:
        """Yield the problems with a number of two digits in the brackets, if they are wanted."""
        if not self.with_two_digits:
            return
        numbers = range(10, LARGEST_BRACKET + 1)
        brackets = [(b, sign, 0) for b in numbers for sign in "+-"] + [(0, "+", c) for c in numbers]
        for number, other in product(numbers, range(1, 10)):
            if number * other <= LARGEST_BRACKET:
                brackets += [(number, "*", other), (other, "*", number)]
        for a, outer, bracket in product(range(10), OPERATIONS, brackets):
            yield a, outer, *bracket

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
        if self.chain_form == "by_place":
            tens, units = _places(a, outer, bracket)
            chain.insert(1, f"{tens}{units:+d}")
        words = [answer, *chain] if self.answer_position == "first" else chain
        return Problem(prompt=f"{a}{outer}({b}{inner}{c})", target=" ".join(words), answer=answer)

    def words(self) -> list[str]:
        """Return every number that a chain or answer can hold, and every sign."""
        numbers = {
            str(abs(value)) for problem in map(self.make, self.instances()) for value in _numbers(problem.target)
        }
        return [*sorted(numbers, key=int), *OPERATIONS, "(", ")"]

    def kind(self, prompt: str) -> str:
        """Return the two operations, such as `a+(b*c)`."""
        self.check_prompt(prompt)
        return f"a{prompt[1]}(b{prompt[4]}c)"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` has the form `a op (b op c)`."""
        if re.fullmatch(r"[0-9][-+*]\([0-9][-+*][0-9]\)", prompt) is None:
            raise self.refuse(prompt)

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference step by step; consistent means that each works out to the answer."""
        steps, reference = self.chain(text), self.chain(target)
        correct = sum(step == wanted for step, wanted in zip(steps, reference, strict=False))
        values = [_value(step) for step in steps]
        answer = self.parse_answer(text)
        agree = answer is not None and all(str(value) == answer for value in values)
        consistent = agree and len(steps) == len(reference) and steps[-1:] == [answer]
        return ChainReport(num_steps=len(reference), num_correct_steps=correct, is_consistent=consistent)


def _places(a: int, outer: str, number: int) -> tuple[int, int]:
    """Return what the tens and the units of `number` make of `a`; they add up to `a outer number`."""
    tens, units = int(number / 10) * 10, number - int(number / 10) * 10
    return (a * tens, a * units) if outer == "*" else (OPERATIONS[outer](0, tens), OPERATIONS[outer](a, units))


def _value(step: str) -> int | None:
    """Return the value of a number, or of two numbers joined by a sign; `None` for anything else."""
    found = re.fullmatch(r"(-?[0-9]{1,3})(?:([-+*])([0-9]{1,3}|\(-[0-9]{1,3}\)))?", step)
    if found is None:
        return None
    return OPERATIONS[found[2]](int(found[1]), int(found[3].strip("()"))) if found[2] else int(found[1])


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", text)]
