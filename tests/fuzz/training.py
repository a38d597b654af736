"""What trainings are given: their arguments, recipes in any YAML, rows for collators."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, fields
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st
from transformers import TrainingArguments

import ldlm_hf
from ldlm_hf import MaskedDiffusionCollator
from ldlm_hf.d1.recipe import D1Recipe
from ldlm_hf.ladir.recipe import LaDiRRecipe
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe
from ldlm_hf.llada.recipe import MaskedDiffusionRecipe
from ldlm_hf.training import merge_recipes, read_recipe, read_section, recipe_names
from tests.llada.tiny_training import tokenizer

from .entry_points import EntryPoint
from .strategies import mostly, numbers, texts, varied, words


ARGUMENTS = (
    *(
        "AutoencoderTrainingArguments",
        "DenoiserTrainingArguments",
        "ThoughtVAETrainingArguments",
        "LaDiRTrainingArguments",
    ),
    *("MaskedDiffusionTrainingArguments", "DiffuGRPOConfig"),
)


OWN = {  # the fields that this package adds
    name: sorted(
        {field.name for field in fields(getattr(ldlm_hf, name))} - {field.name for field in fields(TrainingArguments)}
    )
    for name in ARGUMENTS
}


NUMBERS = (
    "learning_rate",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "weight_decay",
)


VALUES = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(-2, 9),
        numbers(0, 1),
        st.sampled_from(["none", "batch", "x", "", "1e-3", "elbo"]),
    ),
    *(st.lists(st.integers(-1, 2), max_size=2), st.just({"cache": "dual"}), st.just(10**400)),
)


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts(9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words() | st.integers(), inner, max_size=3),
    max_leaves=6,
)


YAML_KEYS = words() | st.integers()
REWARD_NAMES = st.sampled_from(["style", "format", "countdown", "task", "sudoku"])
REWARD_ARGUMENTS = st.dictionaries(mostly(st.just("weight"), YAML_KEYS), numbers() | YAML, max_size=2)
NO_RECIPES = st.sampled_from(
    ["&x [*x]", "a: &a {b: *a}", "2001-13-45", "? [a]\n: b", "!!python/object:os.system x", "\x00", "[", "1"]
)


RECIPES = {"ldlm": LatentReasoningRecipe, "ladir": LaDiRRecipe, "llada": MaskedDiffusionRecipe, "d1": D1Recipe}


@st.composite
def training_arguments(draw) -> dict:
    """Return the name of a class of arguments, and some of them."""
    name = draw(st.sampled_from(ARGUMENTS))
    chosen = draw(st.lists(st.sampled_from([*OWN[name], *NUMBERS]), max_size=1))
    return {"name": name, "values": {field: draw(VALUES, label=field) for field in chosen}}


def arguments_of(name: str, values: dict):
    """Return arguments as a recipe gives them."""
    quiet = (
        {"output_dir": "unused", "use_cpu": True, "num_generations": 2}
        if name == "DiffuGRPOConfig"
        else {"output_dir": "unused", "use_cpu": True}
    )
    return read_section(getattr(ldlm_hf, name), {**quiet, **values})


def no_nan(found, arguments: dict) -> None:
    """No argument is NaN, and those that were given are as they were given."""
    assert all(value == value for value in vars(found).values() if isinstance(value, float))
    assert all(
        getattr(found, name) == value or value is None or isinstance(value, str)
        for name, value in arguments["values"].items()
    )


@st.composite
def recipe_files(draw) -> dict:
    """Return a folder of recipes by name, the one to read, and what to change in it."""
    names = ("a", "b", "c.d")
    keys = st.sampled_from(["extends", "recipes", "task", "output_dir", "x"])
    sections = st.dictionaries(keys, YAML | st.sampled_from(["a.yaml", "b.yaml"]), max_size=3).map(yaml.safe_dump)
    plain = st.sampled_from(["task: addition", "extends: b.yaml\nx: {y: 1}", "extends: a\nrecipes: {c.d: {x: 1}}"])
    files = draw(st.dictionaries(st.sampled_from(names), mostly(plain, sections | texts() | NO_RECIPES), max_size=3))
    override = st.builds("{}={}".format, st.sampled_from(["x", "x.y", "task"]), words())
    other = st.builds("{}={}".format, st.sampled_from(["x..y", "", "x"]), NO_RECIPES) | texts(9)
    return {
        "files": {"a": "x: {y: [1]}", **files},
        "path": draw(st.sampled_from(names)),
        "overrides": draw(mostly(st.lists(override, max_size=1), st.lists(other, max_size=2))),
        "preset": draw(mostly(st.none(), words())),
    }


def recipe_of(files: dict[str, str], path: str, overrides: list[str], preset: str | None) -> dict:
    """Return a recipe out of a folder, after its names."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / f"{name}.yaml").write_text(content, encoding="utf-8", errors="replace")
        found = read_recipe(Path(folder) / path if isinstance(path, str) else path, overrides, preset)
        recipe_names(folder)
    return found


def sections_of(room: str, values: dict):
    """Return a recipe of a room."""
    return read_section(RECIPES[room], {"output_dir": "unused", **values})


@st.composite
def sections(draw) -> dict:
    """Return sections of a recipe of a room, perhaps with any values."""
    room = draw(st.sampled_from(sorted(RECIPES)))
    known = [field.name for field in fields(RECIPES[room])]
    fitting = {"pretrained": "folder", "sft": {"x": 1}} if room == "d1" else {"task": "addition"}
    rewards = st.dictionaries(mostly(REWARD_NAMES, YAML_KEYS), mostly(REWARD_ARGUMENTS, YAML), max_size=2)
    if room == "d1" and draw(st.booleans(), label="rewards"):
        fitting["rl"] = {"task": "countdown", "rewards": draw(rewards)}
    other = st.dictionaries(mostly(st.sampled_from(known), words()), YAML | st.just("addition"), max_size=2)
    return {"room": room, "values": {**fitting, "seed": draw(st.integers(0, 9)), **draw(mostly(st.just({}), other))}}


def as_given(found, arguments: dict) -> None:
    """A recipe holds what it was given."""
    assert all(asdict(found)[name] == value for name, value in arguments["values"].items())


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": words()}), max_size=3
)


DIGITS = st.lists(st.sampled_from("0123456789"), min_size=1, max_size=4).map(" ".join)


ROWS = st.one_of(
    st.fixed_dictionaries({"prompt": DIGITS, "target": DIGITS}),
    st.fixed_dictionaries({"text": DIGITS}),
    st.fixed_dictionaries(
        {"input_ids": st.lists(st.integers(5, 14), min_size=1, max_size=6), "prompt_length": st.just(0)}
    ),
)


OTHER_ROWS = st.one_of(
    st.dictionaries(
        st.sampled_from(["prompt", "target", "text", "messages", "input_ids", "prompt_length"]), YAML, max_size=3
    ),
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries({"prompt": texts(9), "target": texts(9)}),
    st.fixed_dictionaries(
        {"input_ids": st.lists(st.integers(-1, 99), max_size=5), "prompt_length": st.integers(-1, 9)}
    ),
)


COLLATOR = {
    "rows": st.lists(ROWS, min_size=1, max_size=3),
    "mask_token_id": st.none(),
    "max_length": st.none() | st.just(16),
    "pad_to_max_length": st.just(False),
    "append_eos": st.booleans(),
    "truncation": st.just(False),
    "use_chat_template": st.booleans(),
}


OTHER_COLLATOR = {
    "rows": st.lists(OTHER_ROWS, max_size=2),
    "mask_token_id": st.integers(-1, 9),
    "max_length": st.integers(-1, 4),
    "pad_to_max_length": st.just(True),
    "truncation": st.just(True),
}


def collate(rows: list, **options) -> dict:
    """Return a batch."""
    return MaskedDiffusionCollator(tokenizer(), **options)(rows)


def one_length(found: dict, arguments: dict) -> None:
    """All rows are equally long, with a response at the end of each and no mask in it."""
    ids, prompts, lengths = found["input_ids"], found["prompt_lengths"], found["lengths"]
    assert ids.dtype == torch.int64 and len(ids) == len(arguments["rows"])
    assert bool((lengths == ids.shape[1]).all() and (prompts < lengths).all())
    assert not bool((ids == tokenizer().mask_token_id).any()) or arguments["mask_token_id"] is not None


ENTRIES = [
    EntryPoint(
        "training arguments",
        arguments_of,
        training_arguments(),
        no_nan,
        spoiled=(),
        also=(*NUMBERS, *{name for own in OWN.values() for name in own}),
        covers=ARGUMENTS,
    ),
    EntryPoint(
        "read_recipe",
        recipe_of,
        recipe_files(),
        lambda found, _: isinstance(found, dict),
        spoiled=("path", "overrides", "preset"),
        also=("extends", "recipes"),
    ),
    EntryPoint(
        "merge_recipes",
        merge_recipes,
        st.fixed_dictionaries(
            {"base": st.dictionaries(words(), YAML, max_size=3), "changes": st.dictionaries(words(), YAML, max_size=3)}
        ),
        lambda found, arguments: set(found) <= {*arguments["base"], *arguments["changes"]},
    ),
    EntryPoint(
        "read_section",
        sections_of,
        sections(),
        as_given,
        spoiled=(),
        also=sorted({"rewards", *(field.name for recipe in RECIPES.values() for field in fields(recipe))}),
    ),
    EntryPoint(
        "MaskedDiffusionCollator",
        collate,
        varied(COLLATOR, OTHER_COLLATOR),
        one_length,
        also=("prompt", "target", "text", "messages", "input_ids", "prompt_length", "row"),
    ),
]
