"""One sequence for a whole training step: its columns, who sees whom, and where each stands (paper, §3.2, Fig. 2).

A row is `Q | (BOT z EOT) x blocks | SOA y | (BOT t z_t EOT) x blocks x copies`. A clean block sees the question, the
clean blocks before it and all of itself; a noisy copy of it sees the same, itself in place of the clean one; the
answer sees the question, all clean blocks and itself up to each token. So one forward pass gives the flow matching
loss of all blocks, the answer's and the stops', each exactly what a separate pass would give. Positions are those of
separate passes too: a copy has its clean block's, and the timestep token, which a clean block lacks, that of the ⟨BOT⟩
before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


QUESTION, CLEAN, ANSWER, NOISY = range(4)
BOT, EOT, SOA = range(3)  # rows of the model's table of markers


@dataclass(frozen=True)
class PackedLayout:
    """The columns of a packed sequence.

    Attributes:
        kind (`Tensor` of shape `(length,)`): `QUESTION`, `CLEAN`, `ANSWER` or `NOISY`; int64.
        block (`Tensor` of shape `(length,)`): number of the block, -1 outside blocks.
        copy (`Tensor` of shape `(length,)`): number of the noisy copy, -1 outside them.
        is_real (`Tensor` of shape `(batch, length)`): bool, what is not padding.
        position_ids (`Tensor` of shape `(batch, length)`): int64, 0 for padding.
    """

    kind: Tensor
    block: Tensor
    copy: Tensor
    is_real: Tensor
    position_ids: Tensor

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Return the `(batch, 1, length, length)` additive mask; padding attends to itself, so that no row is empty."""
        query, key = (lambda x: x[:, None]), (lambda x: x[None, :])
        kinds, blocks = self.kind, self.block
        order = torch.arange(len(kinds), device=kinds.device)
        question, clean = key(kinds) == QUESTION, key(kinds) == CLEAN
        is_own = (key(kinds) == query(kinds)) & (key(blocks) == query(blocks)) & (key(self.copy) == query(self.copy))
        is_before = key(order) <= query(order)
        sees_question = question & ((query(kinds) != QUESTION) | is_before)
        is_in_block = (query(kinds) == CLEAN) | (query(kinds) == NOISY)
        sees_clean = clean & ((query(kinds) == ANSWER) | (is_in_block & (key(blocks) < query(blocks))))
        sees_own = is_own & (is_in_block | is_before)
        allowed = (sees_question | sees_clean | sees_own)[None] & self.is_real[:, None, :]
        allowed = allowed | torch.eye(len(kinds), dtype=torch.bool, device=kinds.device)
        return additive_mask(allowed, dtype)


def pack(question_mask: Tensor, block_mask: Tensor, answer_mask: Tensor, latents: int, copies: int) -> PackedLayout:
    """Return the layout of a batch.

    Args:
        question_mask (`Tensor` of shape `(batch, question_length)`): bool, padded on the right.
        block_mask (`Tensor` of shape `(batch, blocks)`): bool, the first blocks of each row.
        answer_mask (`Tensor` of shape `(batch, answer_length)`): bool, padded on the right; ⟨SOA⟩ not included.
        latents (`int`): latent vectors in a block.
        copies (`int`): noisy copies of each block; 0 for none.
    """
    device, blocks = question_mask.device, block_mask.shape[1]
    clean, noisy = latents + 2, latents + 3  # columns of a block, without and with the timestep token
    sizes = torch.tensor([question_mask.shape[1], blocks * clean, answer_mask.shape[1] + 1, blocks * copies * noisy])
    kind = torch.arange(4).repeat_interleave(sizes).to(device)
    numbers = torch.arange(blocks, device=device)
    outside = [kind.new_full((int(size),), -1) for size in sizes]
    noisy_blocks = numbers.repeat_interleave(copies * noisy)
    noisy_copies = torch.arange(copies, device=device).repeat_interleave(noisy).repeat(blocks)
    block = torch.cat([outside[QUESTION], numbers.repeat_interleave(clean), outside[ANSWER], noisy_blocks])
    copy = torch.cat([outside[QUESTION], outside[CLEAN], outside[ANSWER], noisy_copies])

    starts = question_mask.sum(1, keepdim=True) + numbers * clean  # (batch, blocks): position of each ⟨BOT⟩
    within = torch.arange(clean, device=device)
    noisy_within = torch.cat([within[:1], within])  # the timestep token stands where ⟨BOT⟩ does
    answer_start = question_mask.sum(1, keepdim=True) + block_mask.sum(1, keepdim=True) * clean
    positions = [
        torch.arange(question_mask.shape[1], device=device).expand(len(question_mask), -1),
        (starts[:, :, None] + within).flatten(1),
        answer_start + torch.arange(answer_mask.shape[1] + 1, device=device),
        (starts[:, :, None, None] + noisy_within).expand(-1, -1, copies, -1).flatten(1),
    ]
    real = [
        question_mask,
        block_mask.repeat_interleave(clean, dim=1),
        torch.cat([torch.ones_like(answer_mask[:, :1]), answer_mask], dim=1),
        block_mask.repeat_interleave(copies * noisy, dim=1),
    ]
    is_real = torch.cat(real, dim=1).bool()
    return PackedLayout(kind, block, copy, is_real, torch.cat(positions, dim=1) * is_real)


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the `(batch, 1, queries, keys)` additive mask of a `(batch, queries, keys)` bool one."""
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
