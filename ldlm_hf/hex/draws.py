"""Fair comparisons of votes: many draws from one pool of paths, the best schedule chosen on other problems, paired errors.

Every way to vote is a choice among the same paths (a block schedule, a seed, a temperature) of the same problems. How one draw
differs from another is then measured, not guessed, and two ways differ in nothing but the choice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..arguments import check_integer, checked
from ..elections import Election, hold_elections
from ..votes import Vote, outcome


COLUMNS = ("accuracy", "tie_rate", "coverage", "oracle")  # of an outcome, by problem


@dataclass(frozen=True)
class Outcome:
    """What a way to vote comes to, problem by problem; each value is a mean over draws.

    Attributes:
        accuracy, tie_rate, coverage, oracle (`np.ndarray` of shape `(problems,)`): whether the answer is right, whether the tie
            rule decided it, the share of paths with an answer, and whether any path is right.
        num_votes (`int`): paths of a draw.
        nfe (`float`): forward passes of a problem's paths together, on average.
    """

    accuracy: np.ndarray
    tie_rate: np.ndarray
    coverage: np.ndarray
    oracle: np.ndarray
    num_votes: int
    nfe: float

    @classmethod
    def join(cls, parts: Sequence[Outcome]) -> Outcome:
        """Return what came of several sets of problems, one after the other."""
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS)
        return cls(*columns, num_votes=parts[0].num_votes, nfe=fmean(part.nfe for part in parts))

    @classmethod
    def mean(cls, outcomes: Sequence[Outcome]) -> Outcome:
        """Return the mean of what several ways come to, problem by problem."""
        columns = (np.mean([getattr(outcome, name) for outcome in outcomes], axis=0) for name in COLUMNS)
        return cls(*columns, num_votes=outcomes[0].num_votes, nfe=fmean(outcome.nfe for outcome in outcomes))

    def part(self, problems: slice) -> Outcome:
        """Return what came of some of the problems; the forward passes stay those of all."""
        columns = (getattr(self, name)[problems] for name in COLUMNS)
        return Outcome(*columns, num_votes=self.num_votes, nfe=self.nfe)

    def first(self, num_problems: int) -> Outcome:
        """Return what came of the first problems."""
        return self.part(slice(0, num_problems))

    def summary(self) -> dict[str, float | int | None]:
        """Return the means over problems, and the standard error of the accuracy over problems, `None` of a single one."""
        count = len(self.accuracy)
        return {
            "answer_accuracy": float(self.accuracy.mean()),
            "standard_error": float(self.accuracy.std(ddof=1) / np.sqrt(count)) if count > 1 else None,
            "tie_rate": float(self.tie_rate.mean()),
            "coverage": float(self.coverage.mean()),
            "oracle": float(self.oracle.mean()),
            "num_votes": self.num_votes,
            "nfe": self.nfe,
        }


class VotePool:
    """Paths of many problems, from which votes are drawn.

    Args:
        votes (`Sequence[Vote]`): for each problem the same schedules and seeds.
        correct (`Sequence[bool]`): whether each has the right answer.

    Attributes:
        num_problems (`int`): how many there are.
        seeds (`dict`): for each schedule, the seeds there are.

    Raises:
        ValueError: if the problems do not have the same paths, there are none, or a vote lacks its forward passes.
    """

    @checked
    def __init__(self, votes: Sequence[Vote], correct: Sequence[bool]) -> None:
        """Sort the paths."""
        if not votes or len(votes) != len(correct):
            raise ValueError(
                f"`correct` has {len(correct)} values for {len(votes)} `votes`; give one each, at least one."
            )
        if any(vote.nfe is None for vote in votes):
            raise ValueError("`votes` have to say their `nfe`, the forward passes that they took, but some do not.")
        self._correct = {id(vote): bool(right) for vote, right in zip(votes, correct, strict=True)}
        problems: dict[int, dict[tuple, Vote]] = {}
        for vote in votes:
            problems.setdefault(vote.question, {})[vote.block_length, vote.seed] = vote
        self._problems = [problems[question] for question in sorted(problems)]
        names = set(self._problems[0])
        if any(set(paths) != names for paths in self._problems):
            raise ValueError("`votes` has to hold the same schedules and seeds for every question.")
        self.num_problems = len(self._problems)
        self.seeds: dict[object, list[int]] = {}
        for schedule, seed in self._problems[0]:
            self.seeds.setdefault(schedule, []).append(seed)

    @checked
    def draw_seeds(
        self, schedules: Sequence[object], num_seeds: int, num_draws: int, seed: int = 0
    ) -> list[list[tuple[object, int]]]:
        """Return `num_draws` lists of `(schedule, seed)`, each with `num_seeds` random seeds of every schedule.

        Raises:
            ValueError: for more seeds than there are.
        """
        generator = random.Random(seed)
        check_integer("num_draws", num_draws)
        for schedule in schedules:
            check_integer("num_seeds", num_seeds, len(self.seeds[schedule]))
        return [
            [
                (schedule, chosen)
                for schedule in schedules
                for chosen in sorted(generator.sample(self.seeds[schedule], num_seeds))
            ]
            for _ in range(num_draws)
        ]

    @checked
    def hold(
        self, draws: Sequence[Sequence[tuple[object, int]]], tie: str = "first", select: str = "majority"
    ) -> Outcome:
        """Return what votes of these paths come to.

        Args:
            draws (`Sequence`): lists of `(schedule, seed)` in order of preference, as of `draw_seeds`.
            tie (`str`, *optional*, defaults to `"first"`): as for [`majority_vote`].
            select (`str`, *optional*, defaults to `"majority"`): anything else takes the path with the highest score.
        """
        if select != "majority" and any(vote.score is None for paths in self._problems for vote in paths.values()):
            raise ValueError(f"`select` is {select!r}, but some of the `votes` have no score.")
        rows = []
        for paths in self._problems:
            drawn = [[paths[name] for name in draw] for draw in draws]
            outcomes = [outcome(votes, tie, self._correct) for votes in drawn]
            if select != "majority":
                outcomes = [(self._best_is_right(v), *rest[1:]) for v, rest in zip(drawn, outcomes, strict=True)]
            shares = [fmean(vote.key is not None for vote in votes) for votes in drawn]
            passes = [sum(vote.nfe for vote in votes) for votes in drawn]
            right, tied, _, oracle = (fmean(values) for values in zip(*outcomes, strict=True))
            rows.append((right, tied, fmean(shares), oracle, fmean(passes)))
        columns = np.array(rows).T
        return Outcome(*columns[:4], num_votes=len(draws[0]), nfe=float(columns[4].mean()))

    @checked
    def hold_until_decided(
        self, names: Sequence[tuple[object, int]], order: Sequence[int], tie: str = "first"
    ) -> Outcome:
        """Return what votes come to that end as soon as they are decided: the answers of `hold([names])`, in fewer passes.

        Args:
            names (`Sequence`): the paths as `(schedule, seed)`, in order of preference.
            order (`Sequence[int]`): in which they are asked.
            tie (`str`, *optional*, defaults to `"first"`): as for [`majority_vote`].
        """
        elections = [Election(len(names), tie, order) for _ in self._problems]
        hold_elections(elections, lambda pairs: [self._problems[i][names[j]].key for i, j in pairs])
        rows = []
        for paths, election in zip(self._problems, elections, strict=True):
            votes = [paths[names[i]] for i in range(len(names)) if i not in election.waiting]
            right, tied, _, oracle = outcome(votes, tie, self._correct)
            rows.append(
                (right, tied, fmean(vote.key is not None for vote in votes), oracle, sum(v.nfe for v in votes))
            )
        columns = np.array(rows, dtype=float).T
        return Outcome(*columns[:4], num_votes=len(names), nfe=float(columns[4].mean()))

    def _best_is_right(self, votes: Sequence[Vote]) -> bool:
        answered = [vote for vote in votes if vote.key is not None]
        return bool(answered) and self._correct[id(max(answered, key=lambda vote: vote.score))]


@checked
def paired_difference(one: Outcome, other: Outcome, num_resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Return the difference of two accuracies on the same problems with its 95-percent interval, by a paired bootstrap.

    Args:
        one, other ([`Outcome`]): on the same problems; the difference is of `one` to `other`.
        num_resamples (`int`, *optional*, defaults to 2000): resamples of the problems.
        seed (`int`, *optional*, defaults to 0): of the resamples.
    """
    differences = one.accuracy - other.accuracy
    generator = np.random.default_rng(seed)
    means = [
        differences[generator.integers(len(differences), size=len(differences))].mean() for _ in range(num_resamples)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"difference": float(differences.mean()), "low": float(low), "high": float(high)}
