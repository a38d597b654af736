"""What is counted on texts alone, against numbers counted by hand and by plain loops."""

from __future__ import annotations

import random

import pytest

from ldlm_hf import load_metric
from ldlm_hf.metrics.texts import diversity_scores, length_ratios, reconstruction_scores


def random_texts(num_texts: int, most_words: int, seed: int = 0, least_words: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices("abc", k=draw.randint(least_words, most_words))) for _ in range(num_texts)]


def test_reconstruction_is_counted():
    result = load_metric("reconstruction").compute(
        predictions=["a b  c\n", "a x c", "a b c d", "", "b a"], references=["a b c", "a b c", "a b c", "a b", "a b"]
    )
    # 3 of 3, 2 of 3, 3 of 4 (one too many), 0 of 2, 0 of 2 (places count)
    assert result == {"exact_reconstruction": 0.2, "token_accuracy": 8 / 14}


def test_only_what_is_exact_has_every_token_right():
    texts = random_texts(50, 6, least_words=1)
    assert reconstruction_scores(texts, texts) == {"exact_reconstruction": 1.0, "token_accuracy": 1.0}
    longer = [f"{text} a" for text in texts]
    for pair in ((longer, texts), (texts, longer)):
        assert reconstruction_scores(*pair)["exact_reconstruction"] == 0.0
        assert reconstruction_scores(*pair)["token_accuracy"] < 1.0


def test_reconstruction_does_not_depend_on_the_order_of_the_texts():
    predictions, references = random_texts(40, 6, seed=1), random_texts(40, 6, seed=2, least_words=1)
    backwards = reconstruction_scores(predictions[::-1], references[::-1])
    assert reconstruction_scores(predictions, references) == backwards


def test_lengths_are_counted():
    result = load_metric("length_ratio").compute(
        predictions=["a b c d", "a", "", " \n"], references=["a b", "a b c d e", "a", "a b"]
    )
    assert result == {
        "mean_length_ratio": pytest.approx((2 + 1 / 5) / 4),
        "corpus_length_ratio": 0.5,  # 5 of 10 words
        "empty_rate": 0.5,
    }


def test_lengths_of_a_corpus_are_the_weighted_mean_of_its_parts():
    predictions, references = random_texts(30, 6, seed=1), random_texts(30, 6, seed=2, least_words=1)
    whole = length_ratios(predictions, references)
    parts = [length_ratios([one], [other]) for one, other in zip(predictions, references, strict=True)]
    weights = [len(text.split()) for text in references]
    assert whole["mean_length_ratio"] == pytest.approx(sum(part["mean_length_ratio"] for part in parts) / 30)
    assert whole["empty_rate"] == pytest.approx(sum(part["empty_rate"] for part in parts) / 30)
    weighted = sum(weight * part["corpus_length_ratio"] for weight, part in zip(weights, parts, strict=True))
    assert whole["corpus_length_ratio"] == pytest.approx(weighted / sum(weights))


def test_diversity_is_counted():
    # bigrams ab ba ab | ab, trigrams aba bab, 4-grams abab
    result = load_metric("diversity").compute(predictions=["a b a b", "a b"])
    assert result == {"distinct_2": 0.5, "distinct_3": 1.0, "distinct_4": 1.0, "diversity": 0.5}


def test_diversity_equals_a_plain_loop():
    texts = random_texts(40, 7)
    result, product = diversity_scores(texts), 1.0
    for n in (2, 3, 4):
        seen, total = [], 0
        for text in texts:
            for start in range(len(text.split())):
                ngram = text.split()[start : start + n]
                if len(ngram) == n:
                    total += 1
                    seen += [ngram] if ngram not in seen else []
        assert result[f"distinct_{n}"] == len(seen) / total
        product *= len(seen) / total
    assert result["diversity"] == pytest.approx(product)


def test_texts_shorter_than_n_add_nothing():
    texts = ["a b c d e", "f g h i j"]
    assert diversity_scores(texts) == diversity_scores([*texts, "", "x", "y", "x"])
    assert diversity_scores([*texts, "x y"])["distinct_3"] == 1.0


def test_ngrams_do_not_reach_into_the_next_text():
    assert diversity_scores(["a b", "c a", "b c"])["distinct_3"] is None


def test_nothing_to_count_is_none():
    assert set(diversity_scores(["", "a"]).values()) == {None}
    assert diversity_scores(["a b c"]) == {"distinct_2": 1.0, "distinct_3": 1.0, "distinct_4": None, "diversity": None}


def test_a_repeated_text_halves_the_diversity_of_each_size():
    result = diversity_scores(["a b c d e"] * 2)
    assert result == {"distinct_2": 0.5, "distinct_3": 0.5, "distinct_4": 0.5, "diversity": 0.125}


def test_punctuation_marks_are_tokens_of_their_own():
    assert diversity_scores(["No, no!"]) == diversity_scores(["No , no !"])


@pytest.mark.parametrize("score", [reconstruction_scores, length_ratios])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "`predictions`"),
        (["a"], [], "1 and 0"),
        (["a"], [" "], "`references`.*number 0"),
        (["a", None], ["a", "b"], "`predictions`.*number 1"),
        ("a", "a", "`predictions`.*list"),
    ],
)
def test_bad_pairs_are_refused(score, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, references)


@pytest.mark.parametrize("predictions", [[], "a b", [None]])
def test_diversity_of_no_texts_is_refused(predictions):
    with pytest.raises(ValueError, match="`predictions`"):
        diversity_scores(predictions)
