"""From votes to answers: what is compared, who wins, and what is reported of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import checked
from ..elections import Election
from ..tasks.answers import normalize_answer
from ..votes import Vote, VoteTable
from ..voting import leaders, vote_counts
from .pipeline_output import HexPipelineOutput


COMPARISONS = ("normalized", "raw")
TIE_BREAKS = {  # by what users call it: the rule of `majority_vote` for candidates in order of preference
    "smallest_block": "first",
    "first_listed": "first",
    "confidence": "score",
    "abstain": "abstain",
}
SELECTIONS = ("majority", "one_step_nll", "elbo")


@checked
def vote_key(text: str, answer: str | None, compare: str) -> str | None:
    """Return what is compared of a path's answer; `None` abstains.

    Args:
        text (`str`): what the path reads as.
        answer (`str`, *optional*): the answer in it.
        compare (`str`): `"normalized"` compares numbers and formulas by value, and a path without an answer abstains; `"raw"`
            compares letter by letter, and a path without an answer votes for its whole text, as in the released code of HEX.
    """
    if compare == "raw":
        return text if answer is None else answer
    return None if answer is None else normalize_answer(answer)


def tally(
    votes: Sequence[Vote], elections: Sequence[Election], tie: str, select: str = "majority"
) -> HexPipelineOutput:
    """Return answers, texts and what is to be said of the votes.

    Args:
        votes (`Sequence[Vote]`): of all questions, at least one each.
        elections (`Sequence[Election]`): one for each question, decided.
        tie (`str`): the rule by which they were held.
        select (`str`, *optional*, defaults to `"majority"`): `"majority"` lets the elections decide, anything else the scores.
    """
    table = VoteTable(votes, tie)
    groups = [table.of(question) for question in range(len(elections))]
    counts = [vote_counts([vote.key for vote in group]) for group in groups]
    if select == "majority":
        winners = [_elected(group, election) for group, election in zip(groups, elections, strict=True)]
    else:
        winners = [_best_scored(group) for group in groups]
    return HexPipelineOutput(
        answers=[None if winner is None else winner.answer for winner in winners],
        texts=[(winner or group[0]).text for winner, group in zip(winners, groups, strict=True)],
        votes=table,
        counts=[dict(sorted(count.items(), key=lambda item: -item[1])) for count in counts],
        tied=[len(leaders(count)) > 1 for count in counts],
        coverage=[sum(vote.answer is not None for vote in group) / len(group) for group in groups],
    )


def _elected(votes: list[Vote], election: Election) -> Vote | None:
    """Return the first vote for the winner, or `None` if there is none."""
    scores = [0.0] * len(election.answers)  # those that were not asked have no answer, hence no say
    for vote in votes:
        if vote.score is not None:
            scores[vote.candidate] = vote.score
    winner = election.winner(scores)
    return next((vote for vote in votes if winner is not None and vote.key == winner), None)


def _best_scored(votes: list[Vote]) -> Vote | None:
    """Return the vote with an answer whose score is the highest, the first of equal ones; `None` without an answer."""
    return max((vote for vote in votes if vote.key is not None), key=lambda vote: vote.score, default=None)
