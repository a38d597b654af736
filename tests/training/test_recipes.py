"""Recipes, stages and checkpoints."""

import json

import pytest

from ldlm_hf.training import (
    ReproducibleTrainingArguments,
    TimestepBuckets,
    last_complete_checkpoint,
    merge_recipes,
    read_recipe,
    read_section,
    run_stage,
)


def test_overrides_reach_into_sections(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 0\ntraining: {max_steps: 5}\n")
    recipe = read_recipe(path, ["seed=3", "training.learning_rate=0.01", "new.list=[1, 2]"])
    assert recipe == {"seed": 3, "training": {"max_steps": 5, "learning_rate": 0.01}, "new": {"list": [1, 2]}}


def test_recipes_of_a_table_may_have_a_dot_in_their_names(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 0\n")
    (tmp_path / "table.yaml").write_text("extends: base.yaml\nrecipes:\n  noise_0: {a: 1}\n  noise_0.7: {a: 2}\n")
    for name, value in (("noise_0", 1), ("noise_0.7", 2)):
        assert read_recipe(tmp_path / name) == {"output_dir": f"runs/{name}", "seed": 0, "a": value}
    assert read_recipe(tmp_path / "base") == read_recipe(tmp_path / "base.yaml") == {"seed": 0}
    with pytest.raises(ValueError, match="noise_0.5"):
        read_recipe(tmp_path / "noise_0.5")


@pytest.mark.parametrize("override", ["seed", "seed.deep=1"])
def test_malformed_overrides_are_refused(tmp_path, override):
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 0\n")
    with pytest.raises(ValueError, match="override"):
        read_recipe(path, [override])


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="mapping"):
        read_recipe(path)


def test_a_mapping_replaces_what_was_no_section_before():
    base = {"lora": None, "model": "folder", "rl": {"task": "sudoku", "seed": 1}}
    changes = {"lora": {"r": 4}, "model": {"n_layers": 2}, "rl": {"seed": 2}}
    merged = {"lora": {"r": 4}, "model": {"n_layers": 2}, "rl": {"task": "sudoku", "seed": 2}}
    assert merge_recipes(base, changes) == merged


def test_a_misspelt_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lerning_rate"):
        read_section(ReproducibleTrainingArguments, {"lerning_rate": 1.0}, output_dir=str(tmp_path))


def test_a_finished_stage_runs_once(tmp_path):
    calls = []

    def train():
        calls.append(1)
        return {"steps": len(calls)}

    first = run_stage(tmp_path / "stage", {"a": (1, 2)}, train, resume=False)
    assert run_stage(tmp_path / "stage", {"a": [1, 2]}, train, resume=True) == first
    assert run_stage(tmp_path / "stage", {"a": [1, 2]}, train, resume=False)["steps"] == 2


def test_a_stage_of_another_recipe_is_not_resumed(tmp_path):
    run_stage(tmp_path / "stage", {"a": 1}, dict, resume=False)
    with pytest.raises(ValueError, match="another recipe"):
        run_stage(tmp_path / "stage", {"a": 2}, dict, resume=True)


def test_a_broken_off_stage_is_taken_up_again(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "stage", {}, interrupted, resume=False)
    assert run_stage(tmp_path / "stage", {}, lambda: {"steps": 1}, resume=True)["steps"] == 1


def test_only_complete_checkpoints_are_resumed(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    for step, state in (
        (5, json.dumps({"global_step": 5})),
        (10, json.dumps({"global_step": 10})),
        (15, '{"global_st'),
    ):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-20").mkdir()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_buckets_hold_the_mean_of_their_timesteps():
    import torch

    buckets = TimestepBuckets(1000)
    buckets.add(torch.tensor([0, 124, 125, 999]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert buckets.pop("mse") == {"mse/t0-124": 2.0, "mse/t125-249": 5.0, "mse/t875-999": 7.0}
    assert buckets.pop("mse") == {}
