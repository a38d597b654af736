"""What the `evaluate` modules compute, as plain functions; their scripts are thin because `evaluate` copies them away."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import checked
from ..tasks import Task, get_task


@checked
def answer_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    task: str | Task,
    prompts: Sequence[str] | None = None,
    verdicts: Sequence[bool] | None = None,
) -> dict[str, float | int]:
    """Return `answer_accuracy`, `invalid_rate` and `num_problems`.

    Args:
        predictions (`Sequence[str]`): what was written for each problem.
        references (`Sequence[str]`): the target texts, as many.
        task (`str` or [`Task`]): how an answer is read.
        prompts (`Sequence[str]`, *optional*): the problems, as many; needed where a problem has several right answers, as
            in Countdown, unless there are `verdicts`.
        verdicts (`Sequence[bool]`, *optional*): whether each is right, where that was judged before.

    Raises:
        ValueError: for no or unequally many texts, an unknown task, a reference that the task cannot read, or no `prompts`
            where the task needs them.
    """
    task = _check(predictions, references, task)
    for name, given in (("prompts", prompts), ("verdicts", verdicts)):
        if given is not None and len(given) != len(predictions):
            raise ValueError(f"`{name}` has to have one for each of {len(predictions)} texts, but has {len(given)}.")
    if prompts is None and verdicts is None and task.has_several_right_answers:
        raise ValueError(
            f"`prompts` have to be given, since a problem of the task {task.name!r} has several right answers."
        )
    answers = [task.parse_answer(text) for text in predictions]
    wanted = [task.parse_answer(text) for text in references]
    if verdicts is None and prompts is None:
        verdicts = [one == other for one, other in zip(answers, wanted, strict=True)]
    elif verdicts is None:
        verdicts = [task.is_correct(*each) for each in zip(predictions, prompts, wanted, strict=True)]
    return {
        "answer_accuracy": sum(verdicts) / len(answers),
        "invalid_rate": answers.count(None) / len(answers),
        "num_problems": len(answers),
    }


@checked
def chain_scores(predictions: Sequence[str], references: Sequence[str], task: str | Task) -> dict[str, float]:
    """Return `exact_match`, `step_accuracy`, `consistency` and `invalid_output_rate`.

    Args:
        predictions (`Sequence[str]`): what was written for each problem.
        references (`Sequence[str]`): the target texts, as many.
        task (`str` or [`Task`]): what a valid chain is.

    Raises:
        ValueError: for no or unequally many texts, an unknown task, or a reference that the task cannot read.
    """
    task = _check(predictions, references, task)
    pairs = list(zip(predictions, references, strict=True))
    reports = [task.check_chain(text, target) for text, target in pairs]
    num_steps = sum(report.num_steps for report in reports)
    return {
        "exact_match": sum(text.split() == target.split() for text, target in pairs) / len(pairs),
        # Pooled, so that a long chain counts for more than a short one.
        "step_accuracy": sum(report.num_correct_steps for report in reports) / num_steps if num_steps else 1.0,
        "consistency": sum(report.is_consistent for report in reports) / len(reports),
        "invalid_output_rate": sum(task.parse_answer(text) is None for text in predictions) / len(pairs),
    }


def _check(predictions: Sequence[str], references: Sequence[str], task: str | Task) -> Task:
    task = task if isinstance(task, Task) else get_task(task)
    if len(predictions) != len(references) or not references:
        raise ValueError(
            "`predictions` and `references` have to hold equally many texts, at least one, but hold "
            f"{len(predictions)} and {len(references)}."
        )
    for i, text in enumerate(references):
        if task.parse_answer(text) is None or not task.check_chain(text, text).is_consistent:
            raise ValueError(
                f"`references` has to hold target texts of the task {task.name!r}, with answer and chain, but number {i} is "
                f"{text!r}."
            )
    return task
