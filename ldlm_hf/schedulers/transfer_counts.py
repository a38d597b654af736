"""How the steps of masked diffusion are divided among blocks, and the tokens of a block among its steps (LLaDA, App. B.4)."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import check_integer


def transfer_counts(num_inference_steps: int, gen_length: int | None, block_length: int | Sequence[int]) -> list[int]:
    """Return how many tokens each step commits, block after block.

    Args:
        num_inference_steps (`int`): steps over all blocks.
        gen_length (`int`, *optional*): tokens to generate; one block by default.
        block_length (`int` or `Sequence[int]`): length of every block, or of each.

    Raises:
        ValueError: if a length or the steps cannot be divided so.
    """
    if not isinstance(block_length, int):
        return _counts_of_blocks(num_inference_steps, gen_length, list(block_length))
    check_integer("block_length", block_length)
    gen_length = block_length if gen_length is None else gen_length
    check_integer("gen_length", gen_length)
    num_blocks, rest = divmod(gen_length, block_length)
    if rest:
        raise ValueError(
            f"`gen_length` {gen_length} is not a multiple of `block_length` {block_length}; change either."
        )
    steps, rest = divmod(num_inference_steps, num_blocks)
    if rest:
        raise ValueError(
            f"`num_inference_steps` {num_inference_steps} is not a multiple of the {num_blocks} blocks of {block_length} "
            f"in `gen_length` {gen_length}; every block gets equally many steps."
        )
    if steps > block_length:
        raise ValueError(
            f"`num_inference_steps` {num_inference_steps} gives each block of {block_length} tokens {steps} steps, of which "
            f"{steps - block_length} would commit nothing; use at most {num_blocks * block_length}."
        )
    return _even_shares(block_length, steps) * num_blocks


def _counts_of_blocks(num_inference_steps: int, gen_length: int | None, lengths: list[int]) -> list[int]:
    """Return how many tokens each step commits where every block has a length of its own."""
    for length in lengths:
        check_integer("block_length", length)
    if not lengths or sum(lengths) != (gen_length or sum(lengths)):
        raise ValueError(f"`block_length` {lengths} has to add up to `gen_length` {gen_length}.")
    counts = []
    for length in lengths:
        steps, rest = divmod(num_inference_steps * length, sum(lengths))
        if rest or not 1 <= steps <= length:
            raise ValueError(
                f"`num_inference_steps` {num_inference_steps} gives a block of {length} of the {sum(lengths)} tokens "
                f"{num_inference_steps * length / sum(lengths):g} steps; it has to be a whole number from 1 to {length}."
            )
        counts += _even_shares(length, steps)
    return counts


def _even_shares(length: int, steps: int) -> list[int]:
    each, remainder = divmod(length, steps)
    return [each + (step < remainder) for step in range(steps)]
