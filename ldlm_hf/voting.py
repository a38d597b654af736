"""Choosing among candidates: majority, tie rules, a verifier, minimum Bayes risk, and whether a vote is decided.

Candidates are listed in order of preference, and ties are broken by that order: for HEX's "smallest block wins", list them
by block length, then by seed. Answers are compared as they are, so two spellings of one answer split its vote: normalise
them before. `None` stands for a candidate without a valid answer; it casts no vote, where the released code of HEX lets a
whole unparsable text vote for itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from .arguments import checked


Answer = TypeVar("Answer", bound=Hashable)

TIE_RULES = ("first", "last", "score", "abstain")


@checked
def majority_vote(
    answers: Sequence[Answer | None],
    tie: str = "first",
    weights: Sequence[float] | None = None,
    scores: Sequence[float] | None = None,
) -> Answer | None:
    """Return the answer with the most votes (self-consistency, Wang et al. 2023; HEX, §3).

    Args:
        answers (`Sequence[Hashable | None]`): one for each candidate, in order of preference; `None` where it gave none.
        tie (`str`, *optional*, defaults to `"first"`): which of the tied answers wins: `"first"` or `"last"`, by the place of
            the first candidate that gave it; `"score"`, that of the tied candidate with the highest score (then the first);
            or `"abstain"`, none of them.
        weights (`Sequence[float]`, *optional*): votes of each candidate, finite and not negative; 1 by default.
        scores (`Sequence[float]`, *optional*): of each candidate, higher is better (such as a log-likelihood), for the tie
            rule `"score"`.

    Returns:
        The winner, or `None` where every answer is `None`, or on a tie with `"abstain"`.

    Raises:
        ValueError: for no candidates, an unknown `tie`, or `weights` or `scores` that are missing or do not fit.
    """
    if tie not in TIE_RULES:
        raise ValueError(f"`tie` has to be one of {TIE_RULES}, but is {tie!r}.")
    if tie == "score":
        if scores is None:
            raise ValueError("`tie` is 'score', but `scores` is None; give one score for each candidate.")
        _check_numbers("scores", scores, len(answers), least=-math.inf)
    tied = leaders(vote_counts(answers, weights))
    if not tied or (len(tied) > 1 and tie == "abstain"):
        return None
    if tie == "score":
        best = max((i for i, answer in enumerate(answers) if answer in tied), key=lambda i: scores[i])
        return answers[best]
    return tied[-1 if tie == "last" else 0]


@checked
def verified_vote(
    answers: Sequence[Answer | None],
    accepted: Sequence[bool],
    tie: str = "first",
    weights: Sequence[float] | None = None,
    scores: Sequence[float] | None = None,
) -> Answer | None:
    """Return the majority among the answers that a verifier accepts; where it accepts none, that of all of them.

    Args:
        answers (`Sequence[Hashable | None]`): one for each candidate, as for [`majority_vote`].
        accepted (`Sequence[bool]`): whether the verifier accepts each candidate.
        tie, weights, scores (*optional*): as for [`majority_vote`].

    Raises:
        ValueError: as [`majority_vote`], and for `accepted` of another length.
    """
    if len(accepted) != len(answers):
        raise ValueError(
            f"`accepted` has {len(accepted)} values for {len(answers)} answers; give one for each candidate."
        )
    kept = [answer if verdict else None for answer, verdict in zip(answers, accepted, strict=True)]
    return majority_vote(kept if any(answer is not None for answer in kept) else answers, tie, weights, scores)


@checked
def vote_counts(answers: Sequence[Answer | None], weights: Sequence[float] | None = None) -> dict[Answer, float]:
    """Return the votes of each answer but `None`, in the order in which the answers first appear.

    Raises:
        ValueError: for no candidates, or `weights` that do not fit.
    """
    if not answers:
        raise ValueError("`answers` has to hold at least one candidate, but is empty.")
    if weights is None:
        return dict(Counter(answer for answer in answers if answer is not None))
    _check_numbers("weights", weights, len(answers), least=0)
    shares: dict[Answer, list[float]] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            shares.setdefault(answer, []).append(weight)
    # Summed without rounding on the way, so that the order of the candidates makes no ties and breaks none.
    return {answer: math.fsum(share) for answer, share in shares.items()}


@checked
def leaders(counts: Mapping[Answer, float]) -> list[Answer]:
    """Return the answers with the most votes, in the order of `counts`; more than one is a tie, none an empty vote."""
    _check_numbers("counts", list(counts.values()), len(counts), least=0)
    most = max(counts.values(), default=0)
    return [answer for answer, votes in counts.items() if votes == most]


@checked
def decided(counts: Mapping[Answer, float], remaining: float) -> bool:
    """Return whether the votes still to come can no longer change the winner, whatever they are and whatever the tie rule.

    That is so if the leader is ahead of the second by more than `remaining` (an answer that nobody gave yet has 0 votes), or
    if no vote is to come. Voting may then stop early: the winner is that of the full vote.

    Args:
        counts (`Mapping[Hashable, float]`): votes so far, of [`vote_counts`].
        remaining (`float`): votes to come, or their total weight.

    Raises:
        ValueError: for negative `remaining`.
    """
    if not remaining >= 0:
        raise ValueError(f"`remaining` has to be 0 or more votes, but is {remaining}.")
    _check_numbers("counts", list(counts.values()), len(counts), least=0)
    first, second = sorted([*counts.values(), 0, 0], reverse=True)[:2]
    return remaining == 0 or first - second > remaining


@checked
def minimum_bayes_risk(
    texts: Sequence[str], utility: Callable[[str, str], float] | None = None, weights: Sequence[float] | None = None
) -> int:
    """Return the index of the text that agrees best with all others (minimum Bayes risk, Kumar & Byrne 2004, eq. 1).

    With the candidates as samples of the model, the mean of `utility(text, other)` over the others estimates the expected
    utility of a text; the highest wins, the first of equal ones. It needs no answers, only texts.

    Args:
        texts (`Sequence[str]`): the candidates, in order of preference.
        utility (`Callable[[str, str], float]`, *optional*): how well a text does where the other is right; [`ngram_f1`] by
            default.
        weights (`Sequence[float]`, *optional*): of each candidate as evidence, finite and not negative; 1 by default.

    Raises:
        ValueError: for no texts, or `weights` that do not fit.
    """
    if not texts:
        raise ValueError("`texts` has to hold at least one candidate, but is empty.")
    weights = [1.0] * len(texts) if weights is None else weights
    _check_numbers("weights", weights, len(texts), least=0)
    utility = ngram_f1 if utility is None else utility
    expected = []
    for i, text in enumerate(texts):
        gains = [weight * utility(text, other) for weight, other in zip(weights, texts, strict=True)]
        evidence = math.fsum(weights) - weights[i]
        expected.append(math.fsum(gains[:i] + gains[i + 1 :]) / evidence if evidence else 0.0)
    return expected.index(max(expected))


@checked
def ngram_f1(hypothesis: str, reference: str, max_order: int = 2) -> float:
    """Return how much two texts share, from 0 to 1: F1 of their n-grams of words, averaged over orders 1 to `max_order`.

    Like sentence BLEU it counts runs of words, so that order matters; unlike BLEU it is symmetric and defined for short
    texts: orders longer than both texts are left out. Order 1 alone is the token F1 of question answering. Two empty texts
    share all.

    Raises:
        ValueError: for a `max_order` below 1.
    """
    if max_order < 1:
        raise ValueError(f"`max_order` has to be at least 1, but is {max_order}.")
    words, other_words = hypothesis.split(), reference.split()
    longest = max(len(words), len(other_words))
    if not longest:
        return 1.0
    orders = range(1, min(max_order, longest) + 1)
    return math.fsum(_overlap(_ngrams(words, n), _ngrams(other_words, n)) for n in orders) / len(orders)


def _ngrams(words: list[str], order: int) -> Counter:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _overlap(one: Counter, other: Counter) -> float:
    """Return F1 of two multisets, at least one of them not empty: twice the shared ones over all (Dice)."""
    return 2 * (one & other).total() / (one.total() + other.total())


def _check_numbers(name: str, values: Sequence[float], length: int, least: float) -> None:
    if len(values) != length:
        raise ValueError(f"`{name}` has {len(values)} values for {length} candidates; give one for each.")
    wrong = [value for value in values if not math.isfinite(value) or value < least]
    if wrong:
        limit = "finite" if least == -math.inf else f"finite and at least {least}"
        raise ValueError(f"`{name}` has to be {limit}, but holds {wrong[0]}.")
