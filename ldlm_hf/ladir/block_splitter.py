"""Chains of thought to blocks: one sentence, line, word or equation becomes one block of latents (paper, §3.1).

A target is cut into chain and answer where the literal text "The answer is" begins, as in the paper, otherwise where a
box at its end begins, and otherwise where the answer of its problem stands at its end. What differs from the paper, whose sentence splitter is unpublished:
the rules here are plain ones, and tasks whose target is a bare expression (Countdown) can have it worked out,
operation by operation.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..arguments import check_field_types, check_integer, check_option, checked
from ..tasks.answers import last_boxed
from ..tasks.countdown_solver import read_expression


MODES = ("sentence", "line", "equation", "word", "expression")
LIST_MARK = re.compile(r"\d{1,2}\.")
ABBREVIATION = re.compile(r"(?:^|\s)(?:e\.g|i\.e|cf|vs|Mr|Mrs|Ms|Dr|St|No|Eq|Fig)\.$")
OPERATORS: dict[type, tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


@dataclass(frozen=True)
class BlockSplitter:
    """How targets become blocks and an answer.

    Args:
        mode (`str`, *optional*, defaults to `"sentence"`): what a block is: a `"sentence"`; a `"line"`; an
            `"equation"`, as divided by commas, semicolons and line breaks; a `"word"`, as the steps of this package's
            own tasks are; or one operation of an arithmetic `"expression"`, worked out: `55+36-19` has the blocks
            `55+36=91` and `91-19=72`.
        answer_prefix (`str`, *optional*, defaults to `"The answer is"`): the answer begins where this stands last.
        pieces_per_block (`int`, *optional*, defaults to 1): sentences, lines, … in a block (paper, Table 7).

    Raises:
        ValueError: for an unknown `mode` or a `pieces_per_block` below 1.
    """

    mode: str = "sentence"
    answer_prefix: str | None = "The answer is"
    pieces_per_block: int = 1

    def __post_init__(self):
        """Check the arguments."""
        check_field_types(self)
        check_option("mode", self.mode, MODES)
        check_integer("pieces_per_block", self.pieces_per_block)

    @checked
    def split(self, chain: str) -> list[str]:
        """Return the blocks of a chain, without the space between them.

        Raises:
            ValueError: if the mode is `"expression"` and the chain is none.
        """
        if self.mode == "expression":
            pieces, joint = self._work_out(chain), ","
        elif self.mode == "sentence":
            pieces, joint = _sentences(chain), " "
        elif self.mode == "line":
            pieces, joint = chain.splitlines(), "\n"
        elif self.mode == "equation":
            pieces, joint = re.split(r"[,;\n]", chain), ","
        else:
            pieces, joint = chain.split(), " "
        pieces = [piece.strip() for piece in pieces if piece.strip()]
        size = self.pieces_per_block
        return [joint.join(pieces[start : start + size]) for start in range(0, len(pieces), size)]

    @checked
    def split_target(self, target: str, answer: str | None = None) -> tuple[list[str], str]:
        """Return the blocks of a target and the text of its answer.

        Args:
            target (`str`): chain and answer.
            answer (`str`, *optional*): the problem's answer, for targets with neither the prefix nor a box at the end.

        Raises:
            ValueError: if the target has no block, or ends in no answer that can be told from its blocks.
        """
        place = target.rfind(self.answer_prefix) if self.answer_prefix else -1
        if place >= 0:
            chain, written = target[:place], target[place:].strip()
        elif box := _closing_box(target):
            chain, written = target[: target.rfind(box)].rstrip().removesuffix("$").removesuffix("<answer>"), box
        elif answer and self.mode == "expression":  # which is what is worked out and the answer at once
            chain, written = target, answer
        elif answer and target.rstrip().endswith(answer.rstrip()):
            chain, written = target.rstrip().removesuffix(answer.rstrip()), answer
        else:
            raise ValueError(
                f"`target` {_shown(target)} has no `answer_prefix` {self.answer_prefix!r}, and does not end in a box or in "
                f"`answer` {answer!r}."
            )
        blocks = self.split(chain)
        if not blocks:
            raise ValueError(f"`target` {_shown(target)} has no chain before its answer {_shown(written)}.")
        return blocks, written

    def _work_out(self, chain: str) -> list[str]:
        try:
            return work_out(chain)
        except ValueError as error:
            raise ValueError(f"`mode` 'expression' finds none to work out in {_shown(chain)}: {error}") from error


@checked
def work_out(expression: str) -> list[str]:
    """Return the operations of an arithmetic expression as equations, in the order in which they are worked out.

    Args:
        expression (`str`): of whole numbers, brackets and `+-*/`; it is parsed, not run.

    Raises:
        ValueError: if it is none, or has no operation.
    """
    if read_expression(expression) is None:
        raise ValueError(f"`expression` has to be an arithmetic expression, but is {_shown(expression)}.")
    steps: list[str] = []
    _work_out(ast.parse(expression.strip(), mode="eval").body, steps)
    if not steps:
        raise ValueError(f"`expression` {_shown(expression)} is a number, which leaves nothing to work out.")
    return steps


def _work_out(node: ast.expr, steps: list[str]) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    left, right = _work_out(node.left, steps), _work_out(node.right, steps)
    sign, apply = OPERATORS[type(node.op)]
    value = apply(left, right)
    steps.append(f"{_number(left)}{sign}{_number(right)}={value}")
    return value


def _closing_box(target: str) -> str | None:
    r"""Return the `\boxed{}` that a target ends with, but for what closes a formula, a sentence or tags; else `None`."""
    end = target.rstrip().removesuffix("</answer>").rstrip(" \n.$")
    box = end[max(end.rfind("\\boxed"), 0) :]
    return box if box == f"\\boxed{{{last_boxed(end)}}}" else None


def _number(value: Fraction) -> str:
    """Return an operand, in brackets where it is no natural number."""
    return str(value) if value >= 0 and value.denominator == 1 else f"({value})"


def _sentences(text: str) -> list[str]:
    """Return the sentences; a line break ends one, a decimal point or the point of an abbreviation does not."""
    sentences: list[str] = []
    for line in text.splitlines():
        begun: list[str] = []
        for piece in re.split(r"(?<=[.!?])\s+", line):
            begun.append(piece)
            if not (ABBREVIATION.search(piece[-5:]) or (len(begun) == 1 and LIST_MARK.fullmatch(piece))):
                sentences.append(" ".join(begun))
                begun = []
        sentences.append(" ".join(begun))
    return sentences


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
