"""Results: what is counted, written to files, read back, and made a card of."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

from ldlm_hf.evaluation import (
    load_pipeline,
    mean_and_standard_error,
    write_results,
)
from ldlm_hf.model_card import load_results, percent, render_model_card
from ldlm_hf.splits import baselines_of_chance

from .entry_points import EntryPoint
from .strategies import numbers, texts, words


ROOT = Path(__file__).parents[2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts(9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words() | st.integers() | st.none() | st.floats(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)


NO_JSON = st.sampled_from([object(), {1, 2}, b"x", Path("x"), 1j, {(1, 2): 3}, [len]])


def written(results: dict) -> dict:
    """Return what a file of results holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        write_results(path, results)
        assert [file.name for file in Path(folder).iterdir()] == ["results.json"]
        return json.loads(path.read_text(), parse_constant=lambda name: 1 / 0)


def within(found: tuple, arguments: dict) -> None:
    """A mean lies between the values."""
    mean, error = found
    least, most = min(arguments["values"]), max(arguments["values"])
    assert least - 1e-9 * abs(least) <= mean <= most + 1e-9 * abs(most) or math.isclose(least, most)
    assert (error is None) == (len(arguments["values"]) == 1)


def chances(found: dict, arguments: dict) -> None:
    """Guesses are right with a probability."""
    assert 0 < found["chance"] <= 1 and 0 <= found["majority"] <= 1


def loaded(files: dict[str, str]) -> dict:
    """Return the results of a folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / f"{name}.json").write_text(content, encoding="utf-8", errors="replace")
        return load_results(folder)


def pipeline_of(config: str | None):
    """Return the pipeline that a folder with a configuration holds."""
    with tempfile.TemporaryDirectory() as folder:
        if config is not None:
            (Path(folder) / "model_index.json").write_text(config, encoding="utf-8", errors="replace")
        return load_pipeline(folder)


@lru_cache(maxsize=1)
def real_results() -> list[dict]:
    """Return the results that the cards of this repository are made of."""
    return [load_results(folder) for folder in sorted((ROOT / "model_cards").glob("*/results"))]


@st.composite
def results(draw) -> dict:
    """Return results of a card, perhaps with one place in them spoiled."""
    found = copy.deepcopy(draw(st.sampled_from(real_results())))
    if draw(st.booleans()):
        place, key = found, draw(st.sampled_from(sorted(found)))
        while draw(st.booleans()) and isinstance(place[key], dict | list) and place[key]:
            place, keys = place[key], place[key]
            key = draw(st.sampled_from(sorted(keys) if isinstance(keys, dict) else range(len(keys))))
        place[key] = draw(JSON | NO_JSON)
    return found


def card(results: dict) -> str:
    """Return the text of a card."""
    return str(render_model_card(results))


CONFIGS = (
    st.none()
    | texts()
    | JSON.filter(lambda value: value is None or not isinstance(value, float)).map(
        lambda value: json.dumps(value, default=str, skipkeys=True)
    )
)


CONFIGS |= st.sampled_from(["HexPipeline", "x", None, 3]).map(lambda name: json.dumps({"_class_name": name}))


ENTRIES = [
    EntryPoint(
        "write_results",
        written,
        st.fixed_dictionaries({"results": st.dictionaries(words(), JSON | NO_JSON, max_size=3)}),
        lambda found, arguments: len(found) == len(arguments["results"]),
    ),
    EntryPoint(
        "mean_and_standard_error",
        mean_and_standard_error,
        st.fixed_dictionaries({"values": st.lists(numbers(), max_size=4)}),
        within,
    ),
    EntryPoint(
        "baselines_of_chance",
        baselines_of_chance,
        st.fixed_dictionaries(
            {"train_answers": st.lists(words(), max_size=3), "test_answers": st.lists(words(), max_size=3)}
        ),
        chances,
    ),
    EntryPoint(
        "load_results",
        loaded,
        st.fixed_dictionaries(
            {
                "files": st.dictionaries(
                    st.sampled_from("abc"),
                    texts() | st.dictionaries(words(), st.integers(0, 1), max_size=2).map(json.dumps),
                    max_size=3,
                )
            }
        ),
        lambda found, _: isinstance(found, dict),
        spoiled=(),
        also=("folder", "no results", "disagree"),
    ),
    EntryPoint(
        "load_pipeline",
        pipeline_of,
        st.fixed_dictionaries({"config": CONFIGS}),
        lambda found, _: found is not None,
        spoiled=(),
        also=("source", "model_index.json", "tmp"),
        least_answered=0,
        share=0.3,
    ),
    EntryPoint(
        "render_model_card",
        card,
        st.fixed_dictionaries({"results": results()}),
        lambda found, _: found.startswith("---"),
        also=("model_name", "task"),
        share=0.5,
    ),
    EntryPoint(
        "percent",
        percent,
        st.fixed_dictionaries({"value": numbers(0, 1), "digits": st.integers(-1, 9)}),
        lambda found, arguments: found.endswith(" %") and (arguments["value"] >= 1 or float(found[:-2]) < 100),
    ),
]
