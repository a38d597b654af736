"""The benchmark of an outer iteration at a size of seconds: its plain loop agrees with ours, and all is written. Nothing is timed."""

import json

import pytest
import run_d1_benchmark
import torch
from llada_samplers import Samplers
from run_d1_benchmark import PARTS, Setting, plain_log_probs, plain_samples, prompt_ids

from ldlm_hf import MaskedLanguageModel
from ldlm_hf.d1 import one_step_log_probs


SETTING = Setting(32, 1, 60, prompt_length=6, gen_length=8, block_length=4, num_inference_steps=4, rows=3)


@pytest.fixture
def one_thread():
    """Give torch its threads back, which the script sets for the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_plain_loop_scores_as_the_estimator_does():
    model, prompts = Samplers(32, 1, 60, 14).model, prompt_ids(SETTING)
    completions = plain_samples(model, prompts, 59, SETTING)
    assert completions.shape == (3, 8)
    masking = torch.rand(prompts.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    plain = plain_log_probs(model, prompts, masking, completions, 59)
    counts = torch.ones_like(completions, dtype=torch.bool)
    given = (prompts, torch.ones_like(prompts), masking, completions, counts)
    ours = one_step_log_probs(MaskedLanguageModel(model, 59), *given)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_every_way_and_part_is_written(tmp_path, one_thread, capsys):
    path = tmp_path / "speed.json"
    sizes = ["--hidden_size", "32", "--num_layers", "1", "--vocab_sizes", "60", "--gen_length", "32", "--rounds", "1"]
    run_d1_benchmark.main([*sizes, "--num_iterations", "2", "--output", str(path)])
    rows = json.loads(path.read_text())["grpo_speed"]["rows"]
    assert [row["way"] for row in rows] == ["released", "ours", "ours, cached"]
    for row in rows:
        assert sum(row[part] for part in PARTS) == pytest.approx(1)
        assert min(row[part] for part in PARTS) > 0
    assert rows[0]["speedup"] == 1
    assert "released" in capsys.readouterr().out
