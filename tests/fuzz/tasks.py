"""Tasks: their arguments, their problems, whatever a model may write, and the files that benchmarks are read from."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

from ldlm_hf.tasks import Task, get_task, read_countdown_jsonl, read_sudoku_csv
from ldlm_hf.tasks.benchmark import read_rows
from ldlm_hf.tasks.sudoku import chance_levels, solutions
from ldlm_hf.tasks.task import SPLITS

from .entry_points import EntryPoint
from .strategies import mostly, texts


POSITIONS = st.sampled_from(["first", "last"])
SMALL = {"train_size": st.integers(0, 9), "heldout_size": st.integers(0, 9)}
ARGUMENTS: dict[str, dict[str, st.SearchStrategy]] = {  # of the tasks that make their problems
    "addition": {"min_terms": st.integers(1, 3), "max_terms": st.integers(1, 3), "answer_position": POSITIONS},
    "two_digit_addition": {"answer_position": POSITIONS},
    "three_operations": {
        "answer_position": POSITIONS,
        "with_two_digits": st.booleans(),
    },
    "rotation": {},
    "sudoku": {"num_blanks": mostly(st.integers(1, 5), st.integers(-1, 13)), **SMALL},
    "styled_sudoku": {"num_blanks": st.integers(1, 4), "graded_share": st.floats(0, 1), **SMALL},
    "styled_latin_squares": {"num_blanks": st.integers(1, 4), "graded_share": st.floats(0, 1), **SMALL},
    "countdown": {
        "num_numbers": st.integers(1, 3),
        "max_number": st.integers(0, 12),
        "min_target": st.integers(0, 9),
        "max_target": st.integers(0, 30),
        "operations": st.sampled_from(["+-", "+-*", "+-*/", "*"]),
        **SMALL,
    },
    "styled_countdown": {
        "num_numbers": st.integers(1, 3),
        "max_number": st.integers(0, 9),
        "graded_share": st.floats(-0.5, 1.5),
        **SMALL,
    },
    "mixed_countdown": {
        "num_numbers": st.lists(st.integers(2, 3), max_size=3),
        "max_number": st.integers(1, 12),
        "operations": st.sampled_from(["+-", "+-*"]),
        **SMALL,
    },
}
ROW_VALUES = st.none() | st.integers(-1, 9) | texts(20) | st.lists(texts(9), max_size=5)
ROW_KEYS = (
    *(
        "question",
        "answer",
        "problem",
        "solution",
        "choices",
        "answerKey",
        "instruction",
        "label",
        "Question",
        "Best Answer",
    ),
    *("Incorrect Answers", "prompt", "canonical_solution", "test", "entry_point"),
)
QUESTIONS = mostly(st.just("What is it?"), texts(20))
ROWS = {  # by benchmark: what a row has to hold
    "gsm8k": {"question": QUESTIONS, "answer": st.builds("{} #### {}".format, texts(9), st.integers(-99, 9999))},
    "math500": {"problem": QUESTIONS, "solution": texts(20), "answer": texts(9)},
    "arc_challenge": {
        "question": QUESTIONS,
        "choices": st.just({"text": ["a", "b", "c"], "label": ["A", "B", "C"]}),
        "answerKey": st.sampled_from("ABCD"),
    },
    "truthful_qa": {
        "question": QUESTIONS,
        "choices": st.lists(texts(9), min_size=2, max_size=6),
        "label": st.integers(-1, 6),
    },
    "human_eval": {
        "prompt": st.just("def f(x):\n"),
        "canonical_solution": texts(9),
        "test": st.just("def check(f): pass"),
        "entry_point": st.sampled_from(["f", "g", "("]),
    },
}


@lru_cache(maxsize=32)
def small_task(name: str) -> Task:
    """Return a task that makes its problems, with small numbers of them."""
    few = dict.fromkeys(("countdown", "mixed_countdown", "styled_countdown"), {"max_number": 9})
    small = {"addition": {"max_terms": 3}, **few}
    return get_task(name, **small.get(name, {}))


def task(name: str) -> Task:
    """Return the same, made once; of what is no name, whatever `get_task` makes of it."""
    return (small_task if name in ARGUMENTS else get_task)(name)


def first_problems(name: str, split: str, index: int, seed: int, **arguments) -> tuple:
    """Return a problem of a task that is made with arguments, and the task."""
    made = get_task(name, **arguments)
    return made.problem(split, index, seed), made


@st.composite
def places(draw) -> dict:
    """Return a task, its arguments and the place of a problem."""
    name = draw(st.sampled_from(sorted(ARGUMENTS)))
    arguments = draw(st.fixed_dictionaries({}, optional=ARGUMENTS[name]))
    place = {"split": draw(st.sampled_from(SPLITS)), "index": draw(mostly(st.integers(0, 30), st.integers(-2, 10**9)))}
    return {"name": name, **place, "seed": draw(st.integers(-1, 2**40)), **arguments}


def solved_by_its_target(found: tuple, arguments: dict) -> None:
    """The prompt is one of the task, and the target gives the answer, which is right."""
    problem, made = found
    made.check_prompt(problem.prompt)
    answer = made.parse_answer(problem.target)
    assert answer == problem.answer or arguments["name"].startswith("styled")
    assert made.is_correct(problem.target, problem.prompt, problem.answer) == (answer is not None)
    assert made.partial_score(problem.target, problem.prompt, problem.answer) in (None, 1.0, float(answer is not None))
    report = made.check_chain(problem.target, problem.target)
    assert report.num_correct_steps == report.num_steps


def read(name: str, text: str, prompt: str, answer: str) -> tuple:
    """Return all that a task says about what was written."""
    reader = task(name)
    verdicts = (reader.is_correct(text, prompt, answer), reader.partial_score(text, prompt, answer))
    return reader.parse_answer(text), reader.check_chain(text, answer), *verdicts, reader.kind(prompt)


@st.composite
def writings(draw) -> dict:
    """Return whatever a model may write to a problem, or to what is none."""
    name = draw(st.sampled_from(sorted(ARGUMENTS)))
    problem = task(name).problem("test", draw(st.integers(0, 9)))
    return {
        "name": name,
        "text": draw(texts() | st.just(problem.target)),
        "prompt": draw(mostly(st.just(problem.prompt), texts())),
        "answer": draw(mostly(st.just(problem.answer), texts(18))),
    }


def verdicts(found: tuple, arguments: dict) -> None:
    """An answer is a text or none, a verdict yes or no, a score a share."""
    answer, report, is_correct, score, kind = found
    assert answer is None or isinstance(answer, str)
    assert isinstance(is_correct, bool) and isinstance(kind, str | None)
    assert score is None or 0 <= score <= 1
    assert 0 <= report.num_correct_steps <= max(report.num_steps, 0)


def check_prompt(name: str, prompt: str) -> None:
    """Let a task look at what may be a prompt."""
    task(name).check_prompt(prompt)


def accepted(found: None, arguments: dict) -> None:
    """What is accepted as a prompt can be answered."""
    assert isinstance(task(arguments["name"]).is_correct("", arguments["prompt"], ""), bool)


def from_file(name: str, suffix: str, content: str, split: str) -> Task:
    """Return a benchmark whose file holds some text."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "validation", "test"):
            (Path(folder) / f"{part}{suffix}").write_text(content, encoding="utf-8", errors="replace")
        made = get_task(name, path=f"{folder}/{{split}}{suffix}")
        made.check_prompt(made.problem(split, 0).prompt)
        return made


@st.composite
def files(draw) -> dict:
    """Return rows of a benchmark, some of them spoiled, or what is no such file."""
    name = draw(st.sampled_from(sorted(ROWS)))
    right = st.fixed_dictionaries(ROWS[name])
    wrong = st.dictionaries(st.sampled_from(ROW_KEYS), ROW_VALUES, max_size=4)
    rows = draw(st.lists(mostly(right, wrong), min_size=1, max_size=3))
    content = draw(
        mostly(st.just("\n".join(map(json.dumps, rows))), texts() | st.just("[1, 2]") | st.just("[" * 99999))
    )
    suffix = draw(mostly(st.just(".jsonl"), st.sampled_from([".json", ".csv", ".txt"])))
    return {
        "name": name,
        "suffix": suffix,
        "content": content,
        "split": draw(mostly(st.just("test"), st.sampled_from([*SPLITS, "x"]))),
    }


def has_problems(found: Task, arguments: dict) -> None:
    """A benchmark that was read has a problem."""
    assert found.num_problems(arguments["split"]) > 0


def problems_of_a_file(reader: str, content: str) -> list:
    """Return what a reader of files makes of some text."""
    readers = {"countdown": read_countdown_jsonl, "sudoku": read_sudoku_csv, "rows": read_rows}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8", errors="replace") as path:
        path.write(content)
        path.flush()
        return readers[reader](path.name)


CONTENTS = st.one_of(
    texts(),
    st.builds(
        '{{"input": "{}", "output": "{}"}}'.format, st.sampled_from(["1,2", "3,5,7", "x", ""]), st.integers(-1, 20)
    ),
    st.builds(
        "Puzzle,Solution\n{},{}".format,
        st.text("01234", min_size=15, max_size=16),
        st.text("1234", min_size=15, max_size=16),
    ),
    st.lists(st.sampled_from(['{"a": 1}', "[]", "1", "null", '"x"', "{", "\ufeff", ""]), max_size=3).map("\n".join),
)
ENTRIES = [
    EntryPoint(
        "get_task",
        first_problems,
        places(),
        solved_by_its_target,
        grows=("min_terms", "max_terms", "max_number", "index"),
        also=("task",),
        covers=("Task", "Problem"),
    ),
    EntryPoint(
        "Task: what a model writes",
        read,
        writings(),
        verdicts,
        spoiled=("text", "prompt", "answer"),
        also=("target",),
        share=2,
    ),
    EntryPoint(
        "Task.check_prompt",
        check_prompt,
        writings().map(lambda drawn: {name: drawn[name] for name in ("name", "prompt")}),
        accepted,
        spoiled=("prompt",),
    ),
    EntryPoint("Benchmark", from_file, files(), has_problems, spoiled=("split",), also=("path",)),
    EntryPoint(
        "read_countdown_jsonl, read_sudoku_csv, read_rows",
        problems_of_a_file,
        st.fixed_dictionaries({"reader": st.sampled_from(["countdown", "sudoku", "rows"]), "content": CONTENTS}),
        lambda found, _: isinstance(found, list),
        spoiled=(),
        also=("path",),
    ),
    EntryPoint(
        "sudoku.solutions",
        solutions,
        st.fixed_dictionaries({"puzzle": st.text("01234", min_size=15, max_size=16)}),
        lambda f, _: len(f) <= 288,
    ),
    EntryPoint(
        "sudoku.chance_levels",
        chance_levels,
        st.fixed_dictionaries(
            {
                "problems": st.lists(
                    st.integers(0, 99).map(lambda index: task("sudoku").problem("test", index)), max_size=2
                )
            }
        ),
        lambda levels, _: 0 <= levels.row_completion_solved <= 1,
        share=0.3,
    ),
]
