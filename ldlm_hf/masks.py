"""Attention masks as additive floats, the one form that every attention implementation reads alike."""

from __future__ import annotations

import torch
from torch import Tensor


def padding_mask(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the `(batch, 1, 1, keys)` additive mask of a `(batch, keys)` mask of ones (attend) and zeros (padding)."""
    blocked = attention_mask[:, None, None, :] == 0
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill(blocked, torch.finfo(dtype).min)
