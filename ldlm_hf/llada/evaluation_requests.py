"""What benchmarks ask of a language model, as token ids: contexts with continuations, whole texts, and batches of them."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase


Pair = tuple[list[int], list[int]]  # token ids of a prompt and of a response

logger = logging.getLogger(__name__)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text, without any that the tokenizer adds."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_context(tokenizer: PreTrainedTokenizerBase, context: str) -> list[int]:
    """Return the tokens of a context, with special ones as the tokenizer adds them, unless it spells some itself."""
    tokens = encode_text(tokenizer, context)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return tokens if special.intersection(tokens) else tokenizer(context)["input_ids"]


def encode_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Pair:
    """Return prompt and response; white space between them belongs to the response, as everywhere in lm-eval.

    Raises:
        ValueError: for a continuation without tokens.
    """
    prompt = context.rstrip()
    response = context[len(prompt) :] + continuation
    known, whole = encode_text(tokenizer, prompt), encode_text(tokenizer, prompt + response)
    # Where a token reaches across the border, the end of the whole is not the continuation.
    tokens = whole[len(known) :] if whole[: len(known)] == known else encode_text(tokenizer, response)
    if not tokens:
        raise ValueError(f"A request's continuation, {continuation!r}, has no tokens, so that it has no likelihood.")
    return encode_context(tokenizer, prompt), tokens


def split_into_windows(tokens: list[int], max_length: int | None) -> list[Pair]:
    """Return a text as responses as long as the model, the last one behind as much of the text before it as fits."""
    size = max_length or max(len(tokens), 1)
    windows = []
    for start in range(0, len(tokens), size):
        end = min(start + size, len(tokens))
        windows.append((tokens[max(end - size, 0) : start], tokens[start:end]))
    return windows


def keep_ends(prompts: list[list[int]], lengths: list[int], max_length: int | None) -> list[list[int]]:
    """Return the end of each prompt that fits into the model with so many further tokens; a warning says how many were cut.

    Raises:
        ValueError: if there is no room for any of a prompt.
    """
    if max_length is None:
        return prompts
    kept = []
    for prompt, length in zip(prompts, lengths, strict=True):
        if prompt and length >= max_length:
            raise ValueError(
                f"A response of {length} tokens leaves no room for its prompt in the {max_length} positions of the model; for "
                "one to be generated set `gen_length` to less."
            )
        kept.append(prompt[max(len(prompt) + length - max_length, 0) :])
    if kept != prompts:
        cut = sum(len(short) < len(prompt) for short, prompt in zip(kept, prompts, strict=True))
        logger.warning(f"{cut} of {len(prompts)} contexts were too long for the model and lost their beginning.")
    return kept


def batch_rows(kinds: Sequence[Hashable], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the numbers of all rows, those of one kind together, long rows first: what is too long for the memory shows at once."""
    groups: dict[Hashable, list[int]] = {}
    for row in sorted(range(len(kinds)), key=lambda row: -lengths[row]):
        groups.setdefault(kinds[row], []).append(row)
    for rows in groups.values():
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]
