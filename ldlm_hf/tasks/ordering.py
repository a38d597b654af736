"""Seeded orders of long lists that are never listed."""

from __future__ import annotations

from hashlib import blake2b


NUM_ROUNDS = 8  # with four, some orders of a short list come more often than others


def shuffled(place: int, size: int, key: str) -> int:
    """Return the number at `place` of an order of `range(size)` that `key` chooses; a Feistel network on the bits.

    Args:
        place (`int`): where in the order, from 0 to `size - 1`.
        size (`int`): how many numbers are ordered.
        key (`str`): which order.

    Raises:
        ValueError: for a `place` outside the order.
    """
    if not 0 <= place < size:
        raise ValueError(f"`place` has to be from 0 to {size - 1}, but is {place}.")
    half = (size.bit_length() + 1) // 2
    while True:  # the network permutes some more numbers than `size`: go on until it is one of ours
        left, right = divmod(place, 1 << half)
        for turn in range(NUM_ROUNDS):
            digest = blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & ((1 << half) - 1))
        place = left << half | right
        if place < size:
            return place
