"""Texts of the campaign: special tokens and template code as prompts, names in cards, and bombs for what reads answers."""

import random
import re
import signal
from contextlib import contextmanager

import pytest

from ldlm_hf.d1 import rewards
from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.llada.pipeline_inputs import encode_prompts
from ldlm_hf.model_card import render_model_card
from ldlm_hf.tasks import HumanEval, normalize_answer
from ldlm_hf.tokenization import check_plain_text
from tests.faults.malicious_texts import (
    card_results,
    chat_tokenizer,
    reads,
    special_tokens,
    subword_tokenizer,
    template_code,
)
from tests.faults.text_bombs import GIANTS, bomb, readers


WORST = (  # units that took, or would take with a careless pattern, longer than their length allows
    *(
        "both tags",
        "almost the form",
        "tags that cross",
        "commas",
        "thousands that break off",
        "spaces",
        "boxes",
        "boxes and spaces",
    ),
    *(
        "fractions of fractions",
        "closed text",
        "sentences",
        "list marks",
        "the answer is",
        "blocks without lines",
        "1 1/",
    ),
)
EXTRACTOR = re.compile(
    r"boxed$|tagged|multiple_choice|last_number|numeric|parse_number|normalize|clean|equal|expression$|format$|tag_count$"
    r"|^(gsm8k|math500|arc_challenge|human_eval|sudoku|rotation): parse|program of|BlockSplitter (sentence|equation)$"
)
HANG_SECONDS = 10
PATTERNS = {
    rewards.format_reward: r"\s*<reasoning>.*?</reasoning>\s*<answer>.*?</answer>\s*",
    rewards.soft_format_reward: r".*?<reasoning>.*?</reasoning>\s*<answer>.*?</answer>.*",
    rewards.strict_format_reward: r"<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n?",
}


@contextmanager
def no_longer_than(seconds):
    """Interrupt what hangs."""

    def interrupt(*signals):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_special_tokens_in_texts_are_refused_by_the_name_of_the_argument():
    cases = list(special_tokens())
    assert [case.detail for case in cases if not case.passed] == []
    assert len(cases) > 200


def test_what_a_tokenizer_reads_as_text_is_text():
    tokenizer = subword_tokenizer(split_special_tokens=True)
    check_plain_text("prompt", "a </s> b <mask>", tokenizer)
    ids = encode_prompts("a </s> b <mask>", None, tokenizer, True)[0]
    assert tokenizer.decode(ids[1:-1]) == "a </s> b <mask>"
    assert not set(ids[1:-1]) & set(tokenizer.all_special_ids)


def test_an_end_of_text_that_also_stands_for_the_unknown_is_refused():
    tokenizer = subword_tokenizer()
    tokenizer.unk_token = tokenizer.eos_token  # as GPT-2's
    with pytest.raises(ValueError, match="`prompt` holds the special token '</s>'"):
        check_plain_text("prompt", "a</s>", tokenizer)
    check_plain_text("prompt", "a <end> {{ b }}", chat_tokenizer())


def test_code_of_templates_stays_text():
    assert [case.detail for case in template_code() if not case.passed] == []


@pytest.mark.parametrize("name", ["a\n---\nlicense: mit", "---", 'x")\nimport os', "", "a\u2028b", "a b"])
def test_a_card_has_no_name_that_is_none(name):
    with pytest.raises(ValueError, match="`model_name` has to be made of"):
        render_model_card(card_results(name, "model_name"))


@pytest.mark.parametrize("field", ["command", "split", "figure"])
def test_a_text_in_a_card_stays_in_its_line(field):
    with pytest.raises(ValueError, match=r"`(results.*|a key of .*)` has to be a text of one line"):
        render_model_card(card_results("a\n---\nlicense: mit", field))
    card = render_model_card(card_results("{{ 7*7 }} : - # '", field))
    assert "{{ 7*7 }}" in str(card)
    assert card.data.license == "apache-2.0"


def test_texts_that_stand_for_something_large_are_read_without_an_error():
    cases = []
    known = readers()
    for shown, text in GIANTS.items():
        if len(text) < 1000:
            cases += [reads(name, reader, text, repr(shown)) for name, reader in known.items()]
    assert [case.detail for case in cases if not case.passed] == []
    assert len(cases) > 10_000


@pytest.mark.parametrize("unit", WORST)
def test_nothing_hangs(unit):
    text = bomb(unit, "in the form", 200_000)
    tried = {name: reader for name, reader in readers().items() if EXTRACTOR.search(name)}
    assert len(tried) >= 20
    for reader in tried.values():
        with no_longer_than(HANG_SECONDS):
            reader(text)


def test_a_reader_that_fails_is_found():
    def fails(text):
        raise RecursionError(name)

    name = "fails"
    assert not reads(name, fails, "1", "1").passed
    assert reads(name, len, "1", "1").passed


def test_the_form_is_what_its_patterns_are():
    draw = random.Random(0)
    tags = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
    found = dict.fromkeys(PATTERNS, 0)
    for _ in range(4000):
        between = draw.choice([["\n"], ["\n", "a", ""], [*tags, "\n", " ", "a", ""]])
        text = "".join(tag + "".join(draw.choices(between, k=draw.randrange(1, 3))) for tag in tags)
        text = text.rstrip("\n") + draw.choice(["", "\n"]) if draw.random() < 0.5 else text[draw.randrange(3) :]
        text = text.replace("</reasoning>\n\n", "</reasoning>\n")
        for reward, pattern in PATTERNS.items():
            expected = re.fullmatch(pattern, text, re.DOTALL) is not None
            assert (reward(["?"], [text]) != [0.0]) == expected, text
            found[reward] += expected
    assert all(100 < count < 3900 for count in found.values()), found


def test_sentences_end_where_they_did():
    splitter = BlockSplitter("sentence")
    assert splitter.split("Mr. A is 3.5 m. 1. e.g. B! No. 2? x. 12. y") == [
        "Mr. A is 3.5 m.",
        "1. e.g. B!",
        "No. 2?",
        "x.",
        "12. y",
    ]


def test_what_is_too_long_to_be_an_answer_is_its_own_canonical_form():
    for text in ("1" + "+1" * 500, " ".join(["a"] * 600), "1, " * 400):
        once = normalize_answer(text)
        assert once == " ".join(text.split())
        assert normalize_answer(once) == once
    assert normalize_answer("1, " * 300 + "0.5").endswith("1, 1/2")


def test_no_tag_of_a_text_ends_the_code_that_it_holds():
    assert HumanEval().parse_answer("```python\ndef f(): return '</answer>'\n```") == "def f(): return '</answer>'\n"
