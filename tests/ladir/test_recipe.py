"""Recipes: all stages on a tiny task, taken up again, and the shipped files against the paper's figures."""

import gc
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from examples import run_train
from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.ladir.configuration_ladir import LaDiRConfig
from ldlm_hf.ladir.configuration_thought_vae import ThoughtVAEConfig
from ldlm_hf.ladir.modeling_thought_vae import ThoughtVAE
from ldlm_hf.ladir.recipe import LaDiRRecipe, load_problems, make_pipeline, train_ladir, train_stages
from ldlm_hf.ladir.trainer_ladir import LaDiRTrainer, LaDiRTrainingArguments
from ldlm_hf.ladir.trainer_language_model import (
    LanguageModelTrainer,
    LanguageModelTrainingArguments,
    collate_written,
    written_problems,
)
from ldlm_hf.ladir.trainer_thought_vae import ThoughtVAETrainingArguments
from ldlm_hf.tasks import get_task
from ldlm_hf.training import merge_recipes, read_recipe, read_section, recipe_names
from tests.ladir.tiny_ladir import QUIET, SPLITTER, sums, tiny_lm, tokenizer


RECIPES = Path(__file__).parents[2] / "examples" / "recipes" / "ladir"


def tiny_recipe(folder, **changes) -> LaDiRRecipe:
    quick = {
        "max_steps": 2,
        "warmup_steps": 0,
        "disable_tqdm": True,
        "use_cpu": True,
        "per_device_train_batch_size": 4,
    }
    values = read_recipe(RECIPES / "countdown.yaml")
    del values["system"]
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    values |= {"output_dir": str(folder), "train_size": 24, "language_model": sizes}
    values["task_arguments"] = {"num_numbers": 3, "max_number": 6, "operations": "+-", "heldout_size": 4}
    gate = {"reconstruction_gate": 0.0}
    for section, more in (
        ("language_model", {}),
        ("vae", {}),
        ("reasoner", gate),
        ("rollout", {**gate, "rollout_steps": 2}),
    ):
        values[f"{section}_training"] = {**values[f"{section}_training"], **quick, **more}
    return read_section(LaDiRRecipe, {**values, **changes})


def test_all_stages_run_and_are_read_back(tmp_path):
    recipe = tiny_recipe(tmp_path)
    pipeline, records = train_ladir(recipe)
    assert list(records) == ["language_model", "vae", "reasoner", "rollout"]
    assert all(record["steps"] == 2 for record in records.values())
    assert 0 <= records["vae"]["exact_reconstruction"] <= 1
    assert pipeline.vae.has_latent_statistics
    assert (tmp_path / "pipeline" / "model_index.json").is_file()
    pipeline.set_progress_bar_config(disable=True)
    prompt = recipe.make_task().problem("test", 0).prompt
    assert len(pipeline(prompt, num_inference_steps=2).texts) == 1  # with what fits the LM's positions
    assert pipeline.config.max_blocks == recipe.sampling["max_blocks"]
    again, same = train_ladir(recipe, resume=True)
    assert same == records
    own, other = pipeline.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in own.items())
    with pytest.raises(ValueError, match="another recipe"):
        train_ladir(tiny_recipe(tmp_path, seed=1), resume=True)


def test_stages_can_be_run_one_command_after_the_other(tmp_path, monkeypatch):
    """As large ones are, each launched in its own way; and while a reasoner is trained no VAE is in memory."""

    def count() -> int:
        gc.collect()
        return sum(type(one) is ThoughtVAE for one in gc.get_objects())

    alive, others, train = [], count(), LaDiRTrainer.train

    def watched(self, *args, **kwargs):
        alive.append(count() - others)  # other tests may keep some
        return train(self, *args, **kwargs)

    monkeypatch.setattr(LaDiRTrainer, "train", watched)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"system": "ladir", **asdict(tiny_recipe(tmp_path / "run"))}))
    run_train.main([str(path), "--last_stage", "vae"])
    assert not (tmp_path / "run" / "reasoner").exists()
    run_train.main([str(path), "--last_stage", "reasoner", "--resume"])
    assert not (tmp_path / "run" / "pipeline").exists()
    run_train.main([str(path), "--resume"])
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()
    assert alive == [0, 0]
    whole = train_stages(tiny_recipe(tmp_path / "whole"))
    own = json.loads((tmp_path / "run" / "rollout" / "stage.json").read_text())
    assert own["train_loss"] == whole["rollout"]["train_loss"]
    with pytest.raises(ValueError, match="last_stage.*language_model"):
        run_train.main([str(path), "--last_stage", "step"])
    with pytest.raises(ValueError, match="last_stage.*ladir"):
        run_train.main([str(RECIPES.parent / "llada" / "sudoku_4x4.yaml"), "--last_stage", "vae"])


def test_a_recipe_without_stage_two_or_with_a_ready_model_leaves_stages_out(tmp_path):
    tiny_lm().save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    recipe = tiny_recipe(tmp_path / "run", pretrained_lm=str(tmp_path / "lm"), rollout_training={})
    _, records = train_ladir(recipe)
    assert list(records) == ["language_model", "vae", "reasoner"]
    assert records["language_model"]["pretrained"] == str(tmp_path / "lm")


def test_more_of_stage_one_starts_where_stage_two_does(tmp_path):
    """Both are taught further than stage 1, from its weights, and neither is touched by the other."""
    quick = {"max_steps": 1, "disable_tqdm": True, "use_cpu": True, "reconstruction_gate": 0.0}
    recipe = tiny_recipe(tmp_path, continued_training={**quick, "learning_rate": 0.0})
    records = train_stages(recipe, last="continued")
    assert list(records) == ["language_model", "vae", "reasoner", "continued"]
    own, start = (make_pipeline(recipe, stage).model.state_dict() for stage in ("continued", "reasoner"))
    assert all(torch.equal(tensor, start[name]) for name, tensor in own.items())  # a step of no length leaves it there


def test_without_stage_two_the_pipeline_has_what_more_of_stage_one_made(tmp_path):
    quick = {"max_steps": 2, "disable_tqdm": True, "use_cpu": True, "reconstruction_gate": 0.0, "learning_rate": 0.01}
    recipe = tiny_recipe(tmp_path, continued_training=quick, rollout_training={})
    pipeline, records = train_ladir(recipe)
    assert list(records) == ["language_model", "vae", "reasoner", "continued"]
    own, start, last = (
        model.state_dict()
        for model in (pipeline.model, *(make_pipeline(recipe, stage).model for stage in ("reasoner", "continued")))
    )
    assert all(torch.equal(tensor, last[name]) for name, tensor in own.items())
    assert not all(torch.equal(tensor, start[name]) for name, tensor in own.items())


def test_problems_come_from_a_file_with_columns_of_other_names(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = ['{"query": "q", "response": "One. The answer is 1."}', '{"query": "q", "response": "no end"}'] * 20
    path.write_text("\n".join(rows) + "\n")
    values = {"dataset": str(path), "dataset_columns": {"prompt": "query", "target": "response"}, "task": None}
    recipe = LaDiRRecipe(output_dir=str(tmp_path), skip_unsplit=True, **values)
    train, heldout = load_problems(recipe)
    assert set(train.column_names) == {"prompt", "target"}
    assert set(train["target"]) == {"One. The answer is 1."}
    assert len(train) + len(heldout) == 20


WRONG = [
    *({"task": "sums"}, {"task": None}, {"sampling": {"steps": 3}}, {"sampling": {"steps": 3, 0: 1}}),
    *({"splitter": {"steps": 3}}, {"splitter": {0: 1}}),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_recipe_is_refused_before_it_is_trained(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LaDiRRecipe(**{"output_dir": str(tmp_path), "task": "countdown", **wrong})


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_shipped_recipe_is_read_to_its_last_key(name, tmp_path):
    values = read_recipe(RECIPES / name)
    assert values.pop("system") == "ladir"
    variants = values.pop("variants", {})  # for `run_ladir_study.py`
    for changes in variants.values():
        read_section(LaDiRRecipe, merge_recipes(values, changes))
    recipe = read_section(LaDiRRecipe, values)
    for config, fields in ((ThoughtVAEConfig, recipe.vae), (LaDiRConfig, recipe.reasoner)):
        assert set(fields) <= set(config.__dataclass_fields__)
        config(**fields)
    sections = {
        "language_model_training": LanguageModelTrainingArguments,
        "vae_training": ThoughtVAETrainingArguments,
        "reasoner_training": LaDiRTrainingArguments,
        "continued_training": LaDiRTrainingArguments,
        "rollout_training": LaDiRTrainingArguments,
    }
    for section, arguments in sections.items():
        fields = {**getattr(recipe, section), "bf16": False, "use_cpu": True}  # this machine may have no GPU
        read_section(arguments, fields, output_dir=str(tmp_path))


def test_the_large_recipes_are_the_papers():
    recipe = read_recipe(RECIPES / "llama_8b_math.yaml")
    published = {
        "latents_per_block": 4,
        "latent_dim": 512,
        "kl_weight": 1e-5,
        "latent_noise": 3,
        "token_substitution": 0.3,
    }
    assert recipe["vae"] == {**published, "freeze_decoder": True}
    assert {k: v for k, v in recipe["reasoner"].items() if k.endswith("weight")} == {
        "flow_weight": 5, "answer_weight": 1, "stop_weight": 1,
    }  # fmt: skip
    stages = {
        "vae_training": (2, 2e-5, 128),
        "reasoner_training": (20, 1e-5, 64),
        "rollout_training": (20, 1e-5, 12),
    }
    for section, (epochs, rate, batch) in stages.items():
        values = recipe[section]
        assert (values["num_train_epochs"], values["learning_rate"]) == (epochs, rate)
        assert 4 * values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1) == batch
    assert recipe["rollout_training"]["rollout_steps"] == 10
    sampling = {"num_inference_steps": 50, "guidance_scale": 4, "initial_noise_scale": 2, "temperature": 0.7}
    assert sampling.items() <= recipe["sampling"].items()
    other = read_recipe(RECIPES / "qwen3_8b_math.yaml")
    assert {key for key in recipe if recipe[key] != other[key]} == {"output_dir", "pretrained_lm"}


def test_the_code_recipe_thinks_in_one_block_and_answers_with_a_program():
    recipe = read_recipe(RECIPES / "qwen3_8b_code.yaml")
    assert (recipe["vae"]["latents_per_block"], recipe["sampling"]["max_blocks"]) == (64, 1)
    target = "Add one.\nReturn it.\n```python\ndef next(x):\n    return x + 1\n```"
    blocks, answer = BlockSplitter(**recipe["splitter"]).split_target(target)
    assert blocks == ["Add one.\nReturn it."]
    assert get_task("human_eval").parse_answer(answer) == "def next(x):\n    return x + 1\n"


def test_the_shipped_models_recipe_goes_on_as_its_first_stage_began():
    recipe = read_recipe(RECIPES / "countdown_2_to_4_longer.yaml")
    first, then = recipe["reasoner_training"], recipe["continued_training"]
    assert {key for key in {*first, *then} if first.get(key) != then.get(key)} == {"max_steps", "save_steps"}


def test_a_written_problem_is_scored_behind_its_question():
    rows = written_problems(sums(3), tokenizer(), SPLITTER)
    batch = collate_written([rows[i] for i in range(3)])
    for i, problem in enumerate(sums(3)):
        scored = batch["labels"][i][batch["labels"][i] != -100].tolist()
        blocks, answer = SPLITTER.split_target(problem["target"])
        assert tokenizer().decode(scored[:-1]) == " ".join([*blocks, answer])
        assert scored[-1] == 2
        read = batch["input_ids"][i][batch["attention_mask"][i] == 1].tolist()
        assert tokenizer().decode(read[: -len(scored)], skip_special_tokens=True) == problem["prompt"]


def test_the_language_model_learns_its_problems(tmp_path):
    arguments = {**QUIET, "max_steps": 80, "learning_rate": 1e-2, "save_strategy": "no", "logging_steps": 20}
    args = LanguageModelTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **arguments)
    trainer = LanguageModelTrainer(tiny_lm(), args, sums(8), tokenizer(), SPLITTER, eval_dataset=sums(8))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.2 * before


def test_the_splitter_of_the_small_recipe_works_expressions_out():
    recipe = tiny_recipe("runs")
    train, _ = load_problems(recipe)
    blocks, answer = BlockSplitter(**recipe.splitter).split_target(train["target"][0], train["answer"][0])
    assert len(blocks) == 2
    assert answer == train["answer"][0]
