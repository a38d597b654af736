"""Several samples of each prompt, and which of them becomes the answer.

The rows of a batch are the samples of the first prompt, then those of the second, and so on.
"""

from __future__ import annotations

from ..arguments import check_integer, check_option, checked
from ..voting import majority_vote, minimum_bayes_risk


SELECTIONS = ("majority", "mbr")


@checked
def choose_samples(
    texts: list[str], answers: list[str | None], num_samples: int, select: str = "majority"
) -> list[int]:
    """Return, for each prompt, the row of the sample that stands for it.

    Args:
        texts (`list[str]`): what each row reads as, `num_samples` of them for each prompt.
        answers (`list[str | None]`): the answer in each of them.
        num_samples (`int`): samples of each prompt.
        select (`str`, *optional*, defaults to `"majority"`): `"majority"` takes the first sample that gives the most frequent
            answer (of equally frequent ones, the one that was given first); `"mbr"` takes the text that agrees best with
            the others, whatever the answers.

    Raises:
        ValueError: for another `select`, or texts and answers that are not `num_samples` for each prompt.
    """
    check_integer("num_samples", num_samples)
    check_option("select", select, SELECTIONS)
    if len(answers) != len(texts) or len(texts) % num_samples:
        raise ValueError(
            f"`texts` and `answers` have to hold `num_samples` {num_samples} for each prompt, but hold {len(texts)} and "
            f"{len(answers)}."
        )
    rows = []
    for start in range(0, len(texts), num_samples):
        given = answers[start : start + num_samples]
        if select == "mbr":
            place = minimum_bayes_risk(texts[start : start + num_samples])
        else:
            place = given.index(majority_vote(given))
        rows.append(start + place)
    return rows
