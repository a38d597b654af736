r"""Rewards of d1, as pure functions of texts in TRL's dialect: `f(prompts, completions, **columns) -> list[float]`.

The form that d1 teaches is `<reasoning>…</reasoning>` and `<answer>…</answer>`, each tag on a line of its own. Nothing that a model
writes is run as code, but by [`make_code_reward`], in a process of its own.

What differs from the published code:

* A box is found. There `"\boxed"` is written with a single backslash, which Python reads as a backspace.
* Numbers are compared by value: `1,200` and `$1200.00` are right where 1200 is.
* Arithmetic is read from a syntax tree; there it is run, so that `9**9**9` hangs the training.
* A Sudoku can be rewarded for the given cells too, which a policy that is not rewarded for them comes to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..arguments import check_option, checked, shown
from ..llada.pipeline_inputs import Messages
from ..tasks import Task, are_equal_answers, parse_number, run_tests
from ..tasks.answers import last_boxed, numeric_answer, tagged_answer
from ..tasks.sudoku import NUM_CELLS
from .scoring import RewardFunction, column_of, text_of


Prompts = Completions = Sequence[str | Messages]
TAG_LINES = ("<reasoning>\n", "\n</reasoning>\n", "\n<answer>\n", "\n</answer>")
JOINT = re.compile(r"</reasoning>\s*+<answer>")
STRICT_JOINT = "\n</reasoning>\n<answer>\n"
BLOCK = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*?)```", re.DOTALL)
TRAILING_PENALTY = 0.001  # for each character
CELLS = ("blank", "all")


@checked
def format_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    """Return 1 for each completion that is reasoning and answer between tags and nothing else, else 0.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    return [float(_is_whole(text_of(completion))) for completion in completions]


@checked
def soft_format_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    """Return d1's 0.5 for each completion with reasoning and answer between tags, whatever is around them.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    return [0.5 * _is_somewhere(text_of(completion)) for completion in completions]


@checked
def strict_format_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    """Return d1's 0.5 for each completion of exactly the form, every tag on its own line.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    return [0.5 * _is_strict(text_of(completion)) for completion in completions]


@checked
def tag_count_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    """Return d1's 0.125 for each of the four tags that is there once, on its own line, less 0.001 for what follows, a character.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    scores = []
    for text in map(text_of, completions):
        score = 0.125 * sum(text.count(line) == 1 for line in TAG_LINES)
        behind = text.rpartition(TAG_LINES[-1])[2].strip() if text.count(TAG_LINES[-1]) == 1 else ""
        scores.append(score - TRAILING_PENALTY * len(behind))
    return scores


@checked
def integer_answer_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    """Return d1's 0.5 for each completion whose answer, between tags, is an integer.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    answers = [tagged_answer(text_of(completion)) for completion in completions]
    numbers = [None if answer is None else parse_number(answer) for answer in answers]
    return [0.5 * (number is not None and number.denominator == 1) for number in numbers]


@checked
def gsm8k_reward(prompts: Prompts, completions: Completions, answer: Sequence[str], **columns) -> list[float]:
    """Return d1's 2.0 for each completion whose answer, in a box or between tags, is the number it should be.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        answer (`Sequence[str]`): the right numbers, or solutions with them behind `####`.
        columns: not looked at.
    """
    scores = []
    for text, right in zip(map(text_of, completions), column_of("answer", answer, completions), strict=True):
        stated = last_boxed(text) or tagged_answer(text)
        number = numeric_answer(right.rpartition("####")[2])
        scores.append(2.0 * (stated is not None and number is not None and numeric_answer(stated) == number))
    return scores


@checked
def math_reward(prompts: Prompts, completions: Completions, answer: Sequence[str], **columns) -> list[float]:
    """Return d1's 2.0 for each completion whose last box holds what it should.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        answer (`Sequence[str]`): the right answers, or solutions with them in their last box.
        columns: not looked at.
    """
    scores = []
    for text, right in zip(map(text_of, completions), column_of("answer", answer, completions), strict=True):
        stated = last_boxed(text)
        scores.append(2.0 * (stated is not None and are_equal_answers(stated, last_boxed(right) or right)))
    return scores


@checked
def boxed_format_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
    r"""Return 1.0 for an answer between tags with a `\boxed{}` in it, 0.75 for tags only, 0.5 for a box only, else 0.25.

    Args:
        prompts (`Prompts`): not looked at.
        completions (`Completions`): texts or conversations.
        columns: not looked at.
    """
    scores = []
    for text in map(text_of, completions):
        answer = tagged_answer(text)
        has_box = last_boxed(text if answer is None else answer) is not None
        scores.append(0.5 * (answer is not None) + (0.5 if has_box else 0.25))
    return scores


@checked
def make_countdown_reward(task: Task, tags: bool = True, attempt_score: float = 0.1) -> RewardFunction:
    """Return d1's reward for Countdown, `countdown_reward`: 1 for a right expression, little for another answer, 0 for none.

    The function takes the column `problem`, such as `"19,36,55=72"`, or `nums` and `target` as Hub data sets have them; without
    either the prompt is the problem.

    Args:
        task ([`Task`]): a [`Countdown`], which says what is right.
        tags (`bool`, *optional*, defaults to `True`): take the answer from between tags, not the text as a whole.
        attempt_score (`float`, *optional*, defaults to 0.1): for an answer that is wrong.
    """

    @checked
    def countdown_reward(prompts: Prompts, completions: Completions, **columns) -> list[float]:
        if "nums" in columns:
            pairs = zip(columns["nums"], columns["target"], strict=True)
            problems = [f"{','.join(map(str, numbers))}={target}" for numbers, target in pairs]
        else:
            problems = columns.get("problem", prompts)
        problems = column_of("problem", problems, completions)
        scores = []
        for completion, problem in zip(completions, problems, strict=True):
            answer = _answer(text_of(completion), tags)
            is_right = answer is not None and _is_right(task, answer, problem, "")
            scores.append(1.0 if is_right else attempt_score * (answer is not None))
        return scores

    return countdown_reward


@checked
def make_sudoku_reward(cells: str = "blank", tags: bool = True) -> RewardFunction:
    """Return the share of the cells of 4x4 Sudokus that are as in the solution, `sudoku_reward`.

    The function takes the columns `answer`, the solution, and `problem`, the puzzle with 0 for a blank; without the latter the
    prompt is the puzzle. As in d1 the digits of an answer are cut to 16, and cells that are missing are wrong.

    Args:
        cells (`str`, *optional*, defaults to `"blank"`): which count: d1's `"blank"` ones, or `"all"`, the given ones too.
        tags (`bool`, *optional*, defaults to `True`): take the answer from between tags, not the text as a whole.

    Raises:
        ValueError: for other `cells`.
    """
    check_option("cells", cells, CELLS)

    @checked
    def sudoku_reward(
        prompts: Prompts,
        completions: Completions,
        answer: Sequence[str],
        problem: Sequence[str] | None = None,
        **columns,
    ) -> list[float]:
        scores = []
        puzzles = column_of("problem", problem or prompts, completions)
        solutions = column_of("answer", answer, completions)
        for completion, puzzle, solution in zip(completions, puzzles, solutions, strict=True):
            if len(puzzle) != NUM_CELLS or len(solution) != NUM_CELLS or (cells != "all" and "0" not in puzzle):
                raise ValueError(
                    f"`problem` and `answer` have to hold puzzles with blanks and solutions, {NUM_CELLS} digits each, but hold "
                    f"{puzzle!r} and {solution!r}."
                )
            counting = [cell for cell in range(NUM_CELLS) if cells == "all" or puzzle[cell] == "0"]
            digits = re.sub("[^0-9]", "", _answer(text_of(completion), tags) or "")
            scores.append(sum(digits[cell : cell + 1] == solution[cell] for cell in counting) / len(counting))
        return scores

    return sudoku_reward


@checked
def make_task_reward(task: Task, tags: bool = False) -> RewardFunction:
    """Return the reward 1 for a right answer, else 0, of any task, under the task's name: `addition_reward`.

    The function takes the columns `answer` and `problem`; without the latter the prompt is the problem.

    Args:
        task ([`Task`]): says what is right.
        tags (`bool`, *optional*, defaults to `False`): take the answer from between tags, not the text as a whole.
    """

    @checked
    def reward(
        prompts: Prompts,
        completions: Completions,
        answer: Sequence[str],
        problem: Sequence[str] | None = None,
        **columns,
    ) -> list[float]:
        answers = [_answer(text_of(completion), tags) for completion in completions]
        problems = column_of("problem", problem or prompts, completions)
        rows = zip(answers, problems, column_of("answer", answer, completions), strict=True)
        return [float(stated is not None and _is_right(task, stated, *row)) for stated, *row in rows]

    reward.__name__ = f"{task.name}_reward"
    return reward


@checked
def make_code_reward(allow_execution: bool = False, timeout: float = 5.0, memory_mb: int = 512) -> RewardFunction:
    """Return the share of the unit tests that the program in a completion passes, `code_reward`; of one without program, 0.

    The program is the last block between backquotes, or else what is between answer tags. The function takes the column
    `tests`, a list of pieces of code for each completion, each of which is run behind the program and fails by raising. They are
    run in a process of their own ([`run_tests`]), where the program cannot fake their success.

    Args:
        allow_execution (`bool`, *optional*, defaults to `False`): whether programs that a model has written may be run on this
            machine. See `tasks/programs.py` for what is promised and what not.
        timeout (`float`, *optional*, defaults to 5.0): seconds for a test.
        memory_mb (`int`, *optional*, defaults to 512): most memory of a program in MiB.

    Raises:
        ValueError: unless `allow_execution` is `True`.
    """
    if not allow_execution:
        raise ValueError(
            "`allow_execution` is False, but to reward a program it has to be run on this machine; say `allow_execution=True` "
            "where that is safe, such as in a container without network."
        )

    @checked
    def code_reward(
        prompts: Prompts, completions: Completions, tests: Sequence[Sequence[str]], **columns
    ) -> list[float]:
        scores = []
        if len(tests) != len(completions) or not all(tests):
            raise ValueError(f"`tests` has to hold a test or more for each of {len(completions)} completions.")
        for completion, own in zip(completions, tests, strict=True):
            program = _program(text_of(completion))
            passed = [program is not None and _passes(program, test, timeout, memory_mb) for test in own]
            scores.append(sum(passed) / len(passed))
        return scores

    return code_reward


REWARDS: dict[str, RewardFunction] = {  # by name, for recipes
    "format": format_reward,
    "soft_format": soft_format_reward,
    "strict_format": strict_format_reward,
    "tag_count": tag_count_reward,
    "integer_answer": integer_answer_reward,
    "gsm8k": gsm8k_reward,
    "math": math_reward,
    "boxed_format": boxed_format_reward,
}
REWARD_MAKERS: dict[str, Callable[..., RewardFunction]] = {  # by name, for recipes that give arguments
    "countdown": make_countdown_reward,
    "sudoku": make_sudoku_reward,
    "task": make_task_reward,
    "code": make_code_reward,
}


# The form as regular expressions would take time that grows with the square of a text that repeats its tags, or the cube.


def _is_whole(text: str) -> bool:
    """Return whether a text is reasoning and answer between tags, and nothing else but white space."""
    text = text.strip()
    inside = text.removeprefix("<reasoning>").removesuffix("</answer>")
    return len(text) - len(inside) == len("<reasoning></answer>") and JOINT.search(inside) is not None


def _is_somewhere(text: str) -> bool:
    """Return whether a text holds reasoning and answer between tags."""
    _, tag, behind = text.partition("<reasoning>")
    joint = JOINT.search(behind) if tag else None
    return joint is not None and "</answer>" in behind[joint.end() :]


def _is_strict(text: str) -> bool:
    """Return whether a text is reasoning and answer between tags on lines of their own, and nothing else."""
    text = text.removesuffix("\n")
    inside = text.removeprefix(TAG_LINES[0]).removesuffix(TAG_LINES[3])
    return len(text) - len(inside) == len(TAG_LINES[0] + TAG_LINES[3]) and STRICT_JOINT in inside


def _is_right(task: Task, stated: str, problem: str, answer: str) -> bool:
    """Return the verdict of a task; an error names the column, as tasks call it otherwise."""
    try:
        return task.is_correct(stated, problem, answer)
    except ValueError as error:
        raise ValueError(f"`problem` {shown(problem)} is none of the task {task.name!r}: {error}") from error


def _answer(text: str, tags: bool) -> str | None:
    return tagged_answer(text) if tags else text.strip() or None


def _program(text: str) -> str | None:
    blocks = BLOCK.findall(text)
    return blocks[-1] if blocks else tagged_answer(text)


def _passes(program: str, tests: str, timeout: float, memory_mb: int) -> bool:
    result = run_tests(program, tests, timeout=timeout, memory_mb=memory_mb)
    return result.passed and result.finished  # leaving early is no way to pass
