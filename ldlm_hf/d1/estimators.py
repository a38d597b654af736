"""How likely a masked diffusion model finds each token of a completion: d1's estimate of one step, the bound's, the trajectory's.

The probability of a whole text has no closed form. d1 (§4.2) takes each token's probability on a canvas on which the completion is
masked from end to end, and some tokens of the prompt are: one forward pass, blind to how the tokens hang together. The evidence
lower bound (LLaDA, eq. 6) averages over canvases on which part of the completion is masked: `log p(o | q) >= E_{l, S}[(n / l) sum
over i in S of log p(o_i | q, o without S)]` with l uniform on `1 … n` and S a set of l of the n tokens.

Of a completion that the model itself wrote, the probability of each token can be had as it was when the token was committed, on the
canvas of that step. With all steps this is the probability of the trajectory, but for the choice of places, and what a policy
gradient asks for (as in TraceRL, arXiv 2509.06949); it takes a forward pass for each step.

The canvas always has its full length, whatever the length of the completion, as it has in sampling. In the bound what follows
the first end of text stays masked, so that it is the bound of the completion up to there.

What differs from the published code: masks are tensors that belong to their rows and come from the rows' own generators, where there
every forward pass resets the global seed; and the output layer runs on the tokens that count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..arguments import check_integer, check_number, check_option, check_shapes, checked
from ..llada.losses import rows_per_chunk, score_tokens
from ..llada.masked_language_model import MaskedLanguageModel


MASK_DRAWS = ("stratified", "antithetic", "independent")


def one_step_log_probs(
    model: MaskedLanguageModel,
    prompt_ids: Tensor,
    attention_mask: Tensor,
    prompt_masking: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    chunk_size: int | None = None,
    excluded_token_id: int | None = None,
) -> Tensor:
    """Return d1's log-probability of each token, `(rows, length)` float32; zero where none counts.

    Args:
        model ([`MaskedLanguageModel`]): predicts masked tokens.
        prompt_ids (`Tensor` of shape `(rows, prompt)`): int64, padded on the left.
        attention_mask (`Tensor` of shape `(rows, prompt)`): zeros where that is padding.
        prompt_masking (`Tensor` of shape `(rows, prompt)`): bool, which tokens of the prompts to mask.
        completion_ids (`Tensor` of shape `(rows, length)`): int64.
        completion_mask (`Tensor` of shape `(rows, length)`): bool, which tokens count: those up to the end of the text.
        chunk_size (`int`, *optional*): tokens whose logits exist at a time; by default as many as make 2**24 logits.
        excluded_token_id (`int`, *optional*): a token, such as the mask, that shall have probability zero.
    """
    canvas = _canvas(model, prompt_ids, prompt_masking, torch.full_like(completion_ids, model.mask_token_id))
    return _log_probs(model, canvas, attention_mask, completion_ids, completion_mask, chunk_size, excluded_token_id)


def elbo_log_probs(
    model: MaskedLanguageModel,
    prompt_ids: Tensor,
    attention_mask: Tensor,
    prompt_masking: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    completion_masking: Tensor,
    weights: Tensor | None = None,
    chunk_size: int | None = None,
    excluded_token_id: int | None = None,
) -> Tensor:
    """Return each token's share in an estimate of the evidence lower bound, `(rows, length)` float32; a row's sum is the estimate.

    Args:
        model ([`MaskedLanguageModel`]): predicts masked tokens.
        prompt_ids (`Tensor` of shape `(rows, prompt)`): as in [`one_step_log_probs`].
        attention_mask (`Tensor` of shape `(rows, prompt)`): as there.
        prompt_masking (`Tensor` of shape `(rows, prompt)`): as there.
        completion_ids (`Tensor` of shape `(rows, length)`): as there.
        completion_mask (`Tensor` of shape `(rows, length)`): as there.
        completion_masking (`Tensor` of shape `(rows, draws, length)`): bool, what is masked in each draw of what counts.
        weights (`Tensor` of shape `(rows, draws)`, *optional*): of the draws; by default `n / (l draws)`, as befits masks from
            [`draw_completion_masking`].
        chunk_size (`int`, *optional*): as there.
        excluded_token_id (`int`, *optional*): as there.
    """
    if weights is None:
        masked = completion_masking.sum(dim=2).clamp(min=1)
        weights = completion_mask.sum(dim=1, keepdim=True) / (masked * completion_masking.shape[1])  # (rows, draws)
    prompts = (prompt_ids, attention_mask, prompt_masking)
    visible = completion_mask[:, None] & ~completion_masking
    scored = completion_masking & completion_mask[:, None]
    log_probs = _log_probs_of_draws(model, *prompts, completion_ids, visible, scored, chunk_size, excluded_token_id)
    return (log_probs * weights[..., None]).sum(dim=1)


def trajectory_log_probs(
    model: MaskedLanguageModel,
    prompt_ids: Tensor,
    attention_mask: Tensor,
    prompt_masking: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    completion_masking: Tensor,
    completion_scored: Tensor,
    chunk_size: int | None = None,
    excluded_token_id: int | None = None,
) -> Tensor:
    """Return each token's log-probability on the canvas on which it was committed, `(rows, length)` float32; zero if not scored.

    Args:
        model ([`MaskedLanguageModel`]): predicts masked tokens.
        prompt_ids (`Tensor` of shape `(rows, prompt)`): as in [`one_step_log_probs`].
        attention_mask (`Tensor` of shape `(rows, prompt)`): as there.
        prompt_masking (`Tensor` of shape `(rows, prompt)`): as there.
        completion_ids (`Tensor` of shape `(rows, length)`): as there.
        completion_mask (`Tensor` of shape `(rows, length)`): as there.
        completion_masking (`Tensor` of shape `(rows, steps, length)`): bool, what was still masked in each step, as
            [`draw_trajectory_steps`] returns it.
        completion_scored (`Tensor` of shape `(rows, steps, length)`): bool, what was committed in it.
        chunk_size (`int`, *optional*): as there.
        excluded_token_id (`int`, *optional*): as there.
    """
    prompts = (prompt_ids, attention_mask, prompt_masking)
    canvases = (completion_ids, ~completion_masking, completion_scored & completion_mask[:, None])
    return _log_probs_of_draws(model, *prompts, *canvases, chunk_size, excluded_token_id).sum(dim=1)


@checked
def draw_prompt_masking(
    attention_mask: Tensor, probability: float, num_iterations: int, generators: Sequence[torch.Generator]
) -> Tensor:
    """Return which tokens of each prompt are masked in each inner iteration, `(rows, iterations, prompt)` bool on the CPU.

    A row draws for its own tokens alone, so that padding changes nothing.

    Args:
        attention_mask (`Tensor` of shape `(rows, prompt)`): zeros where prompts are padded on the left.
        probability (`float`): of a mask.
        num_iterations (`int`): inner iterations.
        generators (`Sequence[torch.Generator]`): one CPU generator for each row.
    """
    check_shapes(attention_mask=(attention_mask, "mask: rows prompt"))
    check_number("probability", probability, 0, 1)
    check_integer("num_iterations", num_iterations)
    _check_count(generators, len(attention_mask))
    masking = torch.zeros(len(attention_mask), num_iterations, attention_mask.shape[1], dtype=torch.bool)
    lengths = attention_mask.sum(dim=1).tolist()
    for row, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
        drawn = torch.rand(num_iterations, length, generator=generator) < probability
        masking[row, :, masking.shape[2] - length :] = drawn
    return masking


@checked
def draw_completion_masking(
    completion_mask: Tensor, num_draws: int, generators: Sequence[torch.Generator], draws: str = "stratified"
) -> Tensor:
    """Return which tokens of each completion are masked in each draw, `(rows, num_draws, length)` bool on the CPU.

    In each draw the number of masked tokens is uniform on `1 … n`, and each set of so many is as likely as any other.

    Args:
        completion_mask (`Tensor` of shape `(rows, length)`): bool, the n tokens of each row that count; they come first.
        num_draws (`int`): draws for each row.
        generators (`Sequence[torch.Generator]`): one CPU generator for each row.
        draws (`str`, *optional*, defaults to `"stratified"`): spread the numbers evenly over the draws; `"antithetic"`, make
            two draws of each order of the tokens, one masking the first l and one the last n + 1 - l, so that every token is
            masked in either; `"independent"`, neither.

    Raises:
        ValueError: for another `draws`, or an odd number of antithetic ones.
    """
    check_option("elbo_draws", draws, MASK_DRAWS)
    check_integer("n_mc", num_draws)
    if draws == "antithetic" and num_draws % 2:
        raise ValueError(f"`n_mc` has to be even for antithetic draws, but is {num_draws}.")
    check_shapes(completion_mask=(completion_mask, "bool: rows length"))
    _check_count(generators, len(completion_mask))
    masking = torch.zeros(len(completion_mask), num_draws, completion_mask.shape[1], dtype=torch.bool)
    for row, (length, generator) in enumerate(zip(completion_mask.sum(dim=1).tolist(), generators, strict=True)):
        masking[row, :, :length] = _draw_masks(length, num_draws, draws, generator)
    return masking


@checked
def draw_trajectory_steps(
    commit_steps: Tensor, completion_mask: Tensor, num_draws: int, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Return what was masked before, and what was committed in, some steps of each row, both `(rows, num_draws, length)` bool.

    Where a row has more steps than that, a random choice of them; where it has fewer, the rest is empty.

    Args:
        commit_steps (`Tensor` of shape `(rows, length)`): the step that committed each token, int64; a token that none did has
            a greater number than all others.
        completion_mask (`Tensor` of shape `(rows, length)`): bool, which tokens count; steps that committed none are left out.
        num_draws (`int`): steps of each row.
        generators (`Sequence[torch.Generator]`): one CPU generator for each row.
    """
    check_integer("n_mc", num_draws)
    form = "rows length"
    check_shapes(commit_steps=(commit_steps, f"int64: {form}"), completion_mask=(completion_mask, f"bool: {form}"))
    rows, length = commit_steps.shape
    _check_count(generators, rows)
    chosen = torch.full((rows, num_draws), -1)
    commit_steps, completion_mask = commit_steps.cpu(), completion_mask.cpu()
    for row, generator in enumerate(generators):
        steps = commit_steps[row][completion_mask[row]].unique()
        if len(steps) > num_draws:
            steps = steps[torch.randperm(len(steps), generator=generator)[:num_draws].sort().values]
        chosen[row, : len(steps)] = steps
    is_drawn = (chosen >= 0)[..., None]
    masked = commit_steps[:, None] >= chosen[..., None]
    return masked & is_drawn, (commit_steps[:, None] == chosen[..., None]) & is_drawn


def _check_count(generators: Sequence[torch.Generator], rows: int) -> None:
    if len(generators) != rows:
        raise ValueError(f"`generators` has {len(generators)} generators for {rows} rows; give one for each.")


def _draw_masks(length: int, num_draws: int, draws: str, generator: torch.Generator) -> Tensor:
    """Return `(num_draws, length)` bool."""
    count = num_draws // 2 if draws == "antithetic" else num_draws
    if draws == "independent":
        masked = torch.randint(1, length + 1, (count,), generator=generator)
    else:  # each is uniform, and those of neighbouring draws follow one another
        start = torch.randint(length, (1,), generator=generator)
        masked = (start + torch.arange(count) * length // count) % length + 1
    place = torch.rand(count, length, generator=generator).argsort(dim=1)
    first = place < masked[:, None]
    return first if draws != "antithetic" else torch.cat([first, place >= masked[:, None] - 1])


def _canvas(model: MaskedLanguageModel, prompt_ids: Tensor, prompt_masking: Tensor, completions: Tensor) -> Tensor:
    return torch.cat([prompt_ids.masked_fill(prompt_masking, model.mask_token_id), completions], dim=1)


def _log_probs_of_draws(
    model: MaskedLanguageModel,
    prompt_ids: Tensor,
    attention_mask: Tensor,
    prompt_masking: Tensor,
    completion_ids: Tensor,
    visible: Tensor,
    scored: Tensor,
    chunk_size: int | None,
    excluded_token_id: int | None,
) -> Tensor:
    """Return `(rows, draws, length)` log-probabilities where `scored`, zero elsewhere, each draw on a canvas of its own."""
    draws = visible.shape[1]
    completions = completion_ids[:, None].expand_as(visible)
    shown = torch.where(visible, completions, model.mask_token_id).flatten(0, 1)  # (rows * draws, length)
    prompts, attended = (part.repeat_interleave(draws, dim=0) for part in (prompt_ids, attention_mask))
    canvas = _canvas(model, prompts, prompt_masking.repeat_interleave(draws, dim=0), shown)
    labels = completions.flatten(0, 1)
    log_probs = _log_probs(model, canvas, attended, labels, scored.flatten(0, 1), chunk_size, excluded_token_id)
    return log_probs.unflatten(0, (-1, draws))


def _log_probs(
    model: MaskedLanguageModel,
    canvas: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    scored: Tensor,
    chunk_size: int | None,
    excluded_token_id: int | None,
) -> Tensor:
    """Return the `(rows, length)` log-probabilities of the labels where `scored`, zero elsewhere."""
    start = attention_mask.shape[1]
    mask = None  # attention without a mask is another kernel: what the sampler ran
    if not bool(attention_mask.all()):
        mask = torch.cat([attention_mask, attention_mask.new_ones(labels.shape)], dim=1)
    if model.is_split:
        states = model.hidden_states(canvas, mask)  # (rows, prompt + length, width)
        head = model.head if model.linear_head is None else model.linear_head
    else:
        states, head = model(canvas, mask), nn.Identity()  # (rows, prompt + length, vocab)
    states = states[:, start:][scored]  # (count, …)
    chunk_size = chunk_size or rows_per_chunk(model.vocab_size)
    losses, _ = score_tokens(states, head, labels[scored], chunk_size, excluded_token_id)
    return losses.new_zeros(labels.shape).masked_scatter(scored, -losses)
