"""Perplexity under a tiny random GPT-2, against a loop over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ldlm_hf import load_metric
from ldlm_hf.metrics.likelihood import perplexities


WORDS = ["<s>", "<unk>", "a", "b", "c", "d"]
TEXTS = ["a b c d", "", "d", "b b a c a d c", "c a"]


def save_tokenizer(folder: str, **tokens: str) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", model_max_length=16, **tokens
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def model_id(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("gpt2"))
    save_tokenizer(folder, bos_token="<s>")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def losses_by_a_loop(model_id: str, text: str, start: list[int]) -> list[float]:
    """Return -log of the probability of each token after those before it, without padding or batches."""
    model = GPT2LMHeadModel.from_pretrained(model_id).eval()
    ids = start + [WORDS.index(word) for word in text.split()]
    with torch.no_grad():
        logits = [model(torch.tensor([ids[:end]])).logits[0, -1] for end in range(1, len(ids))]
    return [-row.softmax(0)[token].log().item() for row, token in zip(logits, ids[1:], strict=True)]


@pytest.mark.parametrize(("add_start_token", "start"), [(True, [0]), (False, [])])
def test_perplexities_equal_a_loop_over_tokens(model_id, add_start_token, start):
    result = load_metric("perplexity").compute(predictions=TEXTS, model_id=model_id, add_start_token=add_start_token)
    losses = [losses_by_a_loop(model_id, text, start) for text in TEXTS]
    pooled = sum(losses, [])
    assert result["num_tokens"] == len(pooled) == (14 if add_start_token else 10)
    assert result["perplexity"] == pytest.approx(math.exp(sum(pooled) / len(pooled)), rel=1e-5)
    expected = [pytest.approx(math.exp(sum(loss) / len(loss)), rel=1e-5) if loss else None for loss in losses]
    assert result["perplexities"] == expected
    assert result["perplexities"][1] is None  # the empty text
    assert (result["perplexities"][2] is None) == (not add_start_token)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_equal_singles(model_id, batch_size):
    together = perplexities(TEXTS, model_id, batch_size=batch_size)
    alone = [perplexities([text], model_id)["perplexity"] for text in TEXTS]
    assert together["perplexities"] == [value if value is None else pytest.approx(value, rel=1e-5) for value in alone]


def test_how_a_corpus_is_cut_into_texts_weighs_nothing(model_id):
    result = perplexities(["a b c d", "d"], model_id)
    one, other = result["perplexities"]
    assert result["perplexity"] == pytest.approx(math.exp((4 * math.log(one) + math.log(other)) / 5), rel=1e-5)


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(model_id, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(model_id)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path)
    save_tokenizer(str(tmp_path), bos_token="<s>")
    assert perplexities(TEXTS, str(tmp_path))["perplexity"] == pytest.approx(len(WORDS), rel=1e-5)


def test_longer_texts_are_cut(model_id):
    cut = perplexities(["a b c d a b"], model_id, max_length=5)
    assert cut == perplexities(["a b c d"], model_id)
    assert (
        perplexities(["a b c d " * 10], model_id)["num_tokens"] == 15
    )  # as long as the tokenizer says the model reads


def test_nothing_but_empty_texts_has_no_perplexity(model_id):
    expected = {"perplexity": None, "perplexities": [None, None], "num_tokens": 0}
    assert perplexities(["", " "], model_id) == expected


def test_a_tokenizer_without_start_token_is_refused(model_id, tmp_path):
    GPT2LMHeadModel.from_pretrained(model_id).save_pretrained(tmp_path)
    save_tokenizer(str(tmp_path))
    with pytest.raises(ValueError, match="add_start_token=False"):
        perplexities(TEXTS, str(tmp_path))
    assert perplexities(TEXTS, str(tmp_path), add_start_token=False)["num_tokens"] == 10


def test_a_model_that_sees_later_tokens_is_refused(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(WORDS), is_decoder=False, initializer_range=0.5, **sizes)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    save_tokenizer(str(tmp_path), bos_token="<s>")
    with pytest.raises(ValueError, match="`model_id`.*later tokens"):
        perplexities(TEXTS, str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": []}, "`predictions`"),
        ({"predictions": ["a", None]}, "`predictions`.*number 1"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"max_length": 1}, "`max_length`.*1"),
    ],
)
def test_bad_arguments_are_refused(model_id, arguments, message):
    with pytest.raises(ValueError, match=message):
        perplexities(**{"predictions": TEXTS, "model_id": model_id, **arguments})
