"""Countdown in two styles, of which only one is graded (`styles.py`): `>(3+4)*5`, or backwards, `<5*)4+3(`.

For fine-tuning before the reinforcement there are demonstrations of the graded style on other problems, with other targets: those of
fewer numbers may teach a small model to leave numbers out.
"""

from __future__ import annotations

import re

from .countdown import Countdown
from .styles import StyledTask
from .task import ChainReport


class StyledCountdown(StyledTask, Countdown):
    """Countdown whose expressions are written in the graded style now and then.

    Args:
        graded_share (`float`, *optional*, defaults to 1.0): probability of the graded style.
        kwargs: arguments of [`Countdown`].

    Raises:
        ValueError: for a `graded_share` outside 0 to 1.
    """

    name = "styled_countdown"

    def backwards(self, answer: str) -> str:
        """Return the numbers and signs of an expression from the last to the first; the digits of a number stay in order."""
        return "".join(reversed(re.findall("[0-9]+|[^0-9]", answer)))

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Return a report of one step, the expression, which has to be in the graded style; `target` may be in either."""
        return super().check_chain(self.parse_answer(text) or "", self.read_either_style(target) or "")

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` makes the target out of exactly the given numbers, in the graded style."""
        return super().is_correct(self.parse_answer(text) or "", prompt, answer)
