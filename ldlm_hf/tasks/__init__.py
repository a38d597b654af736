"""Tasks by name; to add one, write its file, add its line here and a test (see `ldlm_hf/README.md`)."""

from ..arguments import checked
from .addition import Addition
from .answers import are_equal_answers, normalize_answer, parse_number
from .benchmark import Benchmark
from .continuation import Continuation
from .countdown import Countdown, read_countdown_jsonl
from .gsm8k import Gsm8k
from .human_eval import HumanEval
from .math500 import Math500
from .mixed_countdown import MixedCountdown
from .multiple_choice import ArcChallenge, TruthfulQA
from .programs import ProgramResult, run_program, run_tests
from .reasoning_gym import ReasoningGym
from .rotation import Rotation
from .styled_countdown import StyledCountdown
from .styled_sudoku import StyledLatinSquares, StyledSudoku
from .styles import StyledTask
from .sudoku import Sudoku, read_sudoku_csv
from .task import SPLITS, ChainReport, EnumeratedTask, Problem, Task
from .three_operations import ThreeOperations
from .two_digit_addition import TwoDigitAddition


TASKS: dict[str, type[Task]] = {
    "addition": Addition,
    "two_digit_addition": TwoDigitAddition,
    "three_operations": ThreeOperations,
    "rotation": Rotation,
    "continuation": Continuation,
    "sudoku": Sudoku,
    "styled_sudoku": StyledSudoku,
    "styled_latin_squares": StyledLatinSquares,
    "countdown": Countdown,
    "mixed_countdown": MixedCountdown,
    "styled_countdown": StyledCountdown,
    "gsm8k": Gsm8k,
    "math500": Math500,
    "arc_challenge": ArcChallenge,
    "truthful_qa": TruthfulQA,
    "human_eval": HumanEval,
}
TASK_FAMILIES: dict[str, type[Task]] = {  # what follows the colon in `get_task("family:argument")` is their argument
    "continuation": Continuation,
    "reasoning_gym": ReasoningGym,
}


@checked
def get_task(name: str, **kwargs) -> Task:
    """Return the task of a name.

    Args:
        name (`str`): one of `TASKS`, or `"family:argument"`: `"continuation:texts/*.txt"`,
            `"reasoning_gym:chain_sum"`.
        kwargs: further arguments of the task, such as `answer_position="last"`.

    Raises:
        ValueError: for a name that is none.
    """
    family, separator, argument = str(name).partition(":")
    if separator and family in TASK_FAMILIES and argument:
        return TASK_FAMILIES[family](argument, **kwargs)
    if name not in TASKS:
        families = ", ".join(f"'{family}:...'" for family in TASK_FAMILIES)
        raise ValueError(f"`task` has to be one of {sorted(TASKS)} or {families}, but is {name!r}.")
    return TASKS[name](**kwargs)


__all__ = [
    "SPLITS",
    "TASKS",
    "Addition",
    "ArcChallenge",
    "Benchmark",
    "ChainReport",
    "Continuation",
    "Countdown",
    "EnumeratedTask",
    "Gsm8k",
    "HumanEval",
    "Math500",
    "MixedCountdown",
    "Problem",
    "ProgramResult",
    "ReasoningGym",
    "Rotation",
    "StyledCountdown",
    "StyledLatinSquares",
    "StyledSudoku",
    "StyledTask",
    "Sudoku",
    "Task",
    "ThreeOperations",
    "TruthfulQA",
    "TwoDigitAddition",
    "are_equal_answers",
    "get_task",
    "normalize_answer",
    "parse_number",
    "read_countdown_jsonl",
    "read_sudoku_csv",
    "run_program",
    "run_tests",
]
