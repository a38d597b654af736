"""Attention masks as additive floats, the one form that every attention implementation reads alike."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import check_shapes, checked


@checked
def padding_mask(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the `(batch, 1, 1, keys)` additive mask of a `(batch, keys)` mask of ones (attend) and zeros (padding)."""
    check_shapes(attention_mask=(attention_mask, "mask: batch keys"))
    _check_dtype(dtype)
    blocked = attention_mask[:, None, None, :] == 0
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill(blocked, torch.finfo(dtype).min)


@checked
def block_causal_mask(query_blocks: Tensor, key_blocks: Tensor, key_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the additive mask under which a position attends to its own block and those before it.

    Args:
        query_blocks (`Tensor` of shape `(queries,)`): number of the block of each query; int64.
        key_blocks (`Tensor` of shape `(keys,)`): the same of each key.
        key_mask (`Tensor` of shape `(batch, keys)`): ones, and zeros for keys that are padding.
        dtype (`torch.dtype`): of the result, the model's.

    Returns:
        `Tensor` of shape `(batch, 1, queries, keys)`.
    """
    check_shapes(
        query_blocks=(query_blocks, "queries"),
        key_blocks=(key_blocks, "keys"),
        key_mask=(key_mask, "mask: batch keys"),
    )
    _check_dtype(dtype)
    blocked = (key_blocks > query_blocks[:, None]) | (key_mask == 0)[:, None, :]  # (batch, queries, keys)
    zeros = torch.zeros(blocked.shape, dtype=dtype, device=blocked.device)
    return zeros.masked_fill(blocked, torch.finfo(dtype).min)[:, None]


def _check_dtype(dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise ValueError(f"`dtype` has to be one of floats, but is {dtype}.")
