"""Recipes: every stage of a tiny one, what may be kept on disk, and that those in the repository can be read."""

import math
from pathlib import Path

import pytest

from examples import run_train
from ldlm_hf.d1 import DiffuGRPOConfig
from ldlm_hf.d1.prompts import TEMPLATES, ask, demonstration_of_s1k
from ldlm_hf.d1.recipe import D1Recipe, ReinforcementRecipe, train_d1
from ldlm_hf.d1.rewards import math_reward
from ldlm_hf.d1.styles import style_figures, style_reward
from ldlm_hf.llada.trainer_masked_diffusion import MaskedDiffusionTrainingArguments
from ldlm_hf.tasks import StyledCountdown, StyledSudoku
from ldlm_hf.training import merge_recipes, read_recipe, read_section


RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes" / "d1").glob("*.yaml"))
QUICK = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True}


def tiny_recipe(folder, **changes) -> D1Recipe:
    """Return all stages of the recipe for one core, two steps each."""
    values = read_recipe(Path(__file__).parents[2] / "examples" / "recipes" / "d1" / "sudoku_4x4_elicitation.yaml")
    del values["system"]
    lora = changes.pop("lora", {})
    values |= {"output_dir": str(folder)} | changes
    values["base"] = {
        **values["base"],
        "train_size": 40,
        "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    }
    values["sft"] = {**values["sft"], "train_size": 40}
    values["rl"] = {**values["rl"], "train_size": 4, "lora": lora}
    values["rl"]["rewards"] = {"sudoku": {"cells": "all", "tags": False}}  # no style is ever right by chance
    for stage, section in (("base", "model_training"), ("sft", "model_training"), ("rl", "training")):
        values[stage][section] = {**values[stage][section], **QUICK}
    values["rl"]["training"] |= {"num_generations": 2, "num_iterations": 2, "save_strategy": "no"}
    return read_section(D1Recipe, values)


def test_all_stages_run_and_a_finished_recipe_is_read_back(tmp_path):
    pipeline, records = train_d1(tiny_recipe(tmp_path))
    assert list(records) == ["base", "sft", "rl"]
    assert records["rl"]["completions"] == 4
    puzzle = StyledSudoku().problem("test", 0).prompt
    (text,) = pipeline(puzzle, num_inference_steps=9).texts
    again, same = train_d1(tiny_recipe(tmp_path), resume=True)
    assert same == records
    assert again(puzzle, num_inference_steps=9).texts == [text]
    weights = [
        folder / "model" / "model.safetensors" for folder in (tmp_path / "base" / "model", tmp_path / "sft" / "model")
    ]
    assert len({path.read_bytes() for path in [*weights, tmp_path / "rl" / "model" / "model.safetensors"]}) == 3
    assert (tmp_path / "pipeline" / "model_index.json").exists()


def test_a_recipe_with_variants_for_a_study_is_trained_by_name(tmp_path):
    size = "{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}"
    changes = [f"base.model={size}", *("base.train_size=40", "sft.train_size=40", "rl.train_size=4")]
    for section in ("base.model_training", "sft.model_training", "rl.training"):
        changes += [f"{section}.{name}={value}".lower() for name, value in QUICK.items()]
    (path,) = (path for path in RECIPES if path.stem == "sudoku_4x4_skill")
    run_train.main([str(path), "--output_dir", str(tmp_path), "--override", *changes])
    assert (tmp_path / "pipeline" / "model_index.json").exists()


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_are_merged_or_kept_apart(tmp_path, merge):
    lora = {"r": 2, "target_modules": ["q_proj"]}
    recipe = tiny_recipe(tmp_path, merge_adapters=merge, lora=lora)
    recipe.rl["training"]["learning_rate"] = 0.1
    pipeline, _ = train_d1(recipe)
    assert (tmp_path / "rl" / "adapters" / "adapter_model.safetensors").exists()
    assert (tmp_path / "rl" / "model").exists() == merge
    assert (tmp_path / "pipeline").exists() == merge
    assert not any("lora" in name for name in pipeline.model.state_dict())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_can_be_read_to_the_last_field(tmp_path, path):
    values = read_recipe(path)
    assert values.pop("system") == "d1"
    variants = values.pop("variants", {})  # of the reinforcement, for `run_d1_study.py`
    recipe = read_section(D1Recipe, values)
    quiet = {"output_dir": str(tmp_path), "use_cpu": True}
    if recipe.rl:
        section = recipe.make_reinforcement()
        functions, weights = section.make_rewards()
        args = read_section(DiffuGRPOConfig, {**section.training, **quiet})
        assert len(functions) == len(weights) > 0
        assert args.generation_batch_size % args.num_generations == 0
        for changes in variants.values():
            merged = merge_recipes(recipe.rl, changes)
            read_section(DiffuGRPOConfig, {**read_section(ReinforcementRecipe, merged).training, **quiet})
    if recipe.sft:
        read_section(MaskedDiffusionTrainingArguments, {**recipe.sft["model_training"], **quiet})
    assert len(RECIPES) == 10


def test_problems_become_prompts_and_stay_problems():
    recipe = ReinforcementRecipe(
        task="countdown", train_size=3, template="countdown", rewards={"countdown": {"weight": 2}}
    )
    (row, *_) = recipe.problems()
    assert row["prompt"] == ask("countdown", row["problem"])
    (reward,), weights = recipe.make_rewards()
    answer = f"<answer>\n{row['target']}\n</answer>"
    assert reward([row["prompt"]], [answer], problem=[row["problem"]]) == [1.0]
    assert weights == [2.0]
    for name, template in TEMPLATES.items():
        assert ask(name, "{x}") == template.replace("{problem}", "{x}")


def test_problems_of_a_file_are_renamed_and_scored(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1+1?", "answer": "2"}\n{"question": "1+2?", "answer": "3"}\n')
    settings = {"dataset": str(path), "columns": {"problem": "question"}, "template": "math", "rewards": {"math": {}}}
    recipe = ReinforcementRecipe(**settings, train_size=1)
    rows = recipe.problems()
    assert len(rows) == 1
    assert rows[0]["problem"] == "1+1?"
    assert math_reward([rows[0]["prompt"]], ["\\boxed{2}"], answer=rows["answer"][:]) == [2.0]
    path.write_text('{"nums": [19, 36, 55], "target": 72}\n')
    settings = {"dataset": str(path), "task": "countdown", "template": "countdown", "rewards": {"countdown": {}}}
    assert ReinforcementRecipe(**settings).problems()[0]["problem"] == "19,36,55=72"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "countdown"}, "rewards"),
        ({"rewards": {"format": {}}}, "task"),
        ({"task": "countdown", "rewards": {"length": {}}}, "rewards"),
        ({"task": "countdown", "rewards": {"format": {"strict": True}}}, "weight"),
        ({"task": "countdown", "rewards": {"format": {"weight": [1]}}}, r"`rewards\.format\.weight`.*\[1\]"),
        ({"task": "countdown", "rewards": {"format": {"weight": math.nan}}}, r"`rewards\.format\.weight`.*finite"),
        ({"task": "countdown", "rewards": {"format": 2}}, r"`rewards\.format` has to be a mapping"),
        ({"task": "countdown", "rewards": {"countdown": {"x": 1}}}, r"`rewards\.countdown`.*'x'"),
        ({"task": "countdown", "rewards": {"format": {}}, "template": "chat"}, "template"),
    ],
)
def test_reinforcements_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ReinforcementRecipe(**values)


def test_a_recipe_needs_a_start_and_something_to_do():
    with pytest.raises(ValueError, match="pretrained"):
        D1Recipe("runs", sft={"task": "sudoku"})
    with pytest.raises(ValueError, match="stage"):
        D1Recipe("runs", pretrained="x/y")


def test_a_row_of_s1k_becomes_a_demonstration():
    row = {"question": "1+1?", "thinking_trajectories": [" Count. ", "no"], "attempt": "It is 2.", "solution": "2"}
    made = demonstration_of_s1k(row)
    assert made["target"] == "<reasoning>\nCount.\n</reasoning>\n<answer>\nIt is 2.\n</answer>"
    assert made["prompt"].endswith("\n\n1+1?")
    with pytest.raises(ValueError, match="attempt"):
        demonstration_of_s1k({**row, "attempt": None})


def test_styles_are_drawn_as_often_as_asked_for_and_only_one_is_graded():
    problems = [StyledSudoku(0.2).problem("train", index) for index in range(400)]
    assert 0.15 < sum(problem.target[0] == ">" for problem in problems) / 400 < 0.25
    for problem in problems[:20]:
        grid = problem.target[1:] if problem.target[0] == ">" else problem.target[:0:-1]
        assert grid == problem.answer
    texts = [problem.target for problem in problems]
    rewards = style_reward(texts, texts, answer=[problem.answer for problem in problems])
    assert set(rewards) == {0.0, 1.5}
    graded = ">" + "1" * 16
    assert style_reward([""], [graded], answer=[problems[0].answer]) == [0.5 + 4 / 16]
    figures = style_figures([texts[0], graded], [problems[0].prompt] * 2, [problems[0].answer] * 2)
    assert figures["graded_style"] == 0.5 + 0.5 * (texts[0][0] == ">")


def test_an_expression_in_the_style_is_worth_more_if_it_solves_its_problem_in_whichever_way():
    problems = [StyledCountdown(graded_share=0.2).problem("test", index) for index in range(60)]
    texts, prompts, answers = zip(*((one.target, one.prompt, one.answer) for one in problems), strict=True)
    rewards = style_reward(prompts, texts, answer=answers)
    assert rewards == [1.5 * (text[0] == ">") for text in texts]
    answer, prompt = "(3+4)*5", "3,4,5=35"
    written = {">5*(4+3)": 1.5, ">3+4*5": 0.5, ">7*5": 0.5, ">(3+4)*": 0.0, "<5*)4+3(": 0.0, "(3+4)*5": 0.0, "": 0.0}
    given = [[{"role": "assistant", "content": text}] for text in written]
    assert style_reward([""] * len(written), given, answer=[answer] * len(written)) == [*written.values()]
    figures = style_figures(list(written), [prompt] * len(written), [answer] * len(written))
    shares = {"graded_style": 3 / 7, "solved": 1 / 7, "solved_in_either_style": 2 / 7, "num_problems": 7}
    assert figures == shares
    assert style_figures(list(written)[::-1], [prompt] * len(written), [answer] * len(written)) == figures
    assert style_figures(texts, prompts, answers)["solved_in_either_style"] == 1.0
    divided = {"texts": [">6/2"], "prompts": ["6,2=3"], "answers": ["6/2"]}
    assert style_figures(**divided)["solved"] == 1.0
    assert style_figures(**divided, task=StyledCountdown(num_numbers=2, operations="+-*"))["solved"] == 0.0
    with pytest.raises(ValueError, match="`prompt`"):
        style_figures([">7"], ["0140300200010020"], [answer])
