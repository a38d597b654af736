"""What is counted on written texts alone: how they agree with references, how long and how varied they are.

All of it knows words only, no model and no task.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..arguments import check_texts


NGRAM_SIZES = (2, 3, 4)


def reconstruction_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `exact_reconstruction` and `token_accuracy`.

    A token is a word between white space. Token accuracy counts, over all texts together, the places where both have the
    same token, and divides by the length of the longer of each pair: what is missing and what is too much is wrong.

    Args:
        predictions (`Sequence[str]`): what came back for each text.
        references (`Sequence[str]`): the texts, as many; none of them empty.

    Raises:
        ValueError: for no or unequally many texts, for what is no text, or for an empty reference.
    """
    pairs = [
        (text.split(), target.split()) for text, target in _pairs_without_empty_references(predictions, references)
    ]
    num_right = sum(one == other for words, wanted in pairs for one, other in zip(words, wanted, strict=False))
    return {
        "exact_reconstruction": sum(words == wanted for words, wanted in pairs) / len(pairs),
        "token_accuracy": num_right / sum(max(len(words), len(wanted)) for words, wanted in pairs),
    }


def length_ratios(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `mean_length_ratio`, `corpus_length_ratio` and `empty_rate`.

    Lengths are in words between white space. The mean of the ratios weighs every text alike; the ratio of the means, which
    is that of all words together, weighs a long reference more. Where both are far apart, lengths vary.

    Args:
        predictions (`Sequence[str]`): the written texts.
        references (`Sequence[str]`): the target texts, as many; none of them empty.

    Raises:
        ValueError: for no or unequally many texts, for what is no text, or for an empty reference.
    """
    pairs = _pairs_without_empty_references(predictions, references)
    lengths = [(len(text.split()), len(target.split())) for text, target in pairs]
    return {
        "mean_length_ratio": sum(written / wanted for written, wanted in lengths) / len(lengths),
        "corpus_length_ratio": sum(written for written, _ in lengths) / sum(wanted for _, wanted in lengths),
        "empty_rate": sum(written == 0 for written, _ in lengths) / len(lengths),
    }


def diversity_scores(predictions: Sequence[str]) -> dict[str, float | None]:
    """Return `distinct_2`, `distinct_3`, `distinct_4` (different n-grams per n-gram) and their product, `diversity`.

    The product is the diversity of Lovelace et al., "Latent Diffusion for Language Generation" (arXiv 2212.09462), after
    Su et al., "A Contrastive Framework for Neural Text Generation" (arXiv 2202.06417). n-grams are pooled over the texts
    and never reach from one text into the next; a text shorter than n has none. Tokens are words and single punctuation
    marks, as written. More texts repeat more, so compare equally many.

    Args:
        predictions (`Sequence[str]`): the written texts; empty ones add nothing.

    Returns:
        `dict[str, float | None]`: shares between 0 and 1; `None` where there is no n-gram to count.

    Raises:
        ValueError: for no texts, or for what is no text.
    """
    check_texts("predictions", predictions)
    tokens = [re.findall(r"\w+|[^\w\s]", text) for text in predictions]
    scores: dict[str, float | None] = {}
    for n in NGRAM_SIZES:
        ngrams = [tuple(words[i : i + n]) for words in tokens for i in range(len(words) - n + 1)]
        scores[f"distinct_{n}"] = len(set(ngrams)) / len(ngrams) if ngrams else None
    values = list(scores.values())
    scores["diversity"] = None if None in values else math.prod(values)
    return scores


def paired_texts(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of a written text and its reference.

    Args:
        predictions (`Sequence[str]`): the written texts, at least one.
        references (`Sequence[str]`): the target texts, as many.

    Raises:
        ValueError: for no or unequally many texts, or for what is no text.
    """
    check_texts("predictions", predictions)
    if isinstance(references, Sequence) and len(predictions) != len(references):
        raise ValueError(
            f"`predictions` and `references` have to hold equally many texts, but hold {len(predictions)} and "
            f"{len(references)}."
        )
    check_texts("references", references)
    return list(zip(predictions, references, strict=True))


def _pairs_without_empty_references(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    pairs = paired_texts(predictions, references)
    for i, text in enumerate(references):
        if not text.split():
            raise ValueError(
                f"`references` has to hold no empty text, but number {i} is {text!r}; leave such pairs out."
            )
    return pairs
