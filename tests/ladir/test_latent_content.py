"""What an autoencoder's latents hold: probes of known answers, and the script from end to end."""

import json

import measure_latent_content
import pytest
import torch

from tests.ladir.tiny_ladir import tiny_vae, tokenizer


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(measure_latent_content, "STEPS", 150)
    monkeypatch.setattr(measure_latent_content, "HIDDEN", 64)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_probes_read_what_is_there_and_no_more(few_steps):
    torch.manual_seed(0)
    latents, labels = torch.randn(500, 4), torch.randint(3, (500,))
    told = torch.cat([latents, torch.nn.functional.one_hot(labels, 3).float()], dim=1)
    crossed = (latents[:, 0] * latents[:, 1] > 0).long()  # no line parts these
    for is_linear in (True, False):
        assert measure_latent_content.probe(told, labels, 400, 3, is_linear, seed=0) > 0.95
        assert measure_latent_content.probe(latents, labels, 400, 3, is_linear, seed=0) < 0.5
    assert measure_latent_content.probe(latents, crossed, 400, 2, True, seed=0) < 0.65
    assert measure_latent_content.probe(latents, crossed, 400, 2, False, seed=0) > 0.85


def test_the_script_measures_every_symbol(few_steps, tmp_path, capsys):
    for folder, saved in (("vae", tiny_vae(readout_weight=1.0)), ("tokenizer", tokenizer())):
        saved.save_pretrained(tmp_path / folder)
    arguments = ["--tokenizer", str(tmp_path / "tokenizer"), "--train_size", "60", "--output"]
    measure_latent_content.main([str(tmp_path / "vae"), *arguments, str(tmp_path / "content.json")])
    result = json.loads((tmp_path / "content.json").read_text())
    assert result["equations"] > 40 and result["readout_weight"] == 1.0
    shares = result["shares"]
    assert set(shares) == {"linear", "hidden layer", "most frequent"}
    for own in shares.values():
        assert list(own) == ["first number", "sign", "second number", "result"]
    for kind in ("linear", "hidden layer"):  # a random encoder reads signs, and latents keep some of what it read
        assert shares[kind]["sign"] > shares["most frequent"]["sign"]
    assert "sign" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'6/2=3'"):
        measure_latent_content.probe_equations(tiny_vae(), tokenizer(), ["3+4=7", "6/2=3"], seed=0)
