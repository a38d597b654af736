"""Several processes train as one does: the same gradients, weights, noise, checkpoints and caches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from ldlm_hf import LaDiRForReasoning, LatentDiT, LLaDAForMaskedDiffusion
from tests.tiny import tiny_denoiser
from tests.training.train_sharded import REFUSED, TRAINED
from tests.training.train_under_launcher import STEPS, makers, train_all


ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "examples" / "accelerate"


def launch(configuration: str, *command: str) -> str:
    """Start what a configuration says, as `accelerate launch` does; return what it printed."""
    launcher = [
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--config_file",
        str(CONFIGURATIONS / configuration),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    start = [sys.executable, *launcher, "-m", *command]
    done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """Return the folder of what two processes did, with two rows in each of two micro-batches."""
    folder = tmp_path_factory.mktemp("two")
    launch("multi_cpu.yaml", "tests.training.train_under_launcher", str(folder), "2", "2")
    return folder


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Return what this process does, with eight rows in a batch."""
    found = {}
    for results in train_all(tmp_path_factory.mktemp("one"), 8, 1):
        found |= results
    return found


@pytest.mark.parametrize("name", makers(Path(), {"gradient_accumulation_steps": 1}))
def test_two_processes_train_as_one(two_processes, one_process, name):
    shared = load_file(two_processes / "results.safetensors")
    own = {key: tensor for key, tensor in one_process.items() if key.startswith(f"{name}/")}
    assert {key.split("/")[1] for key in own} == {"gradient", "weight", "loss"}
    assert len(own[f"{name}/loss/logged"]) == STEPS
    # Rows have other lengths and kept questions here and there, and their own noise; what is left is rounding.
    for key, tensor in own.items():
        scale = 1 + tensor.abs().max() if tensor.is_floating_point() else 1
        assert (tensor - shared[key]).abs().max() <= 1e-5 * scale, key
    assert max(tensor.abs().max() for key, tensor in own.items() if "/gradient/" in key) > 0.01


def test_two_processes_resume_to_the_same_bits(two_processes):
    found = load_file(two_processes / "results.safetensors")
    straight = {key.split("/")[2]: tensor for key, tensor in found.items() if key.startswith("resume/straight/")}
    assert len(straight) > 80
    for number, tensor in straight.items():
        assert torch.equal(tensor, found[f"resume/resumed/{number}"])
    final = LatentDiT.from_pretrained(two_processes / "final").state_dict()
    average = found[f"resume/resumed/{len(straight) - 1}"]
    assert torch.equal([*final.values()][-1], average)
    assert not torch.equal([*tiny_denoiser().state_dict().values()][-1], average)


def test_only_the_first_process_runs_a_frozen_model(two_processes):
    assert (two_processes / "encoded_by").read_text().split() == ["0", "0"]  # two batches
    assert len([*(two_processes / "cache").iterdir()]) == 1
    assert len([*(two_processes / "denoiser" / "frozen_cache").iterdir()]) == 1  # the run's own, as none was named


def test_checkpoints_of_two_processes_are_complete(two_processes):
    checkpoints = [*(two_processes / "straight").glob("checkpoint-*")]
    assert len(checkpoints) == 3
    for checkpoint in checkpoints:
        names = {path.name for path in checkpoint.iterdir()}
        assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json", "config.json"} <= names


@pytest.mark.parametrize("name", TRAINED)
def test_sharded_weights_train_as_whole_ones(two_processes, one_process, name):
    found = load_file(two_processes / "results.safetensors")
    assert 0.4 < found[f"sharded {name}/share"] < 0.6
    own = {key: tensor for key, tensor in one_process.items() if key.startswith(f"{name}/weight/")}
    for key, tensor in own.items():
        torch.testing.assert_close(found[f"sharded {key}"], tensor, atol=1e-5, rtol=1e-5)
    model = {"language model": LlamaForCausalLM, "reasoner": LaDiRForReasoning}.get(name, LLaDAForMaskedDiffusion)
    for key, tensor in model.from_pretrained(two_processes / "final" / name).state_dict().items():
        assert torch.equal(tensor, found[f"sharded {name}/weight/{key}"])


def test_a_sharded_run_resumes_to_the_same_bits(two_processes):
    found = load_file(two_processes / "results.safetensors")
    names = [
        key.removeprefix("sharded resume/straight/") for key in found if key.startswith("sharded resume/straight/")
    ]
    assert len(names) > 10
    assert all(
        torch.equal(*(found[f"sharded resume/{run}/{name}"] for run in ("straight", "resumed"))) for name in names
    )
    checkpoint = LLaDAForMaskedDiffusion.from_pretrained(two_processes / "sharded straight" / "checkpoint-4")
    for name, tensor in checkpoint.state_dict().items():
        assert torch.equal(tensor, found[f"sharded resume/straight/{name}"])


def test_sharding_in_bfloat16_does_not_round_the_times(two_processes):
    times = load_file(two_processes / "results.safetensors")["sharded times"]
    assert times.dtype == torch.float32
    given = times[times > 0]  # the others are padding
    assert (given != given.bfloat16().float()).float().mean() > 0.9


def test_trainers_that_need_whole_weights_say_so(two_processes):
    refusals = dict(line.split(": ", 1) for line in (two_processes / "refusals").read_text().splitlines())
    assert refusals.pop("ema_decay").startswith("`ema_decay` is 0.9")
    assert {*refusals} == {*REFUSED}
    assert all(text.startswith("`model` cannot be sharded") for text in refusals.values())
