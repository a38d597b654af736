"""MATH-500: 500 problems of the MATH test set, `HuggingFaceH4/MATH-500` (Lightman et al. 2023, arXiv 2305.20050).

The answer of a problem is in canonical form; its target has the published solution, which holds a box of its own, and then
the answer as it is published, in a box.
"""

from __future__ import annotations

from .answers import last_boxed, normalize_answer, tagged_answer, worded_answer
from .benchmark import Benchmark
from .task import Problem


class Math500(Benchmark):
    """Answer a competition problem by a number or expression; for evaluation only."""

    name = "math500"
    prompt_format = "a problem as text with LaTeX that is not empty"
    held_out = "there is a test split only."
    hub = {"path": "HuggingFaceH4/MATH-500"}
    sources = {"test": "test"}

    def make(self, row: dict) -> Problem:
        """Return the problem of a row with `problem`, `solution` and `answer`; without `answer` it is in the solution's box."""
        answer = row["answer"] if "answer" in row else last_boxed(row["solution"])
        if not answer:
            raise ValueError("`answer` or the last box of `solution` has to hold the answer")
        target = self.write_target(row["solution"].strip(), answer)
        return Problem(prompt=row["problem"].strip(), target=target, answer=normalize_answer(answer))

    def parse_answer(self, text: str) -> str | None:
        """Return what is in the last box, else between the answer tags, else after "The answer is"; in canonical form, or `None`."""
        stated = last_boxed(text) or tagged_answer(text) or worded_answer(text)
        return (normalize_answer(stated) or None) if stated else None
