"""Several samples of each prompt: where their noise comes from, and which of them becomes the answer.

The rows of a batch are the samples of the first prompt, then those of the second, and so on.
"""

from __future__ import annotations

import torch

from ..arguments import check_integer, check_option, checked
from ..voting import majority_vote, minimum_bayes_risk


SELECTIONS = ("majority", "mbr")


@checked
def sample_generators(
    generator: torch.Generator | list[torch.Generator] | None, num_prompts: int, num_samples: int
) -> torch.Generator | list[torch.Generator] | None:
    """Return what the noise of `num_prompts x num_samples` rows is drawn from.

    With one generator a prompt, sample 0 reads it just as a lone sample would, and sample `j > 0` has a new one, whose seed
    is the j-th integer of a *copy* of it. A sample therefore depends neither on the other prompts nor on `num_samples`, at
    the start and in every step, and the generators are left as after one sample each.

    Args:
        generator (`torch.Generator` or a list, *optional*): one for each prompt, or one for each row, which are returned as
            they are. A single one for several prompts, or `None`, draws all rows at once: a row then depends on its batch.
        num_prompts (`int`): prompts in the batch.
        num_samples (`int`): samples of each.

    Raises:
        ValueError: for another number of generators, or less than one prompt or sample.
    """
    check_integer("num_prompts", num_prompts)
    check_integer("num_samples", num_samples)
    if isinstance(generator, list) and len(generator) not in (num_prompts, num_prompts * num_samples):
        raise ValueError(
            f"`generator` has {len(generator)} generators for {num_prompts} prompts with {num_samples} samples each; give one "
            "for each prompt or one for each sample."
        )
    if isinstance(generator, torch.Generator) and num_prompts == 1 and num_samples > 1:
        generator = [generator]
    if not isinstance(generator, list) or len(generator) == num_prompts * num_samples:
        return generator
    return [one for own in generator for one in (own, *_new_generators(own, num_samples - 1))]


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


def _new_generators(generator: torch.Generator, count: int) -> list[torch.Generator]:
    device = generator.device
    source = torch.Generator(device)
    source.set_state(generator.get_state())
    # One at a time, so that the first seeds are the same however many are drawn.
    seeds = [torch.randint(2**63 - 1, (), generator=source, device=device).item() for _ in range(count)]
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]
