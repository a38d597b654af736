"""Evaluation: pipelines on data sets, and summaries of records."""

from __future__ import annotations

import math

from datasets import Dataset
from hypothesis import strategies as st

from ldlm_hf.evaluation import (
    EvalRecord,
    answer_decision,
    decoding_trajectory,
    evaluate_pipeline,
    record_texts,
    summarize,
)
from ldlm_hf.splits import share_of_known_targets, split_overlap
from tests.tiny import tiny_problems, tiny_task

from .entry_points import EntryPoint
from .pipelines import made
from .strategies import mostly, numbers, texts, varied, words
from .vote_pipelines import SMALLEST


PROBLEMS = st.integers(1, 3).map(lambda size: tiny_problems("test", size))


OTHER_PROBLEMS = st.sampled_from(
    [{"prompt": []}, {"prompt": ["1+2+3"], "target": ["6"]}, {"prompt": ["x"], "target": ["x"], "answer": ["x"]}]
).map(Dataset.from_dict)


CALLS = {
    "name": st.sampled_from(["latent", "masked", "hex"]),
    "dataset": PROBLEMS,
    "batch_size": st.integers(1, 3),
    "guidance_scale": st.sampled_from([1.0, 2.0]),
    "seed": st.integers(0, 9),
    "first_row": st.integers(0, 3),
}


OTHER_CALLS = {
    "dataset": OTHER_PROBLEMS,
    "batch_size": st.integers(-1, 1),
    "guidance_scale": numbers(),
    "seed": st.integers(),
    "first_row": st.integers(-3, 0),
}


SMALL = {**SMALLEST, "hex": {"gen_length": 4, "block_lengths": [2, 4], "num_seeds": 1}}


def evaluated(name: str, **arguments) -> list[EvalRecord]:
    """Return the records of a pipeline."""
    return evaluate_pipeline(made(name), show_progress=False, **arguments, **SMALL[name])


def one_each(found: list, arguments: dict) -> None:
    """There is a record for each problem."""
    assert len(found) == len(arguments["dataset"])
    assert all(isinstance(record.text, str) and isinstance(record.is_correct, bool) for record in found)


def decision(dataset, num_inference_steps: int, batch_size: int, seed: int) -> list[dict]:
    """Return when answers are decided."""
    return answer_decision(
        made("latent"), dataset, num_inference_steps, batch_size=batch_size, seed=seed, show_progress=False
    )


def shares_of_steps(found: list, arguments: dict) -> None:
    """There is a share for each step."""
    assert len(found) == arguments["num_inference_steps"]
    assert all(0 <= step["share_final"] <= 1 and 0 <= step["share_correct"] <= 1 for step in found)


@st.composite
def records(draw) -> list[EvalRecord]:
    """Return what became of a few problems."""
    found = []
    for row in draw(PROBLEMS):
        text = draw(st.just(row["target"]) | texts(20))
        predicted = draw(st.none() | st.just(row["answer"]) | words())
        extra = draw(st.sampled_from([(None, None, None), (True, 0.5, 3), (False, None, 2)]))
        found.append(EvalRecord(row["prompt"], row["target"], row["answer"], text, predicted, *extra))
    return found


def figures(found: dict, arguments: dict) -> None:
    """Every figure is finite, and shares are shares."""
    assert found["num_problems"] == len(arguments["records"])
    assert 0 <= found["answer_accuracy"] <= 1 and math.isfinite(found["standard_error"])


ENTRIES = [
    EntryPoint(
        "evaluate_pipeline",
        evaluated,
        varied(CALLS, OTHER_CALLS),
        one_each,
        spoiled=tuple(CALLS)[1:],
        also=("prompt",),
        share=0.4,
    ),
    EntryPoint(
        "answer_decision",
        decision,
        varied(
            {
                "dataset": PROBLEMS,
                "num_inference_steps": st.integers(1, 3),
                "batch_size": st.integers(1, 3),
                "seed": st.integers(0, 9),
            },
            {"dataset": OTHER_PROBLEMS, "num_inference_steps": st.integers(-1, 1), "batch_size": st.integers(-1, 1)},
        ),
        shares_of_steps,
        also=("prompt",),
        grows=("num_inference_steps",),
        share=0.4,
    ),
    EntryPoint(
        "decoding_trajectory",
        lambda **arguments: decoding_trajectory(made("latent"), **arguments),
        varied(
            {"prompt": st.just("1+2+3"), "num_inference_steps": st.integers(1, 3), "seed": st.integers(0, 9)},
            {"prompt": texts(), "num_inference_steps": st.integers(-1, 1), "seed": st.integers()},
        ),
        lambda found, arguments: len(found) == arguments["num_inference_steps"],
        grows=("num_inference_steps",),
        share=0.3,
    ),
    EntryPoint(
        "record_texts",
        record_texts,
        st.fixed_dictionaries(
            {
                "dataset": mostly(PROBLEMS, OTHER_PROBLEMS),
                "texts": st.lists(texts(), min_size=1, max_size=3),
                "task": st.builds(tiny_task),
            }
        ),
        one_each,
    ),
    EntryPoint(
        "summarize",
        summarize,
        varied(
            {"records": records(), "task": st.just("addition") | st.builds(tiny_task)},
            {"records": st.just([]), "task": st.sampled_from(["x", "math500", "countdown"])},
        ),
        figures,
        also=("references", "predictions"),
        share=0.3,
    ),
    EntryPoint(
        "split_overlap",
        split_overlap,
        st.fixed_dictionaries({"train": mostly(PROBLEMS, OTHER_PROBLEMS), "test": PROBLEMS}),
        lambda found, _: found >= 0,
        share=0.3,
    ),
    EntryPoint(
        "share_of_known_targets",
        share_of_known_targets,
        st.fixed_dictionaries({"train": mostly(PROBLEMS, OTHER_PROBLEMS), "test": PROBLEMS}),
        lambda found, _: 0 <= found <= 1,
        share=0.3,
    ),
]
