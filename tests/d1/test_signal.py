"""How far gradients agree, at a size of seconds: agreement where there is something to learn, and all is written."""

import json

import measure_grpo_signal
import pytest
import torch

from tests.d1.tiny_d1 import make_trainer, policy, prompts, share_of_sevens


@pytest.fixture
def one_thread():
    """Give torch its threads back, which the script sets for the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_gradients_of_different_prompts_agree_where_all_want_the_same(tmp_path):
    settings = {"per_device_train_batch_size": 256, "num_generations": 16, "num_iterations": 1, "beta": 0.0}
    trainer = make_trainer(tmp_path, policy(), share_of_sevens, prompts(32), temperature=1.0, **settings)
    one, other = (measure_grpo_signal.gradient_of(trainer, generation) for generation in (0, 1))
    assert not torch.equal(one, other)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.3


def test_every_advantage_and_estimator_is_written(tmp_path, one_thread):
    from examples import run_d1_study

    small = [
        "base.train_size=40",
        "base.model.hidden_size=16",
        "base.model.num_hidden_layers=1",
        "base.model_training.max_steps=2",
    ]
    small += ["base.model.num_attention_heads=2", "base.model_training.use_cpu=true"]
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--num_problems", "4"]
    run_d1_study.main(["--seeds", "0", "--arms", "base", *places, "--override", *small])
    model = tmp_path / "runs" / "seed-0" / "base" / "base" / "model" / "model"
    sizes = ["rl.train_size=8", "rl.training.per_device_train_batch_size=8", "rl.training.num_generations=4"]
    measure_grpo_signal.main(
        ["--model", str(model), "--batches", "4", "--output", str(tmp_path / "a.json"), "--override", *sizes]
    )
    rows = json.loads((tmp_path / "a.json").read_text())["grpo_signal"]["rows"]
    assert len({(row["advantage"], row["estimator"]) for row in rows}) == 9
    assert all(-1 <= row["cosine"] <= 1 for row in rows)
