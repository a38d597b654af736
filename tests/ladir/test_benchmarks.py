"""Published benchmarks with a LaDiR: a recipe learns a few of their problems, and one command evaluates what belongs to no task."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from examples import run_evaluate
from ldlm_hf.ladir.pipeline_ladir import LaDiRPipeline
from ldlm_hf.ladir.recipe import LaDiRRecipe, train_ladir
from ldlm_hf.tasks import get_task
from ldlm_hf.tokenization import build_tokenizer


WORDED = [
    {"prompt": "What is half of 8?", "target": "Take 8. Half it. The answer is 4."},
    {"prompt": "What is 3 more than 4?", "target": "Count on from 4. The answer is 7."},
]
GSM8K = [
    {"question": row["prompt"], "answer": f"Work it out.\n#### {number}"}
    for row, number in zip(WORDED, (4, 7), strict=True)
]
MATH = [
    {"problem": row["prompt"], "solution": f"It is $\\boxed{{{number}}}$.", "answer": str(number)}
    for row, number in zip(WORDED, (4, 7), strict=True)
]
CODE = [
    {
        "prompt": f"def {name}():\n",
        "entry_point": name,
        "canonical_solution": f"    return {number}\n",
        "test": f"def check(candidate):\n    assert candidate() == {number}\n",
    }
    for name, number in (("half", 4), ("more", 7))
]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe_of(folder, rows: list[dict], **data) -> LaDiRRecipe:
    """Return a recipe that learns what a few rows say by heart, from a random LM that is taken ready."""
    texts = [text for row in rows for text in row.values()]
    tokenizer = build_tokenizer(texts, granularity="subword", vocab_size=300, model_max_length=128)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 128}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **sizes, **special)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    quick = {"max_steps": 100, "learning_rate": 5e-3, "warmup_steps": 0, "disable_tqdm": True, "use_cpu": True}
    return LaDiRRecipe(
        output_dir=str(folder / "run"),
        pretrained_lm=str(folder / "lm"),
        vae={"latents_per_block": 2, "latent_dim": 8, "freeze_decoder": False},
        vae_training={**quick, "max_steps": 2},
        reasoner={"time_embedding_dim": 16},
        reasoner_training={**quick, "reconstruction_gate": 0.0, "save_strategy": "no"},
        sampling={"max_blocks": 3, "max_new_tokens": 24},
        **data,
    )


def evaluate(folder, tmp_path, task: str, **task_arguments) -> dict:
    options = ("--task", task, "--task_arguments", json.dumps(task_arguments), "--num_inference_steps", "4")
    return run_evaluate.main([str(folder), *options, "--output", str(tmp_path / "results.json")])


@pytest.fixture(scope="module")
def worded(tmp_path_factory) -> str:
    """A pipeline of no task that answers as LaDiR does, saved."""
    folder = tmp_path_factory.mktemp("worded")
    train_ladir(recipe_of(folder, WORDED, dataset=write(folder / "rows.jsonl", WORDED * 20)))
    return str(folder / "run" / "pipeline")


@pytest.mark.parametrize(("task", "rows"), [("gsm8k", GSM8K), ("math500", MATH)])
def test_what_belongs_to_no_task_is_evaluated_on_a_benchmark_by_one_command(worded, tmp_path, task, rows):
    path = str(tmp_path / "rows_{split}.jsonl")
    for split in ("train", "test"):
        write(tmp_path / f"rows_{split}.jsonl", rows * (40 if split == "train" else 1))
    results = evaluate(worded, tmp_path, task, path=path.replace("{split}", "test") if task == "math500" else path)
    assert results["task"] == task
    assert results["evaluation"]["num_problems"] == 2
    assert results["evaluation"]["answer_accuracy"] == 1.0
    assert ("split_overlap" in results) == (task == "gsm8k")  # where there are training problems to compare with


def test_the_majority_is_of_the_answers_that_the_task_reads(worded):
    pipeline = LaDiRPipeline.from_pretrained(worded)
    assert pipeline.task is None
    pipeline.task = get_task("gsm8k")
    output = pipeline(WORDED[0]["prompt"], num_inference_steps=2, num_trajectories=3)
    assert output.answers == ["4"]
    with pytest.raises(ValueError, match="`task` has to be a task"):
        pipeline.task = "gsm8k"


def test_a_task_that_is_set_is_not_saved(worded, tmp_path):
    pipeline = LaDiRPipeline.from_pretrained(worded)
    pipeline.task = get_task("human_eval", allow_execution=True)
    pipeline.save_pretrained(tmp_path)
    assert LaDiRPipeline.from_pretrained(tmp_path).task is None


def test_programs_are_run_where_the_command_allows_it_and_only_there(tmp_path):
    rows = [{"prompt": row["prompt"], "target": f"Return it. {row['canonical_solution']}"} for row in CODE]
    data = [{**row, "answer": code["canonical_solution"]} for row, code in zip(rows, CODE, strict=True)]
    recipe = recipe_of(tmp_path, rows, dataset=write(tmp_path / "data.jsonl", data * 20))
    folder = train_ladir(recipe)[0] and recipe.folder("pipeline")
    path = write(tmp_path / "code.jsonl", CODE)
    with pytest.raises(ValueError, match="allow_execution"):
        evaluate(folder, tmp_path, "human_eval", path=path)
    results = evaluate(folder, tmp_path, "human_eval", path=path, allow_execution=True)
    assert results["evaluation"]["answer_accuracy"] == 1.0


def test_a_recipe_of_a_benchmark_learns_its_answers_in_their_boxes(tmp_path):
    held_out = next(
        f"What is {n} and {n}?"
        for n in range(1000)
        if get_task("gsm8k").split_of(f"What is {n} and {n}?") == "validation"
    )
    write(tmp_path / "rows_train.jsonl", [*GSM8K * 40, {"question": held_out, "answer": "Work it out.\n#### 7"}])
    write(tmp_path / "rows_test.jsonl", GSM8K)
    task = {"task": "gsm8k", "task_arguments": {"path": str(tmp_path / "rows_{split}.jsonl")}}
    recipe = recipe_of(tmp_path, WORDED, **task)
    pipeline, _ = train_ladir(recipe)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline([row["prompt"] for row in WORDED], num_inference_steps=2)
    assert output.texts == ["\\boxed{4}", "\\boxed{7}"]
    assert output.answers == ["4", "7"]
