"""Semi-autoregressive decoding of a masked canvas, one step at a time (LLaDA, Alg. 4 and 5; HEX; Fast-dLLM, Alg. 1).

The canvas is prompt and masks. It is filled block by block from the end of the prompt; in each step the model predicts the
masked positions of a row's current block and the scheduler chooses which of them to keep. Rows go at their own pace and may
have their own block length. What differs from the published loop changes no token: the output layer runs on the current
block's masked positions only, rows that are done leave the batch, and rows that look the same to the model are run once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..arguments import LogitsWatch
from ..masks import block_causal_mask
from ..schedulers import MaskedDiffusionScheduler
from .block_grid import BlockGrid
from .masked_language_model import MaskedLanguageModel, positions_of
from .shared_canvases import share_canvases
from .window_cache import WindowCache


WINDOWS = ("full", "truncated")
CACHES = ("none", "prefix", "dual")


@dataclass(frozen=True)
class DecodingSettings:
    """How to decode.

    Attributes:
        num_inference_steps (`int`): steps over all blocks.
        temperature (`float`): of the samples; 0 takes the most probable token.
        guidance_scale (`float`): weight of classifier-free guidance against the prompt masked out; 1 is none.
        window (`str`): `"full"` shows the model all the masks to come, `"truncated"` none behind the current block.
        cache (`str`): `"none"`; `"prefix"` keeps keys and values of what precedes the block, `"dual"` also of what follows.
        threshold, factor (`float`, *optional*): commit by confidence instead of by schedule, see the scheduler.
        remasking (`str`, *optional*): rule by which tokens are committed; the scheduler's by default.
        stop_token_ids (`tuple[int, ...]`): a row is done when nothing before the first of these is masked; none: never.
    """

    num_inference_steps: int
    temperature: float = 0.0
    guidance_scale: float = 1.0
    window: str = "full"
    cache: str = "none"
    threshold: float | None = None
    factor: float | None = None
    remasking: str | None = None
    stop_token_ids: tuple[int, ...] = field(default=())


class SemiAutoregressiveDecoder:
    """The state of one decoding: the canvas, where each row is, and what it took.

    Args:
        model ([`MaskedLanguageModel`]): predicts masked positions.
        scheduler ([`MaskedDiffusionScheduler`]): chooses tokens and what to commit; its timesteps are set here.
        canvas (`Tensor` of shape `(batch, prompt + generated)`): int64, masked where to generate; it is changed in place. What
            is behind the prompt and no mask is kept (infilling).
        prompt_mask (`Tensor` of shape `(batch, prompt)`): ones, and zeros for padding on the left.
        block_schedules (`list[tuple[int, ...]]`): for each row the lengths of its blocks, from left to right.
        generators (`list[torch.Generator]`, *optional*): for each row; needed unless everything is deterministic.
        settings ([`DecodingSettings`]): the rest.

    Attributes:
        canvas (`Tensor`): as it stands.
        nfe (`Tensor` of shape `(batch,)`): forward passes that each row took part in, guidance counted twice; int64.
        num_rows (`int`): rows that the model was run on, in all; rows that look the same to it are run once.
        committed (`Tensor` of shape `(batch, generated)`): which tokens the latest step wrote; bool.
    """

    def __init__(
        self,
        model: MaskedLanguageModel,
        scheduler: MaskedDiffusionScheduler,
        canvas: Tensor,
        prompt_mask: Tensor,
        block_schedules: list[tuple[int, ...]],
        generators: list[torch.Generator] | None,
        settings: DecodingSettings,
    ) -> None:
        """Start with nothing decoded."""
        self.model, self.scheduler, self.canvas, self.settings = model, scheduler, canvas, settings
        self._generators = generators
        self._prompt = prompt_mask.shape[1]
        generated = canvas.shape[1] - self._prompt
        self._grid = BlockGrid(block_schedules, settings.num_inference_steps, canvas.device)
        schedules = block_schedules[:1] if self._grid.is_uniform else block_schedules
        scheduler.set_timesteps(
            settings.num_inference_steps, canvas.device, gen_length=generated, block_length=schedules
        )
        self._quotas = scheduler.num_transfer_tokens.expand(len(canvas), -1)
        ones = prompt_mask.new_ones(len(canvas), generated)
        self._attention_mask = torch.cat([prompt_mask, ones], dim=1)
        self._position_ids = positions_of(self._attention_mask)
        self._columns = torch.arange(canvas.shape[1], device=canvas.device)
        self._is_padded = not bool(prompt_mask.all())
        self._is_block_causal = getattr(model.model.config, "attention_pattern", "") == "block_causal"
        self._block = self._first_masked_block()
        self._step = self._first_step_of(self._block)
        self._cache: WindowCache | None = None
        self._cached_block = -1
        self.nfe = torch.zeros_like(self._block)
        self.num_rows = 0
        self._watch = LogitsWatch()
        self.committed = torch.zeros_like(self.generated, dtype=torch.bool)

    @property
    def generated(self) -> Tensor:
        """The `(batch, generated)` part of the canvas behind the prompt, a view."""
        return self.canvas[:, self._prompt :]

    @property
    def is_done(self) -> bool:
        """Whether no row has a mask left."""
        return bool((self._block >= self._grid.num_blocks).all())

    @torch.no_grad()
    def step(self) -> None:
        """Predict the current blocks once and commit what the scheduler chooses."""
        block = self._current_block()
        start, end = (self._prompt + column for column in self._grid.span(block))  # (batch,)
        in_block = (self._columns >= start[:, None]) & (self._columns < end[:, None])
        eligible = in_block & (self.canvas == self.model.mask_token_id)
        rows = (
            eligible.any(dim=1).nonzero().squeeze(1)
            if self.settings.cache == "none"
            else self._columns.new_tensor(range(len(self.canvas)))
        )
        eligible, count = eligible[rows], eligible[rows].sum(dim=1)
        positions = eligible.int().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
        wanted = eligible.gather(1, positions)
        inside = torch.where(wanted, positions, start[rows, None])  # what fills a row up is in the window too
        logits = self._logits(rows, inside, block, start, end)  # (rows, positions, vocab)
        self._watch(None, logits)
        not_a_mask = int(self.model.mask_token_id == 0)
        sample = torch.where(wanted, self.canvas[rows].gather(1, positions), not_a_mask)
        output = self.scheduler.step(
            logits,
            self._step[rows],
            sample,
            mask_token_id=self.model.mask_token_id,
            temperature=self.settings.temperature,
            threshold=self.settings.threshold,
            factor=self.settings.factor,
            remasking=self.settings.remasking,
            num_transfer_tokens=self._quotas[rows].gather(1, self._step[rows, None]).squeeze(1),
            generator=None if self._generators is None else [self._generators[row] for row in rows.tolist()],
        )
        before = self.canvas[rows]
        after = before.scatter(
            1, positions, torch.where(output.transfer_index, output.prev_sample, before.gather(1, positions))
        )
        self.canvas[rows] = after
        self.committed.zero_()
        self.committed[rows] = (after != before)[:, self._prompt :]
        took_part = (count > 0).long()
        self.nfe[rows] += took_part * (1 if self.settings.guidance_scale == 1.0 else 2)
        self._step[rows] += took_part
        self.refresh()

    def check_logits(self) -> None:
        """Raise `ValueError` if any logits so far were NaN or infinite; it waits for the device, so ask at the end."""
        self._watch.check("model", "its weights may be NaN, or `guidance_scale` is too large")

    def refresh(self) -> None:
        """Work out anew where each row is; needed after the canvas was changed from outside."""
        if self.settings.stop_token_ids:
            self._fill_behind_the_end()
        block = self._first_masked_block()
        last = self._grid.steps(block)[1]
        step = torch.where(block == self._block, self._step.minimum(last), self._first_step_of(block))
        self._block, self._step = block, step

    def _current_block(self) -> Tensor:
        """Return the `(batch,)` block of each row; with a cache all rows wait for the last one."""
        if self.settings.cache == "none":
            return self._block
        return self._block.min().expand_as(self._block)

    def _first_masked_block(self) -> Tensor:
        masked = self.generated == self.model.mask_token_id
        first = torch.where(masked.any(dim=1), masked.int().argmax(dim=1), masked.shape[1])
        return self._grid.block_at(first)

    def _first_step_of(self, block: Tensor) -> Tensor:
        return self._grid.steps(block)[0].clamp(max=self.settings.num_inference_steps - 1)

    def _fill_behind_the_end(self) -> None:
        """Where nothing before the first stop token is masked, the rest of the row is that token."""
        generated, stops = self.generated, self.settings.stop_token_ids
        is_stop = torch.isin(generated, generated.new_tensor(stops))
        behind = is_stop.long().cumsum(dim=1) > 0
        is_ended = behind.any(dim=1) & ~((generated == self.model.mask_token_id) & ~behind).any(dim=1)
        end = generated.gather(1, is_stop.int().argmax(dim=1, keepdim=True))
        generated.copy_(torch.where(is_ended[:, None] & behind, end, generated))

    def _logits(self, rows: Tensor, positions: Tensor, block: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Return the `(rows, positions, vocab)` logits, guided if asked for."""
        ids, mask, places = self.canvas[rows], self._attention_mask[rows], self._position_ids[rows]
        end = end[rows]
        if self.settings.window == "truncated":
            mask = mask * (self._columns < end[:, None])
        if self.settings.guidance_scale != 1.0:  # the prompt, but no padding, is masked out (LLaDA, eq. 16)
            is_prompt = (self._columns < self._prompt) & (mask > 0)
            ids = torch.cat([ids, torch.where(is_prompt, self.model.mask_token_id, ids)])
            mask, places, positions = mask.repeat(2, 1), places.repeat(2, 1), positions.repeat(2, 1)
        if self.settings.cache == "none":
            stop = ids.shape[1] if self.settings.window == "full" and not self._is_block_causal else int(end.max())
            logits = self._forward_shared(ids, mask, places, positions, stop)
        else:
            self.num_rows += len(ids)
            logits = self._forward_cached(ids, mask, places, positions, int(block[0]), int(start[0]), int(end[0]))
        if self.settings.guidance_scale != 1.0:
            conditional, unconditional = logits.float().chunk(2)
            logits = torch.lerp(unconditional, conditional, self.settings.guidance_scale)
        return logits

    def _forward_shared(self, ids, mask, places, positions, stop: int) -> Tensor:
        """Run each different row once."""
        shared = share_canvases(ids, mask, positions)
        if shared is None:
            self.num_rows += len(ids)
            return self._forward(ids, mask, places, positions, 0, stop, stop)
        first = shared.first_rows
        self.num_rows += len(first)
        return shared.spread(self._forward(ids[first], mask[first], places[first], shared.positions, 0, stop, stop))

    def _forward_cached(self, ids, mask, places, positions, block: int, start: int, end: int) -> Tensor:
        """Run the window only; at a new block, whatever the committed tokens have changed before it."""
        length = ids.shape[1]
        stop = end if self.settings.window == "truncated" or self._is_block_causal else length
        if block != self._cached_block:
            first = 0
            if self._is_block_causal and self._cache is not None:  # all before the previous block is final: exact
                first = self._prompt + int(self._grid.span(torch.full_like(self._block, self._cached_block))[0][0])
            self._cache, self._cached_block = self._cache if first else WindowCache(), block
            self._cache.start = first
            return self._forward(ids, mask, places, positions, first, stop, stop)
        self._cache.start = start
        return self._forward(ids, mask, places, positions, start, end if self.settings.cache == "dual" else stop, stop)

    def _forward(self, ids, mask, places, positions, first: int, last: int, keys: int) -> Tensor:
        """Run the model on the columns `first … last - 1`, which attend to the first `keys` columns."""
        if self._is_block_causal:
            blocks = self._grid.blocks_of(self._columns[:keys] - self._prompt)
            mask = block_causal_mask(blocks[first:last], blocks, mask[:, :keys], self.model.model.dtype)
        elif self._is_padded or self.settings.window == "truncated":
            mask = mask[:, :keys]
        else:
            mask = None
        return self.model(
            ids[:, first:last],
            mask,
            positions - first,
            position_ids=places[:, first:last],
            past_key_values=self._cache,
        )
