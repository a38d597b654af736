"""A large set answered by several processes that write as they go, so that a run that was killed goes on where it was.

The batches of problems are dealt to the processes in turn, and each process appends its records to its own file of one
folder. The noise of a problem depends on the seed and its row alone, and every batch is answered as a whole: each call of
the pipeline is one that a single process would make too, whatever was killed before, so the merged records are its records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import torch
from accelerate import PartialState
from datasets import Dataset
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from .evaluation import EvalRecord, check_problems, evaluate_pipeline
from .ladir import LaDiRPipeline
from .pipeline import ReasoningPipeline
from .result_log import ResultLog, only_writer, read_results
from .tasks import Task
from .version import __version__


REMEDY = "give the same ones, delete that folder, or write to another one (`--records` of examples/run_evaluate.py)"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, each problem once and in the order of the rows."""

    records: list[EvalRecord]
    seconds: float  # spent on answering, added up over processes and runs; what a kill threw away is not in it
    num_inference_steps: int  # of the last batch; of a pipeline that denoises blocks, of each block


def evaluate_sharded(
    pipeline: ReasoningPipeline,
    dataset: Dataset,
    folder: str | Path,
    *,
    process_index: int = 0,
    num_processes: int = 1,
    wait: Callable[[], object] | None = None,
    batch_size: int = 256,
    num_inference_steps: int | None = None,
    guidance_scale: float = 1.0,
    seed: int = 0,
    show_progress: bool = True,
    **sampling,
) -> Evaluation:
    """Answer every problem of a data set that the folder has no record of, together with other processes.

    Called again after a kill with the same arguments, it goes on; the number of processes may be another one then, and so may
    the batch size as far as the pipeline's answers do not depend on it (which rounding makes them do in half precision).

    Args:
        pipeline ([`ReasoningPipeline`]): the reasoner, the same in every process.
        dataset (`Dataset`): problems with the columns `prompt`, `target` and `answer`, the same in every process.
        folder (`str` or `Path`): the records, `records-<process>.jsonl`; a folder that all processes see.
        process_index (`int`, *optional*, defaults to 0): which process this is.
        num_processes (`int`, *optional*, defaults to 1): how many there are.
        wait (`Callable`, *optional*): returns when every process has called it, such as
            `accelerate.PartialState().wait_for_everyone`; several processes need it.
        batch_size (`int`, *optional*, defaults to 256): problems at a time.
        num_inference_steps (`int`, *optional*): denoising steps; the pipeline's default by default.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance.
        seed (`int`, *optional*, defaults to 0): of the noise, with the row.
        show_progress (`bool`, *optional*, defaults to `True`): show a progress bar.
        sampling: further arguments of the pipeline, which JSON has to be able to say.

    Returns:
        [`Evaluation`]: of the whole data set, the same in every process.

    Raises:
        ValueError: for a folder of other settings or one that another run is writing to, for problems or a `batch_size` that
            [`evaluate_pipeline`] refuses, and for a `process_index` or `wait` that does not fit `num_processes`.
    """
    check_problems(dataset, batch_size)
    if not 0 <= process_index < num_processes or (wait is None and num_processes > 1):
        raise ValueError(
            f"`process_index` has to be below `num_processes`, and `wait` given if that is above 1, but they are "
            f"{process_index}, {num_processes} and {wait}."
        )
    folder = Path(folder)
    options = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "seed": seed, **sampling}
    settings = _settings(pipeline, dataset, options)
    with only_writer(_file(folder, process_index)) as path:
        log = ResultLog(path, settings, REMEDY)
        if process_index == 0:
            _check_orphans(folder, num_processes)
        _wait(wait)  # nobody starts before everybody has his file, so no run works beside another one
        done = set(_read(folder, settings))
        starts = range(process_index * batch_size, len(dataset), num_processes * batch_size)
        batches = [range(start, min(start + batch_size, len(dataset))) for start in starts]
        missing = [[row for row in batch if row not in done] for batch in batches]
        total, left = sum(map(len, batches)), sum(map(len, missing))
        with tqdm(total=total, initial=total - left, desc="answering", disable=not show_progress) as progress:
            for batch, rows in zip(batches, missing, strict=True):
                log.extend(_answer(pipeline, dataset, batch, rows, options))
                progress.update(len(rows))
        _wait(wait)
        return _merge(folder, settings, len(dataset))


def join_processes() -> PartialState:
    """Return what this process is among those that a launcher has started; alone it is the main one."""
    # They only wait for one another, as long as it takes, for which gloo does whatever device they work on.
    return PartialState(cpu=True, timeout=timedelta(days=30))


def own_device(device: str) -> str:
    """Return the device of this process: a GPU of its own where several processes are to use `"cuda"`."""
    processes = join_processes()
    if device != "cuda" or processes.num_processes == 1:
        return device
    return f"cuda:{processes.local_process_index % max(1, torch.cuda.device_count())}"


def num_inference_steps_of(pipeline: ReasoningPipeline) -> int:
    """Return the number of steps of the latest call, which another call has to be given to find the same."""
    is_blockwise = isinstance(pipeline, LaDiRPipeline)  # whose `num_timesteps` are those of all blocks together
    return len(pipeline.scheduler.timesteps) if is_blockwise else pipeline.num_timesteps


def _answer(pipeline: ReasoningPipeline, dataset: Dataset, batch: range, rows: list[int], options: dict) -> list[dict]:
    """Answer a whole batch; return a line for each of those of its `rows` that have none yet."""
    if not rows:
        return []
    started = perf_counter()
    records = evaluate_pipeline(
        pipeline, dataset.select(batch), first_row=batch.start, batch_size=len(batch), show_progress=False, **options
    )
    seconds = (perf_counter() - started) / len(rows)
    cost = {"seconds": seconds, "num_inference_steps": num_inference_steps_of(pipeline)}
    return [{"row": row, **cost, **asdict(records[row - batch.start])} for row in rows]


def _merge(folder: Path, settings: dict, num_rows: int) -> Evaluation:
    lines = _read(folder, settings)
    if set(lines) != set(range(num_rows)):
        missing = sorted(set(range(num_rows)) - set(lines))
        raise ValueError(
            f"`folder` {str(folder)!r} has lost the records of {len(missing)} rows, such as {missing[:5]}."
        )
    ordered = [lines[row] for row in range(num_rows)]
    records = [EvalRecord(**{name: line[name] for name in EvalRecord.__dataclass_fields__}) for line in ordered]
    return Evaluation(records, sum(line["seconds"] for line in ordered), ordered[-1]["num_inference_steps"])


def _read(folder: Path, settings: dict) -> dict[int, dict]:
    """Return the line of each row that any process has written, also one of an earlier run."""
    lines: dict[int, dict] = {}
    for path in sorted(folder.glob("records-*.jsonl")):
        for line in read_results(path, settings, REMEDY):
            if line["row"] in lines:
                raise ValueError(f"{str(path)!r} has row {line['row']} once more; {REMEDY}.")
            lines[line["row"]] = line
    return lines


def _file(folder: Path, process_index: int) -> Path:
    return folder / f"records-{process_index}.jsonl"


def _check_orphans(folder: Path, num_processes: int) -> None:
    """Refuse a folder that a process of an earlier run still writes to, which outlived whoever started it."""
    own = {_file(folder, index) for index in range(num_processes)}
    for path in set(folder.glob("records-*.jsonl")) - own:
        with only_writer(path):
            pass


def _wait(wait: Callable[[], object] | None) -> None:
    if wait is not None:
        wait()


def _settings(pipeline: ReasoningPipeline, dataset: Dataset, options: dict) -> dict:
    """Return what the records depend on: not how many processes make them."""
    problems = hashlib.sha256()
    for row in zip(*(dataset[name][:] for name in ("prompt", "target", "answer")), strict=True):
        problems.update(json.dumps(row).encode())
    libraries = ("torch", "transformers", "diffusers")
    settings = {
        "versions": {"ldlm_hf": __version__, **{name: version(name) for name in libraries}},
        "pipeline": type(pipeline).__name__,
        "parts": {name: _digest(part) for name, part in pipeline.components.items()},
        "config": {name: value for name, value in pipeline.config.items() if name not in pipeline.components},
        "task": _describe(pipeline.task),
        "device": pipeline.device.type,
        "num_problems": len(dataset),
        "problems": problems.hexdigest(),
        "sampling": options,
    }
    try:
        return json.loads(json.dumps(_without_origin(settings)))
    except TypeError as error:
        raise ValueError(f"The arguments of the pipeline have to be such that JSON can say them: {error}.") from None


def _describe(task: Task | None) -> dict | None:
    """Return the class of a task and how it was set up, without what it has computed meanwhile."""
    if task is None:
        return None
    plain = {name: value for name, value in vars(task).items() if isinstance(value, str | int | float)}
    return {"class": type(task).__name__, **{name: value for name, value in plain.items() if name[0] != "_"}}


def _digest(part: object) -> str | None:
    """Return a digest of a part of a pipeline: its configuration, weights and vocabulary."""
    if part is None:
        return None
    if isinstance(part, PreTrainedTokenizerBase):
        return _digest_of_tokenizer(part)
    config = part.config if isinstance(part.config, dict) else part.config.to_dict()
    digest = hashlib.sha256(json.dumps(_without_origin(config), sort_keys=True, default=str).encode())
    if isinstance(part, torch.nn.Module):
        for name, tensor in part.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _digest_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    parts = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map, tokenizer.chat_template]
    if tokenizer.is_fast:
        # A copy, without what its last call left behind.
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        parts.append(backend.to_str())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _without_origin(config: object) -> object:
    """Return a configuration without what says where it came from: two copies of a checkpoint are the same one."""
    if isinstance(config, list | tuple):
        return [_without_origin(item) for item in config]
    if not isinstance(config, dict):
        return config
    kept = {str(name): value for name, value in config.items() if str(name)[:1] != "_"}
    return {name: _without_origin(value) for name, value in kept.items() if name != "transformers_version"}
