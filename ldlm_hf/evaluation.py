"""A pipeline on held-out problems: records, what `evaluate` makes of them, and files that figures are taken from.

Each problem has its own generator, seeded by (seed, row), so results do not depend on the batch size.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import evaluate
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from .metrics import METRICS, load_metric
from .noise import row_generators
from .tasks import TASKS


@dataclass(frozen=True)
class EvalRecord:
    """What became of one problem."""

    prompt: str
    target: str
    answer: str
    text: str
    predicted_answer: str | None

    @property
    def is_correct(self) -> bool:
        """Whether the answer is right."""
        return self.predicted_answer == self.answer


def evaluate_pipeline(
    pipeline,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    seed: int = 0,
    show_progress: bool = True,
) -> list[EvalRecord]:
    """Answer every problem of a data set.

    Args:
        pipeline ([`LatentReasoningPipeline`]): the reasoner.
        dataset (`Dataset`): problems with the columns `prompt`, `target` and `answer`.
        batch_size (`int`, *optional*, defaults to 256): problems at a time.
        num_inference_steps (`int`, *optional*, defaults to 20): denoising steps.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance.
        seed (`int`, *optional*, defaults to 0): of the noise, with the row.
        show_progress (`bool`, *optional*, defaults to `True`): show a progress bar.

    Raises:
        ValueError: for an empty data set.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` has to hold at least one problem.")
    records = []
    for start in tqdm(range(0, len(dataset), batch_size), desc="answering", unit="batch", disable=not show_progress):
        rows = dataset[start : start + batch_size]
        generators = row_generators(seed, 0, start, len(rows["prompt"]))
        output = pipeline(
            rows["prompt"],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generators,
        )
        columns = (rows["prompt"], rows["target"], rows["answer"], output.texts, output.answers)
        records += [EvalRecord(*values) for values in zip(*columns, strict=True)]
    return records


def summarize(records: list[EvalRecord], task: str) -> dict:
    """Return every metric over the records, the standard error of the accuracy, and the accuracy by number of steps."""
    combined = evaluate.combine([load_metric(name) for name in METRICS])
    summary = combined.compute(
        predictions=[record.text for record in records], references=[record.target for record in records], task=task
    )
    accuracy, count = summary["answer_accuracy"], len(records)
    groups: dict[int, list[bool]] = {}
    for record in records:
        steps = TASKS[task]().check_chain(record.target, record.target).num_steps
        groups.setdefault(steps, []).append(record.is_correct)
    return {
        **summary,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / count),
        "by_steps": [
            {"steps": steps, "answer_accuracy": sum(group) / len(group), "num_problems": len(group)}
            for steps, group in sorted(groups.items())
        ],
    }


def mean_and_standard_error(values: list[float]) -> tuple[float, float]:
    """Return the mean over seeds and its standard error, 0 for a single value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def baselines_of_chance(train_answers: list[str], test_answers: list[str]) -> dict[str, float]:
    """Return the accuracy of a uniform guess among the training answers, and of always the most frequent one."""
    counts = Counter(train_answers)
    favourite = counts.most_common(1)[0][0]
    return {"chance": 1 / len(counts), "majority": list(test_answers).count(favourite) / len(test_answers)}


def split_overlap(train: Dataset, test: Dataset) -> int:
    """Return how many test prompts are training prompts too; anything but 0 voids a result."""
    return len(set(test["prompt"]) & set(train["prompt"]))


def environment() -> dict:
    """Return what a result was made with: versions, processor, threads, commit and date."""
    libraries = ("torch", "transformers", "diffusers", "datasets", "evaluate")
    return {
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def write_results(path: str | Path, results: dict) -> None:
    """Write results as JSON, whole or not at all.

    Raises:
        ValueError: if a value is not finite.
    """
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        found = subprocess.run(["git", "-C", folder, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None
