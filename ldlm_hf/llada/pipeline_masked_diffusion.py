"""From a prompt to an answer by filling in masks (LLaDA, §2.4; d1, §3; HEX).

The loop is in `decoding.py`, the choice of tokens in `MaskedDiffusionScheduler`. Each row has its own generator and may have
its own block length; what becomes of a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import (
    MOST_GUIDANCE,
    MOST_TEMPERATURE,
    check_changes,
    check_integer,
    check_number,
    check_option,
    check_tensor_inputs,
    checked,
)
from ..pipeline import ReasoningPipeline, shareable
from ..schedulers import REMASKING, MaskedDiffusionScheduler
from .decoding import CACHES, WINDOWS, DecodingSettings, SemiAutoregressiveDecoder
from .masked_language_model import MaskedLanguageModel
from .pipeline_inputs import (
    Messages,
    block_schedules_of_rows,
    check_input_ids,
    check_sequences,
    encode_prompts,
    generator_of_rows,
    pad_left,
)
from .pipeline_output import MaskedDiffusionPipelineOutput, UnmaskingStep


OUTPUT_TYPES = ("text", "seq", "trajectory")


class MaskedDiffusionPipeline(ReasoningPipeline):
    """Writes texts with a masked diffusion language model.

    Args:
        model (`PreTrainedModel`): [`LLaDAForMaskedDiffusion`], what [`from_causal_lm`] made, or a masked LM of transformers.
        scheduler ([`MaskedDiffusionScheduler`]): chooses tokens and which of them to keep; its configuration holds the
            remasking strategy and the tokens to suppress.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): for texts; without one `input_ids` go in and `"seq"` comes out.
        task (`str`, *optional*): name of the task the model was trained on; it checks prompts and reads answers.
        task_arguments (`dict`, *optional*): further arguments of the task.
        gen_length (`int`, *optional*): tokens to generate where a call does not say.

    Raises:
        ValueError: for an unknown `task`; for a model that cannot fill in masks or has no mask token.
    """

    model_cpu_offload_seq = "model"
    _optional_components = ["tokenizer"]
    _callback_tensor_inputs = ["sequences", "committed"]
    _kept_from_calls = ("_num_timesteps", "_language_model")
    description = "A masked diffusion language model"
    tags = ("masked-diffusion", "reasoning")

    def __init__(
        self,
        model: PreTrainedModel,
        scheduler: MaskedDiffusionScheduler,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: str | None = None,
        task_arguments: dict | None = None,
        gen_length: int | None = None,
    ):
        """Put the parts together, in eval mode."""
        super().__init__()
        self.register_task(task, task_arguments)
        self.register_modules(model=model, scheduler=scheduler, tokenizer=tokenizer)
        self.register_to_config(gen_length=gen_length)
        self._language_model: MaskedLanguageModel | None = None
        if model is not None:
            model.eval()
            self.language_model  # noqa: B018 - refuses a model that cannot fill in masks, now rather than later

    @property
    def language_model(self) -> MaskedLanguageModel:
        """The pipeline's model behind the calls that decoding needs; made anew when the model is another one."""
        known = self._language_model
        if known is None or known.wrapped is not self.model:
            mask_token_id = None if self.tokenizer is None else self.tokenizer.mask_token_id
            self._language_model = MaskedLanguageModel(self.model, mask_token_id)
        return self._language_model

    @torch.no_grad()
    @shareable
    @checked
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        messages: Messages | list[Messages] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        gen_length: int | None = None,
        block_length: int | list[int | list[int]] | None = None,
        num_inference_steps: int | None = None,
        temperature: float = 0.0,
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        window: str = "full",
        cache: str = "none",
        threshold: float | None = None,
        factor: float | None = None,
        remasking: str | None = None,
        eos_early_stop: bool = False,
        initial_sequences: Tensor | None = None,
        use_chat_template: bool = True,
        output_type: str = "text",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> MaskedDiffusionPipelineOutput | tuple:
        """Continue one prompt or a batch of them.

        Args:
            prompt (`str` or `list[str]`, *optional*): texts; exactly one of this and the next two is needed.
            messages (`list`, *optional*): a conversation of `{"role": …, "content": …}`, or a list of conversations.
            input_ids (`Tensor` of shape `(batch, length)`, *optional*): int64, padded on the left where lengths differ.
            attention_mask (`Tensor` of the same shape, *optional*): zeros where `input_ids` is padding.
            gen_length (`int`, *optional*): tokens to generate; by default the pipeline's own, else 128.
            block_length (`int` or `list`, *optional*): length of the blocks that are filled from left to right, one or one for
                each prompt; divides `gen_length`. In the place of a prompt's length, a list of lengths gives each of its blocks
                its own. By default the scheduler's, or `gen_length` if that is shorter.
            num_inference_steps (`int`, *optional*): steps over all blocks; each block gets them in proportion to its length,
                and a step commits as many tokens as divide the block evenly. By default the scheduler's, or one step a token
                where that cannot be divided over the blocks. It is not used where tokens are committed by `threshold` or
                `factor`.
            temperature (`float`, *optional*, defaults to 0.0): of the samples; 0 takes the most probable token.
            guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance against the prompt
                masked out; 1 is none. LLaDA writes it as `w + 1`.
            generator (`torch.Generator` or a list with one for each prompt, *optional*): source of the samples.
            window (`str`, *optional*, defaults to `"full"`): `"full"` shows the model all the masks to come, as LLaDA does;
                `"truncated"` none behind the current block, as LLaDA2 does.
            cache (`str`, *optional*, defaults to `"none"`): keep keys and values of what precedes the current block
                (`"prefix"`) or of all but it (`"dual"`) while the block is filled (Fast-dLLM). Exact for a block-causal model, an
                approximation for others.
            threshold (`float`, *optional*): commit every token that is at least so probable, and always one (Fast-dLLM); by
                default the scheduler's.
            factor (`float`, *optional*): commit the largest n tokens whose n-th is at least `1 - factor / (n + 1)` probable.
            remasking (`str`, *optional*): by which confidence tokens are committed, see the scheduler, whose own is the default.
            eos_early_stop (`bool`, *optional*, defaults to `False`): stop a row when all before its first end-of-text token
                is written; what follows is filled with that token. The text is the same unless the token is suppressed.
            initial_sequences (`Tensor` of shape `(batch, gen_length)`, *optional*): what is written already, and the mask token
                where to generate (infilling); int64. By default masks only.
            use_chat_template (`bool`, *optional*, defaults to `True`): make each `prompt` a user message where the tokenizer
                has a chat template, and refuse one that spells special tokens. With `False` it is taken as it stands, special
                tokens included: for a template that you have applied, not for what others have written.
            output_type (`str`, *optional*, defaults to `"text"`): `"text"`, `"seq"` (nothing is written out) or
                `"trajectory"` (texts, and how the tokens stood after each step).
            return_dict (`bool`, *optional*, defaults to `True`): return a [`MaskedDiffusionPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, tensors)` after each
                step; may return changed `"sequences"`.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): which tensors it gets: `"sequences"` (by default) or
                `"committed"`.

        Returns:
            [`MaskedDiffusionPipelineOutput`], or its fields as a tuple.

        Raises:
            ValueError: for any argument out of range; the message names it.
        """
        tensor_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs) or [
            "sequences"
        ]
        check_tensor_inputs(tensor_inputs, self._callback_tensor_inputs)
        prompt_ids, prompt_mask = self.encode_prompt(prompt, messages, input_ids, attention_mask, use_chat_template)
        gen_length, rows = self.check_length(gen_length, prompt_ids), len(prompt_ids)
        if block_length is None:
            block_length = min(self.scheduler.config.block_length, gen_length)
        schedules = block_schedules_of_rows(block_length, rows, gen_length)
        settings = self.check_inputs(
            gen_length,
            schedules,
            num_inference_steps,
            temperature,
            guidance_scale,
            window,
            cache,
            threshold,
            factor,
            remasking,
            eos_early_stop,
            output_type,
        )
        if initial_sequences is None:
            initial_sequences = prompt_ids.new_full((rows, gen_length), self.language_model.mask_token_id)
        check_sequences(initial_sequences, (rows, gen_length), self.language_model.vocab_size)
        canvas = torch.cat([prompt_ids, initial_sequences.to(prompt_ids.device)], dim=1)
        generators = generator_of_rows(generator, rows, self.draws(temperature, remasking))
        decoder = SemiAutoregressiveDecoder(
            self.language_model, self.scheduler, canvas, prompt_mask, schedules, generators, settings
        )
        steps, num_steps = [], 0
        self._num_timesteps = settings.num_inference_steps
        with self.progress_bar(total=rows * gen_length) as progress:
            while not decoder.is_done:
                decoder.step()
                if callback_on_step_end is not None:
                    tensors = {"sequences": decoder.generated.clone(), "committed": decoder.committed.clone()}
                    changed = callback_on_step_end(
                        self, num_steps, num_steps, {name: tensors[name] for name in tensor_inputs}
                    )
                    changed = check_changes(changed, {"sequences": decoder.generated})
                    if "sequences" in changed:
                        check_sequences(changed["sequences"], (rows, gen_length), self.language_model.vocab_size)
                        decoder.generated.copy_(changed["sequences"])
                        decoder.refresh()
                if output_type == "trajectory":
                    steps.append(UnmaskingStep(num_steps, decoder.generated.clone(), decoder.committed.clone()))
                num_steps += 1
                progress.update(int(decoder.committed.sum()))
        decoder.check_logits()
        self._num_timesteps = num_steps
        texts = None if output_type == "seq" else self.decode(decoder.generated)
        forwards_a_step = 1 if guidance_scale == 1.0 else 2
        output = MaskedDiffusionPipelineOutput(
            sequences=decoder.generated.clone(),
            texts=texts,
            nfe=decoder.nfe,
            tokens_per_forward=gen_length / decoder.nfe.float(),
            num_forwards=num_steps * forwards_a_step,
            answers=None if texts is None else self.read_answers(texts),
            trajectory=steps if output_type == "trajectory" else None,
        )
        self.maybe_free_model_hooks()
        return output if return_dict else tuple(getattr(output, field.name) for field in fields(output))

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text: those of the model's configuration and of the tokenizer."""
        own = self.model.config.eos_token_id
        ids = list(own) if isinstance(own, list | tuple) else [own]
        if self.tokenizer is not None:
            ids.append(self.tokenizer.eos_token_id)
        return tuple(sorted({token for token in ids if token is not None}))

    def draws(self, temperature: float, remasking: str | None = None) -> bool:
        """Whether a call draws random numbers."""
        return temperature != 0 or (remasking or self.scheduler.config.remasking) == "random"

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        messages: Messages | list[Messages] | None,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        use_chat_template: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Return the `(batch, length)` token ids of the prompts, padded on the left, and their mask, both int64.

        Raises:
            ValueError: unless exactly one form of prompt is given, for prompts that are no problems of the task, and for
                prompts that hold the mask token.
        """
        if sum(given is not None for given in (prompt, messages, input_ids)) != 1:
            raise ValueError("Exactly one of `prompt`, `messages` and `input_ids` has to be given.")
        device, mask_token_id = self._execution_device, self.language_model.mask_token_id
        if input_ids is None:
            rows = encode_prompts(prompt, messages, self.tokenizer, use_chat_template)
            if self.task is not None and prompt is not None:
                for text in [prompt] if isinstance(prompt, str) else prompt:
                    self.task.check_prompt(text)
            pad = self.tokenizer.pad_token_id
            ids, mask = pad_left(rows, int(mask_token_id == 0) if pad is None else pad, device)
        else:
            ids, mask = check_input_ids(input_ids, attention_mask)
            ids, mask = ids.to(device), mask.to(device)
        if bool(((ids == mask_token_id) & (mask > 0)).any()):
            name = "input_ids" if input_ids is not None else "messages" if prompt is None else "prompt"
            raise ValueError(
                f"`{name}` holds the mask token (id {mask_token_id}), which stands for what is to be generated; remove it."
            )
        return ids, mask

    def check_length(self, gen_length: int | None, prompt_ids: Tensor) -> int:
        """Return how many tokens to generate, or raise `ValueError` if they do not fit behind the prompt."""
        if gen_length is None:
            gen_length = self.config.gen_length or 128
        check_integer("gen_length", gen_length)
        limit, length = self.language_model.max_length, prompt_ids.shape[1]
        if limit is not None and length + gen_length > limit:
            raise ValueError(
                f"The prompt of {length} tokens and `gen_length`, {gen_length}, do not fit into the {limit} positions of the "
                "model; shorten one of them."
            )
        return gen_length

    def check_inputs(
        self,
        gen_length: int,
        schedules: list[tuple[int, ...]],
        num_inference_steps: int | None,
        temperature: float,
        guidance_scale: float,
        window: str,
        cache: str,
        threshold: float | None,
        factor: float | None,
        remasking: str | None,
        eos_early_stop: bool,
        output_type: str,
    ) -> DecodingSettings:
        """Return how to decode, or raise `ValueError` naming the argument that does not fit."""
        check_option("output_type", output_type, OUTPUT_TYPES)
        check_number("temperature", temperature, 0, MOST_TEMPERATURE)
        check_number("guidance_scale", guidance_scale, -MOST_GUIDANCE, MOST_GUIDANCE)
        check_option("window", window, WINDOWS)
        check_option("cache", cache, CACHES)
        if output_type != "seq" and self.tokenizer is None:
            raise ValueError(f"`output_type` is {output_type!r}, but the pipeline has no tokenizer; use 'seq'.")
        steps = num_inference_steps
        if steps is None:
            own, lengths = self.scheduler.config.num_inference_steps, {length for row in schedules for length in row}
            divides = own <= gen_length and not any(own * length % gen_length for length in lengths)
            steps = own if divides else gen_length
        check_integer("num_inference_steps", steps, gen_length)
        if threshold is None and factor is None:
            threshold, factor = self.scheduler.config.threshold, self.scheduler.config.factor
        one_grid = len(set(schedules)) == 1
        if cache != "none":
            if not self.language_model.supports_cache:
                raise ValueError(f"`cache` is {cache!r}, but {type(self.model).__name__} keeps no keys and values.")
            if not one_grid:
                raise ValueError(f"`cache` is {cache!r}, which needs one `block_length` for all prompts.")
        if not one_grid and getattr(self.model.config, "attention_pattern", "") == "block_causal":
            raise ValueError("A block-causal model needs one `block_length` for all prompts.")
        if remasking is not None:
            check_option("remasking", remasking, REMASKING)
        stops = self.end_token_ids if eos_early_stop else ()
        if eos_early_stop and not stops:
            raise ValueError(
                "`eos_early_stop` is True, but neither the model nor the tokenizer has an end-of-text token."
            )
        return DecodingSettings(steps, temperature, guidance_scale, window, cache, threshold, factor, remasking, stops)

    def decode(self, sequences: Tensor) -> list[str]:
        """Return what `(batch, gen_length)` tokens read as, each row up to its first end-of-text token.

        Raises:
            ValueError: if a mask is left in them.
        """
        if bool((sequences == self.language_model.mask_token_id).any()):
            raise ValueError("`sequences` still holds mask tokens; a callback put them there after the last step.")
        texts = []
        for row in sequences.tolist():
            end = next((i for i, token in enumerate(row) if token in self.end_token_ids), len(row))
            texts.append(self.tokenizer.decode(row[:end], skip_special_tokens=True))
        return texts
