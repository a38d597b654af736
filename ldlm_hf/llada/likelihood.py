"""How likely a masked diffusion model finds a response: LLaDA's Monte-Carlo estimate (eq. 6, Alg. 3), and the exact sum.

`log p(r | q) >= E_{l, r_l}[(L / l) sum over masked i of log p(r_i | q, r_l)]`, where l is uniform on `1 … L` and `r_l` is the
response of L tokens with exactly l of them masked. Masking a fixed number, rather than each token by chance, takes an order of
magnitude fewer draws. The bound is the mean, over all orders of the tokens, of their log-likelihood written in that order.

What differs from the released code: the l of the draws are spread over `1 … L` in whole numbers. There they are rounded, halves to
the even neighbour, so that odd l may come up half as often as they should. And they are spread over all draws of a response,
not over those of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor, nn

from ..arguments import MOST_GUIDANCE, check_finite, check_integer, check_number, check_token_ids, checked, shown
from ..loading import check_weights
from ..schedulers.sampling import one_per_row
from .losses import masked_cross_entropy, rows_per_chunk
from .masked_language_model import MaskedLanguageModel


ADVICE = "its weights may be NaN, a token may be impossible, or `guidance_scale` is too large"
MOST_ENUMERATED = 12  # 4,095 sets of masked tokens


@torch.no_grad()
@checked
def conditional_log_likelihood(
    model: MaskedLanguageModel | nn.Module,
    prompt_ids: Tensor,
    response_ids: Tensor,
    n_mc: int = 128,
    guidance_scale: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    batch_size: int = 32,
    stratified: bool = True,
) -> float | Tensor:
    """Estimate a lower bound of the log-likelihood of responses given prompts, in nats; dropout is off meanwhile.

    Args:
        model ([`MaskedLanguageModel`] or `PreTrainedModel`): predicts masked tokens.
        prompt_ids (`Tensor` of shape `(length,)` or `(batch, length)`): int64, without padding; may be empty.
        response_ids (`Tensor` of shape `(length,)` or `(batch, length)`): int64, without padding.
        n_mc (`int`, *optional*, defaults to 128): draws for each response; of one token all are the same, so one is made.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance against the prompt masked
            out; 1 is none. LLaDA writes it as `w + 1`.
        generator (`torch.Generator` or a sequence with one for each response, *optional*): on the CPU; with one for each, a
            batch equals its singles.
        batch_size (`int`, *optional*, defaults to 32): texts in a forward pass; has no influence on the result.
        stratified (`bool`, *optional*, defaults to `True`): spread the number of masked tokens evenly over the draws.

    Returns:
        `float`, or a float32 `Tensor` of shape `(batch,)` on the CPU for responses of two dimensions.

    Raises:
        ValueError: for shapes that do not fit, tokens that are masks, or an argument out of range.
    """
    language_model, prompts, responses = _check_inputs(model, prompt_ids, response_ids)
    check_integer("n_mc", n_mc)
    check_integer("batch_size", batch_size)
    check_number("guidance_scale", guidance_scale, -MOST_GUIDANCE, MOST_GUIDANCE)
    rows, length = responses.shape
    generators = one_per_row(generator, rows)
    draws = 1 if length == 1 else n_mc
    masks = torch.stack([_draw_masks(length, draws, stratified, each) for each in generators])  # (rows, draws, length)
    losses = _losses(language_model, prompts, responses, masks, guidance_scale, batch_size)  # (rows, draws)
    estimates = -(losses * length / masks.sum(dim=2)).mean(dim=1)
    check_finite("model", estimates, ADVICE)
    return estimates if response_ids.ndim == 2 else estimates.item()


@torch.no_grad()
@checked
def exact_log_likelihood_bound(
    model: MaskedLanguageModel | nn.Module,
    prompt_ids: Tensor,
    response_ids: Tensor,
    guidance_scale: float = 1.0,
    batch_size: int = 32,
) -> float | Tensor:
    """Return what [`conditional_log_likelihood`] estimates, summed over all sets of masked tokens.

    Args:
        model ([`MaskedLanguageModel`] or `PreTrainedModel`): predicts masked tokens.
        prompt_ids (`Tensor` of shape `(length,)` or `(batch, length)`): int64, without padding; may be empty.
        response_ids (`Tensor` of shape `(length,)` or `(batch, length)`): int64; at most 12 tokens.
        guidance_scale (`float`, *optional*, defaults to 1.0): as there.
        batch_size (`int`, *optional*, defaults to 32): texts in a forward pass; has no influence on the result.

    Returns:
        `float`, or a float32 `Tensor` of shape `(batch,)` on the CPU for responses of two dimensions.

    Raises:
        ValueError: as there, and for a response that is too long.
    """
    language_model, prompts, responses = _check_inputs(model, prompt_ids, response_ids)
    check_integer("batch_size", batch_size)
    check_number("guidance_scale", guidance_scale, -MOST_GUIDANCE, MOST_GUIDANCE)
    rows, length = responses.shape
    if length > MOST_ENUMERATED:
        raise ValueError(f"`response_ids` has {length} tokens, too many for a sum over all sets of {MOST_ENUMERATED}.")
    masks = (torch.arange(1, 2**length)[:, None] >> torch.arange(length)) % 2 == 1  # (sets, length)
    # A set of l tokens is drawn with probability 1 / (L comb(L, l)) and weighs L / l.
    weights = torch.tensor([1 / (count * comb(length, count)) for count in masks.sum(dim=1).tolist()])
    losses = _losses(language_model, prompts, responses, masks.expand(rows, -1, -1), guidance_scale, batch_size)
    bounds = -(losses * weights).sum(dim=1)
    check_finite("model", bounds, ADVICE)
    return bounds if response_ids.ndim == 2 else bounds.item()


def _draw_masks(length: int, draws: int, stratified: bool, generator: torch.Generator | None) -> Tensor:
    """Return `(draws, length)` bool: where a response is masked in each draw, in one place at least."""
    if stratified:  # the counts of a draw j are uniform, and those of neighbouring draws follow one another
        start = torch.randint(length, (1,), generator=generator)
        counts = (start + torch.arange(draws) * length // draws) % length + 1
    else:
        counts = torch.randint(1, length + 1, (draws,), generator=generator)
    order = torch.rand(draws, length, generator=generator).argsort(dim=1)
    return order < counts[:, None]


def _losses(
    language_model: MaskedLanguageModel,
    prompts: Tensor,
    responses: Tensor,
    masks: Tensor,
    guidance_scale: float,
    batch_size: int,
) -> Tensor:
    """Return the `(rows, draws)` sums of the negative log-likelihoods of masked tokens; float32 on the CPU."""
    rows, draws, _ = masks.shape
    sums = torch.zeros(rows * draws)
    module = language_model.model
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        for texts in torch.arange(rows * draws).split(batch_size):
            row, draw = texts // draws, texts % draws
            device = language_model.device
            is_masked = masks[row, draw].to(device)  # (texts, length)
            batch = (prompts[row].to(device), responses[row].to(device), is_masked)
            losses = _masked_losses(language_model, *batch, guidance_scale)
            sums.index_add_(0, texts[is_masked.nonzero()[:, 0].cpu()], losses.cpu())
    finally:
        for part in training:
            part.training = True
    return sums.view(rows, draws)


def _masked_losses(
    language_model: MaskedLanguageModel, prompts: Tensor, responses: Tensor, is_masked: Tensor, guidance_scale: float
) -> Tensor:
    """Return the `(count,)` negative log-likelihoods of all masked tokens, text by text."""
    mask_token_id, start = language_model.mask_token_id, prompts.shape[1]
    ids = torch.cat([prompts, responses.masked_fill(is_masked, mask_token_id)], dim=1)
    given = [ids]
    if guidance_scale != 1.0:  # the prompt is masked out (LLaDA, eq. 16)
        given.append(torch.cat([torch.full_like(prompts, mask_token_id), ids[:, start:]], dim=1))
    if language_model.is_split:
        states, head = [language_model.hidden_states(text) for text in given], language_model.head
    else:
        states, head = [language_model(text) for text in given], torch.nn.Identity()
    states = torch.stack([state[:, start:][is_masked] for state in states], dim=1)  # (count, 1 or 2, width)

    def guided_logits(pair: Tensor) -> Tensor:
        logits = head(pair).float()
        return logits[:, 0] if len(given) == 1 else torch.lerp(logits[:, 1], logits[:, 0], guidance_scale)

    chunk_size = rows_per_chunk(len(given) * language_model.vocab_size)
    return masked_cross_entropy(states, guided_logits, responses[is_masked], chunk_size)


def _check_inputs(
    model: MaskedLanguageModel | nn.Module, prompt_ids: Tensor, response_ids: Tensor
) -> tuple[MaskedLanguageModel, Tensor, Tensor]:
    """Return the adapter and `(batch, length)` prompts and responses, or raise `ValueError` for what does not fit."""
    language_model = model if isinstance(model, MaskedLanguageModel) else MaskedLanguageModel(model)
    if getattr(language_model.model.config, "attention_pattern", "") == "block_causal":
        raise ValueError("`model` is block-causal, but the estimate shows it the whole text.")
    check_weights("model", language_model.model)
    given = {"prompt_ids": prompt_ids, "response_ids": response_ids}
    for name, ids in given.items():
        if not isinstance(ids, Tensor):
            raise ValueError(f"`{name}` has to be (length,) or (batch, length) int64, but is {shown(ids)}.")
        if ids.ndim not in (1, 2) or ids.dtype != torch.long:
            raise ValueError(
                f"`{name}` has to be (length,) or (batch, length) int64, but is {tuple(ids.shape)} {ids.dtype}."
            )
        if bool((ids == language_model.mask_token_id).any()):
            raise ValueError(f"`{name}` holds the mask token (id {language_model.mask_token_id}); remove it.")
        check_token_ids(name, ids, language_model.vocab_size)
    if prompt_ids.shape[:-1] != response_ids.shape[:-1] or not response_ids.numel():
        raise ValueError(
            f"`prompt_ids` {tuple(prompt_ids.shape)} and `response_ids` {tuple(response_ids.shape)} have to be as many as one "
            "another, and no response empty."
        )
    limit, length = language_model.max_length, prompt_ids.shape[-1] + response_ids.shape[-1]
    if limit is not None and length > limit:
        raise ValueError(f"Prompt and response have {length} tokens together, but the model has {limit} positions.")
    return language_model, torch.atleast_2d(prompt_ids), torch.atleast_2d(response_ids)
