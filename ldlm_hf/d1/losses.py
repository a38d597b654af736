"""Losses of diffu-GRPO: advantages within a group, the clipped ratio, the divergence from a reference (d1, eq. 2 to 4).

`L = -min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta (exp(d) - d - 1)`, with the ratio `rho` of the probabilities under the policy
and under the one that wrote the completion, and `d` the log-ratio of reference to policy; of every token of a completion up
to its end. The advantage `A` is the reward less the mean of its group.

What differs from the published code: the mean over tokens may be taken over a whole update (`"dapo"`), not over whatever rows
happen to be in one forward pass (`"bnpo"`), so that it does not depend on how an update is cut up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import check_integer, check_number, check_option, check_shapes


SCALINGS = ("none", "group", "batch")
BASELINES = ("group", "none")
LEVELS = ("token", "sequence")
LOSS_TYPES = ("dapo", "bnpo", "grpo", "dr_grpo")
STANDARD_DEVIATION_FLOOR = 1e-4
MOST_EPSILON = 1e30  # in float32
LEAST_TOKENS = 1e-9  # of an update, divided by its micro-batches


def group_advantages(
    rewards: Tensor,
    num_generations: int,
    scale_rewards: str = "none",
    negative_weight: float = 1.0,
    baseline: str = "group",
) -> Tensor:
    """Return how much better each completion is than its group, `(rows,)` float32; exactly zero in a group of equals.

    Args:
        rewards (`Tensor` of shape `(rows,)`): of the completions, those to one prompt behind one another.
        num_generations (`int`): completions to a prompt.
        scale_rewards (`str`, *optional*, defaults to `"none"`): divide by nothing (d1, Dr. GRPO), by the standard deviation of
            the `"group"` (GRPO), or of all rewards (`"batch"`).
        negative_weight (`float`, *optional*, defaults to 1.0): times which advantages below zero count; with 0, completions are
            learned from only where they are better than their group.
        baseline (`str`, *optional*, defaults to `"group"`): what is subtracted, the mean of the group, or `"none"`, nothing: then
            the advantage is the reward, whatever the group; with rewards of 0 and 1 it is training on what is right (RAFT, arXiv 2304.06767).

    Raises:
        ValueError: for another `scale_rewards` or `baseline`, a group of one, or rewards that make up no whole groups.
    """
    check_option("scale_rewards", scale_rewards, SCALINGS)
    check_option("advantage_baseline", baseline, BASELINES)
    check_integer("num_generations", num_generations)
    check_number("negative_weight", negative_weight)
    check_shapes(rewards=(rewards, "float: …"))
    if num_generations < 2 or rewards.ndim != 1 or not len(rewards) or len(rewards) % num_generations:
        raise ValueError(
            f"`rewards` has the shape {tuple(rewards.shape)}, which are no groups of `num_generations` {num_generations}; "
            "a group is two completions or more."
        )
    groups = rewards.double().view(-1, num_generations)
    advantages = groups - groups.mean(dim=1, keepdim=True) if baseline == "group" else groups
    if scale_rewards == "group":
        advantages = advantages / (groups.std(dim=1, keepdim=True) + STANDARD_DEVIATION_FLOOR)
    elif scale_rewards == "batch":
        advantages = advantages / (groups.std() + STANDARD_DEVIATION_FLOOR)
    # A mean of equal numbers is rounded; what is left over would be taken for an advantage.
    is_constant = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    advantages = torch.where(advantages < 0, negative_weight * advantages, advantages)
    if baseline == "group":
        advantages = advantages.masked_fill(is_constant, 0.0)
    return advantages.flatten().float()


def log_ratio(log_probs: Tensor, others: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """Return `log_probs - others`, token by token or as the mean of each sequence; `(rows, length)` or `(rows, 1)`.

    Args:
        log_probs (`Tensor` of shape `(rows, length)`): float32.
        others (`Tensor` of the same shape): of another model.
        mask (`Tensor` of the same shape): bool, which tokens count.
        level (`str`, *optional*, defaults to `"token"`): or `"sequence"` (GSPO), for estimates that mean something as a sum only.

    Raises:
        ValueError: for another `level`.
    """
    check_option("importance_sampling_level", level, LEVELS)
    form = "float: rows length"
    check_shapes(log_probs=(log_probs, form), others=(others, form), mask=(mask, "mask: rows length"))
    difference = log_probs - others
    if level == "token":
        return difference
    return (difference * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def clipped_loss(log_ratios: Tensor, advantages: Tensor, epsilon_low: float, epsilon_high: float) -> Tensor:
    """Return `-min(rho A, clip(rho) A)`, of the shape of `log_ratios`, in float32 at least.

    Args:
        log_ratios (`Tensor` of shape `(rows, length)` or `(rows, 1)`): of the policy to the one that wrote the completions.
        advantages (`Tensor` of shape `(rows,)`): of the completions.
        epsilon_low (`float`): a ratio below 1 less this no longer counts where the advantage is negative.
        epsilon_high (`float`): one above 1 plus this no longer counts where it is positive.
    """
    _check_ratios(log_ratios, advantages, epsilon_low, epsilon_high)
    ratio, advantages = _ratio(log_ratios), advantages[:, None]
    return -torch.minimum(
        ratio * advantages, ratio.clamp(1 - float(epsilon_low), 1 + float(epsilon_high)) * advantages
    )


def is_clipped(
    log_ratios: Tensor, advantages: Tensor, epsilon_low: float, epsilon_high: float
) -> tuple[Tensor, Tensor]:
    """Return where the ratio has no gradient, being too low or too high; bool, both of the shape of `log_ratios`.

    Args:
        log_ratios (`Tensor` of shape `(rows, length)` or `(rows, 1)`): as in [`clipped_loss`].
        advantages (`Tensor` of shape `(rows,)`): as there.
        epsilon_low (`float`): as there.
        epsilon_high (`float`): as there.
    """
    _check_ratios(log_ratios, advantages, epsilon_low, epsilon_high)
    ratio, advantages = _ratio(log_ratios), advantages[:, None]
    return (ratio < 1 - float(epsilon_low)) & (advantages < 0), (ratio > 1 + float(epsilon_high)) & (advantages > 0)


def k3_divergence(log_ratios: Tensor) -> Tensor:
    """Return `exp(d) - d - 1`, an estimate of the divergence of policy from reference that is never negative.

    Args:
        log_ratios (`Tensor` of any shape): d, of the reference to the policy.
    """
    check_shapes(log_ratios=(log_ratios, "float: …"))
    return torch.expm1(log_ratios) - log_ratios


def aggregate(
    token_losses: Tensor, mask: Tensor, loss_type: str, num_tokens: float | None = None, max_length: int | None = None
) -> Tensor:
    """Return the loss of a micro-batch, a scalar.

    Args:
        token_losses (`Tensor` of shape `(rows, length)`): losses.
        mask (`Tensor` of shape `(rows, length)`): bool, which tokens count.
        loss_type (`str`): `"dapo"`, the sum over `num_tokens`; `"bnpo"`, the mean of the tokens here (d1's code); `"grpo"`, the
            mean of each row, and of these (the paper); `"dr_grpo"`, the sum over rows times `max_length`.
        num_tokens (`float`, *optional*): tokens that count in an update, divided by its micro-batches; for `"dapo"`.
        max_length (`int`, *optional*): most tokens in a row; for `"dr_grpo"`.

    Raises:
        ValueError: for another `loss_type`.
    """
    check_option("loss_type", loss_type, LOSS_TYPES)
    check_shapes(token_losses=(token_losses, "float: rows length"), mask=(mask, "mask: rows length"))
    if loss_type == "dapo":
        check_number("num_tokens", num_tokens, LEAST_TOKENS)
    elif loss_type == "dr_grpo":
        check_integer("max_length", max_length)
    losses = token_losses * mask
    if loss_type == "dapo":
        return losses.sum() / num_tokens
    if loss_type == "bnpo":
        return losses.sum() / mask.sum().clamp(min=1)
    if loss_type == "grpo":
        return (losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    return losses.sum() / (len(losses) * max_length)


def check_epsilon(name: str, value: float) -> None:
    """Raise `ValueError` unless `value` says how far a ratio may be from 1; infinity, with which nothing is clipped, does."""
    if not (isinstance(value, float) and value == math.inf):
        check_number(name, value, 0, MOST_EPSILON)


def _ratio(log_ratios: Tensor) -> Tensor:
    """Return the ratios in float32 at least: half precision holds neither what `epsilon_high` may be nor a ratio above 65,504."""
    return log_ratios.to(torch.promote_types(log_ratios.dtype, torch.float32)).exp()


def _check_ratios(log_ratios: Tensor, advantages: Tensor, epsilon_low: float, epsilon_high: float) -> None:
    check_shapes(log_ratios=(log_ratios, "float: rows length"), advantages=(advantages, "float: rows"))
    check_epsilon("epsilon_low", epsilon_low)
    check_epsilon("epsilon_high", epsilon_high)
