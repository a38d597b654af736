"""Texts to token ids in which masked diffusion is trained: prompt, response, and end-of-text tokens up to the same length.

The end-of-text tokens behind a response are part of it: they are masked, attended to and learned, which is how the model comes
to know where a text ends (LLaDA, §2.3 and appendix B.1). There is therefore no attention mask. A chat template writes
the prompt only; the response is its text and the end-of-text token, whatever the template would put behind a message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_field_types, check_integer, check_text, shown
from ..tokenization import check_plain_text
from .pipeline_inputs import Messages, check_messages, encode_prompts


Row = Mapping[str, str | Messages | list[int] | Tensor | int]


@dataclass
class MaskedDiffusionCollator:
    """Makes a batch of rows that are texts, conversations or token ids.

    A row has one of:

    * `prompt` and `target`, texts; where the tokenizer has a chat template the prompt becomes a user message;
    * `messages`, a conversation whose last message, the assistant's, is the response;
    * `text`, all of which is learned, as in pre-training, special tokens in it included;
    * `input_ids`, taken as they are, and `prompt_length`, how many of them are the prompt (by default none).

    Args:
        tokenizer (`PreTrainedTokenizerBase`): needs an `eos_token`.
        mask_token_id (`int`, *optional*): what no row may hold; the tokenizer's by default.
        max_length (`int`, *optional*): most tokens in a row; any number by default.
        pad_to_max_length (`bool`, *optional*, defaults to `False`): pad to `max_length` (d1) and not to the longest row of the
            batch (LLaDA).
        append_eos (`bool`, *optional*, defaults to `True`): end each response or text with an end-of-text token.
        truncation (`bool`, *optional*, defaults to `False`): cut what is too long at its end; otherwise it is an error.
        use_chat_template (`bool`, *optional*, defaults to `True`): make each `prompt` a user message where there is a chat
            template.

    Raises:
        ValueError: for a tokenizer without end-of-text token, and options that contradict one another.
    """

    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int | None = None
    max_length: int | None = None
    pad_to_max_length: bool = False
    append_eos: bool = True
    truncation: bool = False
    use_chat_template: bool = True

    def __post_init__(self):
        """Check the options."""
        check_field_types(self)
        for name in ("mask_token_id", "max_length"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least=int(name == "max_length"))
        if self.mask_token_id is None:
            self.mask_token_id = self.tokenizer.mask_token_id
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "`tokenizer` has no `eos_token`, which ends and pads the texts; set it, for a BERT's to its `sep_token`."
            )
        if self.tokenizer.eos_token_id == self.mask_token_id:
            raise ValueError(f"`mask_token_id` {self.mask_token_id} is the tokenizer's `eos_token_id` too.")
        for option in ("pad_to_max_length", "truncation"):
            if getattr(self, option) and self.max_length is None:
                raise ValueError(f"`{option}` is True, but `max_length` is None; set both.")

    def __call__(self, rows: list[Row]) -> dict[str, Tensor]:
        """Return the batch.

        Args:
            rows (`list[Row]`): as above; all forms may be in one batch.

        Returns:
            `dict[str, Tensor]`: `input_ids` of shape `(batch, length)`, padded on the right with end-of-text tokens;
            `prompt_lengths` and `lengths` of shape `(batch,)`, where the responses begin and end, padding included. All int64.

        Raises:
            ValueError: as `encode`.
        """
        if not isinstance(rows, Sequence) or not len(rows):
            raise ValueError(f"`rows` has to be a list of at least one row, but is {shown(rows)}.")
        encoded = [self.encode(row) for row in rows]
        length = self.max_length if self.pad_to_max_length else max(len(row["input_ids"]) for row in encoded)
        padding = [[self.tokenizer.eos_token_id] * (length - len(row["input_ids"])) for row in encoded]
        return {
            "input_ids": torch.tensor([row["input_ids"] + end for row, end in zip(encoded, padding, strict=True)]),
            "prompt_lengths": torch.tensor([row["prompt_length"] for row in encoded]),
            "lengths": torch.full((len(rows),), length),
        }

    def encode(self, row: Row) -> dict[str, list[int] | int]:
        """Return `input_ids` and `prompt_length` of a row, without padding; of its own result, the same again.

        Raises:
            ValueError: for a row of no known form, one that is too long or has no response, or one with a mask or, in the texts of
            prompt and response, another special token in it.
        """
        if not isinstance(row, Mapping):
            raise ValueError(f"`row` has to be a dictionary, but is {shown(row)}.")
        prompt, response = self._tokenize(row)
        ids = prompt + response
        if self.mask_token_id in ids:
            raise ValueError(
                f"A row holds the mask token (id {self.mask_token_id}), which stands for what is to be learned; remove it: "
                f"{_excerpt(row)}"
            )
        if self.max_length is not None and len(ids) > self.max_length:
            if not self.truncation:
                raise ValueError(
                    f"A row has {len(ids)} tokens, but `max_length` is {self.max_length}; leave it out, raise `max_length` or "
                    f"cut it with `truncation=True`: {_excerpt(row)}"
                )
            ids = ids[: self.max_length]
        if len(prompt) >= len(ids):
            raise ValueError(
                f"A row's prompt of {len(prompt)} tokens leaves no response in {len(ids)}: {_excerpt(row)}"
            )
        return {"input_ids": ids, "prompt_length": len(prompt)}

    def _tokenize(self, row: Row) -> tuple[list[int], list[int]]:
        """Return the tokens of the prompt and of the response."""
        if "input_ids" in row:
            ids, length = _read_ids(row)
            if not 0 <= length <= len(ids):
                raise ValueError(f"`prompt_length` has to lie between 0 and {len(ids)}, but is {length}.")
            return ids[:length], ids[length:]
        if "messages" in row:
            check_messages(row["messages"])
            *context, last = row["messages"]
            if not context or not isinstance(last, dict) or last.get("role") != "assistant" or "content" not in last:
                raise ValueError(
                    f"`messages` have to end with an answer of the assistant to something, but are {row['messages']}."
                )
            return encode_prompts(None, context, self.tokenizer, True)[0], self._response("messages", last["content"])
        if "prompt" in row and "target" in row:
            prompt = encode_prompts(row["prompt"], None, self.tokenizer, self.use_chat_template)[0]
            return prompt, self._response("target", row["target"])
        if "text" in row:
            check_text("text", row["text"])
            ids = self.tokenizer(row["text"])["input_ids"]
            return [], ids if ids[-1:] == self._end else ids + self._end
        raise ValueError(
            f"A row has to have `prompt` and `target`, `messages`, `text` or `input_ids`, but has {sorted(map(str, row))}."
        )

    def _response(self, name: str, text: str) -> list[int]:
        check_text(name, text)
        check_plain_text(name, text, self.tokenizer)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + self._end

    @property
    def _end(self) -> list[int]:
        return [self.tokenizer.eos_token_id] if self.append_eos else []


def _read_ids(row: Row) -> tuple[list[int], int]:
    """Return `input_ids` and `prompt_length` of a row, whichever kind of array and number they are."""
    try:
        ids = torch.as_tensor(row["input_ids"]).tolist()
        length = int(row.get("prompt_length", 0))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"`input_ids` or `prompt_length` of a row are none: {_excerpt(row)}") from error
    if not isinstance(ids, list) or any(not isinstance(token, int) or token < 0 for token in ids):
        raise ValueError(f"`input_ids` has to hold token ids, but is {shown(row['input_ids'])}.")
    return ids, length


def _excerpt(row: Row) -> str:
    text = repr({name: row[name] for name in ("prompt", "target", "messages", "text", "input_ids") if name in row})
    return text if len(text) <= 200 else text[:200] + "…"
