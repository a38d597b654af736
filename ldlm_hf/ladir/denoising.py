"""Denoising behind a prefix: question and finished blocks are read once, a step runs the block's own tokens only.

The same functions serve inference, where nothing needs gradients, and the rollout of stage 2, where the answer's loss
goes back through every step (paper, §3.3); there each step is recomputed in the backward pass rather than kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .losses import predicted_velocity
from .prefix_cache import Prefix


if TYPE_CHECKING:
    from .modeling_ladir import LaDiRForReasoning


def euler_times(num_steps: int) -> list[float]:
    """Return the times at which a block is denoised, `1, 1 - 1/T, …, 1/T`: never 0, where nothing is left to do."""
    return [1 - step / num_steps for step in range(num_steps)]


def read_question(
    model: LaDiRForReasoning, ids: Tensor, mask: Tensor, condition_dropped: Tensor | None = None
) -> Prefix:
    """Return the prefix of questions.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        ids (`Tensor` of shape `(batch, length)`): tokens, int64.
        mask (`Tensor` of shape `(batch, length)`): bool, padded on the right.
        condition_dropped (`Tensor` of shape `(batch,)`, *optional*): bool, which are replaced by the learned null.
    """
    mask, length = mask.bool(), ids.shape[1]
    embeddings = model.embed_question(ids, mask, condition_dropped)
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=ids.device)  # so that padding attends to something
    positions = torch.arange(length, device=ids.device) * mask
    _, cache = model.read(embeddings, (causal & mask[:, None]) | own, positions)
    return Prefix(cache.keys_values(), mask, mask.sum(1))


def predict_latents(model: LaDiRForReasoning, prefix: Prefix, latents: Tensor, t: Tensor) -> Tensor:
    """Return the network's prediction for a block at time `t`, float32; the prefix stays as it is.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        prefix ([`Prefix`]): question and finished blocks.
        latents (`Tensor` of shape `(rows, latents_per_block, latent_dim)`): noised latents of the block.
        t (`Tensor` of shape `()` or `(rows,)`): time in [0, 1].
    """
    embeddings = model.embed_block(latents, t.expand(len(latents)))
    length = embeddings.shape[1]
    within = torch.arange(length, device=latents.device).sub(1).clamp_min(0)  # the timestep token stands with ⟨BOT⟩
    states, _ = model.read(embeddings, _sees_all(prefix, length), prefix.next_position[:, None] + within, prefix)
    return model.latent_out(states[:, 2:-1]).float()


def append_block(model: LaDiRForReasoning, prefix: Prefix, latents: Tensor) -> tuple[Prefix, Tensor]:
    """Return the prefix with a finished `(rows, latents_per_block, latent_dim)` block, and `(rows, 2)` stop logits."""
    embeddings = model.embed_block(latents)
    length = embeddings.shape[1]
    positions = prefix.next_position[:, None] + torch.arange(length, device=latents.device)
    states, cache = model.read(embeddings, _sees_all(prefix, length), positions, prefix)
    return _grown(prefix, cache.keys_values(), length), model.stop_head(states[:, -1])


def append_answer(model: LaDiRForReasoning, prefix: Prefix, ids: Tensor | None) -> tuple[Prefix, Tensor]:
    """Return the prefix with ⟨SOA⟩ or a token `(rows, 1)` of the answer, and `(rows, vocabulary)` next scores."""
    if ids is None:
        embeddings = model.embed_answer(prefix.next_position.new_zeros(len(prefix.mask), 0))
    else:
        embeddings = model.language_model.get_input_embeddings()(ids)
    positions = prefix.next_position[:, None]
    states, cache = model.read(embeddings, _sees_all(prefix, 1), positions, prefix)
    return _grown(prefix, cache.keys_values(), 1), model.answer_logits(states[:, -1])


def roll_out(
    model: LaDiRForReasoning,
    question_ids: Tensor,
    question_mask: Tensor,
    block_mask: Tensor,
    noise: Tensor,
    num_steps: int,
) -> Tensor:
    """Generate blocks from noise by Euler steps, with gradients through all of them.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        question_ids (`Tensor` of shape `(batch, length)`): tokens, int64.
        question_mask (`Tensor` of shape `(batch, length)`): bool, padded on the right.
        block_mask (`Tensor` of shape `(batch, blocks)`): bool, the first blocks of each row, at least one.
        noise (`Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`): what to start from, float32.
        num_steps (`int`): denoising steps of each block.

    Returns:
        `Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`, float32, zero where there is no block.
    """
    prefix, blocks = read_question(model, question_ids, question_mask), []
    rows = torch.arange(len(noise), device=noise.device)  # that are not finished
    for number in range(noise.shape[1]):
        is_left = block_mask[rows, number].bool()
        prefix, rows = prefix.select(is_left.nonzero().squeeze(1)), rows[is_left]
        latents = noise[rows, number]
        for time in euler_times(num_steps):
            t = torch.tensor(time, device=noise.device)
            prediction = checkpoint(predict_latents, model, prefix, latents, t, use_reentrant=False)
            latents = latents - predicted_velocity(prediction, latents, t, model.config.prediction_type) / num_steps
        blocks.append(torch.zeros_like(noise[:, number]).index_copy(0, rows, latents))
        if number + 1 < noise.shape[1]:
            prefix, _ = append_block(model, prefix, latents)
    return torch.stack(blocks, dim=1)


def _sees_all(prefix: Prefix, length: int) -> Tensor:
    """Return `(rows, length, prefix + length)`: what is read attends to all that was, and to all of itself."""
    own = prefix.mask.new_ones(len(prefix.mask), length)
    return torch.cat([prefix.mask, own], dim=1)[:, None].expand(-1, length, -1)


def _grown(prefix: Prefix, keys_values: tuple, length: int) -> Prefix:
    mask = torch.cat([prefix.mask, prefix.mask.new_ones(len(prefix.mask), length)], dim=1)
    return Prefix(keys_values, mask, prefix.next_position + length)
