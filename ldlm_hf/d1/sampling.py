"""The policy as it stands writes completions: [`MaskedDiffusionPipeline`] around the model that is being trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..llada.pipeline_inputs import Messages, encode_prompts, pad_left
from ..llada.pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..schedulers import MaskedDiffusionScheduler
from .configuration_diffu_grpo import DiffuGRPOConfig


class CompletionSampler:
    """Writes completions of a fixed number of tokens, each row by its own generator.

    Rows that have written their text stop there, unless trajectories are wanted: what follows the first end of text does not
    count.

    Args:
        model (`PreTrainedModel`): the policy itself, without any wrapper; of one with adapters, the model that they are in.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        args ([`DiffuGRPOConfig`]): how to sample.

    Raises:
        ValueError: for blocks or steps that do not divide the length.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: DiffuGRPOConfig) -> None:
        """Make the pipeline."""
        scheduler = MaskedDiffusionScheduler(args.block_length, args.num_inference_steps, args.remasking)
        scheduler.set_timesteps(args.num_inference_steps, gen_length=args.max_completion_length)
        with evaluating(model):
            self.pipeline = MaskedDiffusionPipeline(model, scheduler, tokenizer)
        self.pipeline.set_progress_bar_config(disable=True)
        self.args = args
        self.end_token_ids = self.pipeline.end_token_ids

    def encode(self, prompts: Sequence[str | Messages]) -> tuple[Tensor, Tensor]:
        """Return the `(rows, length)` token ids of prompts, padded on the left, and their mask, both int64."""
        tokenizer, rows = self.pipeline.tokenizer, []
        for prompt in prompts:
            given = (prompt, None) if isinstance(prompt, str) else (None, prompt)
            rows += encode_prompts(*given, tokenizer, self.args.use_chat_template)
        if self.args.max_prompt_length is not None:
            rows = [row[-self.args.max_prompt_length :] for row in rows]
        padding = int(self.pipeline.language_model.mask_token_id == 0)
        if tokenizer.pad_token_id is not None:
            padding = tokenizer.pad_token_id
        return pad_left(rows, padding, self.pipeline.language_model.device)

    def write(
        self, prompt_ids: Tensor, attention_mask: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return completions and the step that committed each token, both `(rows, max_completion_length)` int64.

        A token that no step committed has a greater number than all others. The model is in eval mode meanwhile.

        Args:
            prompt_ids (`Tensor` of shape `(rows, length)`): int64.
            attention_mask (`Tensor` of shape `(rows, length)`): zeros where that is padding.
            generators (`Sequence[torch.Generator]`): one for each row.
        """
        args, size = self.args, self.args.sampling_batch_size or len(prompt_ids)
        # An early stop fills what follows an end of text, which the trajectory's estimate has to know as it was.
        stops_early = bool(self.end_token_ids) and args.logprob_estimator != "trajectory"
        settings = {"eos_early_stop": stops_early, **(args.generation_kwargs or {})}
        completions, commit_steps = [], []
        with evaluating(self.pipeline.model):
            for start in range(0, len(prompt_ids), size):
                rows = slice(start, start + size)
                output = self.pipeline(
                    input_ids=prompt_ids[rows],
                    attention_mask=attention_mask[rows],
                    gen_length=args.max_completion_length,
                    block_length=args.block_length,
                    num_inference_steps=args.num_inference_steps,
                    temperature=args.temperature,
                    guidance_scale=args.guidance_scale,
                    generator=list(generators[rows]),
                    output_type="trajectory",
                    **settings,
                )
                completions.append(output.sequences)
                mask_token_id = self.pipeline.language_model.mask_token_id
                is_masked = [step.sequences == mask_token_id for step in output.trajectory]
                commit_steps.append(torch.stack(is_masked).sum(dim=0))
        return torch.cat(completions), torch.cat(commit_steps)

    def mask(self, completion_ids: Tensor) -> Tensor:
        """Return which tokens count, bool: those up to the first end of text, and that.

        Args:
            completion_ids (`Tensor` of shape `(rows, length)`): int64.
        """
        is_end = torch.isin(completion_ids, completion_ids.new_tensor(self.end_token_ids))
        return is_end.long().cumsum(dim=1) - is_end.long() == 0

    def texts(self, completion_ids: Tensor) -> list[str]:
        """Return what completions read as, each up to its first end of text.

        Args:
            completion_ids (`Tensor` of shape `(rows, length)`): int64.
        """
        return self.pipeline.decode(completion_ids)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
