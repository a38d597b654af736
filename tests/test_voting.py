"""Voting: against brute force over every small vote, and under everything that must not change the winner."""

import random
from collections import Counter
from fractions import Fraction
from itertools import permutations, product

import pytest

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


ANSWERS = ["a", "b", "c", None]
VOTES = [vote for size in (1, 2, 3, 4, 5) for vote in product(ANSWERS, repeat=size)]


def brute_force(answers, weights=None):
    """Return every answer that no other has more votes than, with exact arithmetic."""
    weights = [1] * len(answers) if weights is None else weights
    votes = {one: sum(Fraction(w) for a, w in zip(answers, weights, strict=True) if a == one) for one in answers}
    votes.pop(None, None)
    return {one for one in votes if all(votes[one] >= other for other in votes.values())}


def test_the_winner_is_that_of_brute_force_over_every_small_vote():
    for answers in VOTES:
        tied = brute_force(answers)
        if not tied:
            assert set(answers) == {None}
            assert all(majority_vote(answers, tie, scores=[0] * len(answers)) is None for tie in TIE_RULES)
            continue
        assert majority_vote(answers) == min(tied, key=answers.index)
        assert majority_vote(answers, "last") == max(tied, key=answers.index)
        assert majority_vote(answers, "abstain") == (min(tied) if len(tied) == 1 else None)
        assert set(leaders(vote_counts(answers))) == tied


def test_weights_are_votes():
    generator = random.Random(0)
    for answers in VOTES:
        weights = [generator.randrange(4) for _ in answers]
        repeated = [answer for answer, weight in zip(answers, weights, strict=True) for _ in range(weight)]
        if any(answer is not None for answer in repeated):
            assert set(leaders(vote_counts(answers, weights))) == brute_force(repeated)
        real = [generator.random() for _ in answers]
        assert set(leaders(vote_counts(answers, real))) == brute_force(answers, real)
        assert majority_vote(answers, weights=[1] * len(answers)) == majority_vote(answers)


def test_a_tie_goes_to_the_candidate_with_the_highest_score_but_only_a_tie():
    assert majority_vote(["a", "b", "b", "a", "c"], "score", scores=[-3, -2, -9, -4, 0]) == "b"
    assert majority_vote(["a", "b", "a", "c"], "score", scores=[-3, -2, -9, 0]) == "a"
    assert majority_vote(["a", "b"], "score", scores=[1, 1]) == "a"


def test_the_order_of_the_candidates_decides_nothing_but_ties():
    weights = [0.1, 0.2, 0.3, 0.7, 0.1]  # their sums depend on the order if they are rounded on the way
    for answers in product(ANSWERS, repeat=5):
        winners = leaders(vote_counts(answers, weights))
        for order in list(permutations(range(5)))[::17]:
            shuffled = [answers[i] for i in order], [weights[i] for i in order]
            assert set(leaders(vote_counts(*shuffled))) == set(winners)
            if len(winners) == 1:
                assert majority_vote(shuffled[0], weights=shuffled[1]) == winners[0]


def test_the_verifier_filters_and_where_it_accepts_none_all_vote():
    answers = ["a", "a", "b", None, "b", "b"]
    assert verified_vote(answers, [True, True, False, True, True, False]) == "a"
    assert verified_vote(answers, [False, False, False, True, False, False]) == majority_vote(answers) == "b"
    for vote in VOTES:
        assert verified_vote(vote, [True] * len(vote)) == majority_vote(vote)
        kept = [answer for answer in vote if answer in ("a", "b")]
        accepted = [answer in ("a", "b") for answer in vote]
        assert verified_vote(vote, accepted) == majority_vote(kept or vote)


@pytest.mark.parametrize("remaining", [0, 1, 2, 3])
def test_a_vote_is_decided_exactly_if_no_continuation_changes_it(remaining):
    for answers in VOTES:
        counts = vote_counts(answers)
        futures = product([*ANSWERS, "new"], repeat=remaining)
        outcomes = {majority_vote([*answers, *future], "abstain") for future in futures}
        leader_stays = len(outcomes) == 1 and None not in outcomes
        assert decided(counts, remaining) == (leader_stays or remaining == 0)
        if decided(counts, remaining) and remaining:
            for tie in ("first", "last"):
                assert {majority_vote(answers, tie)} == outcomes


def test_weighted_votes_are_decided_by_weight():
    assert decided({"a": 2.5, "b": 1.0}, 1.4)
    assert not decided({"a": 2.5, "b": 1.0}, 1.5)  # a tie is possible, and then the tie rule decides
    assert not decided({}, 1)
    assert decided({}, 0)


def test_minimum_bayes_risk_is_that_of_brute_force():
    generator = random.Random(0)
    for size in (1, 2, 3, 5, 8):
        for _ in range(50):
            texts = [" ".join(generator.choices("abcd", k=generator.randrange(5))) for _ in range(size)]
            risks = []
            for i in range(size):
                others = [ngram_f1(texts[i], texts[j]) for j in range(size) if j != i]
                risks.append(1 - sum(others) / max(1, len(others)))
            chosen = minimum_bayes_risk(texts)
            assert risks[chosen] == pytest.approx(min(risks))


def test_minimum_bayes_risk_finds_the_text_in_the_middle_in_any_order():
    texts = ["3 1+2 3", "3 1+2 4", "3 1+3 3", "9 9 9 9"]
    for order in permutations(texts):
        assert order[minimum_bayes_risk(order)] == "3 1+2 3"
    assert minimum_bayes_risk(["x", "y"]) == 0  # equal ones: the first
    assert minimum_bayes_risk(["x", "y", "z"], weights=[1, 1, 0], utility=lambda one, other: one > other) == 1


def test_with_equality_as_utility_minimum_bayes_risk_is_the_majority():
    for answers in product("abc", repeat=5):
        if len(brute_force(answers)) == 1:
            assert answers[minimum_bayes_risk(answers, lambda one, other: one == other)] == majority_vote(answers)


def test_ngram_f1_equals_counting_by_hand():
    assert ngram_f1("a b c", "a b d", max_order=1) == pytest.approx(2 / 3)
    assert ngram_f1("a b c", "a b d") == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert ngram_f1("a b", "b a") == pytest.approx(1 / 2)  # all words, no pair
    assert ngram_f1("a a a", "a", max_order=1) == pytest.approx(2 * 1 / 4)  # a word counts as often as it stands there
    assert ngram_f1("", "a") == ngram_f1("a", "b") == 0
    assert ngram_f1("", "") == ngram_f1("a", "a") == ngram_f1("a b c d", "a  b c d", max_order=4) == 1


def test_ngram_f1_of_order_one_is_the_harmonic_mean_of_precision_and_recall():
    generator = random.Random(1)
    for _ in range(200):
        one, other = (generator.choices("abcde", k=generator.randrange(1, 9)) for _ in range(2))
        shared = (Counter(one) & Counter(other)).total()
        precision, recall = shared / len(one), shared / len(other)
        expected = 2 * precision * recall / (precision + recall) if shared else 0
        assert ngram_f1(" ".join(one), " ".join(other), max_order=1) == pytest.approx(expected)
        assert ngram_f1(" ".join(one), " ".join(other)) == ngram_f1(" ".join(other), " ".join(one))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: majority_vote([]), "answers"),
        (lambda: majority_vote(["a"], tie="coin"), "tie"),
        (lambda: majority_vote(["a"], tie="score"), "scores"),
        (lambda: majority_vote(["a"], tie="score", scores=[float("nan")]), "scores"),
        (lambda: majority_vote(["a", "b"], weights=[1]), "weights"),
        (lambda: majority_vote(["a", "b"], weights=[1, -1]), "weights"),
        (lambda: majority_vote(["a", "b"], weights=[1, float("inf")]), "weights"),
        (lambda: verified_vote(["a", "b"], [True]), "accepted"),
        (lambda: decided({"a": 1}, -1), "remaining"),
        (lambda: decided({"a": 1}, float("nan")), "remaining"),
        (lambda: minimum_bayes_risk([]), "texts"),
        (lambda: minimum_bayes_risk(["a"], weights=[]), "weights"),
        (lambda: ngram_f1("a", "b", max_order=0), "max_order"),
    ],
)
def test_bad_input_is_refused_by_name(call, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        call()
