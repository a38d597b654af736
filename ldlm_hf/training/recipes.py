"""Recipes: a YAML file of sections, each read strictly into the dataclass or keyword arguments it is for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import TypeVar

import yaml
from transformers import HfArgumentParser


Section = TypeVar("Section")
STAGE_RECORD = "stage.json"


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict:
    """Return a recipe as nested dictionaries, after `section.key=value` overrides (values in YAML).

    Raises:
        ValueError: if the file is no mapping, or an override has no `=` or names a section that is none.
    """
    recipe = yaml.safe_load(Path(path).read_text())
    if not isinstance(recipe, dict):
        raise ValueError(
            f"The recipe {str(path)!r} has to be a mapping of sections, but is a {type(recipe).__name__}."
        )
    for override in overrides:
        name, separator, value = override.partition("=")
        *sections, key = name.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {})
        if not separator or not isinstance(place, dict):
            raise ValueError(f"An override has to be of the form section.key=value, but is {override!r}.")
        place[key] = yaml.safe_load(value)
    return recipe


def read_section(section_class: type[Section], values: dict, **defaults) -> Section:
    """Return `section_class(**defaults, **values)`, parsed as `HfArgumentParser` does.

    Raises:
        ValueError: for a key that `section_class` has not, or a value it does not take.
    """
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
    elif not resume and folder.exists():
        shutil.rmtree(folder)
    if not settings_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        settings_file.write_text(json.dumps(settings, indent=2) + "\n")
    started = settings_file.stat().st_mtime  # of the first attempt: what an interruption cost is part of the cost
    record = {**train(), "seconds": round(time() - started, 1)}
    record_file.write_text(json.dumps(record, indent=2) + "\n")
    return record
