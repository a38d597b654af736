"""The autoencoder: any LM inside, frozen where the paper says so, and statistics that survive everything."""

import pytest
import torch
from transformers import AutoModel, T5Config, T5ForConditionalGeneration

from ldlm_hf import TextLatentAutoencoder, TextLatentAutoencoderConfig
from ldlm_hf.masks import padding_mask
from tests.tiny import (
    LATENT_DIM,
    LATENT_LENGTH,
    tiny_autoencoder,
    tiny_bart,
    tiny_bart_config,
    tiny_problems,
    tiny_tokenizer,
)


SIZES = {"latent_length": 4, "latent_dim": 8, "decoder_length": 6, "num_layers": 1, "num_attention_heads": 2}


def texts(size: int = 6) -> dict[str, torch.Tensor]:
    """Return a padded batch of targets."""
    return tiny_tokenizer()(tiny_problems(size=size)["target"][:], padding=True, return_tensors="pt")


def test_a_pretrained_bart_is_taken_over_bit_by_bit_and_the_rest_is_initialised(tmp_path):
    bart = tiny_bart(seed=3)
    bart.save_pretrained(tmp_path)
    model = TextLatentAutoencoder.from_seq2seq(str(tmp_path), **SIZES)
    for name, tensor in bart.state_dict().items():
        assert torch.equal(tensor, model.seq2seq.state_dict()[name]), name
    assert model.compressor.queries.std().item() == pytest.approx(1, abs=0.3)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not model.has_latent_statistics


def tiny_t5_config() -> T5Config:
    """Return the configuration of a T5, which has no `bos_token_id` and embeddings without a norm."""
    special = {"vocab_size": len(tiny_tokenizer()), "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return T5Config(d_model=32, d_ff=64, d_kv=16, num_layers=1, num_heads=2, **special)


@pytest.mark.parametrize("reads_prompt", [False, True])
def test_a_t5_works_the_same_way(tmp_path, reads_prompt):
    T5ForConditionalGeneration(tiny_t5_config()).save_pretrained(tmp_path)
    model = TextLatentAutoencoder.from_seq2seq(str(tmp_path), **SIZES, decoder_reads_prompt=reads_prompt)
    prompt = {f"prompt_{name}": tensor for name, tensor in texts().items()} if reads_prompt else {}
    output = model(**texts(), **prompt)
    output.loss.backward()
    assert output.latents.shape == (6, LATENT_LENGTH, LATENT_DIM)
    assert all(p.grad is None for p in model.seq2seq.get_encoder().parameters())
    assert model.decode(output.latents.detach(), max_new_tokens=5, **prompt).shape[0] == 6


def test_an_unknown_field_is_refused(tmp_path):
    tiny_bart().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="latent_size"):
        TextLatentAutoencoder.from_seq2seq(str(tmp_path), latent_size=3)


def test_a_missing_language_model_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="nothing-here"):
        TextLatentAutoencoder.from_seq2seq(str(tmp_path / "nothing-here"))


def test_the_encoder_is_frozen_and_never_drops_out():
    model = tiny_autoencoder(seq2seq_config=tiny_bart_config(dropout=0.5, attention_dropout=0.5)).train()
    frozen = {id(p) for p in model.seq2seq.get_encoder().parameters()} | {
        id(model.seq2seq.get_input_embeddings().weight)
    }
    assert all(not p.requires_grad for p in model.parameters() if id(p) in frozen)
    assert all(p.requires_grad for p in model.parameters() if id(p) not in frozen)
    batch = texts()
    assert torch.equal(model.encode(**batch), model.encode(**batch))
    assert model.seq2seq.get_decoder().training


def test_the_decoder_can_be_frozen_too():
    model = tiny_autoencoder(train_lm_decoder=False)
    assert not any(parameter.requires_grad for parameter in model.seq2seq.parameters())
    assert all(parameter.requires_grad for parameter in model.expander.parameters())


@pytest.mark.parametrize("lm", ["bart", "t5"])
@pytest.mark.parametrize("axis", ["feature", "sequence"])
@torch.no_grad()
def test_the_embeddings_of_the_tokens_can_be_read_beside_the_last_layer(lm, axis):
    config = tiny_t5_config() if lm == "t5" else tiny_bart_config()
    model = tiny_autoencoder(seq2seq_config=config, encoder_layers=[0, -1], encoder_layers_axis=axis)
    batch = texts()
    encoder = model.seq2seq.get_encoder()
    embedded = encoder.get_input_embeddings()(batch["input_ids"])
    if lm == "bart":
        embedded = encoder.layernorm_embedding(embedded + encoder.embed_positions(batch["input_ids"]))
    states = torch.cat([embedded, encoder(**batch).last_hidden_state], dim=-1 if axis == "feature" else 1)
    keys = batch["attention_mask"].repeat(1, 1 if axis == "feature" else 2)
    compressed = model.to_latent(model.compressor(states, padding_mask(keys)))
    bounded = compressed / compressed.square().mean(-1, keepdim=True).add(1e-6).sqrt()
    expected = (bounded - model.latent_mean) / model.latent_std
    torch.testing.assert_close(model.encode(**batch), expected, atol=2e-3, rtol=0)  # in standard deviations


@pytest.mark.parametrize("lm", ["bart", "t5"])
@pytest.mark.parametrize("layers", [[-1], [0, -1]])
@pytest.mark.parametrize("axis", ["feature", "sequence"])
def test_padding_has_no_influence(lm, layers, axis):
    config = tiny_t5_config() if lm == "t5" else tiny_bart_config()
    model = tiny_autoencoder(seq2seq_config=config, encoder_layers=layers, encoder_layers_axis=axis)
    batch = texts(1)
    padded = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 5), value=1),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 5), value=0),
    }
    torch.testing.assert_close(model.encode(**batch), model.encode(**padded), atol=1e-3, rtol=0)
    torch.testing.assert_close(model(**batch).loss, model(**padded).loss)


def test_the_loss_is_the_cross_entropy_of_a_teacher_forced_reading():
    model, batch = tiny_autoencoder(), texts(3)
    output = model(**batch)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    start = model.config.seq2seq_config.decoder_start_token_id
    inputs = torch.cat([torch.full((3, 1), start), batch["input_ids"][:, :-1]], dim=1)
    decoder = model.seq2seq.get_decoder()
    hidden = decoder(input_ids=inputs, encoder_hidden_states=model.expand(output.latents)).last_hidden_state
    logits = hidden @ model.seq2seq.get_input_embeddings().weight.T + model.seq2seq.final_logits_bias
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_dict_equals_tuple():
    model, batch = tiny_autoencoder(), texts(2)
    output, values = model(**batch), model(**batch, return_dict=False)
    assert all(torch.equal(one, other) for one, other in zip(output.to_tuple(), values, strict=True))


@pytest.mark.parametrize("statistics", ["standard", "robust", "scalar"])
def test_fitted_latents_are_standardised(statistics):
    model = tiny_autoencoder(fitted=False, latent_statistics=statistics)
    raw = torch.randn(4000, LATENT_LENGTH, LATENT_DIM) * torch.linspace(0.5, 2, LATENT_DIM) + 3
    model.set_latent_statistics(raw)
    standardised = (raw - model.latent_mean) / model.latent_std
    assert abs(standardised.mean()) < 0.05
    assert standardised.std() == pytest.approx(1, abs=0.05)
    if statistics != "scalar":
        torch.testing.assert_close(standardised.std(0), torch.ones(LATENT_LENGTH, LATENT_DIM), atol=0.1, rtol=0)
    else:
        assert model.latent_std.unique().numel() == 1


def test_fitting_again_to_standardised_latents_changes_nothing():
    model, batch = tiny_autoencoder(fitted=False), texts(64)
    model.set_latent_statistics(model.encode(**batch))
    mean, std = model.latent_mean.clone(), model.latent_std.clone()
    model.set_latent_statistics(model.encode(**batch))
    torch.testing.assert_close(model.latent_mean, mean)
    torch.testing.assert_close(model.latent_std, std)


@pytest.mark.parametrize("latents", [torch.zeros(1, 4, 8), torch.zeros(5, 3, 8), torch.full((5, 4, 8), float("nan"))])
def test_latents_that_cannot_be_fitted_are_refused(latents):
    with pytest.raises(ValueError, match="latents"):
        tiny_autoencoder().set_latent_statistics(latents)


def test_saving_and_loading_keeps_every_bit_also_by_auto_model(tmp_path):
    model = tiny_autoencoder(seed=5)
    model.save_pretrained(tmp_path)
    for loaded in (TextLatentAutoencoder.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is TextLatentAutoencoder
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name
        assert loaded.has_latent_statistics


def test_statistics_and_latents_stay_float32_in_bfloat16(tmp_path):
    model = tiny_autoencoder()
    mean = model.latent_mean.clone()
    model.save_pretrained(tmp_path)
    for cast in (model.to(torch.bfloat16), TextLatentAutoencoder.from_pretrained(tmp_path, dtype=torch.bfloat16)):
        assert torch.equal(cast.latent_mean, mean)
        assert cast.latent_std.dtype == torch.float32
        assert cast.to_latent.weight.dtype == torch.bfloat16
        assert cast.encode(**texts(2)).dtype == torch.float32
        assert cast.decode(cast.encode(**texts(2)), max_new_tokens=4).shape[0] == 2


def test_the_default_configuration_is_the_papers():
    config = TextLatentAutoencoderConfig()
    assert (config.latent_length, config.latent_dim) == (16, 256)
    assert (config.seq2seq_config.d_model, config.seq2seq_config.encoder_layers) == (768, 6)


def test_decoding_is_greedy_and_may_repeat_itself():
    config = tiny_autoencoder().generation_config
    assert config.num_beams in (None, 1)
    assert not config.no_repeat_ngram_size
    assert not config.do_sample


def test_written_rows_end_at_their_end_of_sequence():
    model = tiny_autoencoder()
    tokens = model.decode(model.encode(**texts(8)), max_new_tokens=20)
    for row in tokens.tolist():
        if 2 in row[1:]:
            assert set(row[row.index(2, 1) + 1 :]) <= {1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent_length", 0),
        ("num_attention_heads", 5),
        ("latent_norm", "l3"),
        ("encoder_layers", []),
        ("encoder_layers", [0, 2]),
        ("encoder_layers", [-3]),
        ("latent_noise", -1.0),
        ("encoder_noise", -0.1),
    ],
)
def test_configurations_that_make_no_sense_are_refused(field, value):
    with pytest.raises(Exception, match=field):  # the configuration's own validation error
        TextLatentAutoencoderConfig(seq2seq_config=tiny_bart_config(), **{**SIZES, field: value})
