"""Checks of what the pipeline is made of and called with, and its prompts as tokens; errors name the argument."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import (
    MOST_GUIDANCE,
    MOST_TEMPERATURE,
    check_finite,
    check_integer,
    check_number,
    check_shapes,
    check_text,
)
from ..tasks import Task
from ..tokenization import check_plain_text
from .configuration_ladir import LaDiRConfig
from .modeling_ladir import LaDiRForReasoning
from .modeling_thought_vae import ThoughtVAE
from .reconstruction import pad_right, token_ids


MOST_NOISE = 1e6  # standard deviation of what blocks start from


def check_parts(model: LaDiRForReasoning | None, vae: ThoughtVAE | None, scheduler: SchedulerMixin | None) -> None:
    """Raise `ValueError` unless reasoner and VAE have the same blocks, fitted statistics, and a scheduler that fits."""
    if model is not None and scheduler is not None:
        check_scheduler(scheduler, model.config)
    if model is None or vae is None:
        return
    for name in ("latents_per_block", "latent_dim"):
        own, other = getattr(model.config, name), getattr(vae.config, name)
        if own != other:
            raise ValueError(f"`{name}` of the reasoner is {own}, but that of the VAE is {other}.")
    if not vae.has_latent_statistics:
        raise ValueError("The latent statistics of `vae` were never fitted; train it with ThoughtVAETrainer.")


def check_scheduler(scheduler: SchedulerMixin, config: LaDiRConfig) -> None:
    """Raise `ValueError` unless the scheduler makes deterministic Euler steps in the times that the reasoner knows."""
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        name = type(scheduler).__name__
        raise ValueError(f"`scheduler` has to be a FlowMatchEulerDiscreteScheduler, but is a {name}.")
    for name in ("stochastic_sampling", "use_dynamic_shifting", "invert_sigmas"):
        if scheduler.config[name]:
            raise ValueError(f"`scheduler` has `{name}`, which the pipeline does not support; set it to False.")
    if scheduler.config.num_train_timesteps != config.time_scale:
        raise ValueError(
            f"`scheduler` has `num_train_timesteps` {scheduler.config.num_train_timesteps}, but the reasoner's "
            f"`time_scale` is {config.time_scale}."
        )


def check_prompts(prompt: str | list[str], tokenizer: PreTrainedTokenizerBase, task: Task | None) -> list[str]:
    """Return the prompts as a list; raise `ValueError` unless they are texts that task and tokenizer know, without special tokens."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list | tuple) or not prompts:
        raise ValueError(f"`prompt` has to be a string or a list of at least one, but is {prompt!r}.")
    for text in prompts:
        check_text("prompt", text)
        if not text.strip():
            raise ValueError(f"`prompt` has to hold a problem, but is {text!r}.")
        if task is not None:
            task.check_prompt(text)
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown in token_ids(tokenizer, [text])[0]:
            raise ValueError(f"`prompt` {text[:60]!r} holds symbols that the tokenizer does not know.")
        check_plain_text("prompt", text, tokenizer)
    return list(prompts)


def check_blocks(min_blocks: int, max_blocks: int, max_new_tokens: int) -> None:
    """Raise `ValueError` unless the numbers of blocks are in order and something may be written."""
    for name, value in (("min_blocks", min_blocks), ("max_blocks", max_blocks), ("max_new_tokens", max_new_tokens)):
        check_integer(name, value)
    if min_blocks > max_blocks:
        raise ValueError(f"`min_blocks` is {min_blocks}, but `max_blocks` only {max_blocks}.")


def check_sampling(
    guidance_scale: float, initial_noise_scale: float, stop_threshold: float, temperature: float
) -> None:
    """Raise `ValueError` for a scale, threshold or temperature out of range."""
    check_number("guidance_scale", guidance_scale, -MOST_GUIDANCE, MOST_GUIDANCE)
    check_number("initial_noise_scale", initial_noise_scale, 0, MOST_NOISE)
    check_number("temperature", temperature, 0, MOST_TEMPERATURE)
    check_number("stop_threshold", stop_threshold, 0, 1)


def check_noise(
    generator: torch.Generator | list[torch.Generator] | None,
    latents: Tensor | None,
    num_prompts: int,
    num_trajectories: int,
    shape: tuple[int, ...],
) -> None:
    """Raise `ValueError` unless there are as many generators and noises of `shape` as prompts or trajectories need."""
    rows = num_prompts * num_trajectories
    if isinstance(generator, list) and len(generator) not in (num_prompts, rows):
        raise ValueError(
            f"`generator` has {len(generator)} generators for {num_prompts} prompts with {num_trajectories} "
            "trajectories each; give one for each prompt or one for each trajectory."
        )
    if latents is not None:
        check_shapes(latents=(latents, f"float: {rows} {' '.join(map(str, shape))}"))
        check_finite("latents", latents, "give noise to start from")


def question_tokens(tokenizer: PreTrainedTokenizerBase, prompts: list[str], config: LaDiRConfig) -> list[list[int]]:
    """Return the token ids of questions: ⟨bos⟩, where the LM has one, and the text."""
    start = [] if config.bos_token_id is None else [config.bos_token_id]
    return [[*start, *ids] for ids in token_ids(tokenizer, prompts)]


def encode_questions(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    config: LaDiRConfig,
    max_blocks: int,
    max_new_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Return `(batch, length)` int64 tokens and their bool mask, padded on the right.

    Raises:
        ValueError: if question, blocks and answer do not fit into the LM's positions.
    """
    rows = question_tokens(tokenizer, prompts, config)
    limit = config.text_config.to_dict().get("max_position_embeddings")  # not every LM has one
    longest = max(map(len, rows))
    needed = longest + max_blocks * (config.latents_per_block + 2) + 1 + max_new_tokens
    if limit is not None and needed > limit:
        raise ValueError(
            f"A `prompt` of {longest} tokens, `max_blocks` {max_blocks} of {config.latents_per_block + 2} and "
            f"`max_new_tokens` {max_new_tokens} need {needed} positions, but the LM has {limit}; shorten one of them."
        )
    batch = pad_right(rows)
    return batch["input_ids"], batch["attention_mask"].bool()
