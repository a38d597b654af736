"""Perplexity of texts under a causal language model: exp of the mean negative log-likelihood of a token.

Unlike `evaluate`'s module of that name, the corpus is weighed by tokens and not by texts, so that how it is cut into texts
does not count, and an empty text has no perplexity instead of raising. Models with different vocabularies do not compare,
and a dull text has a low perplexity: read it beside diversity and length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import check_device, check_integer, check_texts, checked
from ..loading import load_complete, load_tokenizer


MOST_NATS = 700.0  # whose exponential is a number still


@checked
def perplexities(
    predictions: Sequence[str],
    model_id: str,
    batch_size: int = 16,
    add_start_token: bool = True,
    max_length: int | None = None,
    device: str | None = None,
) -> dict[str, list[float | None] | float | int | None]:
    """Return `perplexity` of all texts together, `perplexities` of each, and `num_tokens`, how many were scored.

    Args:
        predictions (`Sequence[str]`): the texts.
        model_id (`str`): path or Hub id of a causal language model with its tokenizer.
        batch_size (`int`, *optional*, defaults to 16): texts at a time; has no influence on the result.
        add_start_token (`bool`, *optional*, defaults to `True`): begin each text with the tokenizer's `bos_token`, so that
            its first token is scored too; else that token is only read.
        max_length (`int`, *optional*): most tokens of a text, the start token included; what is longer is cut. The
            tokenizer's `model_max_length` by default.
        device (`str`, *optional*): where the model runs; by default on a GPU if there is one.

    Returns:
        `dict`: `perplexity` (`float`), `perplexities` (`list[float | None]`) and `num_tokens` (`int`). A perplexity is
        `None` where no token is scored: for an empty text and, without start token, for a single token.

    Raises:
        OSError: if the model cannot be found or is incomplete, or is no safetensors.
        ValueError: for no texts, a start token that the tokenizer does not have, a `batch_size` or `max_length` that is too
            small, or a model that sees later tokens.
    """
    check_texts("predictions", predictions)
    check_integer("batch_size", batch_size)
    check_device("device", device)
    if max_length is not None and max_length < 2:
        raise ValueError(
            f"`max_length` has to be at least 2, one token to read and one to score, but is {max_length}."
        )
    tokenizer = load_tokenizer(model_id)
    start = _start_tokens(tokenizer, model_id) if add_start_token else []
    model = load_complete(AutoModelForCausalLM, model_id, dtype=torch.float32).eval()
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_causal(model, model_id)
    most = max_length or tokenizer.model_max_length
    ids = [(start + tokenizer(text, add_special_tokens=False)["input_ids"])[:most] for text in predictions]
    losses = [0.0] * len(ids)
    # Texts of like length share a batch, which leaves little padding.
    rows = sorted((i for i, tokens in enumerate(ids) if len(tokens) > 1), key=lambda i: len(ids[i]))
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        found = negative_log_likelihoods(model, [torch.tensor(ids[i]) for i in batch]).tolist()
        for i, loss in zip(batch, found, strict=True):
            losses[i] = loss
    counts = [max(len(tokens) - 1, 0) for tokens in ids]
    return {
        "perplexity": _perplexity(math.fsum(losses), sum(counts)),
        "perplexities": [_perplexity(loss, count) for loss, count in zip(losses, counts, strict=True)],
        "num_tokens": sum(counts),
    }


@torch.inference_mode()
def negative_log_likelihoods(model: PreTrainedModel, sequences: list[Tensor]) -> Tensor:
    """Return the negative log-likelihood of each sequence given its first token, in nats.

    Args:
        model (`PreTrainedModel`): a causal language model.
        sequences (`list[Tensor]`, each of shape `(length,)`): token ids, two or more each.

    Returns:
        `Tensor` of shape `(len(sequences),)`: float32, on the CPU.
    """
    # Padding stands on the right, where a causal model does not see it: any id will do.
    ids = pad_sequence(sequences, batch_first=True).to(model.device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=model.device)
    is_token = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    logits = model(input_ids=ids, attention_mask=is_token.long()).logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")  # (batch, length - 1)
    return (losses * is_token[:, 1:]).sum(1).cpu()


def _start_tokens(tokenizer: PreTrainedTokenizerBase, model_id: str) -> list[int]:
    if tokenizer.bos_token_id is None:
        raise ValueError(
            f"`add_start_token` needs a `bos_token`, which the tokenizer of `model_id` {model_id!r} does not have; "
            "`add_start_token=False` leaves the first token of each text unscored."
        )
    return [tokenizer.bos_token_id]


@torch.inference_mode()
def _check_causal(model: PreTrainedModel, model_id: str) -> None:
    """Refuse a model that sees later tokens, as encoders and masked diffusion models do: its perplexity says nothing."""
    first, other = model(input_ids=torch.tensor([[0, 1], [0, 2]], device=model.device)).logits[:, 0]
    if not torch.allclose(first, other, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"`model_id` has to name a causal language model, but the one of {model_id!r} sees later tokens."
        )


def _perplexity(loss: float, count: int) -> float | None:
    if count and not loss / count < MOST_NATS:
        raise ValueError(
            f"`model_id` gives texts a loss of {loss / count} nats a token, whose perplexity is no number."
        )
    return math.exp(loss / count) if count else None
