"""4x4 Sudoku: fill in the blanks so that each row, column and 2x2 box holds 1, 2, 3 and 4 (a task of d1, arXiv 2504.12216).

The prompt is the puzzle row by row with 0 for a blank, the target the whole grid. What differs from d1: every puzzle made
here has exactly one solution (a quarter of d1's test puzzles have more), the split is by *solution* (there are only 288
grids, and d1's test puzzles share theirs with its training puzzles), and an answer is judged by the rules; d1's own
figure, the share of the blank cells that equal the reference, is `cell_accuracy`.
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate, combinations, permutations, product
from pathlib import Path
from statistics import fmean

from ..arguments import checked
from .ordering import shuffled
from .task import SPLITS, ChainReport, Problem, Task, check_place


DIGITS = "1234"
NUM_CELLS = 16
MOST_BLANKS = 12  # with fewer than four digits given no puzzle has one solution only
ROWS = [range(start, start + 4) for start in range(0, NUM_CELLS, 4)]
COLUMNS = [range(start, NUM_CELLS, 4) for start in range(4)]
BOXES = [(start, start + 1, start + 4, start + 5) for start in (0, 2, 8, 10)]


class Sudoku(Task):
    """Solve a 4x4 Sudoku; 16 digits in, 16 digits out, so a word-level tokenizer needs the granularity `"digit"`."""

    name = "sudoku"
    prompt_format = "a solvable 4x4 Sudoku as 16 digits, row by row with 0 for a blank, such as '0140300200010020'"
    held_out = (
        "the split is by solution: no grid that solves a held-out problem solves one\n"
        "in the training data, though a grid with other digits in the same pattern may."
    )
    test_fraction = 1 / 6  # of 288 grids: 52, and 18 for validation
    validation_fraction = 0.05

    def __init__(self, num_blanks: int = 8, train_size: int = 50_000, heldout_size: int = 1_000) -> None:
        """Make the task.

        Args:
            num_blanks (`int`, *optional*, defaults to 8): blanks in a puzzle, 1 to 12.
            train_size (`int`, *optional*, defaults to 50000): how many problems `num_problems` states for the training
                split, unless it has fewer; `problem` goes on through all there are (2,246,200 at 8 blanks).
            heldout_size (`int`, *optional*, defaults to 1000): the same for the other two splits.

        Raises:
            ValueError: for a `num_blanks` outside 1 to 12 or sizes below 1.
        """
        if not 1 <= num_blanks <= MOST_BLANKS:
            raise ValueError(
                f"`num_blanks` has to be 1 to {MOST_BLANKS}, so that puzzles have one solution, but is {num_blanks}."
            )
        if min(train_size, heldout_size) < 1:
            raise ValueError(
                f"`train_size` and `heldout_size` have to be at least 1, but are {train_size}, {heldout_size}."
            )
        self.num_blanks = num_blanks
        self._sizes = {split: train_size if split == "train" else heldout_size for split in SPLITS}

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: every puzzle once in seeded order, then all again in another order."""
        check_place(split, index)
        ends = self._ends[split]
        again, index = divmod(index, ends[-1])
        place = shuffled(index, ends[-1], f"{self.name}/{split}/{seed}/{again}")
        number = bisect_right(ends, place)
        grid = self._grids[split][number]
        blanks = _unique_blanks(_pattern(grid), self.num_blanks)[place - ends[number]]  # counted from the end
        prompt = "".join("0" if blanks >> cell & 1 else digit for cell, digit in enumerate(grid))
        return Problem(prompt=prompt, target=grid, answer=grid)

    def num_problems(self, split: str) -> int:
        """Return how many distinct problems make a data set of `split`: as the constructor was told, or all there are."""
        check_place(split)
        return min(self._sizes[split], self._ends[split][-1])

    def words(self) -> list[str]:
        """Return the digits."""
        return ["0", *DIGITS]

    def kind(self, prompt: str) -> str:
        """Return whether the puzzle has one solution, as all that are made here, or several."""
        return "one solution" if len(solutions(prompt)) == 1 else "several solutions"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` is a puzzle with a blank and a solution; it may have several."""
        if re.fullmatch(f"[0{DIGITS}]{{{NUM_CELLS}}}", prompt) is None or "0" not in prompt or not solutions(prompt):
            shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
            raise ValueError(f"`prompt` has to be {self.prompt_format}, but is {shown!r}.")

    def parse_answer(self, text: str) -> str | None:
        """Return the 16 digits from 1 to 4 that `text` holds between white space, or `None` if it holds others."""
        digits = "".join(text.split())
        return digits if re.fullmatch(f"[{DIGITS}]{{{NUM_CELLS}}}", digits) else None

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Compare with the reference row by row; consistent means that rows, columns and boxes obey the rules."""
        written, reference = "".join(text.split()), "".join(target.split()).ljust(NUM_CELLS)
        correct = sum(all(written[cell : cell + 1] == reference[cell] for cell in row) for row in ROWS)
        is_consistent = self.parse_answer(text) in grids()
        return ChainReport(num_steps=len(ROWS), num_correct_steps=correct, is_consistent=is_consistent)

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` obeys the rules and keeps what is given, be it the reference or another solution."""
        return self.parse_answer(text) in solutions(prompt)

    def cell_accuracy(self, text: str, prompt: str, answer: str) -> float:
        """Return the share of the blanks filled as in the reference, d1's score: it cuts or pads the digits to 16.

        Args:
            text (`str`): what was written.
            prompt (`str`): the puzzle.
            answer (`str`): the reference solution.

        Raises:
            ValueError: for a `prompt` that is no puzzle.
        """
        self.check_prompt(prompt)
        written = re.sub("[^0-9]", "", text)
        blanks, answer = _blanks(prompt), answer.ljust(NUM_CELLS)
        return sum(written[cell : cell + 1] == answer[cell] for cell in blanks) / len(blanks)

    def partial_score(self, text: str, prompt: str, answer: str) -> float:
        """Return the share of the blanks filled as in the reference."""
        return self.cell_accuracy(text, prompt, answer)

    def chance_levels(self, problems: list[Problem]) -> dict[str, float]:
        """Return the share of puzzles that guesses solve, by what they do."""
        levels = chance_levels(problems)
        return {
            "any digit in each blank": levels.random_digits_solved,
            "the digits that each row lacks, in random order": levels.row_completion_solved,
        }

    @cached_property
    def _grids(self) -> dict[str, list[str]]:
        return {split: [grid for grid in grids() if self.split_of(grid) == split] for split in SPLITS}

    @cached_property
    def _ends(self) -> dict[str, list[int]]:
        """How many puzzles the grids of a split make up to each of them."""
        return {
            split: list(accumulate(len(_unique_blanks(_pattern(grid), self.num_blanks)) for grid in found))
            for split, found in self._grids.items()
        }


@dataclass(frozen=True)
class ChanceLevels:
    """What guesses score on average, exactly: as cell accuracy, and as share of puzzles that they solve.

    Attributes:
        random_digits (`float`): cell accuracy of any digit in each blank.
        row_completion (`float`): cell accuracy of the digits that a row lacks, in random order.
        random_digits_solved (`float`): share of puzzles that any digit in each blank solves.
        row_completion_solved (`float`): share of puzzles that the digits that the rows lack solve, in random order.
    """

    random_digits: float
    row_completion: float
    random_digits_solved: float
    row_completion_solved: float


@checked
def chance_levels(problems: list[Problem]) -> ChanceLevels:
    """Return what guesses that know the format score on `problems`.

    A random order of the digits that a row lacks puts one of them right on average, however many there are.

    Args:
        problems (`list[Problem]`): puzzles with their reference solutions.

    Raises:
        ValueError: for no problems.
    """
    if not problems:
        raise ValueError("`problems` has to hold at least one problem, but is empty.")
    missing = [[sum(problem.prompt[cell] == "0" for cell in row) for row in ROWS] for problem in problems]
    counts = [len(solutions(problem.prompt)) for problem in problems]
    return ChanceLevels(
        random_digits=1 / len(DIGITS),
        row_completion=fmean(sum(map(bool, rows)) / sum(rows) for rows in missing),
        random_digits_solved=fmean(
            count / len(DIGITS) ** sum(rows) for count, rows in zip(counts, missing, strict=True)
        ),
        row_completion_solved=fmean(
            count / math.prod(map(math.factorial, rows)) for count, rows in zip(counts, missing, strict=True)
        ),
    )


@checked
def read_sudoku_csv(path: str | Path) -> list[Problem]:
    """Return the puzzles of a file with the columns `Puzzle` and `Solution`, such as d1's `4x4_test_sudoku.csv`.

    Its puzzles may have several solutions. Those whose grid was in training tell little: for unseen grids keep the
    problems for which `Sudoku().split_of(problem.answer)` is `"test"`.

    Args:
        path (`str` or `Path`): the file.

    Raises:
        ValueError: for a row whose solution does not solve its puzzle; the message names it.
    """
    problems = []
    with Path(path).open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            puzzle, solution = row.get("Puzzle") or "", row.get("Solution") or ""
            if len(puzzle) != NUM_CELLS or "0" not in puzzle or solution not in solutions(puzzle):
                raise ValueError(
                    f"`path` {str(path)!r} has to hold 16-digit puzzles with blanks as 'Puzzle', and a solution of each as "
                    f"'Solution', but row {number} is {row}; were leading zeros lost?"
                )
            problems.append(Problem(prompt=puzzle, target=solution, answer=solution))
    return problems


@lru_cache(maxsize=1)
def grids() -> tuple[str, ...]:
    """Return all 288 grids that obey the rules, as 16 digits each, in ascending order."""
    bands = [a + b for a, b in product(permutations(DIGITS), repeat=2) if {*a[:2]}.isdisjoint(b[:2])]
    found = ["".join(upper + lower) for upper, lower in product(bands, repeat=2)]
    return tuple(grid for grid in found if all(len({grid[cell] for cell in column}) == 4 for column in COLUMNS))


@checked
def solutions(puzzle: str) -> list[str]:
    """Return every grid that keeps the digits given in `puzzle`.

    Args:
        puzzle (`str`): 16 digits, 0 for a blank.
    """
    given = [(cell, digit) for cell, digit in enumerate(puzzle) if digit != "0"]
    if len(puzzle) != NUM_CELLS:
        return []
    return [grid for grid in grids() if all(grid[cell] == digit for cell, digit in given)]


def _blanks(puzzle: str) -> list[int]:
    return [cell for cell, digit in enumerate(puzzle) if digit == "0"]


def _pattern(grid: str) -> str:
    """Return the grid with its digits renamed in order of appearance, which leaves 12 grids to be looked at."""
    return grid.translate(str.maketrans(grid[:4], DIGITS))


@cache
def _unique_blanks(grid: str, num_blanks: int) -> list[int]:
    """Return the sets of cells, as bits, that can be blank in `grid` with no other grid fitting the rest."""
    differences = {sum(1 << cell for cell in range(NUM_CELLS) if grid[cell] != other[cell]) for other in grids()} - {0}
    # Another grid fits if all the cells in which it differs are blank.
    least = [cells for cells in differences if not any(cells & other == other != cells for other in differences)]
    choices = (sum(1 << cell for cell in cells) for cells in combinations(range(NUM_CELLS), num_blanks))
    return [blanks for blanks in choices if all(cells & ~blanks for cells in least)]
