"""The script that evaluates saved pipelines, on one of this room: its options, and records that tell how to get the same again."""

from __future__ import annotations

import json

import pytest

from examples import run_evaluate
from ldlm_hf.evaluation import evaluate_pipeline, load_pipeline
from tests.ladir.tiny_ladir import tiny_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    pipeline = tiny_pipeline(task="mixed_countdown", task_arguments={"train_size": 40, "heldout_size": 12})
    pipeline.register_to_config(max_blocks=3, max_new_tokens=8)
    pipeline.save_pretrained(folder)
    return folder


def evaluate(folder, tmp_path, *options: str) -> dict:
    """Return the results of eight problems with two denoising steps."""
    common = ("--num_problems", "8", "--num_inference_steps", "2", "--output", str(tmp_path / "results.json"))
    results = run_evaluate.main([str(folder), *common, *options])
    assert json.loads((tmp_path / "results.json").read_text()) == results
    return results


def test_what_is_written_down_gives_the_same_again(saved, tmp_path):
    results = evaluate(saved, tmp_path, "--num_samples", "3", "--sampling", '{"initial_noise_scale": 0.3}')
    assert (results["system"], results["task"]) == ("block_latent_diffusion", "mixed_countdown")
    assert set(results["parameters"]) == {"model", "vae", "total"}
    evaluation = results["evaluation"]
    assert evaluation["num_inference_steps"] == 2  # of each block
    assert evaluation["num_samples"] == 3
    assert evaluation["sampling"] == {"initial_noise_scale": 0.3, "num_trajectories": 3, "select": "majority"}
    assert {group["kind"] for group in evaluation["by_kind"]} == {"2 numbers", "3 numbers"}
    assert results["split_overlap"] == 0

    pipeline = load_pipeline(saved)
    problems = pipeline.task.to_dataset("test", 8)
    settings = {"num_inference_steps": evaluation["num_inference_steps"], **evaluation["sampling"]}
    whole, single = (
        evaluate_pipeline(pipeline, problems, batch_size=size, show_progress=False, **settings) for size in (8, 1)
    )
    assert whole == single
    assert sum(record.is_correct for record in whole) == 8 * evaluation["answer_accuracy"]


def test_trajectories_may_be_asked_for_by_the_name_that_the_pipeline_has_for_them(saved, tmp_path):
    one = evaluate(saved, tmp_path, "--sampling", '{"num_trajectories": 2, "select": "verifier"}')["evaluation"]
    other = evaluate(saved, tmp_path, "--num_samples", "2", "--select", "verifier")["evaluation"]
    assert {**one, "command": "", "seconds": 0} == {**other, "command": "", "seconds": 0}
    assert one["num_samples"] == 2


def test_the_curve_is_over_the_steps_of_a_block(saved, tmp_path):
    curve = evaluate(saved, tmp_path, "--steps_curve", "1,3", "--curve_problems", "4")["steps_curve"]
    assert [(point["num_inference_steps"], point["num_problems"]) for point in curve] == [(1, 4), (3, 4)]


@pytest.mark.parametrize(
    "option",
    ["--scheduler=DDIMScheduler", "--curve_schedulers=DDIMScheduler", "--vote_curve=1,3", "--threshold_curve=0.9"],
)
def test_what_the_pipeline_has_not_is_refused(saved, tmp_path, option):
    with pytest.raises(ValueError, match=f"A LaDiRPipeline has no use for `{option.split('=')[0]}`"):
        evaluate(saved, tmp_path, option)
