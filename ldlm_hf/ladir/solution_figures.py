"""How often samples solve Countdown, how many different solutions are among them, and how many there would be.

Whether one of k samples is right says something for the model only beside the same for another model; and different texts
say nothing, since wrong ones differ most. What counts here is solved problems, and solutions that differ by more than order
and brackets, as a share of those that exist (by brute force).
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from math import comb

from ..tasks import Countdown
from ..tasks.countdown_solutions import expression_key, solutions
from ..voting import majority_vote


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def solves(text: str, prompt: str) -> bool:
    """Return whether `text` makes the target of `prompt`, such as `9,2,4=34`, out of exactly its numbers."""
    return Countdown(prompt.count(",") + 1).is_correct(text, prompt, "")


def pass_at_k(num_right: int, num_samples: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of `k` samples is right: `1 - C(n - c, k) / C(n, k)`.

    Args:
        num_right (`int`): how many of the samples are right (c).
        num_samples (`int`): how many there are (n).
        k (`int`): how many are allowed, `num_samples` at most.

    Raises:
        ValueError: if `k` is below 1 or above `num_samples`.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"`k` has to lie between 1 and `num_samples` {num_samples}, but is {k}.")
    return 1 - comb(num_samples - num_right, k) / comb(num_samples, k)


def solution_figures(prompts: list[str], samples: list[list[str]]) -> dict:
    """Return what the samples of many problems are worth.

    Args:
        prompts (`list[str]`): problems such as `9,2,4=34`.
        samples (`list[list[str]]`): as many texts for each of them.

    Returns:
        `pass@1` and so on in powers of two; `unique_texts` and `unique_valid`, different texts and different solutions of a
        problem, the mean; `share_of_solutions`, the latter out of all there are, the mean over problems; `majority`,
        problems that the expression which most samples give solves, whatever the order it is written in; and `by_count`,
        `pass@1` by how many numbers a problem has.
    """
    count = len(samples[0])
    right = [[solves(text, prompt) for text in texts] for prompt, texts in zip(prompts, samples, strict=True)]
    ks = [2**power for power in range(count.bit_length()) if 2**power <= count]
    figures: dict = {f"pass@{k}": _mean([pass_at_k(sum(row), count, k) for row in right]) for k in ks}
    found = [
        {expression_key(text) for text, is_right in zip(texts, row, strict=True) if is_right}
        for texts, row in zip(samples, right, strict=True)
    ]
    existing = [len(solutions(prompt)) for prompt in prompts]
    voted = [majority_vote([expression_key(text) for text in texts]) for texts in samples]
    figures["majority"] = _mean([key is not None and key in keys for key, keys in zip(voted, found, strict=True)])
    figures["unique_texts"] = _mean([len(set(texts)) for texts in samples])
    figures["unique_valid"] = _mean([len(keys) for keys in found])
    figures["share_of_solutions"] = _mean([len(keys) / most for keys, most in zip(found, existing, strict=True)])
    figures["existing_solutions"] = _mean(existing)
    figures["by_count"] = {}
    for size in sorted({prompt.count(",") + 1 for prompt in prompts}):
        rows = [sum(row) / count for prompt, row in zip(prompts, right, strict=True) if prompt.count(",") + 1 == size]
        figures["by_count"][str(size)] = _mean(rows)
    return {**figures, "num_problems": len(prompts), "num_samples": count}


def thought_figures(prompts: list[str], thoughts: list[list[str]], texts: list[str]) -> dict[str, float]:
    """Return what decoded blocks are worth by themselves.

    Args:
        prompts (`list[str]`): problems such as `9,2,4=34`.
        thoughts (`list[list[str]]`): the blocks of one trajectory of each, such as `["9*4=36", "36-2=34"]`.
        texts (`list[str]`): the expression that it wrote.

    Returns:
        `true_equations`, out of all blocks; `solving_chains`, those that use every number once and end at the target; and
        `agreement`, how often chain and text both solve the problem or both do not.
    """
    blocks = [block for chain in thoughts for block in chain]
    chains = [is_solving_chain(prompt, chain) for prompt, chain in zip(prompts, thoughts, strict=True)]
    written = [solves(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    return {
        "true_equations": _mean([read_equation(block) is not None for block in blocks]),
        "solving_chains": _mean(chains),
        "agreement": _mean([one == other for one, other in zip(chains, written, strict=True)]),
    }


def read_equation(block: str) -> tuple[int, int, int] | None:
    """Return operands and result of a true equation such as `9*4=36`, else `None`."""
    found = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", block.replace(" ", ""))
    if found is None:
        return None
    left, right, result = (int(found[group]) for group in (1, 3, 4))
    return (left, right, result) if OPERATIONS[found[2]](left, right) == result else None


def is_solving_chain(prompt: str, chain: list[str]) -> bool:
    """Return whether equations use every number of `prompt` and every result once, and leave the target."""
    numbers, _, target = prompt.partition("=")
    left = Counter(map(int, numbers.split(",")))
    for block in chain:
        equation = read_equation(block)
        if equation is None:
            return False
        left.subtract(equation[:2])
        left[equation[2]] += 1
    return {number: count for number, count in left.items() if count} == {int(target): 1}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
