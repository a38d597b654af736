"""Keys and values of a canvas of which only a window is computed anew (Fast-dLLM, §3.1).

An autoregressive cache grows at its end. In a masked diffusion model tokens change anywhere in the window that is being decoded, so
keys and values are *written over* from a given position on. What lies behind the written ones stays ("dual" cache), or there
is nothing behind them ("prefix" cache).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class WindowCache(Cache):
    """A `Cache` whose next forward pass writes its keys and values at `start`, over what is there."""

    def __init__(self) -> None:
        """Make an empty cache, which is first written from position 0 on."""
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.start = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write `(batch, heads, window, dim)` keys and values of a layer; return those of all positions."""
        while len(self.layers) <= layer_idx:
            self.layers.append(DynamicLayer())
        layer = self.layers[layer_idx]
        if not layer.is_initialized:
            layer.dtype, layer.device, layer.is_initialized = key_states.dtype, key_states.device, True
            layer.keys, layer.values = key_states[:, :, :0], value_states[:, :, :0]
        layer.keys = self._written(layer.keys, key_states)
        layer.values = self._written(layer.values, value_states)
        return layer.keys, layer.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions precede the window."""
        return self.start

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys a pass over a window of `query_length` attends to, and where they start."""
        cached = self.layers[layer_idx].keys.shape[2] if len(self.layers) > layer_idx else 0
        return max(cached, self.start + query_length), 0

    def _written(self, cached: Tensor, window: Tensor) -> Tensor:
        end = self.start + window.shape[2]
        return torch.cat([cached[:, :, : self.start], window, cached[:, :, end:]], dim=2)
