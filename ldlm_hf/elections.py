"""Votes that come in one after the other, held for many questions at once and ended as soon as nothing can change.

A candidate's number is its place in the order of preference, by which ties are broken; the order in which candidates are
asked is another matter. What differs from the published code of HEX, which samples all of them: a question asks only as many at
a time as could decide it, so that no candidate is sampled in vain, and the winner is that of the full vote.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from .arguments import check_integer, checked
from .voting import TIE_RULES, decided, leaders, majority_vote, vote_counts


class Election:
    """The vote of one question while its candidates answer.

    Args:
        num_candidates (`int`): how many there are.
        tie (`str`, *optional*, defaults to `"first"`): as for [`majority_vote`].
        order (`Sequence[int]`, *optional*): in which the candidates are asked; by preference by default.

    Attributes:
        answers (`list`): of each candidate, in order of preference; `None` where it gave none or was not asked.

    Raises:
        ValueError: for less than one candidate, an unknown `tie`, or an `order` that is no permutation.
    """

    @checked
    def __init__(self, num_candidates: int, tie: str = "first", order: Sequence[int] | None = None) -> None:
        """Start with no answer."""
        check_integer("num_candidates", num_candidates)
        if tie not in TIE_RULES:
            raise ValueError(f"`tie` has to be one of {TIE_RULES}, but is {tie!r}.")
        order = list(range(num_candidates)) if order is None else list(order)
        if sorted(order) != list(range(num_candidates)):
            raise ValueError(f"`order` has to hold each of {num_candidates} candidates once, but is {order}.")
        self.answers: list[Hashable | None] = [None] * num_candidates
        self._tie, self._waiting = tie, order

    @property
    def waiting(self) -> list[int]:
        """The candidates that have not answered, in the order in which they will be asked."""
        return list(self._waiting)

    @property
    def is_decided(self) -> bool:
        """Whether no answer still to come can change the winner."""
        return is_decided(self.answers, self._waiting, self._tie)

    def add(self, candidate: int, answer: Hashable | None) -> None:
        """Count the answer of a candidate.

        Raises:
            ValueError: for one that has answered already, or does not exist.
        """
        if candidate not in self._waiting:
            raise ValueError(f"`candidate` {candidate} has answered already or does not exist.")
        self._waiting.remove(candidate)
        self.answers[candidate] = answer

    def winner(self, scores: Sequence[float] | None = None) -> Hashable | None:
        """Return the winner so far, that of the full vote once it is decided; `scores` as for [`majority_vote`]."""
        return majority_vote(self.answers, self._tie, scores=scores)

    def next_candidates(self) -> list[int]:
        """Return the fewest candidates, next in order, whose answers could decide the vote; none if it is decided.

        Asking them one by one could end no sooner, so that asking them together wastes nothing.
        """
        if self.is_decided:
            return []
        leading = leaders(vote_counts(self.answers))
        best = (leading or [object()])[-1 if self._tie == "last" else 0]  # without any, an answer that nobody gave yet
        answers = list(self.answers)
        for count, candidate in enumerate(self._waiting, 1):
            answers[candidate] = best
            if is_decided(answers, self._waiting[count:], self._tie):
                return self._waiting[:count]
        return list(self._waiting)


def is_decided(answers: Sequence[Hashable | None], waiting: Sequence[int], tie: str = "first") -> bool:
    """Return whether the candidates that still wait cannot change the winner, whatever they answer.

    Args:
        answers (`Sequence[Hashable | None]`): of all candidates, in order of preference; `None` for those that wait.
        waiting (`Sequence[int]`): the candidates that have not answered.
        tie (`str`, *optional*, defaults to `"first"`): as for [`majority_vote`]. Scores are not known before an answer is, so
            that with `"score"` a possible tie is undecided.
    """
    counts, remaining = vote_counts(answers), len(waiting)
    if decided(counts, remaining):
        return True
    leading = leaders(counts)
    if len(leading) != 1 or tie not in ("first", "last"):
        return False
    (leader,) = leading
    second = max((votes for answer, votes in counts.items() if answer != leader), default=0)
    if counts[leader] - second < remaining:
        return False
    # All that wait could draw a rival level with the leader, no more: then the places of their first candidates decide.
    next_place = min(waiting)
    rivals = [answers.index(answer) for answer, votes in counts.items() if votes == second and answer != leader]
    places = [min(place, next_place) for place in rivals] or [next_place]
    own = answers.index(leader)
    return own < min(places) if tie == "first" else own > max(places)


@checked
def hold_elections(
    elections: Sequence[Election],
    ask: Callable[[list[tuple[int, int]]], Sequence[Hashable | None]],
    early_stop: bool = True,
    max_batch_size: int | None = None,
    most_at_once: int | None = None,
) -> None:
    """Ask the candidates of all questions until every vote is decided.

    Args:
        elections (`Sequence[Election]`): one for each question; changed in place.
        ask (`Callable`): returns the answers of a list of `(question, candidate)`.
        early_stop (`bool`, *optional*, defaults to `True`): end a vote when it is decided, rather than with its last candidate.
        max_batch_size (`int`, *optional*): most candidates to ask at a time; all by default.
        most_at_once (`int`, *optional*): most candidates of one question to ask at a time; by default all that could be needed.

    Raises:
        ValueError: for a `max_batch_size` or `most_at_once` below 1.
    """
    for name, value in (("max_batch_size", max_batch_size), ("most_at_once", most_at_once)):
        if value is not None:
            check_integer(name, value)
    while True:
        pairs = [
            (question, candidate)
            for question, election in enumerate(elections)
            for candidate in (election.next_candidates() if early_stop else election.waiting)[:most_at_once]
        ]
        if not pairs:
            return
        size = max_batch_size or len(pairs)
        for start in range(0, len(pairs), size):
            batch = pairs[start : start + size]
            for (question, candidate), answer in zip(batch, ask(batch), strict=True):
                elections[question].add(candidate, answer)
