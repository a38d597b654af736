"""Whether an answer is right, why, and whether the model has seen the problem in training; every task checks for itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ldlm_hf.tasks import Countdown, EnumeratedTask, Problem, Sudoku, Task
from ldlm_hf.tasks.countdown_solver import find_solutions, read_expression
from ldlm_hf.tasks.sudoku import BOXES, COLUMNS, DIGITS, ROWS, solutions


@dataclass(frozen=True)
class Check:
    """One thing that was checked: a sentence, and whether it holds."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Verdict:
    """What is known about an answer.

    Attributes:
        is_correct (`bool`): whether it is right.
        right_answer (`str`): the right one, or one of them.
        checks (`tuple[Check, ...]`): why.
        origin (`str`): whether the problem was held out of the training.
    """

    is_correct: bool
    right_answer: str
    checks: tuple[Check, ...]
    origin: str


class Judge:
    """Knows the right answer to one problem.

    Args:
        task ([`Task`]): one whose problems can be worked out: an [`EnumeratedTask`], a Sudoku or Countdown.
        prompt (`str`): the problem, in the form that `task.check_prompt` wants.

    Raises:
        ValueError: for a prompt that is no problem of the task, or a task that has to be given its answers.
    """

    def __init__(self, task: Task, prompt: str) -> None:
        """Work the problem out."""
        task.check_prompt(prompt)
        self.task = task
        self.problem, self.is_held_out = _work_out(task, prompt)

    def is_right(self, text: str) -> bool:
        """Return whether a text answers the problem."""
        return self.task.is_correct(text, self.problem.prompt, self.problem.answer)

    def verdict(self, text: str) -> Verdict:
        """Return what is to be said about a text that answers the problem."""
        if isinstance(self.task, Sudoku):
            checks = _check_grid(self.task.parse_answer(text), self.problem)
        elif isinstance(self.task, Countdown):
            checks = _check_expression(text, self.problem, self.task.operations)
        else:
            checks = _check_chain(self.task, text, self.problem)
        subject = "Its solution" if isinstance(self.task, Sudoku) else "The problem"
        origin = f"{subject} was {'held out of the' if self.is_held_out else 'among the problems of the'} training."
        return Verdict(self.is_right(text), self.problem.answer, tuple(checks), origin)


def is_true_equation(text: str) -> bool | None:
    """Return whether a text such as `9*4=36` is a true equation; `None` where it is no equation."""
    sides = [read_expression(side) for side in text.split("=")]
    return sides[0].value == sides[1].value if len(sides) == 2 and None not in sides else None


def _work_out(task: Task, prompt: str) -> tuple[Problem, bool]:
    """Return the problem with its right answer, and whether it was held out."""
    if isinstance(task, EnumeratedTask) and not task.truncates:
        instance = _instances(task)[prompt]
        return task.make(instance), task.split_of(task.canonical(instance)) != "train"
    if isinstance(task, Sudoku):
        found = solutions(prompt)
        return Problem(prompt, found[0], found[0]), all(task.split_of(grid) != "train" for grid in found)
    if isinstance(task, Countdown):
        numbers, _, target = prompt.partition("=")
        simplest = find_solutions([int(number) for number in numbers.split(",")], int(target), task.operations)[0]
        return Problem(prompt, simplest, simplest), task.split_of(task.canonical(prompt)) != "train"
    raise ValueError(f"The page cannot work out problems of the task {task.name!r}.")


@lru_cache(maxsize=8)
def _instances(task: EnumeratedTask) -> dict[str, tuple]:
    return {task.make(instance).prompt: instance for instance in task.instances()}


def _check_chain(task: Task, text: str, problem: Problem) -> list[Check]:
    answer, report = task.parse_answer(text), task.check_chain(text, problem.target)
    right, count = report.num_correct_steps, report.num_steps
    return [
        Check(f"The answer is {answer or 'missing'}; right is {problem.answer}.", answer == problem.answer),
        Check(f"{right} of {count} steps of its reasoning are right.", right == count),
        Check(f"Its reasoning is {'' if report.is_consistent else 'not '}consistent.", report.is_consistent),
    ]


def _check_grid(grid: str | None, problem: Problem) -> list[Check]:
    if grid is None:
        return [Check("It is no grid of 16 digits from 1 to 4.", False)]
    keeps = all(given in ("0", digit) for given, digit in zip(problem.prompt, grid, strict=True))
    checks = [Check(f"The digits given are {'kept' if keeps else 'not kept'}.", keeps)]
    for name, groups in (("rows", ROWS), ("columns", COLUMNS), ("boxes", BOXES)):
        full = sum({grid[cell] for cell in group} == set(DIGITS) for group in groups)
        checks.append(Check(f"{full} of 4 {name} hold 1, 2, 3 and 4.", full == 4))
    return checks


def _check_expression(text: str, problem: Problem, operations: str) -> list[Check]:
    expression = read_expression(text, operations)
    if expression is None:
        return [Check("It is no expression that can be worked out.", False)]
    given, _, target = problem.prompt.partition("=")
    uses = expression.numbers == tuple(sorted(map(int, given.split(","))))
    return [
        Check(f"It comes to {expression.value}; wanted is {target}.", expression.value == int(target)),
        Check(f"It {'uses' if uses else 'does not use'} each of the given numbers exactly once.", uses),
    ]
