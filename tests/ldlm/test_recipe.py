"""A recipe from a data set to a saved pipeline, broken off and taken up again."""

import json
from pathlib import Path

import pytest
import torch

from ldlm_hf import AutoencoderTrainingArguments, DenoiserTrainingArguments, LatentDiT, LatentReasoningPipeline
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, bart_of_size, load_problems, make_scheduler, train_recipe
from ldlm_hf.ldlm.recipe_baseline import BaselineRecipe, train_baseline
from ldlm_hf.training import ReproducibleTrainingArguments, read_recipe, read_section, recipe_names
from tests.tiny import tiny_problems, tiny_tokenizer


RECIPES = Path(__file__).parents[2] / "examples" / "recipes" / "ldlm"
STEPS = {"max_steps": 3, "per_device_train_batch_size": 4, "disable_tqdm": True, "save_steps": 2}


def recipe(folder: Path, **changes) -> LatentReasoningRecipe:
    rows = [dict(row) for row in tiny_problems(size=60)]
    data = folder / "problems.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    values = {
        "output_dir": str(folder / "run"),
        "dataset": str(data),
        "tokenizer": {"model_max_length": 32},
        "seq2seq": {**sizes, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        "seq2seq_training": STEPS,
        "autoencoder": {"latent_length": 4, "latent_dim": 8, "num_layers": 1, "num_attention_heads": 2},
        "autoencoder_training": STEPS,
        "denoiser": {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2},
        "denoiser_training": {**STEPS, "reconstruction_gate": 0, "ema_decay": 0.9},
    }
    return LatentReasoningRecipe(**{**values, **changes})


def test_a_data_set_of_ones_own_becomes_a_pipeline_that_loads(tmp_path):
    pipeline, records = train_recipe(recipe(tmp_path))
    loaded = LatentReasoningPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.task is None
    arguments = {"prompt": tiny_problems(size=2)["prompt"][:], "num_inference_steps": 2, "output_type": "latent"}
    first, second = (
        pipe(**arguments, generator=[torch.Generator().manual_seed(i) for i in range(2)]).latents
        for pipe in (pipeline, loaded)
    )
    assert torch.equal(first, second)
    assert [records[stage]["steps"] for stage in ("seq2seq", "autoencoder", "denoiser")] == [3, 3, 3]


def test_a_denoiser_stored_in_half_precision_is_what_was_returned(tmp_path):
    pipeline, _ = train_recipe(recipe(tmp_path, stored_dtype="float16"))
    folder = tmp_path / "run" / "pipeline"
    loaded = LatentReasoningPipeline.from_pretrained(folder)
    for one, other in zip(pipeline.denoiser.parameters(), loaded.denoiser.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)
    stored = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    assert stored.stat().st_size < 3 * sum(parameter.numel() for parameter in pipeline.denoiser.parameters())
    with pytest.raises(ValueError, match="stored_dtype"):
        recipe(tmp_path, stored_dtype="int8")


def test_texts_that_are_too_long_are_cut_in_training_and_in_sampling(tmp_path):
    words = [f"w{i % 17}x{i % 5}" for i in range(40)]
    documents = [" ".join(words[i % 13 :] + words[: i % 7]) + f" {i}" for i in range(300)]
    (tmp_path / "texts.txt").write_text("\n\n".join(documents))
    tokenizer = {"granularity": "subword", "vocab_size": 300, "model_max_length": 16}
    source = {"task": f"continuation:{tmp_path / 'texts.txt'}", "task_arguments": {"num_words": 12}, "dataset": None}
    train_recipe(recipe(tmp_path, tokenizer=tokenizer, **source))
    pipeline = LatentReasoningPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    problem = pipeline.task.problem("test", 0)
    assert len(pipeline.tokenizer(problem.prompt)["input_ids"]) > 16
    output = pipeline(problem.prompt, num_inference_steps=1)
    assert len(pipeline.tokenizer(output.texts[0])["input_ids"]) <= 16 + 2
    assert output.answers == [None]


def test_a_field_that_no_bart_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seq2seq.*d_modle"):
        train_recipe(recipe(tmp_path, seq2seq={"d_modle": 32}))


def test_finished_stages_are_read_back(tmp_path):
    plan = recipe(tmp_path)
    first, records = train_recipe(plan)
    second, again = train_recipe(plan, resume=True)
    assert again == records
    for one, other in ((first.denoiser, second.denoiser), (first.autoencoder, second.autoencoder)):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_stages_of_another_recipe_are_not_taken_up(tmp_path):
    train_recipe(recipe(tmp_path))
    with pytest.raises(ValueError, match="another recipe"):
        train_recipe(recipe(tmp_path, seed=1), resume=True)


def test_rows_of_a_file_are_held_out(tmp_path):
    train, heldout = load_problems(recipe(tmp_path))
    assert (len(train), len(heldout)) == (57, 3)
    assert not set(train["prompt"]) & set(heldout["prompt"])


def test_a_denoiser_may_train_on_other_problems_than_the_other_stages(tmp_path):
    arguments = {"task": "three_operations", "denoiser_task_arguments": {"with_two_digits": True}}
    plan = LatentReasoningRecipe(output_dir=str(tmp_path), **arguments)
    (train, heldout), (more, same) = load_problems(plan), load_problems(plan, plan.denoiser_task_arguments)
    assert len(more) == len(train) + 15_240
    assert same[:] == heldout[:]


def test_a_run_takes_up_no_denoiser_of_other_problems(tmp_path):
    source = {"task": "three_operations", "dataset": None, "tokenizer": {"granularity": "digit"}}
    train_recipe(recipe(tmp_path, **source))
    more = {"denoiser_task_arguments": {"with_two_digits": True}}
    with pytest.raises(ValueError, match="another recipe"):
        train_recipe(recipe(tmp_path, **source, **more), resume=True)


@pytest.mark.parametrize(
    "values", [{"dataset": "problems.jsonl"}, {"task": "three_operations"}, {"task": "addition", "dataset": "x"}]
)
def test_arguments_that_the_denoisers_problems_do_not_have_are_refused(values):
    with pytest.raises(ValueError, match="denoiser_task_arguments"):
        LatentReasoningRecipe(output_dir="x", denoiser_task_arguments={"number_of_terms": 2}, **values)


@pytest.mark.parametrize("values", [{}, {"task": "poetry"}])
def test_a_recipe_without_problems_is_refused(values):
    with pytest.raises(ValueError, match="task"):
        LatentReasoningRecipe(output_dir="x", **values)


@pytest.mark.parametrize(
    ("scheduler", "denoiser", "message"),
    [
        ({"variance_type": "learned_range"}, {}, "variance_type 'learned_range'"),
        ({"variance_type": "learned_range"}, {"learned_variance": False}, "variance_type 'learned_range'"),
        ({"clip_sample": True}, {}, "clip_sample"),
        ({"timestep_spacing": "leading"}, {}, "timestep_spacing"),
    ],
)
def test_a_scheduler_that_cannot_sample_is_refused_before_any_training(scheduler, denoiser, message):
    with pytest.raises(ValueError, match=message):
        LatentReasoningRecipe(output_dir="x", task="addition", scheduler=scheduler, denoiser=denoiser)


@pytest.mark.parametrize("preset", [None, "tiny"])
@pytest.mark.parametrize("name", recipe_names(RECIPES))
def test_every_recipe_reads(name, preset, tmp_path):
    values = read_recipe(RECIPES / name, preset=preset)
    system = values.pop("system", "latent_diffusion")
    values.pop("evaluation", None)
    if system != "latent_diffusion":
        plan = read_section(BaselineRecipe, {"system": system, **fields_of(BaselineRecipe, values)})
        check_arguments(ReproducibleTrainingArguments, plan.baseline_training, tmp_path)
        return
    plan = read_section(LatentReasoningRecipe, fields_of(LatentReasoningRecipe, values))
    check_arguments(AutoencoderTrainingArguments, plan.autoencoder_training, tmp_path)
    check_arguments(DenoiserTrainingArguments, plan.denoiser_training, tmp_path)
    scheduler = make_scheduler(plan.scheduler)
    with torch.device("meta"):
        denoiser = LatentDiT(**{"latent_length": plan.autoencoder["latent_length"], **plan.denoiser})
    assert denoiser.config.learned_variance == scheduler.config.variance_type.startswith("learned")


def fields_of(recipe_class: type, values: dict) -> dict:
    """Return the values that a recipe of this class reads, and check that the others are for another class."""
    known = {*LatentReasoningRecipe.__dataclass_fields__, *BaselineRecipe.__dataclass_fields__}
    assert set(values) <= known
    return {key: value for key, value in values.items() if key in recipe_class.__dataclass_fields__}


def check_arguments(section_class: type, section: dict, folder: Path) -> None:
    """Read a section, but for the precisions that need hardware that not every machine has."""
    settings = {name: value for name, value in section.items() if name not in ("bf16", "fp16")}
    assert read_section(section_class, settings, output_dir=str(folder)).max_steps > 0


def test_the_appendix_has_every_training_that_the_paper_lists():
    names = recipe_names(RECIPES)
    for prefix, count in (("a1", 3), ("a2", 3), ("a3", 3), ("a4", 3), ("a5", 4), ("a6", 1), ("a7", 5)):
        assert sum(name.startswith(f"{prefix}_") for name in names) == count
    steps = {name: read_recipe(RECIPES / name)["scheduler"]["num_train_timesteps"] for name in names if "_t" in name}
    assert steps["a5_rotation_t4000"] == steps["a7_multistep_addition_t4000"] == 4000
    wide = read_recipe(RECIPES / "a1_architecture_cross_attention")
    assert (wide["denoiser"]["diffusion_length"], wide["autoencoder"]["latent_length"]) == (32, 8)
    assert (wide["denoiser"]["hidden_size"], wide["denoiser"]["num_layers"]) == (768, 12)


@pytest.mark.parametrize("name", ["a3_diffusion_length_64", "a5_rotation_encoder_decoder", "a5_rotation_t4000"])
def test_recipes_of_the_appendix_train_at_the_tiny_preset(name, tmp_path):
    words = [f"w{i % 97}" for i in range(1600)]  # for recipes on text, in documents of two chunks of 128 words
    (tmp_path / "texts.txt").write_text("\n\n".join(" ".join(words[i : i + 270]) for i in range(200)))
    values = read_recipe(RECIPES / name, preset="tiny")
    if values["task"] == "continuation":
        values["task"] += f":{tmp_path / 'texts.txt'}"
    for section in ("seq2seq_training", "autoencoder_training", "denoiser_training", "baseline_training"):
        steps = {"max_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 2, "disable_tqdm": True}
        values[section] = {**values.get(section, {}), **steps, "eval_strategy": "no", "load_best_model_at_end": False}
    values["output_dir"] = str(tmp_path)
    del values["evaluation"]
    if values.pop("system", None) == "sequence_to_sequence":
        plan = read_section(BaselineRecipe, {**fields_of(BaselineRecipe, values), "early_stopping_patience": None})
        assert train_baseline(plan)[2]["steps"] == 1
    else:
        pipeline, _ = train_recipe(read_section(LatentReasoningRecipe, fields_of(LatentReasoningRecipe, values)))
        config = pipeline.denoiser.config
        assert {key: config[key] for key in values["denoiser"]} == values["denoiser"]
        assert pipeline.scheduler.config.num_train_timesteps == values["scheduler"]["num_train_timesteps"]


def test_a_name_that_is_no_recipe_says_what_there_is():
    with pytest.raises(ValueError, match="a6_big_run"):
        read_recipe(RECIPES / "a9_missing")


def test_the_baseline_is_of_the_wanted_size():
    from transformers import BartForConditionalGeneration

    with torch.device("meta"):
        model = BartForConditionalGeneration(bart_of_size(tiny_tokenizer(), 2_000_000))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(2_000_000, rel=0.25)
