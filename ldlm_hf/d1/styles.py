"""What the style of an answer to a Sudoku is worth (`ldlm_hf/tasks/styled_sudoku.py`): a reward, and figures of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import checked
from ..llada.pipeline_inputs import Messages
from ..tasks import StyledSudoku
from ..tasks.sudoku import NUM_CELLS, solutions
from .scoring import column_of, text_of


STYLE_SCORE = 0.5


@checked
def style_reward(
    prompts: Sequence[str | Messages],
    completions: Sequence[str | Messages],
    answer: Sequence[str],
    **columns,
) -> list[float]:
    """Return 0.5 for the graded style, and the share of the cells that are right in it, given ones too; 0 for another style.

    Args:
        prompts (`Sequence[str | Messages]`): not looked at.
        completions (`Sequence[str | Messages]`): what was written.
        answer (`Sequence[str]`): the solutions.
        columns: not looked at.
    """
    scores = []
    for completion, solution in zip(completions, column_of("answer", answer, completions), strict=True):
        digits = StyledSudoku().parse_answer(text_of(completion))
        cells = zip(digits or "", solution, strict=False)
        scores.append(0.0 if digits is None else STYLE_SCORE + sum(a == b for a, b in cells) / NUM_CELLS)
    return scores


@checked
def style_figures(texts: Sequence[str], prompts: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return means over answers to Sudokus: how many are in the graded style, of how many all is right, and which share of cells.

    `cell_accuracy` is that of the blanks, 0 in another style; `cell_accuracy_in_style` is the mean over answers in the style;
    `solved_in_either_style` reads the other style as well: what is known, however it is written.

    Args:
        texts (`Sequence[str]`): what was written.
        prompts (`Sequence[str]`): the puzzles.
        answers (`Sequence[str]`): their solutions.
    """
    if not len(texts) or not len(texts) == len(prompts) == len(answers):
        raise ValueError(
            f"`texts`, `prompts` and `answers` have to be as many, at least one, but are {len(texts)}, {len(prompts)} and "
            f"{len(answers)}."
        )
    task = StyledSudoku()
    graded = [task.parse_answer(text) for text in texts]
    cells = [task.partial_score(*row) for row in zip(texts, prompts, answers, strict=True)]
    solved = [digits in solutions(prompt) for digits, prompt in zip(graded, prompts, strict=True)]
    known = [task.read_either_style(text) in solutions(prompt) for text, prompt in zip(texts, prompts, strict=True)]
    in_style = [score for score, digits in zip(cells, graded, strict=True) if digits is not None]
    return {
        "graded_style": len(in_style) / len(texts),
        "cell_accuracy": sum(cells) / len(texts),
        "cell_accuracy_in_style": sum(in_style) / max(1, len(in_style)),
        "solved": sum(solved) / len(texts),
        "solved_in_either_style": sum(known) / len(texts),
        "num_problems": len(texts),
    }
