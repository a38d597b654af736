"""Flow matching on the straight path `z_t = (1 - t) z_0 + t eps` and the losses of answers and stops (paper, eq. 2-5).

Every row counts the same, however many blocks and tokens it has, so that neither accumulation nor the number of
processes changes a step. Time runs from 0, where latents are clean, to 1, where they are noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_option, check_shapes, check_token_ids


PREDICTION_TYPES = ("flow", "sample", "epsilon", "v_prediction")
SMALLEST = 1e-3  # of a divisor; eps leaves z_0 open at t = 1, and z_0 leaves the velocity open at t = 0


def add_flow_noise(z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return `z_t = (1 - t) z_0 + t eps` in float32; `t` has the leading dimensions of `z0`."""
    _check_latents(t, z0=z0, noise=noise)
    t = _like(t, z0)
    return (1 - t) * z0.float() + t * noise.float()


def flow_target(z0: Tensor, noise: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """Return what the network shall predict, in the shape of both broadcast.

    Args:
        z0 (`Tensor` of shape `(…, length, dim)`): clean latents.
        noise (`Tensor` of the same shape, or one that `z0` broadcasts to): the noise in `z_t`.
        t (`Tensor` of shape `(…)`): times in [0, 1].
        prediction_type (`str`): `"flow"` (`eps - z_0`), `"sample"` (`z_0`), `"epsilon"` or `"v_prediction"`
            (`(1 - t) eps - t z_0`).

    Raises:
        ValueError: for an unknown `prediction_type`.
    """
    check_option("prediction_type", prediction_type, PREDICTION_TYPES)
    _check_latents(t, z0=z0, noise=noise)
    t = _like(t, z0)
    clean, noise = torch.broadcast_tensors(z0, noise)
    return {"flow": noise - clean, "sample": clean, "epsilon": noise, "v_prediction": (1 - t) * noise - t * clean}[
        prediction_type
    ]


def predicted_velocity(prediction: Tensor, zt: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """Return the velocity `u = dz/dt` behind a prediction, float32.

    At `t = 1` latents are the noise itself, and `"epsilon"` does not tell what is behind it: zero is taken for `z_0` there, the
    mean of standardised latents, rather than an error of the network divided by almost nothing.

    Args:
        prediction (`Tensor` of shape `(…, length, dim)`): the network's.
        zt (`Tensor` of the same shape): noised latents.
        t (`Tensor` of shape `(…)` or `()`): times in [0, 1].
        prediction_type (`str`): what was predicted.

    Raises:
        ValueError: for an unknown `prediction_type`.
    """
    check_option("prediction_type", prediction_type, PREDICTION_TYPES)
    check_shapes(zt=(zt, "float: …"), prediction=(prediction, "float: …"))
    _check_latents(t, zt=zt)
    prediction, zt, t = prediction.float(), zt.float(), _like(t, zt)
    if prediction_type == "flow":
        return prediction
    if prediction_type == "sample":
        return (zt - prediction) / t.clamp_min(SMALLEST)
    if prediction_type == "epsilon":
        remaining = 1 - t
        return torch.where(remaining < SMALLEST, zt, (prediction - zt) / remaining.clamp_min(SMALLEST))
    return (prediction + (2 * t - 1) * zt) / ((1 - t).square() + t.square())


def predicted_x0(velocity: Tensor, zt: Tensor, t: Tensor) -> Tensor:
    """Return the estimate `z_0 = z_t - t u` of shape `(…, length, dim)`; `t` is `(…)` or `()`."""
    check_shapes(zt=(zt, "float: …"), velocity=(velocity, "float: …"))
    _check_latents(t, zt=zt)
    return zt.float() - _like(t, zt) * velocity.float()


def flow_loss(prediction: Tensor, target: Tensor, block_mask: Tensor) -> Tensor:
    """Return each row's mean squared error over its blocks and their noisy copies: `(batch,)`, float32.

    Args:
        prediction, target (`Tensor` of shape `(batch, blocks, copies, length, dim)`): predicted and wanted.
        block_mask (`Tensor` of shape `(batch, blocks)`): bool, which blocks there are; at least one in each row.
    """
    form = "float: batch blocks copies length dim"
    check_shapes(prediction=(prediction, form), target=(target, form), block_mask=(block_mask, "mask: batch blocks"))
    _check_any_block(block_mask)
    errors = (prediction.float() - target.float()).square().mean((2, 3, 4))  # (batch, blocks)
    return (errors * block_mask).sum(1) / block_mask.sum(1)


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's mean cross-entropy over its answer in nats (eq. 3): `(batch,)`, float32.

    Args:
        logits (`Tensor` of shape `(batch, length, vocabulary)`): scores of the token that `labels` has at that place.
        labels (`Tensor` of shape `(batch, length)`): the answer's tokens, its end among them, -100 where padding;
            int64.
    """
    check_shapes(logits=(logits, "float: batch length vocabulary"), labels=(labels, "int64: batch length"))
    check_token_ids("labels", labels.clamp_min(0), logits.shape[-1])
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return losses.sum(1) / (labels != -100).sum(1).clamp_min(1)


def stop_loss(logits: Tensor, block_mask: Tensor) -> Tensor:
    """Return each row's mean cross-entropy of going on after each block but the last (eq. 4): `(batch,)`.

    Args:
        logits (`Tensor` of shape `(batch, blocks, 2)`): of ⟨BOT⟩ and ⟨SOA⟩ after each block.
        block_mask (`Tensor` of shape `(batch, blocks)`): bool, which blocks there are, the first ones of each row.
    """
    check_shapes(logits=(logits, "float: batch blocks 2"), block_mask=(block_mask, "bool: batch blocks"))
    _check_any_block(block_mask)
    following = torch.cat([block_mask[:, 1:], torch.zeros_like(block_mask[:, :1])], dim=1)
    labels = (~following).long()  # (batch, blocks): 1 where no block follows
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return (losses * block_mask).sum(1) / block_mask.sum(1)


def mean_of_kept(losses: Tensor, dropped: Tensor | None) -> Tensor:
    """Return the mean of `(batch,)` losses over the rows that are not dropped, zero where all are."""
    if not check_shapes(losses=(losses, "float: batch")).get("batch", 1):
        raise ValueError("`losses` has to hold that of at least one row, but is empty.")
    if dropped is None:
        return losses.mean()
    check_shapes(losses=(losses, "batch"), dropped=(dropped, "bool: batch"))
    return (losses * ~dropped).sum() / (~dropped).sum().clamp_min(1)


def _check_any_block(block_mask: Tensor) -> None:
    """Raise `ValueError` for a row without a block, whose mean would be 0 / 0; on the CPU, as elsewhere it would be waited for."""
    if block_mask.device.type == "cpu" and not bool(block_mask.bool().any(dim=1).all()):
        raise ValueError("`block_mask` has to be true somewhere in each row, but has a row without a block.")


def _check_latents(t: Tensor, **latents: Tensor) -> None:
    """Raise `ValueError` unless latents are `(…, length, dim)` and alike, and times have their first dimensions or none."""
    check_shapes(t=(t, "float: …"))
    for name, tensor in latents.items():
        check_shapes(**{name: (tensor, "float: … length dim")})
    try:
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in latents.values()))
        fits = t.ndim in (0, len(shape) - 2) and torch.broadcast_shapes(t.shape, shape[:-2]) == shape[:-2]
    except RuntimeError:
        fits = False
    if not fits:
        shapes = ", ".join(f"`{name}` {tuple(tensor.shape)}" for name, tensor in latents.items())
        raise ValueError(f"{shapes} and `t` {tuple(t.shape)} have to be (…, length, dim) alike, and (…) or ().")


def _like(t: Tensor, latents: Tensor) -> Tensor:
    """View times so that they broadcast over latents; a scalar stays one."""
    t = t.float()
    return t.reshape(*t.shape, *[1] * (latents.ndim - t.ndim)) if t.ndim else t
