"""The reasoner's trainer: cached thoughts, noise, gates, exact resume, and that both stages learn."""

import math

import pytest
import torch

from ldlm_hf.ladir.modeling_ladir import LaDiRForReasoning
from ldlm_hf.ladir.reconstruction import pad_right
from ldlm_hf.ladir.thought_cache import cache_thoughts, collate_thoughts, latent_moments
from ldlm_hf.ladir.trainer_ladir import LaDiRTrainingArguments, draw_noise
from ldlm_hf.noise import row_generators
from tests.ladir.tiny_ladir import (
    DIM,
    LATENTS,
    SPLITTER,
    Stop,
    reasoner_trainer,
    sums,
    tiny_pipeline,
    tiny_reasoner,
    tiny_vae,
    tokenizer,
)


BLOCK = (LATENTS, DIM)


def weights(trainer) -> list[torch.Tensor]:
    averaged = [] if trainer.ema is None else trainer.ema.average.shadow_params
    return [tensor.clone() for tensor in (*trainer.model.state_dict().values(), *averaged)]


def test_cached_thoughts_are_the_posteriors_of_the_steps(tmp_path):
    vae, problems = tiny_vae(), sums(7)
    settings = (vae, tokenizer(), SPLITTER, tiny_reasoner().config)
    cached = cache_thoughts(problems, *settings, tmp_path, batch_size=3)
    batch = collate_thoughts([cached[i] for i in range(7)], BLOCK)
    assert batch["block_mask"].sum(1).tolist() == [1, 2, 3, 1, 2, 3, 1]
    for row, target in enumerate(problems["target"]):
        blocks, answer = SPLITTER.split_target(target)
        tokens = tokenizer()(blocks, add_special_tokens=False)["input_ids"]
        posterior = vae.posterior(**pad_right(tokens))
        count = len(blocks)
        expected = (posterior.mean - vae.latent_mean) / vae.latent_std
        torch.testing.assert_close(batch["means"][row, :count], expected.detach(), atol=1e-5, rtol=1e-4)
        expected = (posterior.std / vae.latent_std).detach()
        torch.testing.assert_close(batch["stds"][row, :count], expected, atol=1e-5, rtol=1e-4)
        assert batch["means"][row, count:].abs().sum() == 0
        written = batch["answer_ids"][row][batch["answer_mask"][row]].tolist()
        assert written[-1] == 2 and tokenizer().decode(written[:-1]) == answer
        asked = batch["question_ids"][row][batch["question_mask"][row]].tolist()
        assert asked[0] == 0 and tokenizer().decode(asked[1:]) == problems["prompt"][row]
    cache_thoughts(problems, *settings, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with torch.no_grad():
        vae.to_mean.bias.add_(1)
    cache_thoughts(problems, *settings, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another VAE, another file


def test_statistics_fitted_to_the_blocks_make_them_standard():
    mean, std = latent_moments(cache_thoughts(sums(16), tiny_vae(), tokenizer(), SPLITTER, tiny_reasoner().config))
    assert abs(mean) < 0.05
    assert 0.9 < std < 1.1


def test_padding_changes_no_noise_and_times_have_their_distribution(tmp_path):
    args = LaDiRTrainingArguments(
        output_dir=str(tmp_path), num_noise_copies=3, condition_dropout=0.3, timestep_power=2.0
    )
    mask = torch.tensor([[True, True, False]] * 600)
    padded = draw_noise(mask, BLOCK, args, row_generators(0, 0, 0, 600))
    exact = draw_noise(mask[:, :2], BLOCK, args, row_generators(0, 0, 0, 600))
    for name, tensor in exact.items():
        assert torch.equal(padded[name] if tensor.ndim == 1 else padded[name][:, :2], tensor)
    times = exact["times"].flatten()
    assert abs((times < 0.5).float().mean() - 0.25) < 0.03  # P(u^(1/2) < 1/2) = 1/4
    assert abs(exact["condition_dropped"].float().mean() - 0.3) < 4 * math.sqrt(0.21 / 600)
    assert abs(exact["noise"].std() - 1) < 0.01


@pytest.mark.parametrize("stage", ["teacher_forcing", "rollout"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, stage):
    settings = {"stage": stage, "rollout_steps": 2, "ema_decay": 0.9, "max_steps": 6, "num_noise_copies": 2}
    straight = reasoner_trainer(tmp_path / "straight", **settings)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        reasoner_trainer(tmp_path / "killed", callbacks=[Stop(5)], **settings).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = reasoner_trainer(tmp_path / "killed", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(*pair) for pair in zip(weights(straight), weights(resumed), strict=True))
    saved = LaDiRForReasoning.from_pretrained(tmp_path / "straight" / "checkpoint-6").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in straight.model.state_dict().items())


def test_accumulated_rows_give_the_same_step(tmp_path):
    results = []
    for size, accumulation in ((8, 1), (4, 2)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "optim": "sgd"}
        trainer = reasoner_trainer(
            tmp_path / str(size), max_steps=2, save_strategy="no", condition_dropout=0.0, **settings
        )
        trainer.train()
        results.append(weights(trainer))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_log_has_the_parts_of_the_loss_and_the_error_by_time(tmp_path):
    trainer = reasoner_trainer(tmp_path, max_steps=4, logging_steps=4, save_strategy="no", num_noise_copies=4)
    trainer.train()
    line = next(entry for entry in trainer.state.log_history if "loss" in entry)
    total = 5 * line["flow_loss"] + line["answer_loss"] + line["stop_loss"]
    assert line["loss"] == pytest.approx(total, rel=1e-3)
    assert sum(name.startswith("flow_mse/t") for name in line) == 8
    first, again = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == again["eval_loss"]
    assert {"eval_flow_loss", "eval_stop_loss"} <= set(trainer.state.log_history[-1])


def test_a_vae_that_is_not_ready_is_refused(tmp_path):
    with pytest.raises(ValueError, match="never fitted"):
        reasoner_trainer(tmp_path, vae=tiny_vae(fitted=False))
    with pytest.raises(ValueError, match="reconstruction_gate"):
        reasoner_trainer(tmp_path, reconstruction_gate=0.9)
    for gate in ({"noisy_reconstruction_gate": 0.5}, {"shuffled_reconstruction_gate": -0.1}):
        with pytest.raises(ValueError, match=next(iter(gate))):
            reasoner_trainer(tmp_path, reconstruction_gate=-1.0, **gate)
    wide = tiny_vae()
    wide.latent_std.mul_(3)
    with pytest.raises(ValueError, match="standard deviation"):
        reasoner_trainer(tmp_path, vae=wide)
    with pytest.raises(ValueError, match="latent_dim"):
        reasoner_trainer(tmp_path, vae=tiny_vae(latent_dim=4))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stage", "three"),
        ("num_noise_copies", 0),
        ("rollout_steps", 0),
        ("rollout_flow_context", "none"),
        ("condition_dropout", 1.0),
        ("timestep_power", 0.0),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(tmp_path, argument, value):
    with pytest.raises(ValueError, match=argument):
        reasoner_trainer(tmp_path, **{argument: value})


def test_a_problem_that_is_too_long_is_refused():
    config = tiny_reasoner().config
    config.text_config.max_position_embeddings = 10
    with pytest.raises(ValueError, match="positions"):
        cache_thoughts(sums(3), tiny_vae(), tokenizer(), SPLITTER, config)


def test_the_reasoner_learns_a_handful_of_problems_and_when_to_stop(tmp_path):
    model, problems = tiny_reasoner(randomized=False), sums(6)
    settings = {"save_strategy": "no", "logging_steps": 50, "condition_dropout": 0.0, "lr_scheduler_type": "cosine"}
    trainer = reasoner_trainer(
        tmp_path, model, max_steps=300, size=6, learning_rate=5e-3, num_noise_copies=8, **settings
    )
    trainer.train()
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert lines[-1]["flow_loss"] < 0.25 * lines[0]["flow_loss"]
    generators = [torch.Generator().manual_seed(seed) for seed in range(6)]
    arguments = {"num_inference_steps": 20, "max_blocks": 5, "max_new_tokens": 8, "generator": generators}
    output = tiny_pipeline(model=model)(problems["prompt"][:], **arguments)
    assert output.num_blocks.tolist() == [1, 2, 3, 1, 2, 3]
    right = [f"=>{answer}" == text for answer, text in zip(problems["answer"], output.texts, strict=True)]
    assert sum(right) >= 5


def test_stage_two_shapes_the_latents_by_what_the_answer_needs(tmp_path):
    model = tiny_reasoner(flow_weight=0.0, stop_weight=0.0)
    model.requires_grad_(False)
    model.latent_out.requires_grad_(True)  # teacher forcing could not move the answer's loss by these weights at all
    settings = {
        "save_strategy": "no",
        "condition_dropout": 0.0,
        "size": 6,
        "logging_steps": 40,
        "lr_scheduler_type": "constant",
    }
    trainer = reasoner_trainer(
        tmp_path, model, stage="rollout", rollout_steps=3, max_steps=40, learning_rate=0.02, **settings
    )

    def answer_loss() -> float:
        trainer.evaluate(trainer.train_dataset)
        return trainer.state.log_history[-1]["eval_answer_loss"]

    before = answer_loss()
    trainer.train()
    assert answer_loss() < before - 0.2
