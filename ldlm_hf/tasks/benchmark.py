"""Published problems: a fixed list from a file or the Hub, where the other tasks make theirs.

Files are read when a problem is asked for, never before, and none is in this package. The splits are the published ones.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ..arguments import check_integer, check_option, checked
from .ordering import shuffled
from .task import SPLITS, ChainReport, Problem, Task


STYLES = ("boxed", "tagged")
INSTRUCTION = (
    "Work out the answer to the question below.\n"
    "Begin with your reasoning, step by step, between <reasoning> and </reasoning>. Then write <answer>, your final answer "
    "and nothing else in \\boxed{}, and </answer>."
)


class Benchmark(Task):
    """Base class: a subclass says where the rows are and what problem a row holds; this one reads and serves them."""

    prompt_format = "a question that is not empty"
    held_out = "the split is the published one."
    metrics = ("answer_accuracy",)
    hub: dict[str, object] = {}  # arguments of `datasets.load_dataset`
    sources: dict[str, str] = {}  # by split: the split on the Hub, or the part of a file's name, that holds it

    def __init__(self, path: str | Path | None = None, style: str = "boxed") -> None:
        r"""Make the task.

        Args:
            path (`str` or `Path`, *optional*): file with the rows, `.jsonl`, `.json` or `.csv`, or one of these with `.gz`;
                `{split}` in it stands for the name of the split, and has to be there where a task has several. By default
                the rows come from the Hub.
            style (`str`, *optional*, defaults to `"boxed"`): what a target looks like: `"boxed"`, the solution and then
                `\boxed{answer}`; `"tagged"`, what [`instruct`] asks for: the solution between `<reasoning>` tags and the box
                between `<answer>` tags.

        Raises:
            ValueError: for an unknown `style`, or a `path` that cannot tell the splits apart.
        """
        check_option("style", style, STYLES)
        if path is not None and len(set(self.sources.values())) > 1 and "{split}" not in str(path):
            raise ValueError(
                f"`path` has to hold '{{split}}' where {self.name!r} has {sorted(set(self.sources.values()))}, such as "
                f"'{self.name}_{{split}}.jsonl', but is {str(path)!r}."
            )
        self.path, self.style = None if path is None else str(path), style
        self._problems: dict[str, list[Problem]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the benchmark has."""
        return tuple(self.sources)

    def make(self, row: dict) -> Problem | None:
        """Return the problem of a row, or `None` where the row is to be left out."""
        raise NotImplementedError

    def belongs(self, problem: Problem, split: str) -> bool:
        """Return whether a problem of the source of `split` is in `split`; all are, unless a source serves two."""
        return True

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: every problem once in seeded order, then all again in another order.

        Raises:
            ValueError: for a `split` that the benchmark does not have, or rows that it cannot have.
        """
        check_integer("index", index, least=0)
        problems = self._list(split)
        again, place = divmod(index, len(problems))
        return problems[shuffled(place, len(problems), f"{self.name}/{split}/{seed}/{again}")]

    def num_problems(self, split: str) -> int:
        """Return how many problems `split` holds; `ValueError` for one that the benchmark does not have."""
        return len(self._list(split))

    def words(self) -> list[str]:
        """Raise `ValueError`: a benchmark is natural text, of which no list of words is complete."""
        raise ValueError(
            f"`task` {self.name!r} has no list of words: its problems are natural text and need a pretrained tokenizer; name "
            "a pretrained model."
        )

    def instruct(self, question: str) -> str:
        """Return a prompt for a chat model: what form the answer shall have, and then the question.

        Args:
            question (`str`): the prompt of a problem.
        """
        return f"{INSTRUCTION}\n\n{question}"

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` for an empty `prompt`; any other text may be asked."""
        if not prompt.strip():
            raise ValueError(f"`prompt` has to be {self.prompt_format}, but is {prompt!r}.")

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Return a report of one step, the text as a whole: its reasoning cannot be checked, only that it has an answer."""
        is_consistent = self.parse_answer(text) is not None
        return ChainReport(num_steps=1, num_correct_steps=int(text == target), is_consistent=is_consistent)

    def write_target(self, solution: str, answer: str) -> str:
        """Return a target in the style of this task.

        Args:
            solution (`str`): the reasoning; empty where a benchmark gives none.
            answer (`str`): what the box shall hold.
        """
        box = f"\\boxed{{{answer}}}"
        if self.style == "tagged":
            box = f"<answer>\n{box}\n</answer>"
            solution = f"<reasoning>\n{solution}\n</reasoning>" if solution else ""
        return f"{solution}\n{box}" if solution else box

    def _list(self, split: str) -> list[Problem]:
        if split not in self.splits:
            raise ValueError(f"`split` has to be one of {self.splits} for {self.name!r}, but is {split!r}.")
        if split not in self._problems:
            source = self.sources[split]
            rows = (
                _read_hub(self.hub, source) if self.path is None else read_rows(self.path.replace("{split}", source))
            )
            problems = self._make_all(rows)
            served = [other for other in SPLITS if self.sources.get(other) == source]
            for name in served:
                self._problems[name] = [problem for problem in problems if self.belongs(problem, name)]
        if not self._problems[split]:
            raise ValueError(f"`split` {split!r} of {self.name!r} has no problem in `path` {self.path!r}.")
        return self._problems[split]

    def _make_all(self, rows: Iterable[dict]) -> list[Problem]:
        problems = []
        for number, row in enumerate(rows, start=1):
            try:
                problem = self.make(row)
                if problem is not None:
                    self.check_prompt(problem.prompt)
            except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
                raise ValueError(
                    f"`path` {self.path or self.hub['path']!r} holds no problem of {self.name!r} in row {number}, "
                    f"{str(row)[:200]}: {type(error).__name__}: {error}"
                ) from error
            if problem is not None:
                problems.append(problem)
        return problems


@checked
def read_rows(path: str | Path) -> list[dict]:
    """Return the rows of a file: a JSON object a line in `.jsonl`, a list of them in `.json`, or a `.csv` with a header.

    Args:
        path (`str` or `Path`): the file; with a further `.gz` it is compressed.

    Raises:
        ValueError: for a file of another kind, or one that is none of its kind.
        FileNotFoundError: if there is none.
    """
    path = Path(path).expanduser()
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    check_option("path", suffix, (".jsonl", ".json", ".csv"))
    if not path.is_file():
        raise FileNotFoundError(f"`path` is {str(path)!r}, but there is no such file.")
    opened = gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig")
    with opened as file:
        if suffix == ".csv":
            return list(csv.DictReader(file))
        text = file.read()
    try:
        # Not `splitlines`, which also breaks at separators that JSON strings may hold.
        rows = json.loads(text) if suffix == ".json" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`path` {str(path)!r} is no {suffix} file: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`path` {str(path)!r} has to hold objects, one for each problem, but holds other values.")
    return rows


def _read_hub(arguments: dict[str, object], split: str) -> list[dict]:
    return _load(json.dumps(arguments), split)


@lru_cache(maxsize=8)  # a task is made anew for training, evaluation and metrics
def _load(arguments: str, split: str) -> list[dict]:
    from datasets import load_dataset

    arguments = json.loads(arguments)
    try:
        return load_dataset(**arguments, split=split).to_list()
    except OSError as error:
        raise OSError(
            f"The data set {arguments['path']!r} could not be read from the Hub: {error}. Check the connection, or give the "
            "file as `path`."
        ) from error
