"""Recipes of this room: every stage from a YAML file to a pipeline that loads, resumed and converted."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ldlm_hf import LLaDAForMaskedDiffusion, MaskedDiffusionPipeline
from ldlm_hf.llada.recipe import MaskedDiffusionRecipe, load_model, train_masked_diffusion
from ldlm_hf.tokenization import build_tokenizer
from ldlm_hf.training import read_recipe, recipe_names
from tests.llada.tiny_llada import tiny_llada


RECIPES = Path(__file__).parents[2] / "examples" / "recipes" / "llada"
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def tiny_recipe(folder: Path, **changes) -> MaskedDiffusionRecipe:
    training = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
    }
    values = {
        "output_dir": str(folder),
        "task": "sudoku",
        "train_size": 32,
        "tokenizer": {"granularity": "digit", "model_max_length": 40},
        "model": SMALL,
        "model_training": {**training, "append_eos": False, "disable_tqdm": True},
        "scheduler": {"block_length": 16, "num_inference_steps": 8},
        "gen_length": 16,
    }
    return MaskedDiffusionRecipe(**{**values, **changes})


@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_recipe_is_read_strictly(name):
    values = read_recipe(RECIPES / name)
    values.pop("evaluation", None)
    assert values.pop("system") == "masked_diffusion"
    recipe = MaskedDiffusionRecipe(**values)
    assert recipe.output_dir.startswith("runs/")


def test_a_recipe_ends_in_a_pipeline_that_loads_and_answers(tmp_path):
    recipe = tiny_recipe(tmp_path)
    pipeline, records = train_masked_diffusion(recipe)
    loaded = MaskedDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    problem = recipe.make_task().problem("test", 0)
    for each in (pipeline, loaded):
        each.set_progress_bar_config(disable=True)
    output, again = pipeline(problem.prompt), loaded(problem.prompt)
    assert torch.equal(output.sequences, again.sequences) and output.sequences.shape == (1, 16)
    assert output.nfe.tolist() == [8]  # the scheduler's steps are the default
    assert records["model"]["steps"] == 4 and records["model"]["batch_size"] == 4


def test_a_resumed_recipe_ends_in_the_weights_of_a_straight_one(tmp_path):
    straight, _ = train_masked_diffusion(tiny_recipe(tmp_path / "straight"))
    folder = tmp_path / "resumed"
    recipe = tiny_recipe(folder)

    class Killed(Exception):
        pass

    import ldlm_hf.llada.recipe as module

    class KilledTrainer(module.MaskedDiffusionTrainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 3:
                raise Killed
            return super().training_step(*args, **kwargs)

    own, module.MaskedDiffusionTrainer = module.MaskedDiffusionTrainer, KilledTrainer
    try:
        with pytest.raises(Killed):
            train_masked_diffusion(recipe)
    finally:
        module.MaskedDiffusionTrainer = own
    resumed, _ = train_masked_diffusion(recipe, resume=True)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_causal_lm_is_converted_and_adapted(tmp_path):
    tokenizer = build_tokenizer([], ["0", "1", "2", "3", "4"], granularity="digit", model_max_length=40)
    config = {**SMALL, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": None}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(tmp_path / "causal")
    tokenizer.save_pretrained(tmp_path / "causal")
    pipeline, _ = train_masked_diffusion(tiny_recipe(tmp_path / "adapted", pretrained=str(tmp_path / "causal")))
    assert isinstance(pipeline.model, LLaDAForMaskedDiffusion)
    assert pipeline.model.config.mask_token_id == tokenizer.mask_token_id
    loaded = MaskedDiffusionPipeline.from_pretrained(tmp_path / "adapted" / "pipeline")
    for name, value in pipeline.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_adapters_are_merged_in_the_end(tmp_path):
    pytest.importorskip("peft")
    recipe = tiny_recipe(tmp_path, lora={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    pipeline, _ = train_masked_diffusion(recipe)
    assert type(pipeline.model) is LLaDAForMaskedDiffusion


def test_weights_that_adapters_are_trained_on_may_be_in_half_precision(tmp_path):
    pytest.importorskip("peft")
    start, _ = train_masked_diffusion(tiny_recipe(tmp_path / "start"))
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    own = {"pretrained": str(tmp_path / "start" / "model" / "model"), "dtype": "bfloat16", "lora": lora}
    train_masked_diffusion(tiny_recipe(tmp_path / "adapted", **own))
    adapted = load_model(tmp_path / "adapted" / "model" / "model", dtype=None)
    assert adapted.dtype == torch.bfloat16
    name = "model.layers.0.mlp.up_proj.weight"  # no adapter is on it
    assert torch.equal(adapted.state_dict()[name], start.model.state_dict()[name].to(torch.bfloat16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": None}, "`task` or a `dataset`"),
        ({"task": "sudoko"}, "task.*sudoko"),
        ({"scheduler": {"remasking": "none"}}, "remasking.*none"),
        ({"task_arguments": {"num_blanks": 16}}, "num_blanks.*16"),
        ({"dtype": "bfloat16"}, "`dtype` 'bfloat16' is for training adapters"),
        ({"dtype": "float8"}, "`dtype`.*float8"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_recipe(tmp_path, **changes)


def test_a_model_stored_in_half_precision_is_trained_in_float32(tmp_path):
    tiny_llada().to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(tmp_path).dtype == torch.float32
    assert load_model(tmp_path, dtype=None).dtype == torch.bfloat16
