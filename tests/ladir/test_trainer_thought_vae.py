"""The VAE's trainer: substitution, exact resume, statistics, and that it learns to use the latents."""

import pytest
import torch

from ldlm_hf.ladir.modeling_thought_vae import ThoughtVAE
from ldlm_hf.ladir.reconstruction import reconstruction_accuracy, tokenize_blocks
from ldlm_hf.ladir.trainer_thought_vae import blocks_of, split_targets, substitute_tokens
from ldlm_hf.noise import row_generators
from tests.ladir.tiny_ladir import SPLITTER, Stop, sums, tiny_vae, tokenizer, vae_trainer


def test_tokens_are_substituted_at_the_given_rate_by_any_token():
    ids, mask = torch.full((200, 30), 7), torch.ones(200, 30, dtype=torch.long)
    mask[:, 20:] = 0
    result = substitute_tokens(ids, mask, 0.3, 11, row_generators(0, 0, 0, 200))
    assert torch.equal(result[:, 20:], ids[:, 20:])
    changed = int((result != 7).sum())
    rate = 0.3 * 10 / 11  # one in eleven is the same by chance
    assert abs(changed - 4000 * rate) < 3.5 * (4000 * rate * (1 - rate)) ** 0.5
    assert set(result.unique().tolist()) == set(range(11))
    assert torch.equal(substitute_tokens(ids, mask, 0.0, 11, row_generators(0, 0, 0, 200)), ids)


def test_padding_changes_no_substitution():
    ids, short = torch.full((2, 9), 7), torch.tensor([[1] * 4 + [0] * 5, [1] * 9])
    padded = substitute_tokens(ids, short, 0.5, 50, row_generators(0, 0, 0, 2))
    alone = substitute_tokens(ids[:1, :4], short[:1, :4], 0.5, 50, row_generators(0, 0, 0, 1))
    assert torch.equal(padded[:1, :4], alone)


def test_every_block_of_every_target_is_a_row():
    problems = sums(6)
    assert blocks_of(problems, SPLITTER) == [
        block for blocks, _ in split_targets(problems, SPLITTER) for block in blocks
    ]
    assert len(blocks_of(problems, SPLITTER)) == 1 + 2 + 3 + 1 + 2 + 3
    with pytest.raises(ValueError, match="target"):
        blocks_of(problems.remove_columns("target"), SPLITTER)


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    straight = vae_trainer(tmp_path / "straight", ema_decay=0.9)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        vae_trainer(tmp_path / "killed", callbacks=[Stop(5)], ema_decay=0.9).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = vae_trainer(tmp_path / "killed", ema_decay=0.9)
    resumed.train(resume_from_checkpoint=True)
    pairs = zip(straight.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert straight.model.has_latent_statistics


def test_accumulated_rows_give_the_same_step(tmp_path):
    results = []
    for size, accumulation in ((8, 1), (4, 2)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "optim": "sgd"}
        trainer = vae_trainer(tmp_path / str(size), max_steps=2, save_strategy="no", **settings)
        trainer.train()
        results.append(list(trainer.model.state_dict().values()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_vae_learns_to_give_blocks_back_from_their_own_latents_only(tmp_path):
    vae = tiny_vae(fitted=False, freeze_decoder=False)
    settings = {"learning_rate": 5e-3, "save_strategy": "no", "logging_steps": 50, "lr_scheduler_type": "cosine"}
    trainer = vae_trainer(tmp_path, model=vae, max_steps=250, size=24, **settings)
    before = trainer.evaluate()
    trainer.train()
    seen = sorted(set(blocks_of(sums(24), SPLITTER)))
    assert before["eval_exact_reconstruction"] < 0.3
    assert reconstruction_accuracy(vae, tokenizer(), seen) > 0.9
    assert reconstruction_accuracy(vae, tokenizer(), seen, shuffled=True) < 0.1
    metrics = trainer.evaluate()
    assert metrics["eval_shuffled_reconstruction"] <= metrics["eval_exact_reconstruction"]
    assert {"eval_exact_reconstruction_noise_0.25", "eval_exact_reconstruction_noise_0.5"} <= set(metrics)
    trainer.save_final(tmp_path / "final")
    assert ThoughtVAE.from_pretrained(tmp_path / "final").has_latent_statistics


def test_with_a_readout_a_linear_map_learns_to_read_blocks_in_their_latents(tmp_path):
    vae = tiny_vae(fitted=False, freeze_decoder=False, readout_weight=1.0, readout_length=5)
    settings = {"learning_rate": 5e-3, "save_strategy": "no", "lr_scheduler_type": "cosine"}
    trainer = vae_trainer(tmp_path, model=vae, max_steps=250, size=24, **settings)
    seen = sorted(set(blocks_of(sums(24), SPLITTER)))
    tokens = tokenize_blocks(tokenizer(), seen)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]

    def share_read_out(order: list[int]) -> float:
        with torch.no_grad():
            latents = vae.eval().posterior(ids, mask).mean[order]
            return (vae.read_out(latents)[:, : ids.shape[1]].argmax(-1) == ids)[mask.bool()].float().mean().item()

    own, others = list(range(len(seen))), [*range(1, len(seen)), 0]
    before = share_read_out(own)
    trainer.train()
    assert before < 0.3
    assert share_read_out(own) > 0.95
    assert share_read_out(others) < 0.8  # signs stand in the same places
    assert reconstruction_accuracy(vae, tokenizer(), seen) > 0.9
    trainer.save_final(tmp_path / "final")
    loaded = ThoughtVAE.from_pretrained(tmp_path / "final")
    assert torch.equal(loaded.readout.weight, vae.readout.weight)


def test_the_log_tells_the_parts_of_the_loss(tmp_path):
    vae = tiny_vae(fitted=False, freeze_decoder=False, readout_weight=0.5, readout_length=4)
    trainer = vae_trainer(tmp_path, model=vae, max_steps=4, save_strategy="no")
    trainer.train()
    trainer.evaluate()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    entry = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    evaluated = {name.removeprefix("eval_"): value for name, value in entry.items()}
    for entry in (logged[0], evaluated):  # before the last batch, which is smaller, while each step counts the same
        total = entry["reconstruction_loss"] + 0.5 * entry["readout_loss"] + vae.config.kl_weight * entry["kl"]
        assert entry["loss"] == pytest.approx(total, rel=1e-4)
    plain = vae_trainer(tmp_path / "plain", max_steps=2, save_strategy="no")
    plain.train()
    assert "readout_loss" not in plain.state.log_history[0] and plain.state.log_history[0]["kl"] > 0
