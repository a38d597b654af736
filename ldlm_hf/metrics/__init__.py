"""`evaluate` modules, loadable by path without a Hub; each folder can be pushed as a Space as it is."""

from __future__ import annotations

from pathlib import Path

import evaluate

from ..arguments import check_option


# What the reasoning tasks are scored by. BERTScore is none of them: it ignores the order of the words.
REASONING_METRICS = ("answer_accuracy", "chain_accuracy")
METRICS = (*REASONING_METRICS, "bertscore", "diversity", "length_ratio", "perplexity", "reconstruction")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Load one of the package's metrics with `evaluate.load`.

    Args:
        name (`str`): one of `METRICS`: `"answer_accuracy"`, `"bertscore"`, `"chain_accuracy"`, `"diversity"`,
            `"length_ratio"`, `"perplexity"` or `"reconstruction"`.

    Raises:
        ValueError: for an unknown name.
    """
    check_option("name", name, METRICS)
    # In memory: on disk, a computation that raised keeps its lock, and the next one waits for it.
    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
