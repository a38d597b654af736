"""The study and the benchmark at a size that runs in seconds: every arm and sweep, taken up again, and the controls' forces."""

from __future__ import annotations

import json

import ladir_masked_diffusion
import pytest
import run_ladir_benchmark
import run_ladir_study
import torch
from ladir_controls import ControlledPush, GivenSteps

from ldlm_hf.ladir.diversity import repulsion
from tests.ladir.tiny_ladir import tiny_lm, tiny_pipeline, tokenizer


SMALL = [
    "language_model={hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}",
    "reasoner.time_embedding_dim=16",
    "sampling={num_inference_steps: 2, max_blocks: 2, max_new_tokens: 8}",
]


@pytest.fixture
def one_thread():
    """Give torch its threads back, which the scripts set for the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def arguments(folder) -> list[str]:
    """Return a command line of a study in seconds."""
    quick = "{max_steps: 1, save_steps: 1, use_cpu: true, disable_tqdm: true, reconstruction_gate: 0, %s}"
    stages = {"reasoner": "", "continued": "", "rollout": "rollout_steps: 2, per_device_train_batch_size: 2"}
    overrides = [f"{stage}_training={quick % more}".replace(", }", "}") for stage, more in stages.items()]
    plain = "{max_steps: 1, save_steps: 1, use_cpu: true, disable_tqdm: true}"
    overrides += [f"{stage}_training={plain}" for stage in ("language_model", "vae")]
    sizes = [
        "--seeds",
        "0",
        "--longer_steps",
        "2",
        "--restart_steps",
        "2",
        "--num_problems",
        "8",
        "--num_trajectories",
        "4",
        "--num_inference_steps",
        "2",
    ]
    places = ["--results", str(folder / "results"), "--runs", str(folder / "runs")]
    return [*sizes, *places, "--override", "train_size=600", *SMALL, *overrides]


def test_every_arm_is_measured_once(tmp_path, one_thread, capsys):
    own = arguments(tmp_path)
    run_ladir_study.main([*own, "--sweeps", "initial_noise_scale", "given_steps"])
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert set(results) == {f"{arm}-0" for arm in (*run_ladir_study.STAGES, "initial_noise_scale", "given_steps")}
    for arm in ("stage_1", "longer_stage_1", "more_stage_1", "stage_2"):
        assert set(results[f"{arm}-0"]["given_latents"]) == {"oracle", "shuffled", "zero"}
        assert results[f"{arm}-0"]["training"]["reasoner"]["steps"] == 1
        warm = results[f"{arm}-0"]["validation_drawn"]
        noise, temperature = max(warm, key=lambda setting: warm[setting]["share_of_solutions"]).split()
        drawn = results[f"{arm}-0"]["drawn"]["settings"]
        assert (drawn["initial_noise_scale"], drawn["temperature"]) == (float(noise), float(temperature))
        assert len(warm) == len(run_ladir_study.NOISES) * len(run_ladir_study.ANSWER_TEMPERATURES)
    assert results["autoregressive-0"]["summary"]["temperature"] in run_ladir_study.TEMPERATURES
    steps = [
        results[f"{arm}-0"]["training"]["language_model"]["steps"]
        for arm in ("autoregressive", "longer_autoregressive")
    ]
    assert steps == [1, 2]
    steps = [results[f"{arm}-0"]["training"]["continued"]["steps"] for arm in ("more_stage_1", "longer_stage_1")]
    assert steps == [1, 2]
    masked = results["masked_diffusion-0"]
    assert masked["training"]["model"]["steps"] == 2
    assert masked["sampled"]["settings"]["order"] in ladir_masked_diffusion.ORDERS
    assert capsys.readouterr().out.count("| stage_2 |") == 1
    before = {path: path.stat().st_mtime for path in (tmp_path / "results").iterdir()}
    run_ladir_study.main([*own, "--sweeps", "initial_noise_scale"])
    assert {path: path.stat().st_mtime for path in (tmp_path / "results").iterdir()} == before


def test_a_variant_of_stage_one_stands_on_the_same_language_model(tmp_path, one_thread):
    own = [*arguments(tmp_path), "variants={flow: {reasoner: {prediction_type: flow}}}"]
    both = ["--variant_arms", "stage_1", "longer_stage_1"]
    run_ladir_study.main([*own, "--arms", "--sweeps", "--variants", "flow", *both])
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert set(results) == {"flow-0", "flow_longer_stage_1-0"}
    runs = tmp_path / "runs"
    for result in results.values():
        record = result["training"]["language_model"]
        assert record["pretrained"] == str(runs / "seed-0" / "language_model" / "model")
        assert {"steps", "batch_size", "parameters"} <= set(record) and record["seconds"] > 0
    assert (runs / "seed-0-flow-restarted" / "continued" / "model").is_dir()
    saved = json.loads((runs / "seed-0-flow" / "reasoner" / "model" / "config.json").read_text())
    assert saved["prediction_type"] == "flow"
    with pytest.raises(ValueError, match="variants.*epsilon"):
        run_ladir_study.main([*own, "--arms", "--sweeps", "--variants", "epsilon"])


def test_an_arm_without_its_section_is_refused(tmp_path, one_thread):
    with pytest.raises(ValueError, match="continued_training"):
        run_ladir_study.main([*arguments(tmp_path), "continued_training={}", "--arms", "more_stage_1", "--sweeps"])


@pytest.mark.parametrize("control", run_ladir_study.DIVERSITY_CONTROLS)
def test_controls_push_the_way_they_say_and_as_strongly(control):
    pipeline = tiny_pipeline()
    latents = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))  # three problems, four trajectories
    pushed = ControlledPush(control, 0.5, 4)(pipeline, 0, torch.tensor(800.0), {"latents": latents})["latents"]
    got = ((pushed - latents) / (0.5 * 0.8)).flatten(1)
    flat = latents.flatten(1)
    own = torch.cat([repulsion(flat[start : start + 4]) for start in (0, 4, 8)])
    if control == "across_questions":
        own = torch.empty_like(flat)
        for trajectory in range(4):
            own[trajectory::4] = repulsion(flat[trajectory::4])
    elif control == "attraction":
        own = -own
    if control == "equal_norm_noise":
        assert torch.allclose(got.norm(dim=1), own.norm(dim=1), rtol=1e-4)
        assert not torch.allclose(got, own, atol=1e-2)
    else:
        assert torch.allclose(got, own, atol=1e-5)


def test_given_steps_replace_what_was_denoised_problem_by_problem():
    true = [torch.full((2, 2, 3), float(problem)) for problem in range(3)]
    given = GivenSteps(true, 1, 4, 2)
    for problems in ((0, 1), (2,)):  # two calls of the pipeline
        own = torch.full((4 * len(problems), 2, 3), -1.0)
        steps = [given(None, step, torch.tensor(0.0), {"latents": own})["latents"] for step in range(4)]
        assert all(torch.equal(steps[step], own) for step in (0, 2, 3))  # half way, and the block that is its own
        assert steps[1][:, 0, 0].tolist() == [problem for problem in problems for _ in range(4)]


def test_the_benchmark_denoises_alike_both_ways(one_thread, capsys, tmp_path):
    sizes = ["--rows", "3", "--question_lengths", "5", "9", "--blocks", "2", "--steps", "3", "--rounds", "1"]
    run_ladir_benchmark.main([*sizes, "--output", str(tmp_path / "speed.json")])
    rows = json.loads((tmp_path / "speed.json").read_text())["ladir_speed"]["cache"]
    assert [row["question_length"] for row in rows] == [5, 9]
    assert all(row["largest_difference"] < 1e-5 for row in rows)
    assert "times as fast" in capsys.readouterr().out


def test_latencies_are_those_of_every_way(one_thread, tmp_path):
    pipeline = tiny_pipeline(task="addition")
    pipeline.register_to_config(max_blocks=2, max_new_tokens=8)
    pipeline.save_pretrained(tmp_path / "pipeline")
    tiny_lm().save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    sizes = ["--rows", "3", "--question_lengths", "5", "--blocks", "1", "--steps", "2", "--rounds", "1"]
    places = ["--pipeline", str(tmp_path / "pipeline"), "--language_model", str(tmp_path / "lm")]
    run_ladir_benchmark.main([*sizes, *places, "--output", str(tmp_path / "speed.json")])
    rows = json.loads((tmp_path / "speed.json").read_text())["ladir_speed"]["latency"]
    assert [row["batch_size"] for row in rows] == [1] * 11 + [32] * 11
    assert [row["relative"] for row in rows if row["way"] == "language model"] == [1.0, 1.0]
    with pytest.raises(ValueError, match="give both"):
        run_ladir_benchmark.main([*sizes, *places[2:]])
