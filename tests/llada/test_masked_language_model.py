"""One adapter over every masked LM: the same logits as the model's own, and positions that padding does not move."""

import pytest
import torch
import transformers

from ldlm_hf.llada.masked_language_model import MaskedLanguageModel
from tests.llada.tiny_llada import MASK, tiny_llada


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 50}
MODELS = {
    "Bert": ("BertConfig", "BertForMaskedLM", SIZES),
    "Roberta": ("RobertaConfig", "RobertaForMaskedLM", SIZES),
    "ModernBert": ("ModernBertConfig", "ModernBertForMaskedLM", {**SIZES, **MODERN}),
    "Electra": ("ElectraConfig", "ElectraForMaskedLM", {**SIZES, "embedding_size": 32}),
    "Albert": ("AlbertConfig", "AlbertForMaskedLM", {**SIZES, "embedding_size": 16}),
    "DistilBert": ("DistilBertConfig", "DistilBertForMaskedLM", DISTIL),
    "DebertaV2": ("DebertaV2Config", "DebertaV2ForMaskedLM", SIZES),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**SIZES, "num_key_value_heads": 2, "head_dim": 16}),
    "Gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**SIZES, "num_key_value_heads": 2, "head_dim": 16}),
}


def make(name: str, **fields) -> transformers.PreTrainedModel:
    config, model, sizes = MODELS[name]
    causal = {"is_causal": False} if model.endswith("CausalLM") else {}
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**{**sizes, **causal, **fields})).eval()


@pytest.mark.parametrize("name", MODELS)
def test_some_positions_have_the_logits_that_the_model_gives_them(name):
    model = make(name)
    adapter = MaskedLanguageModel(model, MASK)
    ids = torch.randint(5, 50, (2, 10), generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[1, 5, 5], [3, 9, 0]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(adapter(ids), expected, atol=1e-6, rtol=1e-5)
        for row in range(2):
            torch.testing.assert_close(
                adapter(ids, positions=positions)[row], expected[row, positions[row]], atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("name", MODELS)
def test_padding_on_the_left_moves_nothing(name):
    model = make(name)
    adapter = MaskedLanguageModel(model, MASK)
    ids = torch.randint(5, 50, (2, 10), generator=torch.Generator().manual_seed(0))
    padding = torch.full((2, 3), model.config.pad_token_id or 0)
    mask = torch.cat([torch.zeros(2, 3), torch.ones(2, 10)], dim=1).long()
    with torch.no_grad():
        padded = adapter(torch.cat([padding, ids], dim=1), mask)[:, 3:]
        torch.testing.assert_close(padded, adapter(ids), atol=1e-5, rtol=1e-4)


def test_an_output_layer_that_is_more_than_its_modules_is_left_to_the_model():
    assert not MaskedLanguageModel(make("Gemma2"), MASK).is_split  # it caps its logits
    assert MaskedLanguageModel(make("Qwen3"), MASK).is_split
    with pytest.raises(ValueError, match="output layer of Gemma2ForCausalLM"):
        MaskedLanguageModel(make("Gemma2"), MASK).hidden_states(torch.tensor([[5, 6]]))


def test_looking_for_the_output_layer_leaves_the_model_as_it_was():
    model = make("Bert").train()
    model.bert.embeddings.eval()
    MaskedLanguageModel(model, MASK)
    assert model.training and model.cls.training and not model.bert.embeddings.training


def test_models_that_cannot_fill_in_masks_are_refused():
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    with pytest.raises(ValueError, match="LlamaForCausalLM.*from_causal_lm"):
        MaskedLanguageModel(llama, MASK)
    with pytest.raises(ValueError, match="BertForMaskedLM.*precedes"):
        MaskedLanguageModel(make("Bert", is_decoder=True), MASK)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50}
    bart = transformers.BartForConditionalGeneration(
        transformers.BartConfig(**sizes, encoder_attention_heads=2, decoder_attention_heads=2)
    )
    with pytest.raises(ValueError, match="encoder-decoder"):
        MaskedLanguageModel(bart, MASK)


def test_the_mask_token_is_the_models_own_and_has_to_be_known():
    assert MaskedLanguageModel(tiny_llada()).mask_token_id == MASK
    with pytest.raises(ValueError, match="mask_token_id` is 5.*mask token 4"):
        MaskedLanguageModel(tiny_llada(), 5)
    with pytest.raises(ValueError, match="no mask token"):
        MaskedLanguageModel(make("Bert"))
    with pytest.raises(ValueError, match=r"\[0, 50\).*99"):
        MaskedLanguageModel(make("Bert"), 99)


def test_the_longest_text_of_a_model_that_counts_behind_its_padding_is_known():
    assert MaskedLanguageModel(make("Roberta", max_position_embeddings=66), MASK).max_length == 64
