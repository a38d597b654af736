"""The trainers: exact resume, gates, caching, and that the stages learn."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from ldlm_hf import (
    AutoencoderTrainer,
    AutoencoderTrainingArguments,
    DenoiserTrainer,
    DenoiserTrainingArguments,
    LatentDiT,
)
from ldlm_hf.ldlm.latent_cache import cache_latents, latent_moments
from ldlm_hf.ldlm.trainer_infilling import InfillingTrainer, InfillingTrainingArguments, mask_spans
from ldlm_hf.noise import row_generators
from tests.tiny import (
    LATENT_DIM,
    LATENT_LENGTH,
    tiny_autoencoder,
    tiny_bart,
    tiny_bart_config,
    tiny_denoiser,
    tiny_problems,
    tiny_scheduler,
    tiny_tokenizer,
)


SETTINGS = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 2, "disable_tqdm": True}


class Stop(TrainerCallback):
    """Kills the run after a step, as an interrupt would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def denoiser_trainer(folder, max_steps=8, model=None, size=40, callbacks=(), **settings) -> DenoiserTrainer:
    arguments = {**SETTINGS, "reconstruction_gate": 0, "save_steps": 3, "max_steps": max_steps, **settings}
    return DenoiserTrainer(
        model=model or tiny_denoiser(randomized=False, self_conditioning=True, dropout=0.1),
        args=DenoiserTrainingArguments(output_dir=str(folder), **arguments),
        autoencoder=tiny_autoencoder(),
        noise_scheduler=tiny_scheduler(),
        train_dataset=tiny_problems(size=size),
        processing_class=tiny_tokenizer(),
        callbacks=list(callbacks),
    )


def autoencoder_trainer(folder, max_steps=8, callbacks=(), fields=None, **settings) -> AutoencoderTrainer:
    arguments = {**SETTINGS, "save_steps": 3, "max_steps": max_steps, **settings}
    return AutoencoderTrainer(
        # Embeddings of a trained size: the frozen head could not be sure of anything with those of a fresh model.
        model=tiny_autoencoder(
            fitted=False,
            latent_noise=0.3,
            seq2seq_config=tiny_bart_config(dropout=0.1, init_std=0.3),
            **(fields or {}),
        ),
        args=AutoencoderTrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=tiny_problems(size=40),
        processing_class=tiny_tokenizer(),
        eval_dataset=tiny_problems("validation", 8),
        callbacks=list(callbacks),
    )


def weights(trainer) -> list[torch.Tensor]:
    averaged = [] if trainer.ema is None else trainer.ema.average.shadow_params
    return [tensor.clone() for tensor in (*trainer.model.state_dict().values(), *averaged)]


@pytest.mark.parametrize("killed_at", [2, 3, 5, 7])
@pytest.mark.parametrize("muon_learning_rate", [None, 0.01])
def test_a_killed_denoiser_run_resumes_to_the_same_bits(tmp_path, killed_at, muon_learning_rate):
    settings = {"ema_decay": 0.9, "muon_learning_rate": muon_learning_rate}
    straight = denoiser_trainer(tmp_path / "straight", **settings)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        denoiser_trainer(tmp_path / "killed", callbacks=[Stop(killed_at)], **settings).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = denoiser_trainer(tmp_path / "killed", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(one, other) for one, other in zip(weights(straight), weights(resumed), strict=True))


@pytest.mark.parametrize("fields", [{}, {"decoder_reads_prompt": True, "encoder_noise": 0.5}])
def test_a_killed_autoencoder_run_resumes_to_the_same_bits(tmp_path, fields):
    straight = autoencoder_trainer(tmp_path / "straight", fields=fields)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        autoencoder_trainer(tmp_path / "killed", fields=fields, callbacks=[Stop(5)]).train()
    resumed = autoencoder_trainer(tmp_path / "killed", fields=fields)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(one, other) for one, other in zip(weights(straight), weights(resumed), strict=True))


@pytest.mark.parametrize(
    ("extra", "tolerance", "is_compiled"),
    [
        ({"torch_compile": True, "torch_compile_backend": "eager"}, 1e-5, True),
        ({"bf16": True, "use_cpu": True}, 0.02, False),
    ],
    ids=["compiled", "bfloat16"],
)
@pytest.mark.parametrize("muon_learning_rate", [None, 0.01])
def test_training_runs_compiled_and_in_bfloat16(tmp_path, muon_learning_rate, extra, tolerance, is_compiled):
    settings = {"ema_decay": 0.9, "muon_learning_rate": muon_learning_rate, "save_strategy": "no", "logging_steps": 1}
    losses, saved, ways = {}, {}, {}
    for name, more in (("plain", {}), ("other", extra)):
        trainer = denoiser_trainer(tmp_path / name, model=tiny_denoiser(randomized=False), **settings, **more)
        ways[name] = seen = set()
        trainer.model.blocks[0].register_forward_hook(
            lambda *_, seen=seen: seen.add((torch.compiler.is_compiling(), torch.is_autocast_enabled("cpu")))
        )
        trainer.train()
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        trainer.save_final(tmp_path / name / "saved")
        saved[name] = load_file(tmp_path / name / "saved" / "diffusion_pytorch_model.safetensors")
    assert ways == {"plain": {(False, False)}, "other": {(is_compiled, not is_compiled)}}
    assert losses["other"] == pytest.approx(losses["plain"], rel=tolerance)
    assert saved["plain"].keys() == saved["other"].keys()  # compiled modules have other names inside


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        denoiser_trainer(tmp_path, callbacks=[Stop(7)]).train()
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    resumed = denoiser_trainer(tmp_path, max_steps=4)
    resumed.train(resume_from_checkpoint=True)  # from step 3
    assert resumed.state.global_step == 4


def test_accumulated_rows_see_the_same_noise_and_give_the_same_step(tmp_path):
    results = []
    for batch, accumulation in ((8, 1), (4, 2)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        model = tiny_denoiser(randomized=False)
        trainer = denoiser_trainer(tmp_path / str(batch), max_steps=3, model=model, optim="sgd", **settings)
        trainer.train()
        results.append(weights(trainer))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_checkpoints_hold_the_model_its_configuration_and_the_average(tmp_path):
    trainer = denoiser_trainer(tmp_path, max_steps=3, ema_decay=0.9)
    trainer.train()
    loaded = LatentDiT.from_pretrained(tmp_path / "checkpoint-3")
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    averaged = LatentDiT.from_pretrained(tmp_path / "checkpoint-3" / "ema")
    for ours, saved in zip(trainer.ema.average.shadow_params, averaged.parameters(), strict=True):
        assert torch.equal(ours, saved)
    assert not list(tmp_path.rglob("training_args.bin"))


def test_the_average_is_the_closed_form_of_its_recursion(tmp_path):
    history = []

    class Record(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            history.append(model.proj_out.weight.detach().clone())

    trainer = denoiser_trainer(tmp_path, max_steps=4, ema_decay=0.9, callbacks=[Record()])
    expected = trainer.model.proj_out.weight.detach().clone()
    trainer.train()
    for step, weight in enumerate(history):
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        expected = decay * expected + (1 - decay) * weight
    index = [name for name, _ in trainer.model.named_parameters()].index("proj_out.weight")
    torch.testing.assert_close(trainer.ema.average.shadow_params[index], expected)


def test_the_log_has_the_error_of_x0_in_eight_ranges_of_the_timestep(tmp_path):
    trainer = denoiser_trainer(tmp_path, max_steps=16, logging_steps=16)
    trainer.train()
    line = next(entry for entry in trainer.state.log_history if "loss" in entry)
    buckets = {name: value for name, value in line.items() if name.startswith("x0_mse/")}
    assert len(buckets) == 8
    assert all(value > 0 for value in buckets.values())


def test_stage_two_refuses_an_autoencoder_without_statistics(tmp_path):
    with pytest.raises(ValueError, match="never fitted"):
        cache_latents(tiny_problems(size=4), tiny_autoencoder(fitted=False), tiny_tokenizer())


def test_stage_two_refuses_an_autoencoder_that_cannot_reconstruct(tmp_path):
    arguments = DenoiserTrainingArguments(output_dir=str(tmp_path), **SETTINGS)
    parts = (tiny_denoiser(), arguments, tiny_autoencoder(), tiny_scheduler(), tiny_problems(size=8), tiny_tokenizer())
    with pytest.raises(ValueError, match="reconstruction_gate"):
        DenoiserTrainer(*parts, eval_dataset=tiny_problems("validation", 4))
    with pytest.raises(ValueError, match="eval_dataset"):
        DenoiserTrainer(*parts)


def test_stage_two_refuses_statistics_of_other_texts(tmp_path):
    autoencoder = tiny_autoencoder()
    autoencoder.latent_std.mul_(3)
    arguments = DenoiserTrainingArguments(output_dir=str(tmp_path), reconstruction_gate=0, **SETTINGS)
    with pytest.raises(ValueError, match="standard deviation"):
        DenoiserTrainer(
            tiny_denoiser(), arguments, autoencoder, tiny_scheduler(), tiny_problems(size=64), tiny_tokenizer()
        )


def test_stage_two_refuses_an_autoencoder_whose_latents_are_all_the_same(tmp_path):
    autoencoder = tiny_autoencoder()
    latents = torch.zeros(3, autoencoder.config.latent_length, autoencoder.config.latent_dim)
    latents[:, 0, 0] = torch.arange(3)  # one that says something
    autoencoder.set_latent_statistics(latents)
    arguments = DenoiserTrainingArguments(output_dir=str(tmp_path), reconstruction_gate=0, **SETTINGS)
    with pytest.raises(ValueError, match="same for all texts"):
        DenoiserTrainer(
            tiny_denoiser(), arguments, autoencoder, tiny_scheduler(), tiny_problems(size=64), tiny_tokenizer()
        )


def test_stage_two_refuses_sizes_that_do_not_agree(tmp_path):
    arguments = DenoiserTrainingArguments(output_dir=str(tmp_path), reconstruction_gate=0, **SETTINGS)
    parts = (tiny_autoencoder(), tiny_scheduler(), tiny_problems(size=8), tiny_tokenizer())
    with pytest.raises(ValueError, match="latent_dim"):
        DenoiserTrainer(tiny_denoiser(latent_dim=4), arguments, *parts)


def test_cached_latents_are_those_of_the_autoencoder_and_are_read_back(tmp_path):
    autoencoder, tokenizer, problems = tiny_autoencoder(), tiny_tokenizer(), tiny_problems(size=20)
    cached = cache_latents(problems, autoencoder, tokenizer, tmp_path, batch_size=7)
    batch = tokenizer(problems["target"][:], padding=True, return_tensors="pt")
    expected = autoencoder.encode(batch["input_ids"], batch["attention_mask"])
    rows = cached[:]["target_latents"].view(-1, LATENT_LENGTH, LATENT_DIM)
    torch.testing.assert_close(rows, expected.detach(), atol=1e-5, rtol=1e-4)
    files = list(tmp_path.iterdir())
    cache_latents(problems, autoencoder, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == files
    with torch.no_grad():
        autoencoder.to_latent.bias.add_(1)
    cache_latents(problems, autoencoder, tokenizer, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another autoencoder, another file


def test_the_statistics_are_fitted_after_training(tmp_path):
    trainer = autoencoder_trainer(tmp_path, max_steps=2)
    trainer.train()
    assert trainer.model.has_latent_statistics
    mean, std = latent_moments(cache_latents(tiny_problems(size=40), trainer.model, tiny_tokenizer()))
    assert abs(mean) < 0.05
    assert 0.9 < std < 1.1
    trainer.save_final(tmp_path / "final")
    assert load_file(tmp_path / "final" / "model.safetensors")["latent_count"] > 0


def test_the_autoencoder_learns(tmp_path):
    settings = {"max_steps": 120, "learning_rate": 1e-2, "logging_steps": 10, "save_strategy": "no"}
    trainer = autoencoder_trainer(tmp_path, **settings)
    frozen = trainer.model.seq2seq.get_encoder().state_dict()
    before = {name: tensor.clone() for name, tensor in frozen.items()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.65 * losses[0]
    after = trainer.model.seq2seq.get_encoder().state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_the_denoiser_learns_what_the_prompt_says(tmp_path, prediction_type):
    # Eight problems: with the prompt x0 is known at any noise level, without it only their mean is.
    trainer = DenoiserTrainer(
        model=tiny_denoiser(randomized=False),
        args=DenoiserTrainingArguments(
            output_dir=str(tmp_path),
            reconstruction_gate=0,
            max_steps=250,
            save_strategy="no",
            muon_learning_rate=0.02,
            **{**SETTINGS, "learning_rate": 1e-2, "logging_steps": 50},
        ),
        autoencoder=tiny_autoencoder(),
        noise_scheduler=tiny_scheduler(prediction_type=prediction_type),
        train_dataset=tiny_problems(size=8),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    noisiest = "x0_mse/t875-999"
    assert lines[-1][noisiest] < 0.4 * lines[0][noisiest]


def test_the_denoiser_learns_its_variance_too(tmp_path):
    model = tiny_denoiser(randomized=False, learned_variance=True)
    trainer = denoiser_trainer(tmp_path, model=model, max_steps=30, loss_weighting="min_snr", save_strategy="no")
    trainer.train()
    assert model.proj_variance.weight.abs().sum() > 0


def test_infilling_replaces_spans_by_single_masks():
    tokenizer = tiny_tokenizer()
    row = torch.tensor(tokenizer("25 7+5+4+9 12+4+9 16+9 25")["input_ids"])
    mask, lengths, masked = tokenizer.mask_token_id, [], 0
    for generator in row_generators(0, 0, 0, 200):
        corrupted = mask_spans(row, mask, 0.3, 3.0, 32, generator)
        assert (corrupted[0], corrupted[-1]) == (row[0], row[-1])
        kept = [token for token in corrupted if token != mask]
        remaining = iter(row.tolist())
        assert all(token in remaining for token in kept)  # what is kept stays in order
        lengths.append(len(corrupted))
        masked += len(row) - len(kept)
    assert 0.2 < masked / (200 * (len(row) - 2)) < 0.32
    assert min(lengths) < len(row)


def test_the_language_model_learns_to_infill(tmp_path):
    args = InfillingTrainingArguments(
        output_dir=str(tmp_path), max_steps=60, save_strategy="no", **{**SETTINGS, "learning_rate": 1e-2}
    )
    trainer = InfillingTrainer(tiny_bart(), args, tiny_problems(size=40), tiny_tokenizer())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
