"""A pipeline on held-out problems: records, what `evaluate` makes of them, and files that figures are taken from.

Each problem has its own generator, seeded by (seed, row), so results do not depend on the batch size.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from .arguments import LARGEST_INTEGER, check_integer, check_number, check_text, checked
from .hex import HexPipeline
from .ladir import LaDiRPipeline
from .ldlm import LatentReasoningPipeline
from .ldlm.pipeline_output import DenoisingStep
from .llada import MaskedDiffusionPipeline
from .metrics import REASONING_METRICS, load_metric
from .noise import row_generators
from .pipeline import ReasoningPipeline
from .result_log import write_results as write_results
from .tasks import Task, get_task
from .tasks.task import DATASETS_LOCK
from .version import __version__


MOST_VALUE = 1e150  # whose square is a number still
PIPELINES: dict[str, type[ReasoningPipeline]] = {
    cls.__name__: cls for cls in (LatentReasoningPipeline, MaskedDiffusionPipeline, HexPipeline, LaDiRPipeline)
}
_BARS_LOCK = threading.Lock()
_HIDDEN_BARS: dict[int, tuple[int, dict]] = {}  # by pipeline: how many hide its bar, and its settings before the first


@dataclass(frozen=True)
class EvalRecord:
    """What became of one problem."""

    prompt: str
    target: str
    answer: str
    text: str
    predicted_answer: str | None
    verdict: bool | None = None  # of the task's own scorer, where several answers may be right
    partial_score: float | None = None  # from 0 to 1, for tasks where an answer may be right in part
    nfe: int | None = None  # forward passes it took, where the pipeline counts them

    @property
    def is_correct(self) -> bool:
        """Whether the answer is right."""
        return self.predicted_answer == self.answer if self.verdict is None else self.verdict

    @property
    def is_exact(self) -> bool:
        """Whether the whole text is the target, but for white space."""
        return self.text.split() == self.target.split()


@checked
def load_pipeline(source: str | Path, **kwargs) -> ReasoningPipeline:
    """Return a saved pipeline of any room, from a folder or the Hub.

    Args:
        source (`str` or `Path`): folder or Hub id.
        kwargs: arguments of `from_pretrained`, such as `dtype`.

    Raises:
        ValueError: if what is saved there is no pipeline of this package.
    """
    config = ReasoningPipeline.load_config(source)
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in PIPELINES:
        raise ValueError(f"`source` {str(source)!r} holds a {name}, but this package has {sorted(PIPELINES)}.")
    return PIPELINES[name].from_pretrained(source, **kwargs)


@checked
def evaluate_pipeline(
    pipeline: DiffusionPipeline,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    num_inference_steps: int | None = None,
    guidance_scale: float = 1.0,
    seed: int = 0,
    first_row: int = 0,
    show_progress: bool = True,
    **sampling,
) -> list[EvalRecord]:
    """Answer every problem of a data set.

    Args:
        pipeline ([`LatentReasoningPipeline`] or [`MaskedDiffusionPipeline`]): the reasoner.
        dataset (`Dataset`): problems with the columns `prompt`, `target` and `answer`.
        batch_size (`int`, *optional*, defaults to 256): problems at a time.
        num_inference_steps (`int`, *optional*): denoising steps; the pipeline's default by default.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance.
        seed (`int`, *optional*, defaults to 0): of the noise, with the row.
        first_row (`int`, *optional*, defaults to 0): which row of a larger set the first problem is.
        show_progress (`bool`, *optional*, defaults to `True`): show a progress bar.
        sampling: further arguments of the pipeline, such as `num_samples` and `select`.

    Raises:
        ValueError: for an empty data set, one that lacks a column, or a `batch_size` below 1.
    """
    check_problems(dataset, batch_size)
    if num_inference_steps is not None:
        sampling["num_inference_steps"] = num_inference_steps
    records = []
    with (
        _without_inner_bars(pipeline),
        tqdm(total=len(dataset), desc="answering", disable=not show_progress) as progress,
    ):
        for start in range(0, len(dataset), batch_size):
            rows = dataset[start : start + batch_size]
            output = pipeline(
                rows["prompt"],
                guidance_scale=guidance_scale,
                generator=row_generators(seed, 0, first_row + start, len(rows["prompt"])),
                **sampling,
            )
            passes = output.nfe.tolist() if "nfe" in output else [None] * len(output.texts)
            columns = (rows["prompt"], rows["target"], rows["answer"], output.texts, output.answers)
            records += [_record(*values, pipeline.task, nfe) for *values, nfe in zip(*columns, passes, strict=True)]
            progress.update(len(output.texts))
    return records


@checked
def record_texts(dataset: Dataset, texts: list[str], task: Task) -> list[EvalRecord]:
    """Return the records of texts that something else than a pipeline wrote for the rows of a data set."""
    check_problems(dataset, 1)
    if len(texts) != len(dataset):
        raise ValueError(
            f"`texts` has {len(texts)} texts for the {len(dataset)} rows of `dataset`; give one for each."
        )
    columns = (dataset["prompt"], dataset["target"], dataset["answer"], texts, map(task.parse_answer, texts))
    return [_record(*values, task) for values in zip(*columns, strict=True)]


@checked
def decoding_trajectory(
    pipeline: DiffusionPipeline, prompt: str, num_inference_steps: int = 20, seed: int = 0
) -> list[tuple[int, str]]:
    """Return, for each denoising step, its timestep and what its estimate of the clean latents reads as."""
    check_integer("seed", seed, least=-LARGEST_INTEGER)
    with _without_inner_bars(pipeline):
        output = pipeline(
            prompt,
            num_inference_steps=num_inference_steps,
            generator=torch.Generator().manual_seed(seed),
            max_new_tokens=pipeline.tokenizer.model_max_length - 1,
            output_type="trajectory",
        )
    return [(step.timestep, step.texts[0]) for step in output.trajectory]


@checked
def answer_decision(
    pipeline: DiffusionPipeline,
    dataset: Dataset,
    num_inference_steps: int = 20,
    *,
    batch_size: int = 256,
    guidance_scale: float = 1.0,
    seed: int = 0,
    show_progress: bool = True,
) -> list[dict]:
    """Measure at which noise the answers are decided: read the estimate of the clean latents at every step.

    Args:
        pipeline ([`LatentReasoningPipeline`]): the reasoner.
        dataset (`Dataset`): problems with the columns `prompt`, `target` and `answer`.
        num_inference_steps (`int`, *optional*, defaults to 20): denoising steps.
        batch_size (`int`, *optional*, defaults to 256): problems at a time.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance.
        seed (`int`, *optional*, defaults to 0): of the noise, with the row.
        show_progress (`bool`, *optional*, defaults to `True`): show a progress bar.

    Returns:
        `list[dict]`: for each step, in order, its `timestep`, `share_final` (share of the problems whose answer is already
        the one given in the end; a text without a valid answer never counts), `share_correct` and `num_problems`.

    Raises:
        ValueError: for an empty data set, one that lacks a column, or a `batch_size` below 1.
    """
    check_problems(dataset, batch_size)
    timesteps: list[int] = []
    final, correct = Counter(), Counter()
    with (
        _without_inner_bars(pipeline),
        tqdm(total=len(dataset), desc="answering", disable=not show_progress) as progress,
    ):
        for start in range(0, len(dataset), batch_size):
            rows = dataset[start : start + batch_size]
            output = pipeline(
                rows["prompt"],
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                generator=row_generators(seed, 0, start, len(rows["prompt"])),
                output_type="trajectory",
            )
            timesteps = [step.timestep for step in output.trajectory]
            for i, step in enumerate(output.trajectory):
                pairs = zip(step.answers, output.answers, strict=True)
                final[i] += sum(answer is not None and answer == last for answer, last in pairs)
                correct[i] += sum(_are_correct(pipeline, step, rows))
            progress.update(len(output.texts))
    count = len(dataset)
    return [
        {"timestep": t, "share_final": final[i] / count, "share_correct": correct[i] / count, "num_problems": count}
        for i, t in enumerate(timesteps)
    ]


@checked
def summarize(records: list[EvalRecord], task: str | Task, bertscore: dict | None = None) -> dict:
    """Return the task's metrics over the records; for tasks with answers, the accuracy by number of steps and by kind.

    Args:
        records (`list[EvalRecord]`): at least one.
        task (`str` or [`Task`]): the task or its name.
        bertscore (`dict`, *optional*): arguments of the metric of that name, such as `model_type`; without them it is
            left out, since it needs an encoder.

    Raises:
        ValueError: for no records, an unknown task, or a target that is none of the task.
    """
    reader = get_task(task) if isinstance(task, str) else task
    texts = {"predictions": [record.text for record in records], "references": [record.target for record in records]}
    for text in (*texts["predictions"], *texts["references"]):
        check_text("records", text)
    judged = {"task": reader, "verdicts": [record.is_correct for record in records]}
    summary: dict = {"num_problems": len(records)}
    for name in reader.metrics:
        if name == "bertscore" and bertscore is None:
            continue
        arguments = bertscore if name == "bertscore" else judged if name in REASONING_METRICS else {}
        given = {"predictions": texts["predictions"]} if name == "diversity" else texts
        with DATASETS_LOCK:  # metrics keep texts in tables
            figures = load_metric(name).compute(**given, **arguments)
        if name == "bertscore":
            figures = {
                f"bertscore_{key.removeprefix('mean_')}": figures[key] for key in figures if key.startswith("mean")
            }
        summary |= figures
    if "answer_accuracy" not in summary:
        return summary
    summary["standard_error"] = math.sqrt(summary["answer_accuracy"] * (1 - summary["answer_accuracy"]) / len(records))
    scores = {"partial_score": [row.partial_score for row in records], "mean_nfe": [row.nfe for row in records]}
    summary |= {name: statistics.fmean(values) for name, values in scores.items() if None not in values}
    steps = [reader.check_chain(record.target, record.target).num_steps for record in records]
    summary["by_steps"] = _accuracy_by("steps", steps, records)
    kinds = [reader.kind(record.prompt) for record in records]
    if None not in kinds:
        summary["by_kind"] = _accuracy_by("kind", kinds, records)
    return summary


@checked
def mean_and_standard_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean over seeds and its standard error; one seed says nothing about it, hence `None`."""
    if not values:
        raise ValueError("`values` has to hold at least one value.")
    for value in values:
        check_number("values", value, -MOST_VALUE, MOST_VALUE)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def check_problems(dataset: Dataset, batch_size: int) -> None:
    """Raise `ValueError` for an empty data set, one that lacks a column, or a `batch_size` below 1."""
    missing = [name for name in ("prompt", "target", "answer") if name not in dataset.column_names]
    if missing or len(dataset) == 0:
        raise ValueError(
            f"`dataset` has to hold at least one problem with `prompt`, `target` and `answer`, but has {len(dataset)} rows "
            f"with the columns {dataset.column_names}."
        )
    check_integer("batch_size", batch_size)


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def environment() -> dict:
    """Return what a result was made with: versions, processor, threads, commit (as the process first found it) and date."""
    libraries = ("torch", "transformers", "diffusers", "datasets", "evaluate")
    return {
        "ldlm_hf": __version__,
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(Path(__file__)),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _record(
    prompt: str, target: str, answer: str, text: str, predicted: str | None, task: Task | None, nfe: int | None = None
) -> EvalRecord:
    judged = (None, None)
    if task is not None:
        judged = (task.is_correct(text, prompt, answer), task.partial_score(text, prompt, answer))
    return EvalRecord(prompt, target, answer, text, predicted, *judged, nfe)


def _accuracy_by(name: str, groups: list, records: list[EvalRecord]) -> list[dict]:
    correct: dict[object, list[bool]] = {}
    for group, record in zip(groups, records, strict=True):
        correct.setdefault(group, []).append(record.is_correct)
    return [
        {name: group, "answer_accuracy": sum(found) / len(found), "num_problems": len(found)}
        for group, found in sorted(correct.items())
    ]


def _are_correct(pipeline: DiffusionPipeline, step: DenoisingStep, rows: dict[str, list[str]]) -> list[bool]:
    if pipeline.task is None:
        return [answer == wanted for answer, wanted in zip(step.answers, rows["answer"], strict=True)]
    texts = zip(step.texts, rows["prompt"], rows["answer"], strict=True)
    return [pipeline.task.is_correct(*text) for text in texts]


@contextmanager
def _without_inner_bars(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Hide the bar over denoising steps that a pipeline shows for every batch; the last thread that does brings it back."""
    with _BARS_LOCK:
        count, settings = _HIDDEN_BARS.get(id(pipeline), (0, dict(vars(pipeline).get("_progress_bar_config", {}))))
        _HIDDEN_BARS[id(pipeline)] = count + 1, settings
        pipeline.set_progress_bar_config(**{**settings, "disable": True})
    try:
        yield
    finally:
        with _BARS_LOCK:
            count, settings = _HIDDEN_BARS.pop(id(pipeline))
            if count > 1:
                _HIDDEN_BARS[id(pipeline)] = count - 1, settings
            else:
                pipeline.set_progress_bar_config(**settings)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@cache  # asked once a process: the first result that it writes into the checkout is no change of the code that writes the next
def _commit(file: Path) -> str | None:
    """Return the commit of the checkout that the file belongs to, marked if anything in it was changed since."""
    # A package that is installed under a checkout of something else has no commit: git has to know this very file.
    knows = ("ls-files", "--error-unmatch", file.name)
    describe = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        for command in (knows, describe):
            found = subprocess.run(["git", "-C", file.parent, *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
