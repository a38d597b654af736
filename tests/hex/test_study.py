"""The study and the benchmark of votes at a size that runs in seconds: recipes are read, figures add up, a stopped run goes on."""

import json
from pathlib import Path

import pytest
import run_hex_benchmark
import run_hex_study
import torch
from run_hex_study import Study

from ldlm_hf.tasks import get_task
from ldlm_hf.training import read_recipe
from tests.hex.tiny_hex import tiny_hex_pipeline


RECIPES = Path(__file__).parents[2] / "examples" / "recipes" / "hex"
STUDIES = [f"exact_{name}" for name in ("sigma_0", "sigma_0.7", "sigma_1.2", "null")]
OWN = ["sudoku_4x4_early.yaml", "countdown_3.yaml"]
PUBLISHED = {"gsm8k.yaml": 88.10, "math500.yaml": 40.00, "arc_challenge.yaml": 87.80, "truthful_qa.yaml": 57.46}
SMALL = ["num_problems=8", "pool_seeds=5", "num_seeds=1", "random_schedules=5", "problems_at_once=4", "num_draws=2"]


@pytest.fixture
def one_thread():
    """Give torch its threads back, which the scripts set for the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [*STUDIES, *OWN, *PUBLISHED])
def test_every_recipe_is_a_study(name):
    study = Study(**read_recipe(RECIPES / name))
    assert (study.exact_denoiser is None) + (study.pipeline is None) + (study.model is None) == 2
    assert study.pool_seeds >= study.num_seeds
    assert all(length <= study.gen_length for length in study.block_lengths)
    if name in PUBLISHED:
        assert study.published["hex"] == PUBLISHED[name]
        assert (study.gen_length, study.num_inference_steps, study.temperature) == (256, 128, 0.9)
        assert (study.block_lengths, study.num_seeds, study.pool_seeds) == ([8, 16, 32, 64, 128], 5, 25)
        assert get_task(**study.task).name == study.task["name"]


def run(folder: Path, *changes: str) -> dict:
    """Run a small study and return its results."""
    arguments = [str(RECIPES / "exact_sigma_0.7"), "--override", f"output_dir={folder}", *SMALL, *changes]
    run_hex_study.main(arguments)
    return json.loads((folder / "results.json").read_text())


def test_a_study_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped")
    for path in (tmp_path / "stopped").glob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:2]) + lines[2][:50])  # killed in the second half
    stopped = run(tmp_path / "stopped")
    for name in ("rows", "curve", "work", "single_paths", "gate", "best_on_dev"):
        assert stopped[name] == whole[name]
    rows = {row["name"]: row for row in whole["rows"]}
    assert rows["hex"]["num_votes"] == rows["one_schedule_mean"]["num_votes"] == 5
    assert rows["hex"]["nfe"] == rows["random_schedules"]["nfe"] == 5 * 24
    assert all(0 <= row["answer_accuracy"] <= row["oracle"] <= 1 for row in rows.values() if "oracle" in row)
    early, full = ([way for way in whole["work"] if way["way"] == name] for name in ("early_stop", "full"))
    assert [way["answer_accuracy"] for way in early] == [way["answer_accuracy"] for way in full]
    assert early[-1]["nfe"] < full[-1]["nfe"]


def test_votes_that_could_not_be_equally_many_are_refused():
    for name in ("pool_seeds", "random_schedules"):
        with pytest.raises(ValueError, match=f"`{name}` has to be at least 10"):
            Study(**read_recipe(RECIPES / "exact_sigma_0", [f"{name}=9"]))


def test_paths_of_other_settings_are_not_taken_for_these(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path, "temperature=0.5")


def test_the_benchmark_sees_the_same_votes_every_way(tmp_path, one_thread):
    pipeline, _ = tiny_hex_pipeline(task="sudoku")
    pipeline.register_to_config(gen_length=16)
    pipeline.save_pretrained(tmp_path / "tiny")
    path = tmp_path / "speed.json"
    sizes = ["--problems", "3", "--seeds", "1", "2", "--rounds", "1", "--max_batch_size", "16"]
    run_hex_benchmark.main(["--checkpoint", str(tmp_path / "tiny"), *sizes, "--output", str(path)])
    rows = json.loads(path.read_text())["hex_speed"]["rows"]
    assert [row["num_votes"] for row in rows] == [5] * 3 + [10] * 3
    assert {row["same_answers"] for row in rows} == {1.0}
    nfe = {(row["num_votes"], row["way"]): row["nfe"] for row in rows}
    assert nfe[10, "published"] == 2 * nfe[5, "published"] == 10 * 16
    assert nfe[10, "early_stop"] <= nfe[10, "batch"]


def test_a_table_of_recipes_is_no_recipe():
    with pytest.raises(ValueError, match="is a table; name one of its recipes.*exact_null"):
        run_hex_study.main([str(RECIPES / "exact_denoiser.yaml")])
