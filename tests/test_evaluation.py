"""Evaluation: records of a real pipeline, figures counted by hand, files that are whole or not there."""

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from examples import run_evaluate
from ldlm_hf import LatentReasoningPipeline, evaluation
from ldlm_hf.evaluation import (
    EvalRecord,
    environment,
    evaluate_pipeline,
    mean_and_standard_error,
    summarize,
    write_results,
)
from ldlm_hf.ldlm import LatentReasoningPipelineOutput
from ldlm_hf.tasks import get_task
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline, tiny_problems, tiny_scheduler, tiny_tokenizer


class LatentWriter(LatentReasoningPipeline):
    """A pipeline whose texts say in which direction each latent points: a random LM decoder does not look at latents."""

    def decode(self, latents, output_type, max_new_tokens, prompts=None):
        """Write the largest dimension of each latent."""
        texts = [" ".join(map(str, row.tolist())) for row in latents.argmax(dim=-1)]
        answers = [text.split()[0] for text in texts]
        return LatentReasoningPipelineOutput(texts=texts, answers=answers, latents=latents)


def latent_writer() -> LatentWriter:
    return LatentWriter(tiny_autoencoder(), tiny_denoiser(), tiny_scheduler(), tiny_tokenizer(), task="addition")


def record(prompt: str, target: str, text: str) -> EvalRecord:
    predicted = text.split()[0] if text and text.split()[0].isdecimal() else None
    return EvalRecord(prompt, target, target.split()[0], text, predicted)


RECORDS = [
    record("3+5+2+4", "14 8+2+4 10+4 14", "14 8+2+4 10+4 14"),
    record("1+2+3", "6 3+3 6", "6 3+4 7"),  # the answer is right, the chain is not
    record("1+3+1", "5 4+1 5", "four"),
    record("4+4+1", "9 8+1 9", "8 8+1 9"),
]


def test_results_do_not_depend_on_the_batch_size():
    pipeline, problems = latent_writer(), tiny_problems("test", 11)
    results = [
        evaluate_pipeline(pipeline, problems, batch_size=size, num_inference_steps=2, show_progress=False)
        for size in (1, 4, 11, 256)
    ]
    assert len({found.text for found in results[0]}) > 5  # else the comparison says nothing
    assert all(result == results[0] for result in results)


def test_the_seed_decides_the_noise():
    pipeline, problems = latent_writer(), tiny_problems("test", 5)
    options = {"num_inference_steps": 2, "show_progress": False}
    first, again, other = (evaluate_pipeline(pipeline, problems, seed=seed, **options) for seed in (0, 0, 1))
    assert first == again != other


def test_records_keep_the_rows_and_what_was_written():
    problems = tiny_problems("test", 3)
    records = evaluate_pipeline(tiny_pipeline(), problems, num_inference_steps=1, show_progress=False)
    for name in ("prompt", "target", "answer"):
        assert [getattr(found, name) for found in records] == problems[name][:]
    assert [found.predicted_answer for found in records] == [
        tiny_pipeline().task.parse_answer(found.text) for found in records
    ]


def test_the_progress_bar_of_the_pipeline_comes_back(capsys):
    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=False, desc="denoising")
    evaluate_pipeline(pipeline, tiny_problems("test", 2), num_inference_steps=1, show_progress=False)
    assert capsys.readouterr().err == ""
    pipeline(["3+5+2"], num_inference_steps=1)
    assert "denoising" in capsys.readouterr().err


def test_the_progress_bar_comes_back_whoever_of_two_threads_ends_first():
    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(desc="denoising")
    one, other = (evaluation._without_inner_bars(pipeline) for _ in range(2))
    one.__enter__(), other.__enter__(), one.__exit__(None, None, None)
    assert vars(pipeline)["_progress_bar_config"] == {"desc": "denoising", "disable": True}
    other.__exit__(None, None, None)
    assert vars(pipeline)["_progress_bar_config"] == {"desc": "denoising"}


@pytest.mark.parametrize("columns", [{"prompt": [], "target": [], "answer": []}, {"prompt": ["1+1+1"]}])
def test_data_sets_without_problems_are_refused(columns):
    with pytest.raises(ValueError, match="dataset"):
        evaluate_pipeline(tiny_pipeline(), Dataset.from_dict(columns))


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        evaluate_pipeline(tiny_pipeline(), tiny_problems("test", 2), batch_size=0)


def test_records_know_right_and_exact():
    assert [found.is_correct for found in RECORDS] == [True, True, False, False]
    assert [found.is_exact for found in RECORDS] == [True, False, False, False]


@pytest.mark.parametrize("task", ["addition", tiny_pipeline().task], ids=["by name", "itself"])
def test_the_summary_equals_counting_by_hand(task):
    assert summarize(RECORDS, task) == {
        "answer_accuracy": 0.5,
        "invalid_rate": 0.25,
        "num_problems": 4,
        "exact_match": 0.25,
        "step_accuracy": 5 / 9,
        "consistency": 0.25,
        "invalid_output_rate": 0.25,
        "standard_error": 0.25,  # sqrt(0.5 · 0.5 / 4)
        "by_steps": [
            {"steps": 2, "answer_accuracy": 1 / 3, "num_problems": 3},
            {"steps": 3, "answer_accuracy": 1.0, "num_problems": 1},
        ],
    }


def test_no_records_and_half_a_character_that_no_table_holds_are_refused():
    for records, message in (([], "predictions"), ([replace(RECORDS[0], text="\ud800")], "`records`.*is no text")):
        with pytest.raises(ValueError, match=message):
            summarize(records, "addition")


def test_the_standard_error_is_that_of_the_mean_over_seeds():
    mean, error = mean_and_standard_error([0.90, 0.94, 0.95])
    assert mean == pytest.approx(0.93)
    assert error == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.02**2) / 2 / 3))
    assert mean_and_standard_error([0.9]) == (0.9, None)
    with pytest.raises(ValueError, match="values"):
        mean_and_standard_error([])


def test_the_environment_names_versions_and_is_plain_json():
    found = environment()
    assert found["torch"] == torch.__version__
    assert {"ldlm_hf", "python", "transformers", "diffusers", "processor", "cores", "threads", "date"} <= set(found)
    json.dumps(found, allow_nan=False)


def test_a_commit_is_named_only_for_a_file_that_git_knows(tmp_path):
    file = tmp_path / "evaluation.py"
    file.write_text("")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    found = evaluation._commit.__wrapped__
    assert found(file) is None  # no checkout
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "one"], check=True)
    assert found(file) is None  # installed under a checkout of something else
    subprocess.run([*git, "add", file.name], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "two"], check=True)
    commit = evaluation._commit(file)
    assert len(commit) == 12
    file.write_text("# changed")
    assert found(file) == f"{commit}-dirty"
    assert evaluation._commit(file) == commit  # as it was when the process first wrote a result


def test_results_come_back_and_leave_nothing_beside_them(tmp_path):
    path = tmp_path / "results" / "evaluation.json"
    write_results(path, {"a": [1, 0.5, None, "ü"]})
    write_results(path, {"a": [2]})
    assert json.loads(path.read_text()) == {"a": [2]}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "evaluation.json"
    write_results(path, {"loss": 0.5})
    with pytest.raises(ValueError, match=r"results\['runs'\]\[1\]\['loss'\]"):
        write_results(path, {"runs": [{"loss": 0.5}, {"loss": value}]})
    assert json.loads(path.read_text()) == {"loss": 0.5}


@pytest.fixture(scope="module")
def saved_pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny-reasoner"
    tiny_pipeline().save_pretrained(folder)
    return folder


def test_the_script_writes_what_it_measured_and_its_command(saved_pipeline, tmp_path, capsys):
    output = tmp_path / "results.json"
    options = "--num_problems 12 --num_inference_steps 2 --steps_curve 1,3 --curve_problems 6 --seed 5"
    arguments = [str(saved_pipeline), *options.split(), "--curve_schedulers", "DDIMScheduler", "--output", str(output)]
    results = run_evaluate.main(arguments)
    assert json.loads(output.read_text()) == results
    assert results["model_name"] == "tiny-reasoner"
    assert results["evaluation"]["num_problems"] == 12
    assert results["evaluation"]["seed"] == 5
    assert results["evaluation"]["command"].startswith("python examples/run_evaluate.py ")
    assert results["split_overlap"] == 0
    points = [
        (point["scheduler"], point["num_inference_steps"], point["num_problems"]) for point in results["steps_curve"]
    ]
    assert points == [("DDIMScheduler", 1, 6), ("DDIMScheduler", 3, 6)]
    assert results["parameters"]["total"] == sum(
        parameter.numel() for model in (tiny_autoencoder(), tiny_denoiser()) for parameter in model.parameters()
    )
    assert "answer_accuracy" in capsys.readouterr().out


def test_the_script_reads_a_file_of_problems(saved_pipeline, tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"prompt": "1+2+3", "target": "6 3+3 6", "answer": "6"}\n' * 3)
    arguments = ["--dataset", str(path), "--num_problems", "2", "--num_inference_steps", "1"]
    results = run_evaluate.main([str(saved_pipeline), *arguments, "--output", str(tmp_path / "results.json")])
    assert results["evaluation"]["num_problems"] == 2
    assert "chance" not in results


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--steps_curve", "1,two"], "steps_curve"),
        (["--steps_curve", "0"], "steps_curve"),
        (["--curve_schedulers", "MagicScheduler"], "MagicScheduler"),
        (["--task", "poetry"], "poetry"),
        (["--task", "continuation:README.md", "--vote_curve", "1,2"], "vote_curve"),
    ],
)
def test_the_script_refuses_what_it_does_not_know(saved_pipeline, tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        run_evaluate.main([str(saved_pipeline), *options, "--output", str(tmp_path / "results.json")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layer", "error", "named"), [([], ValueError, "num_layers"), (["--bertscore_layer", "1"], OSError, "no-encoder")]
)
def test_an_encoder_that_fails_is_told_of_before_anything_is_answered(tmp_path, monkeypatch, layer, error, named):
    monkeypatch.setattr(run_evaluate, "load_pipeline", lambda *_, **__: pytest.fail("the pipeline was loaded"))
    arguments = ["--task", "continuation:README.md", "--bertscore_model", str(tmp_path / "no-encoder"), *layer]
    with pytest.raises(error, match=named):
        run_evaluate.main(["model", *arguments, "--output", str(tmp_path / "results.json")])


def test_answers_that_the_problem_judges_are_summarized():
    row = {"prompt": "4,13,10=19", "target": "13+10-4", "answer": "13+10-4"}
    problems = Dataset.from_list([row] * 3)
    records = evaluation.record_texts(problems, ["10+13-4", "13-4+10", "4+15"], get_task("countdown"))
    summary = summarize(records, "countdown")  # two other ways, and one without its numbers
    assert summary["answer_accuracy"] == pytest.approx(2 / 3)
    assert summary["standard_error"] == pytest.approx((2 / 27) ** 0.5)
