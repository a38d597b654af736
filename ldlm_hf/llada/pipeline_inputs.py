"""Prompts of every form to one left-padded batch, and checks of what the pipeline is called with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_shapes, check_text, shown
from ..tokenization import TOKENIZER_LOCK, check_plain_text


Messages = list[dict[str, str]]


def encode_prompts(
    prompt: str | list[str] | None,
    messages: Messages | list[Messages] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    use_chat_template: bool,
) -> list[list[int]]:
    """Return the token ids of each prompt.

    What is written in a prompt or message is text: one that spells a special token is refused, since it would open another
    role or end the text. With `use_chat_template=False` a prompt is taken as it stands, special tokens included: that is for
    a template that was applied before, and not for what others have written.

    Args:
        prompt (`str` or `list[str]`, *optional*): texts.
        messages (`list`, *optional*): a conversation, or a list of them, in the place of `prompt`.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): needed for both.
        use_chat_template (`bool`): make each text a user message where the tokenizer has a chat template.

    Raises:
        ValueError: for a missing tokenizer or chat template, one that fails, prompts that are no texts, or those that spell
            special tokens.
    """
    if tokenizer is None:
        raise ValueError(
            "`tokenizer` of the pipeline is None, so that texts cannot be read; give `input_ids` instead."
        )
    if messages is not None:
        if tokenizer.chat_template is None:
            raise ValueError("`messages` need a chat template, but the tokenizer has none; give `prompt` instead.")
        check_messages(messages)
        conversations = messages if isinstance(messages[0], list) else [messages]
        for text in (text for conversation in conversations for message in conversation for text in message.values()):
            if isinstance(text, str):
                check_plain_text("messages", text, tokenizer)
    else:
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(texts, list | tuple) or not texts:
            raise ValueError(f"`prompt` has to be a string or a list of at least one, but is {prompt!r}.")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"`prompt` has to hold texts that are not empty, but holds {text!r}.")
            check_text("prompt", text)
        for text in texts if use_chat_template else []:
            check_plain_text("prompt", text, tokenizer)
        if tokenizer.chat_template is None or not use_chat_template:
            with TOKENIZER_LOCK:
                return [tokenizer(text)["input_ids"] for text in texts]
        conversations = [[{"role": "user", "content": text}] for text in texts]
    try:
        with TOKENIZER_LOCK:
            rows = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
    except Exception as error:  # a template is a program, out of whatever repository the tokenizer came from
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"The chat template of the `tokenizer` failed ({reason}); give `prompt` with `use_chat_template=False`."
        ) from error
    if not all(rows):
        raise ValueError(
            "The chat template of the `tokenizer` leaves nothing of a prompt; pass `use_chat_template=False`."
        )
    return rows


def check_messages(messages: Messages | list[Messages]) -> None:
    """Raise `ValueError` unless there is a conversation, or a list of conversations, none of them empty."""
    conversations = (
        messages if isinstance(messages, list) and messages and isinstance(messages[0], list) else [messages]
    )
    for conversation in conversations:
        if (
            not isinstance(conversation, list)
            or not conversation
            or not all(isinstance(one, dict) for one in conversation)
        ):
            raise ValueError(
                "`messages` has to be a conversation, a list of dictionaries such as {'role': 'user', 'content': 'Hello'}, or a "
                f"list of conversations, but is {shown(messages)}."
            )


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `(batch, length)` token ids, padded on the left, and the mask of what is no padding; both int64."""
    length = max(map(len, rows))
    ids = [[pad_token_id] * (length - len(row)) + list(row) for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def check_input_ids(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return token ids and their mask, or raise `ValueError` unless they are one left-padded batch."""
    if (
        not isinstance(input_ids, Tensor)
        or input_ids.ndim != 2
        or input_ids.dtype != torch.long
        or not input_ids.numel()
    ):
        found = f"{tuple(input_ids.shape)} of {input_ids.dtype}" if isinstance(input_ids, Tensor) else repr(input_ids)
        raise ValueError(f"`input_ids` has to be an int64 tensor of shape (batch, length), but is {found}.")
    if attention_mask is None:
        return input_ids, torch.ones_like(input_ids)
    check_shapes(attention_mask=(attention_mask, "mask: …"))
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"`attention_mask` has to have the shape of `input_ids`, {tuple(input_ids.shape)}, but has "
            f"{tuple(attention_mask.shape)}."
        )
    mask = (attention_mask != 0).long()
    if not bool(mask[:, -1].all()) or bool((mask.diff(dim=1) < 0).any()):
        raise ValueError(
            "`attention_mask` has to be ones behind zeros: pad prompts on the left, none of them is empty."
        )
    return input_ids, mask


def check_sequences(initial_sequences: Tensor, shape: tuple[int, int], vocab_size: int) -> None:
    """Raise `ValueError` unless what is given as written already is `(batch, gen_length)` token ids."""
    check_shapes(initial_sequences=(initial_sequences, "…"))
    if initial_sequences.shape != shape or initial_sequences.dtype != torch.long:
        raise ValueError(
            f"`initial_sequences` has to be int64 of the shape (prompts, gen_length) {shape}, but is "
            f"{tuple(initial_sequences.shape)} {initial_sequences.dtype}."
        )
    if bool(((initial_sequences < 0) | (initial_sequences >= vocab_size)).any()):
        raise ValueError(f"`initial_sequences` has to hold token ids below {vocab_size}, the model's vocabulary.")


def block_schedules_of_rows(
    block_length: int | Sequence[int | Sequence[int]], num_rows: int, gen_length: int
) -> list[tuple[int, ...]]:
    """Return the lengths of the blocks of each row, from left to right.

    Args:
        block_length (`int` or `Sequence`): one length for all blocks; or for each row one length, or the lengths of its blocks.
        num_rows (`int`): prompts.
        gen_length (`int`): tokens to generate.

    Raises:
        ValueError: unless there is one value for each row, and its blocks are exactly `gen_length` tokens.
    """
    rows = [block_length] * num_rows if isinstance(block_length, int) else list(block_length)
    if len(rows) != num_rows:
        raise ValueError(f"`block_length` has {len(rows)} values for {num_rows} prompts; give one, or one for each.")
    return [_block_schedule(row, gen_length) for row in rows]


def generator_of_rows(
    generator: torch.Generator | list[torch.Generator] | None, num_rows: int, draws: bool
) -> list[torch.Generator] | None:
    """Return a generator for each row, a single one seeds them; `None` where nothing is drawn.

    Raises:
        ValueError: for a list that has not one for each row.
    """
    if isinstance(generator, list) and len(generator) != num_rows:
        raise ValueError(f"`generator` has {len(generator)} generators for {num_rows} prompts; give one for each.")
    if not draws:
        return None
    if isinstance(generator, list):
        return generator
    if num_rows == 1 and generator is not None:
        return [generator]
    device = "cpu" if generator is None else generator.device
    seeds = torch.randint(2**62, (num_rows,), generator=generator, device=device)
    return [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]


def _block_schedule(block_length: int | Sequence[int], gen_length: int) -> tuple[int, ...]:
    if isinstance(block_length, list | tuple):
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in block_length):
            raise ValueError(f"`block_length` has to hold whole numbers of at least 1, but holds {block_length!r}.")
        if sum(block_length) != gen_length:
            raise ValueError(
                f"`block_length` {block_length!r} has to add up to `gen_length`, {gen_length}, not {sum(block_length)}."
            )
        return tuple(block_length)
    is_length = isinstance(block_length, int) and not isinstance(block_length, bool) and block_length > 0
    if not is_length or gen_length % block_length:
        raise ValueError(f"`block_length` has to divide `gen_length`, {gen_length}, but is {block_length!r}.")
    return (block_length,) * (gen_length // block_length)
