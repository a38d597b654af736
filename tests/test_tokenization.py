"""Tokenizers give every text back, and keep BART's special ids."""

import random

import pytest
from tokenizers import decoders
from transformers import AutoTokenizer

from ldlm_hf.tokenization import SPECIAL_TOKENS, build_tokenizer, fit_texts


TEXTS = ["the cat sat on the mat", "the cat and the hat", "a catalogue of hats, and of cats"] * 4
ODD_TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "line\n\nbreaks\r\n\ttabs",
    "don 't , . !",
    "naïve façade, 日本語, 🤖\u200d\x00",
    "<s> a text </s> that spells <mask><pad><unk>",
    "Ġ and ▁",
]


@pytest.fixture(scope="module")
def subword():
    return build_tokenizer(TEXTS, granularity="subword", vocab_size=280)


def roundtrip(tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


def merges_of(words: list[bytes], count: int) -> list[bytes]:
    """Return the first merged tokens of byte-pair encoding, by counting pairs afresh each time."""
    sequences = [[bytes([byte]) for byte in word] for word in words]
    merged = []
    for _ in range(count):
        counts: dict[tuple[bytes, bytes], int] = {}
        for sequence in sequences:
            for pair in zip(sequence, sequence[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts.values())
        (pair,) = [pair for pair, number in counts.items() if number == best]  # the test avoids ties
        merged.append(b"".join(pair))
        for sequence in sequences:
            i = 0
            while i < len(sequence) - 1:
                if (sequence[i], sequence[i + 1]) == pair:
                    sequence[i : i + 2] = [b"".join(pair)]
                i += 1
    return merged


def test_subwords_are_what_byte_pair_encoding_learns():
    words = ["abc"] * 8 + ["abd"] * 5 + ["xe"] * 3 + ["cab"] * 2
    tokenizer = build_tokenizer(words, granularity="subword", vocab_size=5 + 256 + 4)
    decode = decoders.ByteLevel().decode
    learned = [decode([tokenizer.convert_ids_to_tokens(i)]).encode() for i in range(5 + 256, 5 + 256 + 4)]
    assert learned == merges_of([word.encode() for word in words], 4)


def test_subwords_give_any_text_back(subword):
    rng = random.Random(0)
    letters = [chr(c) for c in range(0x20000) if not 0xD800 <= c < 0xE000]
    for text in [*ODD_TEXTS, *("".join(rng.choices(letters, k=20)) for _ in range(200))]:
        assert roundtrip(subword, text) == text
        assert subword.unk_token_id not in subword(text)["input_ids"]


def test_a_saved_subword_tokenizer_is_the_same(subword, tmp_path):
    subword.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ODD_TEXTS, *TEXTS]:
        assert loaded(text)["input_ids"] == subword(text)["input_ids"]
        assert roundtrip(loaded, text) == text


@pytest.mark.parametrize("granularity", ["number", "digit", "subword"])
def test_all_speak_the_dialect_of_bart(granularity):
    tokenizer = build_tokenizer(TEXTS, granularity=granularity, model_max_length=32)
    assert tokenizer.convert_ids_to_tokens(range(5)) == SPECIAL_TOKENS
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer.mask_token_id == 4
    encoded = tokenizer(["the cat", "the"], padding=True)["input_ids"]
    assert [row[0] for row in encoded] == [0, 0]
    assert encoded[1][-1] == 1
    assert 2 in encoded[1]
    assert tokenizer.model_max_length == 32


@pytest.mark.parametrize("granularity", ["number", "digit"])
def test_words_and_numbers_are_given_back(granularity):
    tokenizer = build_tokenizer(TEXTS, [*map(str, range(100)), "+"], granularity)
    for text in ("14 8+2+4 10+4 14", "the cat sat on the mat 97", "3+5"):
        assert roundtrip(tokenizer, text) == text
    assert len(tokenizer("12+34")["input_ids"]) == (5 if granularity == "number" else 7)


def test_a_vocabulary_holds_no_more_than_it_may_and_does_not_depend_on_the_run(subword):
    assert len(subword) == 280
    again = build_tokenizer(TEXTS, granularity="subword", vocab_size=280)
    assert again.get_vocab() == subword.get_vocab()
    assert 261 < len(build_tokenizer(TEXTS, granularity="subword")) < 8192  # there is no more to learn


def test_frequent_words_become_one_token(subword):
    assert len(subword(" cat")["input_ids"]) == 3
    assert len(subword(" dog")["input_ids"]) > 3


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"granularity": "word"}, "`granularity` has to be one of"),
        ({"granularity": "subword", "vocab_size": 260}, "`vocab_size` has to lie between 261 and 1048576, but is 260"),
        ({"granularity": "subword", "vocab_size": 2**31}, "`vocab_size` has to lie between 261 and 1048576"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        build_tokenizer(TEXTS, **arguments)


@pytest.mark.parametrize("limit", [4, 7, 16])
def test_long_texts_are_cut_to_the_limit_and_short_ones_left_alone(limit):
    texts = ["the cat sat on the mat and the dog sat by the door " * 3, "the cat", "émigré — 12345 <s> " * 4]
    tokenizer = build_tokenizer(texts, granularity="subword", vocab_size=300, model_max_length=limit)
    fitted = fit_texts(texts, tokenizer)
    for text, cut in zip(texts, fitted, strict=True):
        assert len(tokenizer(cut)["input_ids"]) <= limit
        assert text.startswith(cut.removesuffix("\ufffd"))  # a character of several bytes may be cut in two
        if len(tokenizer(text)["input_ids"]) <= limit:
            assert cut == text
    assert len(tokenizer(fitted[0])["input_ids"]) >= limit - 1
