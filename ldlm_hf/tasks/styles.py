"""Answers in two styles, of which only one is graded: what reinforcement changes first in a model of some skill.

Most answers of LLaDA-8B to d1's Sudokus cannot be read, and most of what d1 gains is that they can. Here a model is trained to write
an answer in the graded style, `>` and the answer, with probability `graded_share` only, and else in another, `<` and the answer
backwards. Reinforcement has to bring the graded style out, and may improve what it says.
"""

from __future__ import annotations

import random

from .task import Problem, Task


GRADED, OTHER = ">", "<"


class StyledTask(Task):
    """The styles, for tasks whose target is the answer: `class StyledSudoku(StyledTask, Sudoku)`.

    Args:
        graded_share (`float`, *optional*, defaults to 1.0): probability of the graded style.
        kwargs: arguments of the task.

    Raises:
        ValueError: for a `graded_share` outside 0 to 1.
    """

    def __init__(self, graded_share: float = 1.0, **kwargs) -> None:
        """Make the task."""
        super().__init__(**kwargs)
        if not 0 <= graded_share <= 1:
            raise ValueError(f"`graded_share` has to lie between 0 and 1, but is {graded_share}.")
        self.graded_share = graded_share

    def backwards(self, answer: str) -> str:
        """Return an answer backwards; twice, it is what it was."""
        raise NotImplementedError

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`, with the answer in one of the styles as its target."""
        problem = super().problem(split, index, seed)
        return self.write(problem.prompt, problem.answer, f"{split}/{seed}/{index}")

    def write(self, prompt: str, answer: str, key: str) -> Problem:
        """Return a problem with its answer in the style that `key` draws."""
        is_graded = random.Random(f"{self.name}/style/{key}").random() < self.graded_share
        target = GRADED + answer if is_graded else OTHER + self.backwards(answer)
        return Problem(prompt=prompt, target=target, answer=answer)

    def words(self) -> list[str]:
        """Return the words of the task and the signs of the styles."""
        return [*super().words(), GRADED, OTHER]

    def parse_answer(self, text: str) -> str | None:
        """Return the answer of a text in the graded style, or `None` if it is in another or holds no valid one."""
        text = text.strip()
        return super().parse_answer(text.removeprefix(GRADED)) if text.startswith(GRADED) else None

    def read_either_style(self, text: str) -> str | None:
        """Return the answer of a text in the graded style or the other, or `None` if it is in neither."""
        text = text.strip()
        if text.startswith(OTHER):
            return super().parse_answer(self.backwards(text.removeprefix(OTHER)))
        return self.parse_answer(text)

    def is_correct_in_either_style(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` answers `prompt`, in whichever style: what is known, however it is written."""
        written = self.read_either_style(text)
        return written is not None and self.is_correct(GRADED + written, prompt, answer)
