"""4x4 Sudokus in two styles, of which only one is graded (`styles.py`): `>` and the cells in order, or `<` and the cells backwards.

For fine-tuning before the reinforcement there are demonstrations of the style on other problems, Latin squares that are no Sudokus: were
they Sudokus, more steps on them would beat reinforcement, and say nothing about it.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import permutations

from .styles import StyledTask
from .sudoku import DIGITS, NUM_CELLS, Sudoku, grids
from .task import ChainReport, Problem, check_place


class StyledSudoku(StyledTask, Sudoku):
    """4x4 Sudokus whose solutions are written in the graded style now and then.

    Args:
        graded_share (`float`, *optional*, defaults to 1.0): probability of the graded style.
        kwargs: arguments of [`Sudoku`].

    Raises:
        ValueError: for a `graded_share` outside 0 to 1.
    """

    name = "styled_sudoku"

    def backwards(self, answer: str) -> str:
        """Return the cells from the last to the first."""
        return answer[::-1]

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference row by row; `text` has to be in the graded style, `target` may be in either."""
        return Sudoku().check_chain(self.parse_answer(text) or "", self.read_either_style(target) or "")

    def partial_score(self, text: str, prompt: str, answer: str) -> float:
        """Return the share of the blanks filled as in the reference; 0 for a text that is not in the graded style."""
        digits = self.parse_answer(text)
        return 0.0 if digits is None else self.cell_accuracy(digits, prompt, answer)


class StyledLatinSquares(StyledSudoku):
    """4x4 Latin squares that are no Sudokus, with one solution each, in the same styles: the rules but that of the boxes."""

    name = "styled_latin_squares"
    prompt_format = "a 4x4 Latin square as 16 digits, row by row with 0 for a blank"

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index`; the splits share the squares."""
        check_place(split, index)
        generator = random.Random(f"{self.name}/{split}/{seed}/{index}")
        others = sorted(latin_squares() - set(grids()))  # a set has another order in every process
        while True:
            square = generator.choice(others)
            blanks = generator.sample(range(NUM_CELLS), self.num_blanks)
            prompt = "".join("0" if cell in blanks else digit for cell, digit in enumerate(square))
            if sum(_fits(prompt, other) for other in latin_squares()) == 1:
                return self.write(prompt, square, f"{split}/{seed}/{index}")

    def num_problems(self, split: str) -> int:
        """Return how many problems make a data set of `split`, as the constructor was told."""
        check_place(split)
        return self._sizes[split]

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless some Latin square fits `prompt`."""
        if not any(_fits(prompt, square) for square in latin_squares()):
            raise ValueError(f"`prompt` has to be {self.prompt_format}, but is {prompt!r}.")

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` is a Latin square in the graded style that keeps what is given."""
        square = self.parse_answer(text)
        return square in latin_squares() and _fits(prompt, square)


@cache
def latin_squares() -> frozenset[str]:
    """Return all 576 grids whose rows and columns hold 1, 2, 3 and 4 each."""
    rows, found = list(permutations(DIGITS)), [()]
    for _ in range(4):
        found = [
            (*square, row)
            for square in found
            for row in rows
            if all(digit not in column for digit, column in zip(row, zip(*square, strict=True), strict=False))
        ]
    return frozenset("".join(digit for row in square for digit in row) for square in found)


def _fits(prompt: str, square: str) -> bool:
    return len(prompt) == NUM_CELLS and all(given in ("0", digit) for given, digit in zip(prompt, square, strict=True))
