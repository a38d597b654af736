"""Contexts, continuations and whole texts of benchmarks as token ids."""

import logging

import pytest

from ldlm_hf.llada.evaluation_requests import (
    batch_rows,
    encode_context,
    encode_pair,
    encode_text,
    keep_ends,
    split_into_windows,
)
from ldlm_hf.tokenization import build_tokenizer
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def subwords():
    """Return a byte-level tokenizer that merges "the" and " answer" and has no post-processing of note."""
    return build_tokenizer(["the answer the answer answering"] * 20, granularity="subword", vocab_size=300)


def test_a_context_has_the_special_tokens_of_the_tokenizer_and_a_continuation_none():
    tokenizer = tiny_tokenizer()
    prompt, response = encode_pair(tokenizer, "1+2+3", " 6+1")
    assert prompt == tokenizer("1+2+3")["input_ids"] and prompt[-1] == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(response) == ["▁6", "+", "1"]
    assert encode_pair(tokenizer, "", "6") == (tokenizer("")["input_ids"], encode_text(tokenizer, "6"))


def test_a_context_that_spells_special_tokens_gets_no_others():
    tokenizer = tiny_tokenizer()
    assert encode_context(tokenizer, "<s>1+2") == [tokenizer.bos_token_id, *encode_text(tokenizer, "1+2")]
    # A word that is not known, or a text that spells one, is no template.
    assert encode_context(tokenizer, "1+word")[0] == tokenizer.bos_token_id
    assert encode_context(tokenizer, "1+<unk>")[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("context, continuation", [("the answer", " the"), ("the ", "answer"), ("the\n", " answer")])
def test_context_and_continuation_are_the_tokens_of_the_whole(subwords, context, continuation):
    prompt, response = encode_pair(subwords, context, continuation)
    assert prompt[1:-1] + response == encode_text(subwords, context + continuation)
    assert subwords.decode(prompt[1:-1]) == context.rstrip()


def test_a_token_across_the_border_is_not_lost(subwords):
    (merged,) = encode_text(subwords, "the")
    assert subwords.decode([merged]) == "the"
    prompt, response = encode_pair(subwords, "t", "he")  # "the" would be one token, and nothing would be left to score
    assert subwords.decode(prompt[1:-1]) == "t" and subwords.decode(response) == "he"


def test_a_continuation_without_tokens_is_refused():
    with pytest.raises(ValueError, match="continuation, '', has no tokens"):
        encode_pair(tiny_tokenizer(), "1+2", "")


@pytest.mark.parametrize("length", range(0, 12))
def test_windows_score_each_token_once_and_are_as_long_as_the_model(length):
    tokens = list(range(length))
    windows = split_into_windows(tokens, 4)
    assert [token for _, response in windows for token in response] == tokens
    for prompt, response in windows:
        whole = prompt + response
        assert whole == tokens[whole[0] : whole[-1] + 1]
        assert len(whole) == min(4, length)
    assert split_into_windows(tokens, None) == ([([], tokens)] if tokens else [])


def test_long_prompts_keep_their_end_and_a_warning_counts_them(caplog):
    prompts = [[1, 2, 3, 4], [5, 6], []]
    with caplog.at_level(logging.WARNING):
        assert keep_ends(prompts, [3, 3, 5], 5) == [[3, 4], [5, 6], []]
    assert "1 of 3 contexts" in caplog.text
    caplog.clear()
    assert keep_ends(prompts, [1, 1, 1], 5) == keep_ends(prompts, [9, 9, 9], None) == prompts
    assert not caplog.text
    with pytest.raises(ValueError, match="5 tokens.*5 positions.*gen_length"):
        keep_ends([[1]], [5], 5)


def test_batches_hold_rows_of_one_kind_with_the_longest_first():
    kinds, lengths = ["a", "b", "a", "a", "b"], [3, 9, 5, 4, 1]
    assert list(batch_rows(kinds, lengths, 2)) == [[1, 4], [2, 3], [0]]
    assert list(batch_rows([], [], 2)) == []
