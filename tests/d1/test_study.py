"""The study of fine-tuning and reinforcement runs from its first arm to its table, and only what is missing."""

import json
from pathlib import Path

import pytest

from examples import run_d1_study


TINY = (
    *("base.train_size=40", "base.model.hidden_size=16", "base.model.num_hidden_layers=1", "sft.train_size=20"),
    *("base.model.num_attention_heads=2", "rl.train_size=4", "rl.training.num_generations=2", "rl.training.save_steps=9"),
    *(f"{stage}.{part}.{field}" for stage, part in (("base", "model_training"), ("sft", "model_training"), ("rl", "training"))
      for field in ("max_steps=2", "per_device_train_batch_size=4", "use_cpu=true", "disable_tqdm=true")),
)  # fmt: skip


def run(folder: Path, *arms: str) -> None:
    """Run arms of one seed at a size of seconds."""
    places = ["--results", str(folder / "results"), "--runs", str(folder / "runs"), "--num_problems", "4"]
    run_d1_study.main(["--seeds", "0", "--arms", *arms, *places, "--override", *TINY])


def test_every_arm_writes_a_file_of_its_own_and_what_is_there_is_left(tmp_path, capsys):
    run(tmp_path, "base", "sft", "rl")
    first = (tmp_path / "results" / "rl-0.json").stat().st_mtime_ns
    run(tmp_path, *run_d1_study.ARMS)
    assert (tmp_path / "results" / "rl-0.json").stat().st_mtime_ns == first
    files = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert files == sorted(f"{arm}-0.json" for arm in run_d1_study.ARMS)
    results = json.loads((tmp_path / "results" / "sft_rl-0.json").read_text())
    assert results["environment"]["torch"]
    assert results["greedy"]["num_problems"] == 4
    assert results["training"]["rl"]["steps"] == 2
    table = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split(" | ")[0].strip("| ") for line in table] == list(run_d1_study.ARMS)
    assert run_d1_study.describe([0.2, 0.4]) == "30.0 ± 10.0"


def test_an_arm_whose_start_is_missing_says_so(tmp_path):
    with pytest.raises(ValueError, match="run the arm 'base' of this seed first"):
        run(tmp_path, "sft")


def test_variants_are_arms_of_their_own_and_other_tasks_have_their_own_figures(tmp_path, capsys):
    source = Path(run_d1_study.RECIPE).resolve()
    recipe = tmp_path / "recipe.yaml"
    lines = [f"extends: {source}", "base: {task: sudoku, task_arguments: null}", "rl: {task: sudoku}", "variants:"]
    lines += ["  more: {training: {num_iterations: 2}}", "  bound: {training: {logprob_estimator: elbo, n_mc: 2}}"]
    lines[2] = "rl: {task: sudoku, rewards: {style: null, sudoku: {cells: all, tags: false}}}"
    recipe.write_text("\n".join(lines) + "\n")
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--num_problems", "4"]
    arguments = ["--recipe", str(recipe), "--seeds", "0", "--arms", "base", "variants", *places]
    run_d1_study.main([*arguments, "--override", *TINY])
    files = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert sorted(files) == ["base-0", "rl_bound-0", "rl_more-0"]
    assert files["rl_bound-0"]["recipe"]["rl"]["training"]["logprob_estimator"] == "elbo"
    assert files["rl_more-0"]["recipe"]["rl"]["training"]["num_iterations"] == 2
    assert sorted(files["rl_more-0"]["greedy"]) == ["cell_accuracy", "num_problems", "solved"]
    assert "graded style" not in capsys.readouterr().out


def test_on_countdown_demonstrations_of_the_task_itself_are_what_is_reinforced(tmp_path):
    recipe = Path(run_d1_study.RECIPE).with_name("countdown_elicitation.yaml")
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--num_problems", "4"]
    arms = ("base", "sft", "rl", "sft_in_task")
    arguments = ["--recipe", str(recipe), "--seeds", "0", "--arms", *arms, *places]
    run_d1_study.main([*arguments, "--override", *TINY, "base.train_size=2000"])
    targets = {}
    for arm in ("base", "sft", "sft_in_task"):
        (path,) = (tmp_path / "runs" / "seed-0" / arm).glob("*.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        targets[arm] = {int(row["prompt"].partition("=")[2]) for row in rows}
        assert all(row["target"].startswith(">") for row in rows) == (arm != "base")
    assert max(targets["sft"]) <= 10 < min(targets["base"] | targets["sft_in_task"])
    results = json.loads((tmp_path / "results" / "rl-0.json").read_text())
    assert sorted(results["greedy"]) == ["graded_style", "num_problems", "solved", "solved_in_either_style"]
    assert results["recipe"]["rl"]["training"]["max_completion_length"] == 9
