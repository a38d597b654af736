"""Write without latents, or from given ones: the autoregressive baseline and the controls of what latents are good for."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .denoising import append_block, read_question
from .modeling_ladir import LaDiRForReasoning
from .pipeline_inputs import question_tokens
from .prefix_cache import Prefix
from .reconstruction import pad_right
from .trajectories import write_answers


@torch.no_grad()
def write_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    temperature: float,
    num_samples: int,
    max_new_tokens: int,
    generator: torch.Generator,
) -> list[list[str]]:
    """Return texts that a causal LM writes after each prompt.

    Args:
        model (`PreTrainedModel`): a causal LM.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        prompts (`list[str]`): the questions; those of equal length are continued together, without padding.
        temperature (`float`): of the samples; 0 takes the most probable token.
        num_samples (`int`): texts of each prompt, which is read once for all of them.
        max_new_tokens (`int`): most tokens of a text.
        generator (`torch.Generator`): of the samples.
    """
    texts: list[list[str]] = [[] for _ in prompts]
    rows = question_tokens(tokenizer, prompts, model.config)
    for length in sorted({len(row) for row in rows}):
        places = [place for place, row in enumerate(rows) if len(row) == length]
        ids = torch.tensor([rows[place] for place in places], device=model.device)
        written = _continue(model, ids, temperature, num_samples, max_new_tokens, generator).tolist()
        for number, tokens in enumerate(written):
            end = tokens.index(model.config.eos_token_id) if model.config.eos_token_id in tokens else len(tokens)
            texts[places[number // num_samples]].append(tokenizer.decode(tokens[:end], skip_special_tokens=True))
    return texts


def _continue(
    model: PreTrainedModel, ids: Tensor, temperature: float, num_samples: int, length: int, generator: torch.Generator
) -> Tensor:
    """Return `(rows * num_samples, tokens)` continuations of `(rows, length)` prompts."""
    output = model(ids, use_cache=True)
    cache, logits = output.past_key_values, output.logits[:, -1].repeat_interleave(num_samples, 0)
    cache.batch_repeat_interleave(num_samples)
    written, is_done = [], torch.zeros(len(logits), dtype=torch.bool, device=ids.device)
    while len(written) < length and not is_done.all():
        if temperature > 0:
            tokens = torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator)[:, 0]
        else:
            tokens = logits.argmax(-1)
        written.append(tokens)
        is_done |= tokens == model.config.eos_token_id
        logits = model(tokens[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
    return torch.stack(written, dim=1)


@torch.no_grad()
def write_from_latents(
    model: LaDiRForReasoning,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    blocks: list[Tensor],
    max_new_tokens: int,
) -> list[str]:
    """Return the most probable answers after given blocks of thought: oracle latents, other problems' or none at all.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        prompts (`list[str]`): the questions.
        blocks (`list[Tensor]` of shape `(blocks, latents_per_block, latent_dim)`): of each prompt, standardised.
        max_new_tokens (`int`): most tokens of an answer.
    """
    batch = pad_right(question_tokens(tokenizer, prompts, model.config))
    prefix = read_question(model, batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device))
    texts = [""] * len(prompts)
    places = list(range(len(prompts)))
    for number in range(max(map(len, blocks))):
        latents = torch.stack([blocks[place][number] for place in places]).to(model.device)
        prefix, _ = append_block(model, prefix, latents)
        ends = [row for row, place in enumerate(places) if len(blocks[place]) == number + 1]
        finished = _selected(prefix, ends)
        answers = write_answers(model, finished, [torch.Generator()] * len(ends), max_new_tokens, 0.0) if ends else []
        for row, tokens in zip(ends, answers, strict=True):
            texts[places[row]] = tokenizer.decode(tokens, skip_special_tokens=True)
        left = [row for row in range(len(places)) if row not in ends]
        prefix, places = _selected(prefix, left), [places[row] for row in left]
    return texts


def _selected(prefix: Prefix, rows: list[int]) -> Prefix:
    return prefix.select(torch.tensor(rows, dtype=torch.long, device=prefix.mask.device))
