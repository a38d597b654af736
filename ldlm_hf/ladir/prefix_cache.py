"""Keys and values of what was read, as plain tensors: a pass over a block adds to them or leaves them as they are.

A cache that is changed in place can be neither shared between trajectories nor recomputed for a backward pass. Here
every pass gets the prefix and returns a longer one, so that the steps that denoise a block all start from the same
prefix, and gradients go through it (paper, §3.3, stage 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


KeysAndValues = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Prefix:
    """What each row has read so far.

    Attributes:
        keys_values (`tuple[tuple[Tensor, Tensor], ...]`): of each layer, `(rows, heads, length, dim)`.
        mask (`Tensor` of shape `(rows, length)`): bool, what is not padding.
        next_position (`Tensor` of shape `(rows,)`): position of what comes next; int64.
    """

    keys_values: KeysAndValues
    mask: Tensor
    next_position: Tensor

    def select(self, rows: Tensor) -> Prefix:
        """Return the prefixes of some rows, in the order of their int64 numbers `(count,)`."""
        kept = tuple((keys[rows], values[rows]) for keys, values in self.keys_values)
        return Prefix(kept, self.mask[rows], self.next_position[rows])

    def repeat(self, count: int) -> Prefix:
        """Return each row `count` times, the copies of one row after the other."""
        return self.select(torch.arange(len(self.mask), device=self.mask.device).repeat_interleave(count))


class PrefixCache(Cache):
    """The `Cache` of one forward pass: `grown` holds prefix and pass, and the prefix stays as it is."""

    def __init__(self, prefix: Prefix | None) -> None:
        """Start from a prefix, or from nothing."""
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.prefix = () if prefix is None else prefix.keys_values
        self.length = 0 if prefix is None else prefix.mask.shape[1]
        self.grown: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Take `(rows, heads, queries, dim)` keys and values of a layer; return those of all positions."""
        if self.prefix:
            keys, values = self.prefix[layer_idx]
            key_states, value_states = torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)
        self.grown[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions precede the pass."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys a pass of `query_length` sees, and where they start."""
        return self.length + query_length, 0

    def keys_values(self) -> KeysAndValues:
        """Return keys and values of prefix and pass, layer by layer."""
        return tuple(self.grown[layer] for layer in sorted(self.grown))
