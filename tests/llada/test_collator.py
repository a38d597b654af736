"""Rows of every form become the tokens that the pipeline will read and write."""

from itertools import product

import pytest
import torch

from ldlm_hf import MaskedDiffusionPipeline, MaskedDiffusionScheduler
from ldlm_hf.llada.collator import MaskedDiffusionCollator
from ldlm_hf.tokenization import build_tokenizer
from tests.llada.tiny_llada import tiny_llada


EOS, MASK = 2, 4
# As LLaDA's: the assistant's header stands at the end whether asked for or not.
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}<assistant>"
CHAT = [
    {"role": "user", "content": "Say hi."},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "Again!"},
    {"role": "assistant", "content": " hi, again"},
]


def digit_tokenizer():
    return build_tokenizer([], [*map(str, range(10)), "+", "=", "a", "b"], "digit")


def chat_tokenizer():
    tokenizer = build_tokenizer(["Say hi again."], granularity="subword", vocab_size=300)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("prompt", ["12+3=", "a b"])
@pytest.mark.parametrize(
    ("granularity", "target"),
    [*product(["digit", "number", "subword"], ["15", "1 5", "+a 4 =", "0"]), ("subword", " 7")],
)
def test_the_response_decodes_to_exactly_the_target(prompt, target, granularity):
    tokenizer = build_tokenizer([prompt, target], map(str, range(20)), granularity)
    row = MaskedDiffusionCollator(tokenizer).encode({"prompt": prompt, "target": target, "answer": "-"})
    response = row["input_ids"][row["prompt_length"] :]
    assert response[-1] == EOS
    assert EOS not in response[:-1]
    assert tokenizer.unk_token_id not in response
    assert tokenizer.decode(response[:-1]) == target


@pytest.mark.parametrize("use_chat_template", [True, False])
def test_prompts_are_read_as_the_pipeline_reads_them(use_chat_template):
    tokenizer = chat_tokenizer()
    pipeline = MaskedDiffusionPipeline(
        tiny_llada(vocab_size=len(tokenizer)), MaskedDiffusionScheduler(block_length=4), tokenizer
    )
    collator = MaskedDiffusionCollator(tokenizer, use_chat_template=use_chat_template)
    ids = collator.encode({"prompt": "Say hi.", "target": "hi"})
    prompt, _ = pipeline.encode_prompt("Say hi.", None, None, None, use_chat_template)
    assert ids["input_ids"][: ids["prompt_length"]] == prompt[0].tolist()
    assert (tokenizer.decode(prompt[0]) == "<user>Say hi.</s><assistant>") == use_chat_template
    assert pipeline.decode(torch.tensor([ids["input_ids"][ids["prompt_length"] :]])) == ["hi"]


def test_the_last_answer_of_a_conversation_is_the_response_and_no_header_follows_it():
    tokenizer = chat_tokenizer()
    row = MaskedDiffusionCollator(tokenizer).encode({"messages": CHAT})
    prompt, response = row["input_ids"][: row["prompt_length"]], row["input_ids"][row["prompt_length"] :]
    assert tokenizer.decode(prompt) == "<user>Say hi.</s><assistant>hi</s><user>Again!</s><assistant>"
    assert tokenizer.decode(response) == " hi, again</s>"


def test_a_text_has_no_prompt_and_ends_once():
    tokenizer = digit_tokenizer()
    row = MaskedDiffusionCollator(tokenizer).encode({"text": "12"})
    assert row["prompt_length"] == 0
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["<s>", "▁1", "2", "</s>"]
    tokenizer.backend_tokenizer.post_processor = None  # one that adds nothing, as LLaDA's
    assert tokenizer.convert_ids_to_tokens(MaskedDiffusionCollator(tokenizer).encode({"text": "12"})["input_ids"]) == [
        *("▁1", "2", "</s>")
    ]


def test_padding_is_end_of_text_and_belongs_to_the_response():
    collator = MaskedDiffusionCollator(digit_tokenizer())
    rows = [{"input_ids": [5, 6, 7], "prompt_length": 2}, {"input_ids": torch.tensor([8, 9, 5, 6, 7])}]
    batch = collator(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, EOS, EOS], [8, 9, 5, 6, 7]]
    assert batch["prompt_lengths"].tolist() == [2, 0]
    assert batch["lengths"].tolist() == [5, 5]
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}
    wide = MaskedDiffusionCollator(collator.tokenizer, max_length=7, pad_to_max_length=True)(rows)
    assert wide["input_ids"][0].tolist() == [5, 6, 7, EOS, EOS, EOS, EOS]
    assert wide["lengths"].tolist() == [7, 7]


def test_encoding_its_own_result_changes_nothing():
    collator = MaskedDiffusionCollator(digit_tokenizer())
    once = collator.encode({"prompt": "1 2", "target": "3"})
    assert collator.encode(once) == once
    without_end = MaskedDiffusionCollator(collator.tokenizer, append_eos=False).encode(
        {"prompt": "1 2", "target": "3"}
    )
    assert without_end["input_ids"] == once["input_ids"][:-1]


def test_rows_that_are_too_long_are_refused_with_their_length_or_cut_if_asked():
    row = {"prompt": "1 2", "target": "3 4 5 6"}  # 4 + 5 tokens
    with pytest.raises(ValueError, match="9 tokens, but `max_length` is 6"):
        MaskedDiffusionCollator(digit_tokenizer(), max_length=6).encode(row)
    assert len(MaskedDiffusionCollator(digit_tokenizer(), max_length=9).encode(row)["input_ids"]) == 9
    cut = MaskedDiffusionCollator(digit_tokenizer(), max_length=6, truncation=True)
    assert cut.encode(row)["input_ids"] == MaskedDiffusionCollator(digit_tokenizer()).encode(row)["input_ids"][:6]
    with pytest.raises(ValueError, match="no response"):
        MaskedDiffusionCollator(digit_tokenizer(), max_length=4, truncation=True).encode(row)


@pytest.mark.parametrize("row", [{"prompt": "1", "target": "2<mask>"}, {"text": "<mask>"}, {"input_ids": [5, MASK]}])
def test_a_row_with_a_mask_is_refused(row):
    with pytest.raises(ValueError, match="mask token"):
        MaskedDiffusionCollator(digit_tokenizer()).encode(row)


def test_the_mask_need_not_be_known_to_the_tokenizer():
    tokenizer = digit_tokenizer()
    tokenizer.mask_token = None  # as LLaDA's
    assert MaskedDiffusionCollator(tokenizer).encode({"input_ids": [5, 9]})["input_ids"] == [5, 9]
    with pytest.raises(ValueError, match="mask token"):
        MaskedDiffusionCollator(tokenizer, mask_token_id=9).encode({"input_ids": [5, 9]})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1"}, r"but has \['prompt'\]"),
        ({"messages": CHAT[:3]}, "assistant"),
        ({"messages": CHAT[1:2]}, "assistant"),
        ({"input_ids": [5, 6], "prompt_length": 3}, "prompt_length"),
        ({"input_ids": [5, 6], "prompt_length": 2}, "no response"),
        ({"prompt": " ", "target": "1"}, "prompt"),
    ],
)
def test_rows_of_no_known_form_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        MaskedDiffusionCollator(chat_tokenizer()).encode(row)


def test_options_that_make_no_sense_are_refused():
    tokenizer = digit_tokenizer()
    for options in ({"pad_to_max_length": True}, {"truncation": True}):
        with pytest.raises(ValueError, match="max_length"):
            MaskedDiffusionCollator(tokenizer, **options)
    with pytest.raises(ValueError, match="eos_token_id"):
        MaskedDiffusionCollator(tokenizer, mask_token_id=EOS)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="eos_token"):
        MaskedDiffusionCollator(tokenizer)
