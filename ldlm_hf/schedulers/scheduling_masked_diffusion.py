"""The reverse process of a masked diffusion language model: which masks become which tokens in one step.

LLaDA's sampler (Nie et al. 2025, algorithm 5 and the released `generate.py`) in the dialect of diffusers'
`BlockRefinementScheduler`: draw a candidate for every mask, commit the most confident ones, never take a token back.
What differs from the released code:

* The mask itself is never a candidate (there it can be sampled and stays in the text).
* Gumbel noise is float32, but its exponential variates have 48 random bits, so that the tail that 24 bits cut off
  (Zheng et al. 2024) is there without float64.
* Candidates are ranked by the log-odds of their probability, which is the same order; the probability itself is 1.0 in
  float32 from odds of 2^25 on, where the released code still tells positions apart in float64.
* Rows have their own noise, timestep and schedule, so that a batch equals its singles.
* Further rules: the margin and the entropy as confidence, and the parallel commits of Fast-dLLM (Wu et al. 2025) by a
  threshold or a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from ..arguments import (
    MOST_TEMPERATURE,
    check_device,
    check_finite,
    check_integer,
    check_number,
    check_shapes,
    checked,
)
from ..noise import mask_tokens
from .sampling import confidence_of, draw_tokens, log_odds_of, one_per_row
from .transfer_counts import transfer_counts


REMASKING = ("low_confidence", "random", "topk_margin", "entropy")
LARGEST_TOKEN_ID = 2**63 - 1
MOST_FACTOR = 1e9  # with which everything is committed, however unsure


@dataclass
class MaskedDiffusionSchedulerOutput(BaseOutput):
    """What one step did.

    Args:
        prev_sample (`Tensor` of shape `(batch, positions)`): the tokens after the step.
        transfer_index (`Tensor` of shape `(batch, positions)`): bool, where a mask became a token.
        sampled_tokens (`Tensor` of shape `(batch, positions)`): the candidates; where there was no mask, the likeliest token.
        sampled_probs (`Tensor` of shape `(batch, positions)`): float32, the candidates' probabilities at temperature 1.
    """

    prev_sample: Tensor
    transfer_index: Tensor
    sampled_tokens: Tensor
    sampled_probs: Tensor


class MaskedDiffusionScheduler(SchedulerMixin, ConfigMixin):
    """Commits a few masks a step, block after block, as LLaDA does.

    The scheduler never sees the canvas: the caller passes the positions of each row's current block and the logits there.

    Args:
        block_length (`int`, *optional*, defaults to 32): tokens of a block; blocks are filled from left to right.
        num_inference_steps (`int`, *optional*, defaults to 128): steps that a pipeline takes if its caller names no number.
        remasking (`str`, *optional*, defaults to `"low_confidence"`): what a candidate's confidence is, always in the
            distribution at temperature 1: `"low_confidence"` its probability, `"topk_margin"` the lead of the likeliest
            token over the next, `"entropy"` the negative entropy, `"random"` a uniform number.
        threshold (`float`, *optional*): commit whatever has at least this confidence, and always the most confident
            candidate, instead of a fixed number a step. For `"low_confidence"` and `"topk_margin"`.
        factor (`float`, *optional*): commit the largest n whose n-th confidence is at least `1 - factor / (n + 1)`, and always
            one. For `"low_confidence"`.
        mask_token_id (`int`, *optional*): the mask; without it every call has to name it.
        suppress_token_ids (`list[int]`, *optional*): tokens that are never written.
        suppress_confidence_token_ids (`list[int]`, *optional*): tokens that are committed last, when the row has no other
            candidate (LLaDA does so with end-of-text, which otherwise fills a block from its end).
        mask_epsilon (`float`, *optional*, defaults to 0.001): probability of a mask at t = 0 in [`add_noise`].

    Raises:
        ValueError: for an unknown `remasking`, values out of range, or rules that do not go together.
    """

    order = 1

    @register_to_config
    @checked
    def __init__(
        self,
        block_length: int = 32,
        num_inference_steps: int = 128,
        remasking: str = "low_confidence",
        threshold: float | None = None,
        factor: float | None = None,
        mask_token_id: int | None = None,
        suppress_token_ids: list[int] | None = None,
        suppress_confidence_token_ids: list[int] | None = None,
        mask_epsilon: float = 1e-3,
    ) -> None:
        check_integer("block_length", block_length)
        check_integer("num_inference_steps", num_inference_steps)
        _check_rule(remasking, threshold, factor)
        for name, ids in (
            ("mask_token_id", [] if mask_token_id is None else [mask_token_id]),
            ("suppress_token_ids", suppress_token_ids or []),
            ("suppress_confidence_token_ids", suppress_confidence_token_ids or []),
        ):
            for token in ids:
                check_integer(name, token, LARGEST_TOKEN_ID, least=0)
        if not 0 <= mask_epsilon < 1:
            raise ValueError(f"`mask_epsilon` has to lie in [0, 1), but is {mask_epsilon}.")
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.arange(num_inference_steps)
        self.num_transfer_tokens: Tensor | None = None

    @checked
    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        *,
        gen_length: int | None = None,
        block_length: int | Sequence[int | Sequence[int]] | None = None,
    ) -> None:
        """Lay out the steps: `timesteps` `(n,)` counts from 0, `num_transfer_tokens` `(1 or rows, n)` says how many tokens each commits.

        The steps of a row are divided among its blocks in proportion to their lengths. Those of a block share its tokens evenly;
        the first ones take the remainder.

        Args:
            num_inference_steps (`int`): steps for the whole length, a multiple of the number of blocks.
            device (`str` or `torch.device`, *optional*): where both tensors go.
            gen_length (`int`, *optional*): tokens to generate, a multiple of the block length; one block by default.
            block_length (`int` or `Sequence`, *optional*): the config's by default; a sequence gives each row its own, or the
                lengths of all its blocks in turn, such as `[4, 8, 4]`.

        Raises:
            ValueError: if a length or the steps cannot be divided so, or if there are more steps than tokens in a block
                (the last steps would commit nothing).
        """
        check_integer("num_inference_steps", num_inference_steps)
        check_device("device", device)
        if block_length is None:
            block_length = self.config.block_length
        lengths = [block_length] if isinstance(block_length, int) else list(block_length)
        if not lengths:
            raise ValueError("`block_length` is an empty sequence; pass a length or one a row.")
        rows = [transfer_counts(num_inference_steps, gen_length, length) for length in lengths]
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.arange(num_inference_steps, device=device)
        self.num_transfer_tokens = torch.tensor(rows, device=device)

    @checked
    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        *,
        mask_token_id: int | None = None,
        temperature: float = 0.0,
        threshold: float | None = None,
        factor: float | None = None,
        remasking: str | None = None,
        num_transfer_tokens: Tensor | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> MaskedDiffusionSchedulerOutput | tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a candidate for every mask and commit the most confident ones.

        Args:
            model_output (`Tensor` of shape `(batch, positions, vocab)`): logits of any float dtype.
            timestep (`int` or `Tensor` of shape `()` or `(batch,)`): the column of `num_transfer_tokens`. Neither a threshold
                nor a factor looks at it, nor do they need `set_timesteps`.
            sample (`Tensor` of shape `(batch, positions)`): int64. Only masks change: pad a short row with any other token.
            mask_token_id (`int`, *optional*): the config's by default.
            temperature (`float`, *optional*, defaults to 0.0): of the candidates' distribution; 0 takes the likeliest tokens.
            threshold, factor (`float`, *optional*): the config's by default; with either, neither of the config's counts.
            remasking (`str`, *optional*): the config's by default.
            num_transfer_tokens (`Tensor` of shape `(batch,)`, *optional*): how many tokens each row commits where no rule by
                confidence applies; those of the schedule at `timestep` by default.
            generator (`torch.Generator` or a sequence of them, *optional*): for a temperature above 0 and for random
                confidence. With one a row, a row draws on its own masks alone and does not depend on the batch around it.
            return_dict (`bool`, *optional*, defaults to `True`): return a tuple instead of the output class if `False`.

        Returns:
            [`MaskedDiffusionSchedulerOutput`] or the tuple of its fields.

        Raises:
            ValueError: for shapes that disagree, logits that are NaN or infinite (on the CPU), a negative temperature, a mask nobody named, a suppressed token outside the
                vocabulary, a timestep outside the schedule, or another number of generators than rows.
        """
        mask_token_id = self._resolve_mask(mask_token_id)
        _check_step(model_output, sample, temperature)
        if threshold is None and factor is None:
            threshold, factor = self.config.threshold, self.config.factor
        remasking = self.config.remasking if remasking is None else remasking
        _check_rule(remasking, threshold, factor)
        generators = one_per_row(generator, sample.shape[0])
        is_masked = sample == mask_token_id
        logits = self._suppress(model_output.float(), mask_token_id)
        sampled_tokens = draw_tokens(logits, is_masked, temperature, generators)
        if (
            logits.device.type == "cpu"
        ):  # an accelerator would be waited for in every step; a pipeline looks at the end
            chosen = logits.gather(-1, sampled_tokens[..., None])
            check_finite("model_output", chosen, "the model's weights may be NaN, or what it was given")
        log_odds = log_odds_of(logits, sampled_tokens)
        # `sigmoid` differs in its last bit with a number's place in the tensor, hence with the batch around it.
        sampled_probs = 1 / (1 + (-log_odds).exp())

        if remasking == "low_confidence":
            confidence, ranked_by = sampled_probs, log_odds
        else:
            confidence = ranked_by = confidence_of(remasking, logits, is_masked, generators)
        if threshold is None and factor is None and num_transfer_tokens is None:
            num_transfer_tokens = self._scheduled_count(timestep, sample.shape[0])
        order, first_turn = self._order(ranked_by, sampled_tokens, is_masked)
        if threshold is None and factor is None:
            check_shapes(num_transfer_tokens=(num_transfer_tokens, f"int64: {len(sample)}"))
            count = num_transfer_tokens.to(sample.device)
        else:
            bound = _confidence_bound(threshold, factor, sample)
            passes = (confidence.gather(-1, order) >= bound) & first_turn.gather(-1, order)
            count = passes.sum(dim=-1).clamp(min=1)
        transfer_index = is_masked & (order.argsort(dim=-1) < count[:, None])
        prev_sample = torch.where(transfer_index, sampled_tokens, sample)
        if not return_dict:
            return prev_sample, transfer_index, sampled_tokens, sampled_probs
        return MaskedDiffusionSchedulerOutput(prev_sample, transfer_index, sampled_tokens, sampled_probs)

    @checked
    def add_noise(
        self,
        original_samples: Tensor,
        timesteps: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        *,
        maskable: Tensor | None = None,
        mask_token_id: int | None = None,
    ) -> Tensor:
        """Return the tokens `(batch, length)`, each masked with probability `(1 - mask_epsilon) t + mask_epsilon`.

        Args:
            original_samples (`Tensor` of shape `(batch, length)`): int64 tokens.
            timesteps (`Tensor` of shape `(batch,)`): float, each row's t in [0, 1].
            generator (`torch.Generator` or a sequence of them, *optional*): on the CPU; with one a row, a batch equals its singles.
            maskable (`Tensor` of shape `(batch, length)`, *optional*): bool, what may be masked; everything by default.
            mask_token_id (`int`, *optional*): the config's by default.

        Raises:
            ValueError: if `timesteps` are not times in [0, 1], and as [`~noise.mask_tokens`].
        """
        mask_token_id = self._resolve_mask(mask_token_id)
        check_shapes(original_samples=(original_samples, "int64: batch length"), timesteps=(timesteps, "batch"))
        if not timesteps.is_floating_point() or not bool(((timesteps >= 0) & (timesteps <= 1)).all()):
            raise ValueError(f"`timesteps` has to hold times in [0, 1] as floats, but is {timesteps}.")
        epsilon = self.config.mask_epsilon
        generators = one_per_row(generator, original_samples.shape[0])
        probability = (1 - epsilon) * timesteps.float() + epsilon
        return mask_tokens(original_samples, probability, generators, mask_token_id, maskable)[0]

    def _resolve_mask(self, mask_token_id: int | None) -> int:
        """Return the mask of a call, or the config's."""
        mask_token_id = self.config.mask_token_id if mask_token_id is None else mask_token_id
        if mask_token_id is None:
            raise ValueError("`mask_token_id` is None and the scheduler's config has none; pass it or set it there.")
        check_integer("mask_token_id", mask_token_id, LARGEST_TOKEN_ID, least=0)
        return mask_token_id

    def _suppress(self, logits: Tensor, mask_token_id: int) -> Tensor:
        """Return a copy of the logits in which the mask and the suppressed tokens have probability zero."""
        vocab_size = logits.shape[-1]
        suppressed = set(self.config.suppress_token_ids or [])
        if any(not 0 <= token < vocab_size for token in suppressed):
            raise ValueError(
                f"`suppress_token_ids` {sorted(suppressed)} are not all below the vocabulary's {vocab_size}."
            )
        if 0 <= mask_token_id < vocab_size:  # an output layer may well have no row for the mask
            suppressed.add(mask_token_id)
        if len(suppressed) == vocab_size:
            raise ValueError(f"`suppress_token_ids` and the mask leave none of the {vocab_size} tokens to sample.")
        index = torch.tensor(sorted(suppressed), dtype=torch.long, device=logits.device)
        return logits.index_fill(-1, index, -torch.inf)

    def _order(self, ranked_by: Tensor, sampled_tokens: Tensor, is_masked: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of each row from first to last to commit, and which of them are not to wait for others."""
        last = torch.tensor(self.config.suppress_confidence_token_ids or [], dtype=torch.long, device=is_masked.device)
        # Whose turn it is: 0 ordinary candidates, 1 those that come last, 2 what is no mask.
        turn = torch.where(is_masked, torch.isin(sampled_tokens, last).long(), 2)
        order = ranked_by.sort(dim=-1, descending=True, stable=True).indices
        order = order.gather(-1, turn.gather(-1, order).sort(dim=-1, stable=True).indices)
        return order, turn == turn.amin(dim=-1, keepdim=True)

    def _scheduled_count(self, timestep: int | Tensor, batch_size: int) -> Tensor:
        """Return how many tokens each row commits at its timestep, `(batch,)`."""
        table = self.num_transfer_tokens
        if table is None:
            raise ValueError("The scheduler has no `num_transfer_tokens` yet; call `set_timesteps` first.")
        rows, num_steps = table.shape
        if rows not in (1, batch_size):
            raise ValueError(
                f"`sample` has {batch_size} rows, but `set_timesteps` was given a `block_length` for {rows}; pass one a row."
            )
        timestep = torch.as_tensor(timestep)
        if timestep.is_floating_point() or timestep.shape not in ((), (batch_size,)):
            raise ValueError(
                f"`timestep` has to be an integer, or one for each of {batch_size} rows, but is {timestep}."
            )
        # Looking at a tensor on an accelerator would wait for it; there, indexing has its own check.
        if timestep.device.type == "cpu" and bool(((timestep < 0) | (timestep >= num_steps)).any()):
            raise ValueError(f"`timestep` has to lie in 0 … {num_steps - 1} (see `set_timesteps`), but is {timestep}.")
        index = timestep.to(table.device, torch.long).expand(batch_size)
        return table.expand(batch_size, -1).gather(-1, index[:, None])[:, 0]


def _confidence_bound(threshold: float | None, factor: float | None, sample: Tensor) -> float | Tensor:
    """Return the least confidence that is committed, for each rank where it depends on the rank."""
    if factor is None:
        return threshold
    # Fast-dLLM: n tokens at once are safe if (n + 1) (1 - confidence) is small.
    return 1 - factor / torch.arange(2, sample.shape[-1] + 2, device=sample.device)


def _check_step(model_output: Tensor, sample: Tensor, temperature: float) -> None:
    """Refuse what `step` cannot work with."""
    check_shapes(sample=(sample, "int64: …"))
    check_shapes(model_output=(model_output, "… vocab"))
    if sample.ndim != 2 or model_output.shape[:-1] != sample.shape or not sample.numel() or model_output.shape[-1] < 2:
        raise ValueError(
            f"`model_output` {tuple(model_output.shape)} has to be (batch, positions, vocab), with two tokens or more, and "
            f"`sample` {tuple(sample.shape)} the same (batch, positions), none of them empty."
        )
    check_number("temperature", temperature, 0, MOST_TEMPERATURE)


def _check_rule(remasking: str, threshold: float | None, factor: float | None) -> None:
    """Refuse rules that do not exist or do not go together."""
    if remasking not in REMASKING:
        raise ValueError(f"`remasking` has to be one of {REMASKING}, but is {remasking!r}.")
    if threshold is not None and factor is not None:
        raise ValueError(f"`threshold` {threshold} and `factor` {factor} are two rules for the same; leave one None.")
    if threshold is not None and remasking not in ("low_confidence", "topk_margin"):
        raise ValueError(
            f"`threshold` {threshold} is a probability, which `remasking` {remasking!r} does not rank by."
        )
    if factor is not None and remasking != "low_confidence":
        raise ValueError(f"`factor` {factor} bounds a probability, which `remasking` {remasking!r} does not rank by.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` has to lie in [0, 1], but is {threshold}; None commits a fixed number a step.")
    if factor is not None and not 0 < factor <= MOST_FACTOR:
        raise ValueError(f"`factor` has to be positive, and at most {MOST_FACTOR}, but is {factor}.")
