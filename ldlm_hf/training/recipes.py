"""Recipes: a YAML file of sections, each read strictly into the dataclass or keyword arguments it is for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from time import time
from typing import TypeVar

import yaml
from transformers import HfArgumentParser

from ..arguments import checked, shown
from ..checkpoints import write_whole


Section = TypeVar("Section")
STAGE_RECORD = "stage.json"


@checked
def read_recipe(path: str | Path, overrides: Sequence[str] = (), preset: str | None = None) -> dict:
    """Return a recipe as nested dictionaries: the one it `extends`, then itself, the preset and the overrides.

    Args:
        path (`str` or `Path`): YAML file, with or without its suffix. Under the key `extends` it may name another in its folder, of which it then
            gives the differences only. Or the name of a recipe in a table, a YAML file of that folder with recipes by
            name under the key `recipes`, whose `extends` goes for them all.
        overrides (`Sequence[str]`, *optional*): `section.key=value`, values in YAML.
        preset (`str`, *optional*): name of a YAML file in the folder `presets` beside the recipe, laid over it.

    Raises:
        ValueError: if a file is missing or no mapping, or an override has no `=` or names a section that is none.
    """
    recipe = _read_recipe(Path(path))
    if preset is not None:
        recipe = merge_recipes(recipe, _read_mapping(Path(path).parent / "presets" / f"{preset}.yaml"))
    for override in overrides:
        name, separator, value = override.partition("=")
        *sections, key = name.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if not separator or not key or not isinstance(place, dict):
            raise ValueError(f"An override has to be of the form section.key=value, but `overrides` has {override!r}.")
        place[key] = _load(value, f"`overrides` {override!r}")
    return recipe


def recipe_names(folder: str | Path) -> list[str]:
    """Return the names of all recipes in a folder, those in tables among them; plans of comparisons are none."""
    names = []
    for path in sorted(Path(folder).glob("*.yaml")):
        values = _read_file(path)
        if "sections" not in values:
            names += _table(path, values) or [path.stem]
    return names


def _read_recipe(path: Path) -> dict:
    name = path.name.removesuffix(".yaml")  # and no other: a name may have a dot in it
    own = path.parent / f"{name}.yaml"
    if own.is_file():
        return _read_mapping(own)
    for file in sorted(path.parent.glob("*.yaml")):
        table = _read_file(file)
        recipes = _table(file, table)
        if name in recipes:
            base = _read_mapping(path.parent / str(table.get("extends")))
            return merge_recipes(base, {"output_dir": f"runs/{name}", **recipes[name]})
    return _read_mapping(path)  # says what there is


def _table(path: Path, values: dict) -> dict[str, dict]:
    """Return the recipes of a table by name, none of a file that is no table."""
    recipes = values.get("recipes", {})
    if not isinstance(recipes, dict) or not all(isinstance(recipe, dict) for recipe in recipes.values()):
        raise ValueError(f"`recipes` of the recipe {str(path)!r} has to be mappings by name, but is {shown(recipes)}.")
    return recipes


def _read_mapping(path: Path, extended_by: tuple[Path, ...] = ()) -> dict:
    if not path.is_file():
        known = ", ".join(recipe_names(path.parent))
        raise ValueError(
            f"There is no recipe or preset {str(path)!r}, as `path` or `extends` says; there are: {known or 'none'}."
        )
    if path.resolve() in extended_by:
        raise ValueError(f"The recipe {str(path)!r} is what it `extends` itself, by way of others or at once.")
    values = _read_file(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    return merge_recipes(_read_mapping(path.parent / str(base), (*extended_by, path.resolve())), values)


def _read_file(path: Path) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {str(path)!r}, as `path` or `extends` says, cannot be read: {error}") from error
    values = _load(text, f"The recipe {str(path)!r}, as `path` or `extends` says,")
    if not isinstance(values, dict):
        raise ValueError(
            f"The recipe {str(path)!r} has to be a mapping of sections, as `path` says, but is a {type(values).__name__}."
        )
    return values


def _load(text: str, what: str) -> object:
    """Return what a text says in YAML, or raise `ValueError`; what refers to itself says nothing."""
    try:
        values = yaml.safe_load(text)
        json.dumps(values, default=str)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # such as a date that there is not
        raise ValueError(f"{what} is no YAML: {type(error).__name__}: {error}") from error
    return values


@checked
def merge_recipes(base: dict, changes: dict) -> dict:
    """Return `base` with `changes` laid over it, section by section; what is changed to null is left out."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            own = merged.get(key)
            section = own if isinstance(own, dict) else {}  # what is no section is replaced by one
            merged[key] = merge_recipes(section, value) if isinstance(value, dict) else value
    return merged


@checked
def read_section(section_class: type[Section], values: dict, **defaults) -> Section:
    """Return `section_class(**defaults, **values)`, parsed as `HfArgumentParser` does.

    Raises:
        ValueError: for a key that `section_class` has not, or a value it does not take.
    """
    known = [field.name for field in fields(section_class)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"`values` has the keys {shown(unknown)}, but {section_class.__name__} has {known}.")
    (section,) = HfArgumentParser(section_class).parse_dict({**defaults, **values})
    return section


def run_stage(folder: str | Path, settings: dict, train: Callable[[], dict], resume: bool) -> dict:
    """Run a stage of a recipe once: return its record, from `folder` if it was finished with the same settings.

    Args:
        folder (`str` or `Path`): the stage's own; `train` saves its result there.
        settings (`dict`): all that decides the result, JSON-able.
        train (`Callable[[], dict]`): trains and saves, and returns what to record.
        resume (`bool`): go on from what is there, rather than start anew.

    Raises:
        ValueError: if `resume` finds results of other settings.
    """
    folder, settings = Path(folder), json.loads(json.dumps(settings))
    record_file, settings_file = folder / STAGE_RECORD, folder / "settings.json"
    if resume and settings_file.exists():
        if json.loads(settings_file.read_text()) != settings:
            raise ValueError(
                f"{str(folder)!r} holds a stage of another recipe; choose another output_dir or do not resume."
            )
        if record_file.exists():
            return json.loads(record_file.read_text())
    elif not resume:
        discard_stages(folder)
    if not _is_first_process():  # which alone discards and writes; to train, they wait for one another
        return train()
    if not settings_file.exists():
        write_whole(settings_file, json.dumps(settings, indent=2) + "\n")
    started = settings_file.stat().st_mtime  # of the first attempt: what an interruption cost is part of the cost
    record = {**train(), "seconds": round(time() - started, 1)}
    write_whole(record_file, json.dumps(record, indent=2) + "\n")
    return record


def discard_stages(*folders: Path) -> None:
    """Remove what there is of stages, each of which stands on those before it, so that no resumed run takes it for its own.

    A stage goes at once, by a new name, the last first: whoever is killed meanwhile never leaves half of one, or one without those
    that it stands on.
    """
    for folder in reversed(folders if _is_first_process() else ()):
        discarded = folder.with_name(f".{folder.name}.discarded")
        shutil.rmtree(discarded, ignore_errors=True)  # of a run that was killed here
        if folder.exists():
            folder.rename(discarded)
            shutil.rmtree(discarded)


def _is_first_process() -> bool:
    """Return whether a launcher started no other process, or this one first; said in the environment before it is asked for."""
    return os.environ.get("RANK", "0") == "0"
