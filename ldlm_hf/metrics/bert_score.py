"""BERTScore: how well the tokens of a text and of its reference match in the hidden states of a pretrained encoder.

Zhang et al., "BERTScore: Evaluating Text Generation with BERT", ICLR 2020 (arXiv 1904.09675), section 3. As in the authors'
`bert_score`, the special tokens can be matched but have no part in the averages.

**It ignores order**: every token takes the best match wherever that stands. "left up down up right" against "right up left
down up" has an F1 of 0.94 under MiniLM. Hence it is for prose only and never used for the reasoning tasks, where order is
the answer. Scores of different encoders or layers do not compare.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import check_device, check_integer, checked
from ..loading import load_complete, load_tokenizer
from .texts import paired_texts


PUBLISHED_LAYERS = {"roberta-large": 17, "FacebookAI/roberta-large": 17}  # the one model under its two Hub ids


@dataclass(frozen=True)
class TokenStates:
    """Hidden states of a batch of texts.

    Attributes:
        states (`Tensor` of shape `(batch, length, hidden_size)`): of unit length.
        is_token (`Tensor` of shape `(batch, length)`): bool, false where padding.
        weights (`Tensor` of shape `(batch, length)`): share of each token in its text's average; 0 for special tokens and
            padding, and all over where a text has nothing to average.
    """

    states: Tensor
    is_token: Tensor
    weights: Tensor


@checked
def bert_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    model_type: str = "roberta-large",
    num_layers: int | None = None,
    idf: bool = False,
    rescale_with_baseline: bool = False,
    baseline_path: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
) -> dict[str, list[float] | float]:
    """Return `precision`, `recall` and `f1` of every text, and `mean_precision`, `mean_recall` and `mean_f1`.

    It ignores order and is not for the reasoning tasks. Where a text or its reference has no token, or with `idf` none of
    any weight, all three are 0 (before rescaling). What is longer than the tokenizer's `model_max_length` is cut. An
    encoder-decoder model gives its encoder.

    Args:
        predictions (`Sequence[str]`): the written texts.
        references (`Sequence[str]`): the target texts, as many.
        model_type (`str`, *optional*, defaults to `"roberta-large"`): path or Hub id of the encoder.
        num_layers (`int`, *optional*): which hidden state: 0 is the embeddings, k comes out of layer k. Has to be given
            for every encoder but the default one, whose layer is 17.
        idf (`bool`, *optional*, defaults to `False`): weigh tokens by their inverse document frequency in `references`, so
            that the score of a text depends on the others.
        rescale_with_baseline (`bool`, *optional*, defaults to `False`): map the score of unrelated texts to 0.
        baseline_path (`str`, *optional*): CSV file of the scores of unrelated texts, with the columns `LAYER`, `P`, `R`, `F`.
        batch_size (`int`, *optional*, defaults to 64): pairs at a time; has no influence on the scores.
        device (`str`, *optional*): where the encoder runs; by default on a GPU if there is one.

    Raises:
        OSError: if the encoder cannot be found or is incomplete, or is no safetensors.
        ValueError: for no or unequally many texts, a layer that the encoder does not have or that is not said, a rescaling
            without its baseline, a `batch_size` below 1, or `idf` of a single reference.
    """
    pairs = paired_texts(predictions, references)
    num_layers = _check_settings(model_type, num_layers, idf, rescale_with_baseline, baseline_path, batch_size, pairs)
    check_device("device", device)
    baseline = _read_baseline(baseline_path, num_layers) if rescale_with_baseline else [0.0, 0.0, 0.0]
    tokenizer, model = _load(model_type, num_layers, device)
    token_weights = _inverse_document_frequencies(references, tokenizer) if idf else torch.ones(len(tokenizer))
    scores = torch.zeros(len(pairs), 3)  # precision, recall, F1
    # Pairs of like length share a batch, which leaves little padding. An empty text needs no encoder.
    rows = sorted(
        (i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)),
        key=lambda i: sum(map(len, pairs[i])),
    )
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        encoded = [
            encode_tokens([pairs[i][side] for i in batch], tokenizer, model, num_layers, token_weights)
            for side in (0, 1)
        ]
        scores[batch] = match_greedily(*encoded).cpu()
    baseline = torch.tensor(baseline)
    scores = (scores - baseline) / (1 - baseline)  # section 3, "Baseline Rescaling"
    columns = dict(zip(("precision", "recall", "f1"), scores.T.tolist(), strict=True))
    return {**columns, **{f"mean_{name}": math.fsum(values) / len(values) for name, values in columns.items()}}


@torch.inference_mode()
def encode_tokens(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    num_layers: int,
    token_weights: Tensor,
) -> TokenStates:
    """Return the hidden states of texts with their weights.

    Args:
        texts (`list[str]`): at least one.
        tokenizer (`PreTrainedTokenizerBase`): the encoder's tokenizer.
        model (`PreTrainedModel`): the encoder.
        num_layers (`int`): which hidden state.
        token_weights (`Tensor` of shape `(vocab_size,)`): float, weight of each token of the vocabulary.
    """
    stripped = [text.strip() for text in texts]
    encoded = tokenizer(stripped, padding=True, truncation=True, return_special_tokens_mask=True, return_tensors="pt")
    ids, is_token = encoded["input_ids"], encoded["attention_mask"]
    weights = token_weights[ids] * (encoded["special_tokens_mask"] == 0) * is_token
    weights = torch.nan_to_num(weights / weights.sum(1, keepdim=True))  # 0 / 0 where there is nothing to average
    ids, is_token = ids.to(model.device), is_token.to(model.device)
    states = model(input_ids=ids, attention_mask=is_token, output_hidden_states=True).hidden_states[num_layers]
    return TokenStates(torch.nn.functional.normalize(states, dim=-1), is_token.bool(), weights.to(model.device))


def match_greedily(candidates: TokenStates, references: TokenStates) -> Tensor:
    """Match every token with the most similar one of the other text, by cosine.

    Args:
        candidates ([`TokenStates`]): the written texts.
        references ([`TokenStates`]): the target texts, as many.

    Returns:
        `Tensor` of shape `(batch, 3)`: float precision, recall and F1.
    """
    similarity = candidates.states @ references.states.transpose(1, 2)  # (batch, candidate_length, reference_length)
    is_pair = candidates.is_token[:, :, None] & references.is_token[:, None, :]
    similarity = similarity.masked_fill(~is_pair, -1.0)  # the least cosine, so that no padding is matched
    precision = (similarity.amax(2) * candidates.weights).sum(1)
    recall = (similarity.amax(1) * references.weights).sum(1)
    total = precision + recall
    f1 = torch.where(total != 0, 2 * precision * recall / total, 0.0)
    has_both = (candidates.weights.sum(1) > 0) & (references.weights.sum(1) > 0)
    return torch.stack([precision, recall, f1], dim=1) * has_both[:, None]


def _check_settings(
    model_type: str,
    num_layers: int | None,
    idf: bool,
    rescale_with_baseline: bool,
    baseline_path: str | None,
    batch_size: int,
    pairs: list[tuple[str, str]],
) -> int:
    """Return the layer, after the checks that need no encoder."""
    if num_layers is None:
        num_layers = PUBLISHED_LAYERS.get(model_type)
    if num_layers is None:
        raise ValueError(
            f"`num_layers` has to say which hidden state of `model_type` {model_type!r} is taken; only for "
            f"{sorted(PUBLISHED_LAYERS)} is it known."
        )
    if rescale_with_baseline and baseline_path is None:
        raise ValueError("`baseline_path` has to name a CSV file for `rescale_with_baseline=True`, but is None.")
    check_integer("batch_size", batch_size)
    if idf and len(pairs) < 2:
        raise ValueError("`idf` is 0 for every token of a single reference; give more references or `idf=False`.")
    return num_layers


def _load(model_type: str, num_layers: int, device: str | None) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return the tokenizer and the encoder."""
    # Byte-level BPE otherwise writes the first word of a text unlike the same word inside; the published scores do not.
    tokenizer = load_tokenizer(model_type, add_prefix_space=True)
    # Where an encoder was trained without a pooler, as RoBERTa was, its checkpoint has none; no hidden state needs it.
    model = load_complete(AutoModel, model_type, unused=("pooler.",), dtype=torch.float32)
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    if not 0 <= num_layers <= model.config.num_hidden_layers:
        raise ValueError(
            f"`num_layers` has to be between 0 and {model.config.num_hidden_layers} for `model_type` {model_type!r}, but is "
            f"{num_layers}."
        )
    return tokenizer, model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _inverse_document_frequencies(references: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return, by token id, -log of the share of references that hold the token, with one added to both counts."""
    counts: Counter[int] = Counter()
    for text in references:
        counts.update(set(tokenizer(text.strip(), truncation=True)["input_ids"]))
    total = len(references) + 1
    return torch.tensor([math.log(total / (counts[token] + 1)) for token in range(len(tokenizer))])


def _read_baseline(path: str, num_layers: int) -> list[float]:
    """Return precision, recall and F1 of unrelated texts."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if not {"LAYER", "P", "R", "F"} <= set(row):
                raise ValueError(
                    f"`baseline_path` {path!r} has to have the columns LAYER, P, R and F, but has {list(row)}."
                )
            try:
                layer, baseline = int(row["LAYER"]), [float(row[column]) for column in ("P", "R", "F")]
            except (TypeError, ValueError) as error:
                raise ValueError(f"`baseline_path` {path!r} has a row that holds no numbers: {row}.") from error
            if layer == num_layers and not all(-1 <= value < 1 for value in baseline):
                raise ValueError(
                    f"`baseline_path` {path!r} has {baseline} for layer {layer}; they have to lie in [-1, 1)."
                )
            if layer == num_layers:
                return baseline
    raise ValueError(f"`baseline_path` {path!r} has no row for layer {num_layers}, which `num_layers` asks for.")
