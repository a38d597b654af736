"""What the style of an answer to a Sudoku or Countdown is worth (`ldlm_hf/tasks/styles.py`): a reward, and figures of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import checked
from ..llada.pipeline_inputs import Messages
from ..tasks import StyledCountdown, StyledSudoku, StyledTask
from ..tasks.countdown_solver import read_expression
from ..tasks.sudoku import NUM_CELLS
from .scoring import column_of, text_of


STYLE_SCORE = 0.5


@checked
def style_reward(
    prompts: Sequence[str | Messages],
    completions: Sequence[str | Messages],
    answer: Sequence[str],
    **columns,
) -> list[float]:
    """Return 0.5 for the graded style, and up to 1 for what is right in it; 0 for another style.

    Right in a Sudoku is the share of the cells that equal the solution, given ones too; in Countdown all or nothing, any expression
    with the numbers and the value of the answer, by any of the four operations.

    Args:
        prompts (`Sequence[str | Messages]`): not looked at.
        completions (`Sequence[str | Messages]`): what was written.
        answer (`Sequence[str]`): the solutions; an expression is one of Countdown.
        columns: not looked at.
    """
    scores = []
    for completion, solution in zip(completions, column_of("answer", answer, completions), strict=True):
        task = _task_of(solution)
        written = task.parse_answer(text_of(completion))
        if written is None:
            scores.append(0.0)
        elif isinstance(task, StyledCountdown):
            made, asked = read_expression(written), read_expression(solution)
            scores.append(STYLE_SCORE + float((made.numbers, made.value) == (asked.numbers, asked.value)))
        else:
            cells = zip(written, solution, strict=False)
            scores.append(STYLE_SCORE + sum(a == b for a, b in cells) / NUM_CELLS)
    return scores


@checked
def style_figures(
    texts: Sequence[str], prompts: Sequence[str], answers: Sequence[str], task: StyledTask | None = None
) -> dict[str, float]:
    """Return means over answers to Sudokus, or to Countdown: how many are in the graded style, and in how many all is right.

    `solved_in_either_style` reads the other style as well: what is known, however it is written. Of Sudokus there is also which
    share of cells is right: `cell_accuracy` is that of the blanks, 0 in another style; `cell_accuracy_in_style` is the mean over
    answers in the style.

    Args:
        texts (`Sequence[str]`): what was written.
        prompts (`Sequence[str]`): the problems, all of one task.
        answers (`Sequence[str]`): their solutions.
        task ([`StyledTask`], *optional*): says what is right, such as by which operations; by default Sudoku, or Countdown by all
            four, whichever the first answer is one of.
    """
    if not len(texts) or not len(texts) == len(prompts) == len(answers):
        raise ValueError(
            f"`texts`, `prompts` and `answers` have to be as many, at least one, but are {len(texts)}, {len(prompts)} and "
            f"{len(answers)}."
        )
    task, rows = task or _task_of(answers[0]), list(zip(texts, prompts, answers, strict=True))
    is_graded = [task.parse_answer(text) is not None for text in texts]
    figures = {"graded_style": sum(is_graded) / len(rows)}
    if isinstance(task, StyledSudoku):
        cells = [task.partial_score(*row) for row in rows]
        in_style = [score for score, graded in zip(cells, is_graded, strict=True) if graded]
        figures["cell_accuracy"] = sum(cells) / len(rows)
        figures["cell_accuracy_in_style"] = sum(in_style) / max(1, len(in_style))
    return {
        **figures,
        "solved": sum(task.is_correct(*row) for row in rows) / len(rows),
        "solved_in_either_style": sum(task.is_correct_in_either_style(*row) for row in rows) / len(rows),
        "num_problems": len(rows),
    }


def _task_of(answer: str) -> StyledTask:
    """Return the task whose answer this is: an expression of several numbers is one of Countdown."""
    expression = read_expression(answer)
    return StyledCountdown() if expression is not None and len(expression.numbers) > 1 else StyledSudoku()
