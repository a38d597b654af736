"""GSM8K: word problems of grade school (Cobbe et al. 2021, arXiv 2110.14168), `openai/gsm8k` on the Hub.

A target is the reference solution without its calculator annotations, with the answer in a box instead of after `####`.
The validation split is a part of the published training split, chosen by a hash of the question.
"""

from __future__ import annotations

import re

from .answers import last_boxed, numeric_answer, parse_number, tagged_answer, worded_answer
from .benchmark import Benchmark
from .task import Problem


class Gsm8k(Benchmark):
    """Answer a word problem by a number."""

    name = "gsm8k"
    prompt_format = "a word problem as plain text that is not empty"
    held_out = "the test split is the published one; validation is a part of the published training split."
    hub = {"path": "openai/gsm8k", "name": "main"}
    sources = {"train": "train", "validation": "train", "test": "test"}
    test_fraction = 0.0  # of the training problems
    validation_fraction = 0.05

    def make(self, row: dict) -> Problem:
        """Return the problem of a row with `question` and `answer`, the solution with `#### number` at its end."""
        solution, separator, answer = row["answer"].rpartition("####")
        number = parse_number(answer)
        if not separator or number is None:
            raise ValueError("`answer` has to end in '#### ' and a number")
        solution = re.sub("<<[^<>]*>>", "", solution).strip()
        target = self.write_target(solution, answer.strip().replace(",", ""))
        return Problem(prompt=row["question"].strip(), target=target, answer=str(number))

    def belongs(self, problem: Problem, split: str) -> bool:
        """Return whether a problem is in `split`: the training split of the source serves two."""
        return split == "test" or self.split_of(" ".join(problem.prompt.split())) == split

    def parse_answer(self, text: str) -> str | None:
        """Return the number in the last box, the answer tags, after `####` or "The answer is"; in canonical form, or `None`.

        The first of these that states one counts.
        """
        marked = text.rpartition("####")[2] if "####" in text else None
        for stated in (last_boxed(text), tagged_answer(text), marked, worded_answer(text)):
            number = None if stated is None else numeric_answer(stated)
            if number is not None:
                return number
        return None
