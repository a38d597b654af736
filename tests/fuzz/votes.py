"""Votes: choosing among candidates, elections, tables of votes."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from ldlm_hf.elections import Election, hold_elections, is_decided
from ldlm_hf.hex.tally import vote_key
from ldlm_hf.votes import Vote, VoteTable
from ldlm_hf.voting import (
    TIE_RULES,
    decided,
    leaders,
    majority_vote,
    minimum_bayes_risk,
    ngram_f1,
    verified_vote,
    vote_counts,
)

from .entry_points import EntryPoint
from .strategies import mostly, numbers, texts, words


ANSWERS = st.lists(st.none() | st.sampled_from("abc"), min_size=1, max_size=6) | st.just([])


NUMBERS = st.lists(numbers(0, 5), max_size=6)


FINE = st.floats(0, 5)


def one_of_the_answers(winner: object, arguments: dict) -> None:
    """A winner is an answer that was given; where all give one, there is one, but for ties that abstain."""
    given = [answer for answer in arguments["answers"] if answer is not None]
    assert winner is None or winner in given
    assert winner is not None or not given or arguments["tie"] == "abstain"


def sums_of_votes(counts: dict, arguments: dict) -> None:
    """The votes of all answers are those of all candidates that gave one."""
    weights = arguments["weights"]
    weights = [1] * len(arguments["answers"]) if weights is None else weights
    cast = [weight for answer, weight in zip(arguments["answers"], weights, strict=True) if answer is not None]
    assert math.isclose(sum(counts.values()), math.fsum(cast), rel_tol=1e-9)
    assert set(counts) == {answer for answer in arguments["answers"] if answer is not None}


@st.composite
def ballots(draw, names: tuple[str, ...] = ("tie", "weights", "scores")) -> dict:
    """Return answers, and numbers that mostly fit them."""
    answers = draw(ANSWERS)
    fitting = st.lists(FINE, min_size=len(answers), max_size=len(answers))
    drawn = {
        "answers": answers,
        "tie": draw(st.sampled_from(TIE_RULES)),
        "weights": draw(st.none() | fitting | NUMBERS),
        "scores": draw(st.none() | fitting | NUMBERS),
    }
    return {name: drawn[name] for name in ("answers", *names)}


@st.composite
def verified_ballots(draw) -> dict:
    """Return answers and verdicts of a verifier."""
    drawn = draw(ballots())
    count = len(drawn["answers"])
    return {
        **drawn,
        "accepted": draw(st.lists(st.booleans(), min_size=count, max_size=count) | st.lists(st.booleans())),
    }


def vote(
    num_candidates: int, tie: str, order: list[int] | None, answers: list, early_stop: bool, most_at_once: int | None
):
    """Return the winner of an election."""
    election = Election(num_candidates, tie, order)
    hold_elections([election], lambda pairs: [answers[j] for _, j in pairs], early_stop, most_at_once=most_at_once)
    assert not election.waiting or is_decided(election.answers, election.waiting, tie)
    return election.winner([0.0] * num_candidates)


@st.composite
def elections(draw) -> dict:
    """Return what an election is held with."""
    count = draw(st.integers(1, 6))
    return {
        "num_candidates": count,
        "tie": draw(st.sampled_from(TIE_RULES)),
        "order": draw(st.none() | st.permutations(range(count)) | st.lists(st.integers(-1, 6), max_size=6)),
        "answers": draw(st.lists(st.none() | st.sampled_from("ab"), min_size=count, max_size=count)),
        "early_stop": draw(st.booleans()),
        "most_at_once": draw(st.none() | st.integers(0, 4)),
    }


def winner_of_all(winner: object, arguments: dict) -> None:
    """An early end changes no winner."""
    scores = [0.0] * arguments["num_candidates"]
    assert winner == majority_vote(arguments["answers"], arguments["tie"], scores=scores)


@st.composite
def tables(draw, questions: int = 3) -> list[Vote]:
    """Return the votes of a few questions on the same paths."""
    paths = draw(
        st.lists(st.tuples(st.sampled_from([2, 4, (2, 4)]), st.integers(0, 2)), min_size=1, max_size=4, unique=True)
    )
    key, score = st.none() | st.sampled_from("ab"), mostly(st.floats(-5, 0), st.none())
    return [
        Vote(question, place, length, seed, 0, "t", None, draw(key), draw(st.integers(0, 5)), draw(score))
        for question in range(draw(st.sampled_from([1, 2, questions, 0])))
        for place, (length, seed) in enumerate(paths)
    ]


def curve(votes: list[Vote], tie: str, num_votes: list[int] | None, num_draws: int, seed: int) -> list[dict]:
    """Return the curve of a table, after having looked at it from all sides."""
    table = VoteTable(votes, tie)
    assert len(table) == len(votes) == len(table.to_pandas()) == len(table.to_dataset())
    assert sum(map(len, table.by_question())) == len(votes)
    assert table.share_empty() == 0
    return table.curve(lambda vote: vote.key == "a", num_votes, num_draws, seed)


def shares(points: list[dict], arguments: dict) -> None:
    """Every figure of a curve is a share, and what any vote knows is no less than what the winner does."""
    for point in points:
        assert all(0 <= point[name] <= 1 for name in ("answer_accuracy", "tie_rate", "coverage", "oracle"))
        assert point["answer_accuracy"] <= point["oracle"] + 1e-9 <= point["coverage"] + 2e-9


def same_share(share: float, arguments: dict) -> None:
    """Texts share something between nothing and all, all with themselves."""
    assert 0 <= share <= 1
    assert share == 1 or arguments["hypothesis"].split() != arguments["reference"].split()


def is_place(place: int, arguments: dict) -> None:
    """The best text is one of them."""
    assert 0 <= place < len(arguments["texts"])


def is_bool(value: object, arguments: dict) -> None:
    """It is decided or not."""
    assert isinstance(value, bool)


COUNTS = st.dictionaries(st.sampled_from("abc"), numbers(0, 5), max_size=3)


TEXT_LISTS = st.lists(words(8), max_size=4)


KEYS = {"text": texts(), "answer": st.none() | texts(), "compare": st.sampled_from(["normalized", "raw"])}


ENTRIES = [
    EntryPoint("majority_vote", majority_vote, ballots(), one_of_the_answers),
    EntryPoint("verified_vote", verified_vote, verified_ballots(), one_of_the_answers),
    EntryPoint("vote_counts", vote_counts, ballots(("weights",)), sums_of_votes),
    EntryPoint(
        "leaders",
        leaders,
        st.fixed_dictionaries({"counts": COUNTS}),
        lambda found, arguments: set(found) <= set(arguments["counts"]),
    ),
    EntryPoint("decided", decided, st.fixed_dictionaries({"counts": COUNTS, "remaining": numbers(0, 5)}), is_bool),
    EntryPoint(
        "minimum_bayes_risk",
        minimum_bayes_risk,
        st.fixed_dictionaries({"texts": TEXT_LISTS, "weights": st.none() | NUMBERS}),
        is_place,
    ),
    EntryPoint(
        "ngram_f1",
        ngram_f1,
        st.fixed_dictionaries({"hypothesis": words(9), "reference": words(9), "max_order": st.integers(-1, 5)}),
        same_share,
    ),
    EntryPoint(
        "Election",
        vote,
        elections(),
        winner_of_all,
        spoiled=("num_candidates", "tie", "order", "early_stop"),
        grows=("num_candidates",),
    ),
    EntryPoint(
        "VoteTable",
        curve,
        st.fixed_dictionaries(
            {
                "votes": tables(),
                "tie": st.sampled_from(TIE_RULES),
                "num_votes": st.none() | st.lists(st.integers(0, 3), max_size=2),
                "num_draws": st.integers(0, 3),
                "seed": st.integers(0, 9),
            }
        ),
        shares,
        grows=("num_draws",),
        share=0.5,
        covers=("Vote",),
    ),
    EntryPoint("vote_key", vote_key, st.fixed_dictionaries(KEYS), lambda key, arguments: key is None or len(key) >= 0),
]
