"""Cross-attention-only blocks, what the compressor and the expander of the autoencoder are made of (paper, §3.1)."""

from __future__ import annotations

import torch
from diffusers.models.attention import Attention, FeedForward
from torch import Tensor, nn


class CrossAttentionStack(nn.Module):
    """Cross-attention-only blocks: `length` learned queries read from states of any length (paper, §3.1)."""

    def __init__(self, length: int, width: int, states_width: int, num_layers: int, num_heads: int):
        """Make the learned queries `(length, width)` and the blocks that read `(batch, keys, states_width)`."""
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(length, width))
        self.norm_in = nn.LayerNorm(states_width)
        self.blocks = nn.ModuleList([CrossAttentionBlock(width, states_width, num_heads) for _ in range(num_layers)])
        self.norm_out = nn.LayerNorm(width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return `(batch, length, width)` from `(batch, keys, states_width)` and an additive `(batch, 1, 1, keys)` mask."""
        states = self.norm_in(states)
        hidden_states = self.queries.to(states.dtype).expand(len(states), -1, -1)  # (batch, length, width)
        for block in self.blocks:
            hidden_states = block(hidden_states, states, mask)
        return self.norm_out(hidden_states)


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention and feed-forward, each with a residual."""

    def __init__(self, width: int, states_width: int, num_heads: int):
        """Make a block of `width` that reads states of `states_width`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, states_width, heads=num_heads, dim_head=width // num_heads, bias=True)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, activation_fn="gelu")

    def forward(self, hidden_states: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the new `(batch, length, width)` hidden states."""
        hidden_states = hidden_states + self.attention(self.norm1(hidden_states), states, attention_mask=mask)
        return hidden_states + self.feed_forward(self.norm2(hidden_states))
