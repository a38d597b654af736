"""The thought VAE: closed forms, padding, noise, statistics, saving."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ldlm_hf.ladir.configuration_thought_vae import ThoughtVAEConfig
from ldlm_hf.ladir.diagonal_gaussian import DiagonalGaussian
from ldlm_hf.ladir.modeling_thought_vae import ThoughtVAE
from ldlm_hf.ladir.reconstruction import pad_right, reconstruction_accuracy, tokenize_blocks
from tests.ladir.tiny_ladir import (
    DIM,
    FAMILIES,
    LATENTS,
    tiny_lm,
    tiny_lm_config,
    tiny_vae,
    tiny_vae_config,
    tokenizer,
)


BLOCKS = ["3+4=7", "7", "12+30=42"]


def batch(blocks=BLOCKS) -> dict:
    tokens = tokenize_blocks(tokenizer(), blocks)
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_divergence_is_that_of_torch():
    gaussian = DiagonalGaussian(randn(3, LATENTS, DIM), randn(3, LATENTS, DIM, seed=1))
    expected = kl_divergence(Normal(gaussian.mean, gaussian.std), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(gaussian.kl(), expected)
    assert DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3)).kl().tolist() == [0, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_neither_posterior_nor_loss(family):
    vae = tiny_vae(family)
    together = vae.posterior(**batch())
    losses = []
    for row, block in enumerate(BLOCKS):
        alone = vae.posterior(**batch([block]))
        torch.testing.assert_close(alone.mean[0], together.mean[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.log_variance[0], together.log_variance[row], atol=1e-5, rtol=1e-4)
        losses.append(vae(**batch([block])).reconstruction_loss)
    torch.testing.assert_close(vae(**batch()).reconstruction_loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_cross_entropy_of_the_block_and_its_end_behind_the_latents(family):
    vae, ids = tiny_vae(family), batch(BLOCKS[2:])["input_ids"]
    mean = vae.posterior(ids).mean
    labels = [*ids[0].tolist(), vae.config.eos_token_id]
    embedded = torch.cat([vae.from_latent(mean), vae.decoder.get_input_embeddings()(ids)], dim=1)
    scores = vae.decoder(inputs_embeds=embedded).logits[0].log_softmax(-1)
    expected = -torch.stack([scores[LATENTS - 1 + i, label] for i, label in enumerate(labels)]).mean()
    output = vae(ids)
    torch.testing.assert_close(output.reconstruction_loss, expected)
    kl = vae.posterior(ids).kl().mean()
    torch.testing.assert_close(output.loss, expected + vae.config.kl_weight * kl)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_the_greedy_choice_of_the_scores(family):
    vae = tiny_vae(family)
    latents = vae.encode(**batch())
    written = vae.decode(latents, max_new_tokens=5)
    raw = latents * vae.latent_std + vae.latent_mean
    for row in range(len(BLOCKS)):
        states, tokens = vae.from_latent(raw[row : row + 1]), []
        while len(tokens) < 5 and (not tokens or tokens[-1] != vae.config.eos_token_id):
            tokens.append(vae.decoder(inputs_embeds=states).logits[0, -1].argmax().item())
            token = torch.tensor([[tokens[-1]]])
            states = torch.cat([states, vae.decoder.get_input_embeddings()(token)], dim=1)
        assert written[row, : len(tokens)].tolist() == tokens
        assert set(written[row, len(tokens) :].tolist()) <= {vae.config.pad_token_id}


def test_only_the_tokens_before_the_queries_are_read():
    vae = tiny_vae()
    one, other = batch(["3+4=7"])["input_ids"], batch(["3+4=8"])["input_ids"]
    assert not torch.allclose(vae.posterior(one).mean, vae.posterior(other).mean, atol=1e-3)
    corrupted = vae(one, corrupted_ids=other)
    torch.testing.assert_close(corrupted.latents, vae.posterior(other).mean)
    assert not torch.allclose(
        corrupted.reconstruction_loss, vae(other).reconstruction_loss
    )  # the target is the clean one


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readout_is_linear_in_the_latents_and_its_loss_that_of_the_first_tokens(family):
    vae = tiny_vae(family, readout_weight=0.5, readout_length=4)
    tokens = batch()  # of 5, 1 and 8 tokens
    output = vae(**tokens)
    scores = vae.read_out(output.latents)
    assert scores.shape == (3, 4, vae.config.text_config.vocab_size)
    one, other = randn(2, LATENTS, DIM), randn(2, LATENTS, DIM, seed=1)
    between = vae.read_out(0.25 * one + 0.75 * other)
    torch.testing.assert_close(between, 0.25 * vae.read_out(one) + 0.75 * vae.read_out(other), atol=1e-4, rtol=1e-4)
    rows = []
    for row, length in enumerate([4, 1, 4]):
        log_probs = scores[row].log_softmax(-1)
        rows.append(-sum(log_probs[place, tokens["input_ids"][row, place]] for place in range(length)) / length)
    torch.testing.assert_close(output.readout_loss, torch.stack(rows).mean())
    parts = output.reconstruction_loss + 0.5 * output.readout_loss + vae.config.kl_weight * output.kl
    torch.testing.assert_close(output.loss, parts)
    plain = tiny_vae(family)
    assert plain(**tokens).readout_loss is None and "readout" not in " ".join(plain.state_dict())
    with pytest.raises(ValueError, match="readout_weight"):
        plain.read_out(output.latents)


@pytest.mark.parametrize("unit", ["absolute", "relative"])
def test_noise_is_added_in_its_unit(unit):
    vae = tiny_vae(latent_noise=0.5, latent_noise_unit=unit)
    noise, other = randn(3, LATENTS, DIM), randn(3, LATENTS, DIM, seed=1)
    posterior = vae.posterior(**batch())
    scale = 0.5 * (1.0 if unit == "absolute" else posterior.mean.std())
    output = vae(**batch(), posterior_noise=noise, latent_noise=other)
    torch.testing.assert_close(output.latents, posterior.mean + posterior.std * noise + scale * other)


def test_a_clamped_variance_stays_within_its_limits():
    vae = tiny_vae(min_log_variance=-1.0, max_log_variance=-0.5, initial_log_variance=-0.7)
    with torch.no_grad():
        vae.to_log_variance.weight.mul_(1e4)
    assert vae.posterior(**batch()).log_variance.unique().tolist() == [-1.0, -0.5]


@pytest.mark.parametrize("statistics", ["standard", "scalar"])
def test_samples_of_what_the_statistics_were_fitted_to_are_standard(statistics):
    vae = tiny_vae(fitted=False, latent_statistics=statistics)
    assert not vae.has_latent_statistics
    gaussian = DiagonalGaussian(5 + 3 * randn(4000, LATENTS, DIM), randn(4000, LATENTS, DIM, seed=1) - 1)
    vae.set_latent_statistics(gaussian)
    assert vae.has_latent_statistics
    latents = vae.standardize(gaussian.sample(randn(4000, LATENTS, DIM, seed=2)))
    assert latents.mean(0).abs().max() < 0.1
    assert (latents.std(0) - 1).abs().max() < 0.1


@pytest.mark.parametrize(
    "wrong", [torch.zeros(4, 1, DIM), torch.zeros(1, LATENTS, DIM), torch.full((4, LATENTS, DIM), torch.nan)]
)
def test_statistics_of_something_else_are_refused(wrong):
    with pytest.raises(ValueError, match="posterior"):
        tiny_vae().set_latent_statistics(DiagonalGaussian(wrong, torch.zeros_like(wrong)))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_from_the_language_model_and_comes_back_from_disk(family, tmp_path):
    lm = tiny_lm(family)
    vae = tiny_vae(family)
    for own, given in ((vae.decoder, lm), (vae.encoder, lm.base_model)):
        assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in own.state_dict().items())
    vae.save_pretrained(tmp_path)
    loaded = ThoughtVAE.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in vae.state_dict().items())
    assert torch.equal(loaded.encode(**batch()), vae.encode(**batch()))
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(OSError, match="unreadable"):
        ThoughtVAE.from_pretrained(tmp_path)


def test_a_tied_language_model_comes_back_from_disk(tmp_path):
    vae = ThoughtVAE.from_causal_lm(
        tiny_lm(tie_word_embeddings=True), latents_per_block=LATENTS, latent_dim=DIM
    ).eval()
    vae.save_pretrained(tmp_path)
    assert torch.equal(ThoughtVAE.from_pretrained(tmp_path).eval()(**batch()).logits, vae(**batch()).logits)


def test_a_frozen_decoder_learns_nothing_and_drops_nothing_out():
    vae = ThoughtVAE.from_causal_lm(
        tiny_lm("gpt2", resid_pdrop=0.5), latents_per_block=LATENTS, latent_dim=DIM
    ).train()
    assert not vae.decoder.training and vae.encoder.training
    vae(**batch()).loss.backward()
    assert all(parameter.grad is None for parameter in vae.decoder.parameters())
    assert vae.queries.grad.abs().sum() > 0
    joint = tiny_vae(freeze_decoder=False).train()
    joint(**batch()).loss.backward()
    assert joint.decoder.get_input_embeddings().weight.grad.abs().sum() > 0


def test_latents_stay_float32_in_a_bfloat16_model():
    vae = tiny_vae().to(torch.bfloat16)
    assert vae.latent_std.dtype == torch.float32
    assert vae.encode(**batch()).dtype == torch.float32
    assert vae(**batch(), posterior_noise=randn(3, LATENTS, DIM)).loss.isfinite()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent_dim", 0),
        ("kl_weight", -1),
        ("token_substitution", 1.5),
        ("readout_weight", -1),
        ("readout_length", 0),
        ("latent_noise_unit", "k"),
        ("latent_statistics", "robust"),
        ("initial_log_variance", 7),
    ],
)
def test_impossible_fields_are_refused_by_name(field, value):
    with pytest.raises(Exception, match=field):  # huggingface_hub wraps the ValueError
        tiny_vae_config(**{field: value})


def test_an_unknown_field_and_another_vocabulary_are_refused():
    with pytest.raises(ValueError, match="latents_dim"):
        ThoughtVAE.from_causal_lm(tiny_lm(), latents_dim=3)
    with pytest.raises(Exception, match="decoder_config"):
        ThoughtVAEConfig(text_config=tiny_lm_config(), decoder_config=tiny_lm_config(vocab_size=99))


def test_the_end_of_several_is_the_first_and_pads_where_nothing_does():
    config = ThoughtVAEConfig(text_config=tiny_lm_config(eos_token_id=[2, 3], pad_token_id=None))
    assert (config.eos_token_id, config.pad_token_id) == (2, 2)


def test_the_share_of_exact_reconstructions_counts_texts():
    vae = tiny_vae()
    shares = [reconstruction_accuracy(vae, tokenizer(), BLOCKS, batch_size=size) for size in (1, 3)]
    assert shares[0] == shares[1]
    with pytest.raises(ValueError, match="blocks"):
        reconstruction_accuracy(vae, tokenizer(), ["1", "1"], shuffled=True)
    assert pad_right([[5], []])["attention_mask"].tolist() == [[1], [0]]
