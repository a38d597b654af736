"""A lossless word-level tokenizer for reasoning tasks, built in code, in BART's dialect (`<s> … </s>`, pad 1, mask 4).

BPE vocabularies merge digits arbitrarily, which hides arithmetic from the model. Here a number is one token
(`granularity="number"`) or one token a digit (`"digit"`); a leading space belongs to the token, so that decoding gives
the text back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # BART's ids 0, 1, 2, 3; its mask is the last id


def build_tokenizer(
    texts: Iterable[str],
    words: Iterable[str] = (),
    granularity: Literal["number", "digit"] = "number",
    model_max_length: int = 64,
) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary is every token of `texts`, and `words` with and without a leading space.

    Args:
        texts (`Iterable[str]`): training texts.
        words (`Iterable[str]`, *optional*): words to know even if no training text holds them, such as `Task.words()`.
        granularity (`str`, *optional*, defaults to `"number"`): `"number"` or `"digit"`.
        model_max_length (`int`, *optional*, defaults to 64): most tokens in a text, special ones included.

    Raises:
        ValueError: for an unknown `granularity`.
    """
    if granularity not in ("number", "digit"):
        raise ValueError(f"`granularity` has to be 'number' or 'digit', but is {granularity!r}.")
    pattern = (
        "▁?[0-9]+|▁?[^▁0-9\\w]|▁?[^\\W0-9_]+" if granularity == "number" else "▁?[0-9]|▁?[^▁0-9\\w]|▁?[^\\W0-9_]+"
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(pattern), "isolated"),
        ]
    )
    known: dict[str, None] = {}
    for text in texts:
        known.update((token, None) for token, _ in splitter.pre_tokenize_str(text))
    for word in words:
        pieces = [token for token, _ in splitter.pre_tokenize_str(word)]
        known.update((token, None) for piece in pieces for token in (piece, piece.removeprefix("▁")))
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *sorted(known)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
