"""Losses of masked diffusion: the cross-entropy of masked tokens, over the probability of a mask (LLaDA, eq. 3 and 5).

`L = E_t[(1 / (p L')) sum over masked i of -log p(x_i | x_t)]` with `p = (1 - eps) t + eps`, where `L'` is the number of
tokens that could have been masked: an upper bound of the negative log-likelihood of a token.

What differs from the published code: the output layer runs on masked positions alone, on some of them at a time, and once more
in the backward pass. With 126,464 tokens in the vocabulary, the logits of one text of 4,096 would be 2 GB and more than all
else together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from ..arguments import check_integer, check_option, check_shapes, check_token_ids
from .fused_head import is_plain_linear, linear_cross_entropy


NORMALIZATIONS = ("sample", "batch")
LOGITS_BUDGET = 2**24  # logits at a time, 64 MB in float32
LLADA_ROWS = 128  # so many rows of LLaDA's vocabulary are within the budget


def rows_per_chunk(vocab_size: int, budget: int = LOGITS_BUDGET) -> int:
    """Return how many positions have `budget` logits together, at least one.

    Args:
        vocab_size (`int`): logits of one position.
        budget (`int`, *optional*, defaults to 2**24): logits at a time.
    """
    check_integer("vocab_size", vocab_size)
    check_integer("budget", budget)
    return max(1, budget // vocab_size)


def masked_cross_entropy(
    hidden_states: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    chunk_size: int = LLADA_ROWS,
    excluded_token_id: int | None = None,
) -> Tensor:
    """Return the negative log-likelihood of each label, `(count,)` float32, as [`score_tokens`] does.

    Args:
        hidden_states (`Tensor` of shape `(count, …)`): what the output layer reads at each position.
        head (`Callable[[Tensor], Tensor]`): the output layer, `(rows, …)` to `(rows, vocab)`.
        labels (`Tensor` of shape `(count,)`): the tokens that were masked; int64.
        chunk_size (`int`, *optional*, defaults to 128): positions at a time; [`rows_per_chunk`] tells how many are good.
        excluded_token_id (`int`, *optional*): a token, such as the mask, that shall have probability zero; LLaDA excludes
            none in training.

    Raises:
        ValueError: as [`score_tokens`].
    """
    return score_tokens(hidden_states, head, labels, chunk_size, excluded_token_id)[0]


def score_tokens(
    hidden_states: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    chunk_size: int = LLADA_ROWS,
    excluded_token_id: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood of each label and whether it is the most probable token.

    No more than `chunk_size` rows of logits exist at a time: they are computed again in the backward pass. Where the output
    layer is one plain `nn.Linear`, the gradients of its weights are added up as they come (`linear_cross_entropy`).

    Args:
        hidden_states (`Tensor` of shape `(count, …)`): what the output layer reads at each position.
        head (`Callable[[Tensor], Tensor]`): the output layer, `(rows, …)` to `(rows, vocab)`, in any dtype; `linear_head` of
            a [`MaskedLanguageModel`] where there is one.
        labels (`Tensor` of shape `(count,)`): the right tokens; int64.
        chunk_size (`int`, *optional*, defaults to 128): positions at a time.
        excluded_token_id (`int`, *optional*): a token that shall have probability zero; it must be no label.

    Returns:
        `tuple[Tensor, Tensor]` of shape `(count,)`: float32 and bool.

    Raises:
        ValueError: for a `chunk_size` below 1, or as many labels as there are not hidden states.
    """
    check_integer("chunk_size", chunk_size)
    check_shapes(hidden_states=(hidden_states, "float: count width …"), labels=(labels, "int64: count"))
    if excluded_token_id is not None:
        check_integer("excluded_token_id", excluded_token_id, least=0)
    if not len(labels):  # nothing masked: zero losses that are still part of the graph
        return hidden_states.float().flatten(1).sum(1), labels.bool()
    arguments = (head, excluded_token_id)
    if len(labels) <= chunk_size:
        return _score(hidden_states, labels, *arguments)
    if is_plain_linear(head) and hidden_states.ndim == 2:
        _check_tokens(labels, excluded_token_id, head.out_features)
        losses, is_right = linear_cross_entropy(
            hidden_states, head.weight, head.bias, labels, chunk_size, excluded_token_id
        )
        return losses.float(), is_right
    chunks = zip(hidden_states.split(chunk_size), labels.split(chunk_size), strict=True)
    scores = [checkpoint(_score, *chunk, *arguments, use_reentrant=False) for chunk in chunks]
    losses, is_right = zip(*scores, strict=True)
    return torch.cat(losses), torch.cat(is_right)


def _score(hidden_states: Tensor, labels: Tensor, head, excluded_token_id: int | None) -> tuple[Tensor, Tensor]:
    # In bfloat16 a log-softmax over a large vocabulary is off in the second digit.
    logits = head(hidden_states).float()
    _check_tokens(labels, excluded_token_id, logits.shape[-1])
    if excluded_token_id is not None:
        logits = logits.index_fill(-1, labels.new_tensor([excluded_token_id]), -torch.inf)
    return cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(dim=-1) == labels


def _check_tokens(labels: Tensor, excluded_token_id: int | None, vocab_size: int) -> None:
    check_token_ids("labels", labels, vocab_size)
    if excluded_token_id is not None and excluded_token_id >= vocab_size:
        raise ValueError(
            f"`excluded_token_id` has to be below {vocab_size}, the vocabulary, but is {excluded_token_id}."
        )


def masked_diffusion_loss(
    token_losses: Tensor, mask_probability: Tensor, lengths: Tensor, normalization: str = "sample"
) -> Tensor:
    """Return the loss of a batch, a scalar in nats per token.

    Args:
        token_losses (`Tensor` of shape `(batch, length)`): negative log-likelihoods; zero where nothing was masked.
        mask_probability (`Tensor` of shape `(batch,)`): with which each row's tokens were masked; above zero.
        lengths (`Tensor` of shape `(batch,)`): how many tokens of each row could have been masked: those of the response,
            padding included, or all in pre-training; at least one.
        normalization (`str`, *optional*, defaults to `"sample"`): `"sample"` divides each row by its own length and takes the
            mean of the rows (LLaDA); `"batch"` divides the sum of the rows by the sum of their lengths (d1's code), so that
            long rows count more.

    Raises:
        ValueError: for another `normalization`.
    """
    check_option("normalization", normalization, NORMALIZATIONS)
    check_shapes(
        token_losses=(token_losses, "float: batch length"),
        mask_probability=(mask_probability, "float: batch"),
        lengths=(lengths, "batch"),
    )
    if not len(lengths):
        raise ValueError("`lengths` has to hold that of at least one row, but is empty.")
    weighted = token_losses.float().sum(1) / mask_probability  # (batch,)
    if normalization == "batch":
        return weighted.sum() / lengths.sum()
    return (weighted / lengths).mean()
