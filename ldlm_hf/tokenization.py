"""Lossless tokenizers, built in code, in BART's dialect (`<s> … </s>`, pad 1, mask 4).

For reasoning tasks a word-level one: BPE vocabularies merge digits arbitrarily, which hides arithmetic from the model.
Here a number is one token (`granularity="number"`) or one token a digit (`"digit"`); a leading space belongs to the token,
so that decoding gives the text back exactly, but for a space at its very beginning. For natural text a byte-level BPE (`"subword"`), which knows any text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .arguments import check_integer, check_option, checked, each_text


SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # BART's ids 0, 1, 2, 3; its mask is the last id
GRANULARITIES = ("number", "digit", "subword")
SMALLEST_BPE = len(SPECIAL_TOKENS) + 256  # every byte is a token
LARGEST_BPE = 2**20  # four times the largest vocabularies in use; tables of this size are made before a text is read
# A fast tokenizer notes in itself whether to pad and cut: of two threads, one would get what the other asked for.
TOKENIZER_LOCK = threading.RLock()


@checked
def build_tokenizer(
    texts: Iterable[str],
    words: Iterable[str] = (),
    granularity: str = "number",
    model_max_length: int = 64,
    vocab_size: int = 8192,
) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary is every token of `texts`, and `words` with and without a leading space.

    Args:
        texts (`Iterable[str]`): training texts.
        words (`Iterable[str]`, *optional*): words to know even if no training text holds them, such as `Task.words()`;
            `"subword"` knows every word without them.
        granularity (`str`, *optional*, defaults to `"number"`): `"number"`, `"digit"` or `"subword"`.
        model_max_length (`int`, *optional*, defaults to 64): most tokens in a text, special ones included.
        vocab_size (`int`, *optional*, defaults to 8192): most tokens in the vocabulary of `"subword"`, special ones
            included; fewer if the texts do not repeat enough to learn as many.

    Raises:
        ValueError: for what is no text, an unknown `granularity`, a `model_max_length` below 1, or a `vocab_size` that is
            too small for the 256 bytes or above 1,048,576.
    """
    check_option("granularity", granularity, GRANULARITIES)
    check_integer("model_max_length", model_max_length)
    texts, words = each_text("texts", texts), each_text("words", words)
    if granularity == "subword":
        backend = _byte_level_bpe(texts, vocab_size)
    else:
        backend = _word_level(texts, words, granularity)
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
        split_special_tokens=granularity == "subword",  # a text that spells "<s>" is text
    )


@checked
def fit_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts, the long ones cut so that the tokenizer's `model_max_length` holds them with special tokens."""
    limit, fitted = tokenizer.model_max_length, []
    with TOKENIZER_LOCK:
        is_too_short = limit < len(tokenizer("")["input_ids"])
    if is_too_short:
        raise ValueError(f"`tokenizer` has `model_max_length` {limit}, which holds no text beside its special tokens.")
    for text in texts:
        with TOKENIZER_LOCK:
            ids, end = tokenizer(text)["input_ids"], limit
            while len(ids) > limit:  # what is cut may be tokenized otherwise than it was in the whole
                text = tokenizer.decode(ids[: end - 1], skip_special_tokens=True)
                ids, end = tokenizer(text)["input_ids"], end - 1
        fitted.append(text)
    return fitted


def check_plain_text(name: str, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ValueError`, naming the argument, for a text that spells a token which is no text.

    Such a token ends a text in its middle, is a mask to be filled in, or opens another role in a chat. They are the special
    tokens, and added ones that the chat template writes. A tokenizer with `split_special_tokens` reads them as text, and a
    template that marks its roles by plain words cannot be told from what is written in it.

    Args:
        name (`str`): of the argument.
        text (`str`): its value, or a part of it.
        tokenizer (`PreTrainedTokenizerBase`): what reads it.
    """
    with TOKENIZER_LOCK:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    template = str(tokenizer.chat_template)
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special or token.content in template}
    words = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id)
    # An unknown token stands for a symbol that the tokenizer does not know, unless it is the end of text too, as GPT-2's.
    control = (added | {*tokenizer.all_special_ids}) - ({tokenizer.unk_token_id} - {*words})
    spelled = next((i for i in ids if i in control), None)
    if spelled is not None:
        kind = "mask" if spelled == tokenizer.mask_token_id else "special"
        raise ValueError(
            f"`{name}` holds the {kind} token {tokenizer.convert_ids_to_tokens(spelled)!r} (id {spelled}), which would not be "
            "read as text; remove it, or take a tokenizer with `split_special_tokens=True`."
        )


def _word_level(texts: Iterable[str], words: Iterable[str], granularity: str) -> Tokenizer:
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
    return backend


def _byte_level_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    check_integer("vocab_size", vocab_size, LARGEST_BPE, SMALLEST_BPE)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # what occurs once is no pattern
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend
