"""The votes of a question as a table: who voted for what, what came of it, and how it would have come with fewer votes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from .arguments import check_integer, checked
from .voting import leaders, majority_vote, vote_counts


if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame


@dataclass(frozen=True)
class Vote:
    """One candidate of one question.

    Attributes:
        question (`int`): number of the question in its batch.
        candidate (`int`): place of the candidate in the order of preference, which breaks ties.
        block_length (`int` or `tuple[int, ...]`, *optional*): length of its blocks, or of each of them; `None` where a pipeline
            has none.
        seed (`int`): number of its seed, from 0.
        generator_seed (`int`): seeds the generator with which the pipeline alone makes this candidate.
        text (`str`): what it reads as.
        answer (`str`, *optional*): the answer in it, as it stands there.
        key (`str`, *optional*): what is compared; `None` abstains.
        nfe (`int`, *optional*): forward passes that it took.
        score (`float`, *optional*): mean log-likelihood of its tokens, by an estimator of the caller's choice.
        is_empty (`bool`): whether it is nothing but end-of-text tokens.
    """

    question: int
    candidate: int
    block_length: int | tuple[int, ...] | None
    seed: int
    generator_seed: int
    text: str
    answer: str | None
    key: str | None
    nfe: int | None = None
    score: float | None = None
    is_empty: bool = False


class VoteTable(Sequence[Vote]):
    """The votes of a batch of questions, sorted by question and candidate.

    Args:
        votes (`Sequence[Vote]`): those that were cast; an early end leaves out the rest.
        tie (`str`, *optional*, defaults to `"first"`): rule by which ties are broken, as for [`majority_vote`].
    """

    @checked
    def __init__(self, votes: Sequence[Vote], tie: str = "first") -> None:
        """Sort the votes."""
        self.tie = tie
        self._votes = sorted(votes, key=lambda vote: (vote.question, vote.candidate))

    def __len__(self) -> int:
        """Return the number of votes."""
        return len(self._votes)

    def __getitem__(self, index: int | slice) -> Vote | list[Vote]:
        """Return a vote, or a list of them."""
        return self._votes[index]

    def of(self, question: int) -> list[Vote]:
        """Return the votes of a question, in order of preference."""
        return [vote for vote in self._votes if vote.question == question]

    def by_question(self) -> list[list[Vote]]:
        """Return the votes of each question that has any, in order."""
        groups: dict[int, list[Vote]] = {}
        for vote in self._votes:
            groups.setdefault(vote.question, []).append(vote)
        return list(groups.values())

    def to_pandas(self) -> DataFrame:
        """Return the votes as a `pandas.DataFrame`, a row each."""
        import pandas

        return pandas.DataFrame(self._rows(), columns=[field.name for field in fields(Vote)])

    def to_dataset(self) -> Dataset:
        """Return the votes as a `datasets.Dataset`, a row each; block lengths are texts, as some are lists."""
        from datasets import Dataset

        rows = [{**row, "block_length": spelled(row["block_length"])} for row in self._rows()]
        return Dataset.from_list(rows)

    def share_empty(self) -> float:
        """Return the share of the votes that are nothing but end-of-text tokens (the collapse of HEX, Table 1)."""
        self._check_any()
        return fmean(vote.is_empty for vote in self._votes)

    def plot(self, path: str | Path, is_correct: Callable[[Vote], bool], num_draws: int = 20, title: str = "") -> None:
        """Draw accuracy and tie rate against the number of votes as a PNG file; arguments as of `curve`."""
        from .vote_plots import plot_votes

        plot_votes({title: self.curve(is_correct, num_draws=num_draws)}, path)

    @checked
    def curve(
        self,
        is_correct: Callable[[Vote], bool],
        num_votes: Sequence[int] | None = None,
        num_draws: int = 20,
        seed: int = 0,
    ) -> list[dict]:
        """Return accuracy, tie rate and coverage against the number of votes.

        For each number, so many of a question's votes are drawn at random, several times over. Votes of an early end are no
        random choice: make the table with `early_stop=False`.

        Args:
            is_correct (`Callable[[Vote], bool]`): whether a vote has the right answer.
            num_votes (`Sequence[int]`, *optional*): numbers of votes; by default all up to the smallest question's.
            num_draws (`int`, *optional*, defaults to 20): draws for each number.
            seed (`int`, *optional*, defaults to 0): of the draws.

        Returns:
            `list[dict]`: for each number, `num_votes`, `answer_accuracy`, `tie_rate`, `coverage` (share of the draws in which any
            vote has an answer), `oracle` (in which any is right) and `num_problems`.

        Raises:
            ValueError: for a number of votes that a question does not have.
        """
        check_integer("num_draws", num_draws)
        self._check_any()
        questions = self.by_question()
        most = min(map(len, questions))
        draw = random.Random(seed)
        correct = {id(vote): is_correct(vote) for vote in self._votes}
        names = ("answer_accuracy", "tie_rate", "coverage", "oracle")
        points = []
        for count in range(1, most + 1) if num_votes is None else num_votes:
            check_integer("num_votes", count, most)
            outcomes = [
                outcome([votes[place] for place in sorted(draw.sample(range(len(votes)), count))], self.tie, correct)
                for votes in questions
                for _ in range(num_draws)
            ]
            means = (fmean(values) for values in zip(*outcomes, strict=True))
            points.append({"num_votes": count, **dict(zip(names, means, strict=True)), "num_problems": len(questions)})
        return points

    def _check_any(self) -> None:
        if not self._votes:
            raise ValueError("`votes` of the table have to be at least one, but there are none.")

    def _rows(self) -> list[dict]:
        return [asdict(vote) for vote in self._votes]


def outcome(votes: Sequence[Vote], tie: str, correct: dict[int, bool]) -> tuple[bool, bool, bool, bool]:
    """Return whether the winner is right, whether it was tied, whether anyone voted, and whether any vote is right.

    Args:
        votes (`Sequence[Vote]`): of one question, in order of preference; at least one.
        tie (`str`): as for [`majority_vote`]; for `"score"` every vote needs one.
        correct (`dict[int, bool]`): whether each is right, by its `id`.

    Raises:
        ValueError: for `"score"` where a vote has none.
    """
    if tie == "score" and any(vote.score is None for vote in votes):
        raise ValueError("`tie` is 'score', but some of the `votes` have none; score them, or break ties otherwise.")
    keys = [vote.key for vote in votes]
    tied = leaders(vote_counts(keys))
    winner = majority_vote(keys, tie, scores=[vote.score for vote in votes] if tie == "score" else None)
    right = winner is not None and correct[id(votes[keys.index(winner)])]
    return right, len(tied) > 1, bool(tied), any(correct[id(vote)] for vote in votes)


def spelled(block_length: int | Sequence[int] | None) -> str | None:
    """Return a block schedule as a text: its block length, or the lengths of all its blocks; `None` for none."""
    if block_length is None or isinstance(block_length, int):
        return None if block_length is None else str(block_length)
    return " ".join(map(str, block_length))
