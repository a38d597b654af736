"""Cost against work: time and memory of shipped checkpoints against problems, batch, length and processes, and what a million costs.

    python examples/measure_scaling.py
    python examples/measure_scaling.py --from_json results/scaling/scaling.json --usd_per_gpu_hour 2.5

Writes `scaling.json`, and from nothing but that file `scaling.png` and `README.md`. Every point is run in turn with all others, round
after round, on one thread; the figures are medians. The clock of a process is the processor's time, so that other work of the
machine counts little; processes are forked, and also have the wall's clock. Memory is the most that torch has allocated at once
during a call, and for processes what is resident. `--from_json` measures nothing: it draws and writes again, with other prices.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, process_time

import torch
from datasets import Dataset
from measure_llada_memory import allocated_peak
from scaling_costs import (
    PAPER_BATCH,
    Assumptions,
    Work,
    count_work,
    linear_work,
    million_on_cpu,
    million_on_gpu,
    paper_size_rows,
    summarize_system,
)
from scaling_page import write_page

from ldlm_hf import LatentDiT, LatentReasoningPipeline, TextLatentAutoencoder
from ldlm_hf.evaluation import environment, load_pipeline, write_results
from ldlm_hf.noise import row_generators
from ldlm_hf.pipeline import ReasoningPipeline


CARDS = ("ldlm-addition", "llada-sudoku-4x4", "hex-voting", "ladir-countdown")
PROCESSES = (1, 2, 4)
MATRIX = 1024


@dataclass(frozen=True)
class Setting:
    """How a kind of pipeline is measured.

    Attributes:
        arguments (`dict`): of its call.
        batches (`tuple[int, ...]`): sizes.
        lengths (`tuple[float, ...]`): of what is generated, for latents as multiples of the checkpoint's own.
        unit (`str`): of the lengths.
    """

    arguments: dict
    batches: tuple[int, ...]
    lengths: tuple[float, ...]
    unit: str

    @property
    def batch_of_processes(self) -> int:
        """Problems that each of several processes answers as one batch."""
        return self.batches[:3][-1]


SETTINGS = {
    "LatentReasoningPipeline": Setting({"num_inference_steps": 20}, (1, 4, 16, 64, 128), (0.5, 1, 2, 4), "latents"),
    "MaskedDiffusionPipeline": Setting(
        {"gen_length": 16, "num_inference_steps": 8}, (1, 4, 16, 64, 128), (16, 32, 64), "tokens"
    ),
    "HexPipeline": Setting(
        {"gen_length": 16, "block_lengths": (2, 4, 8, 16), "num_seeds": 6, "max_batch_size": 64},
        (1, 2, 4, 8),
        (16, 32, 64),
        "tokens",
    ),
    "LaDiRPipeline": Setting(
        {"num_inference_steps": 2, "initial_noise_scale": 0.3}, (1, 4, 16, 64, 256), (1, 2, 4, 8), "blocks"
    ),
}


@dataclass(frozen=True)
class System:
    """A pipeline, its problems, and how it is measured."""

    name: str
    pipeline: ReasoningPipeline
    problems: Dataset
    setting: Setting

    def ask(self, count: int, batch_size: int) -> None:
        """Answer the first `count` problems."""
        for start in range(0, count, batch_size):
            prompts = self.problems["prompt"][start : min(start + batch_size, count)]
            self.pipeline(prompts, generator=row_generators(0, 0, start, len(prompts)), **self.setting.arguments)

    @property
    def models(self) -> list[torch.nn.Module]:
        """The parts of the pipeline that have weights."""
        return [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]


@dataclass(frozen=True)
class Point:
    """A point of a panel: what is run for it, and how many problems that answers."""

    system: str
    panel: str
    value: int
    num_problems: int
    run: Callable[[], dict[str, float]]
    action: Callable[[], None] | None = None  # for its memory; `run` says it itself where there is none


def main(arguments: list[str] | None = None) -> None:
    """Measure, or take what was measured, and write figures and page."""
    args = make_parser().parse_args(arguments)
    assumed = Assumptions(usd_per_cpu_hour=args.usd_per_cpu_hour, usd_per_gpu_hour=args.usd_per_gpu_hour)
    if args.from_json is not None:
        results = json.loads(args.from_json.read_text())
    else:
        torch.set_num_threads(1)  # before anything is computed: the threads of a pool do not survive a fork
        folders = args.models or [Path("model_cards") / name for name in CARDS]
        results = {"scaling": measure(folders, args.rounds, args.quick), "environment": environment()}
        command = ["python", "examples/measure_scaling.py", *(sys.argv[1:] if arguments is None else arguments)]
        results["scaling"]["command"] = shlex.join(command)
    summarize(results["scaling"])
    results["costs"] = costs(results["scaling"], assumed)
    write_results(args.output / "scaling.json", results)
    write_page(args.output)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="*", help="saved pipelines; by default one card of each kind")
    parser.add_argument("--output", type=Path, default=Path("results/scaling"), help="folder to write to")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each point, after one to warm up")
    parser.add_argument("--quick", action="store_true", help="two points a panel, to see that it works")
    parser.add_argument("--from_json", type=Path, help="measure nothing, take this file")
    prices = Assumptions()
    parser.add_argument("--usd_per_cpu_hour", type=float, default=prices.usd_per_cpu_hour, help="of such a machine")
    parser.add_argument("--usd_per_gpu_hour", type=float, default=prices.usd_per_gpu_hour, help="of one H200")
    return parser


def measure(folders: list[Path], rounds: int, quick: bool) -> dict:
    """Return all points, and where resources bind, of the pipelines in some folders."""
    started = monotonic()
    systems = [load_system(folder, quick) for folder in folders]
    counts = PROCESSES[:2] if quick else PROCESSES
    workers = Workers(systems, max(counts))
    try:
        points = [point for system in systems for point in points_of(system, workers, counts)]
        seconds, matrix_seconds = run_rounds(points, rounds)
    finally:
        workers.close()
    rows = [
        {key: getattr(point, key) for key in ("system", "panel", "value", "num_problems")} | measured
        for point, measured in zip(points, seconds, strict=True)
    ]
    for point, row in zip(points, rows, strict=True):
        if point.action is not None:
            row["bytes"] = allocated_peak(point.action)
    machine = {
        "cores": os.cpu_count() or 1,
        "bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "resident_bytes": resident_bytes(),
        "matrix_flops": 2 * MATRIX**3 / matrix_seconds,
    }
    found = {system.name: describe(system) for system in systems}
    return {"points": rows, "systems": found, "machine": machine, "rounds": rounds, "seconds": monotonic() - started}


def load_system(folder: Path, quick: bool) -> System:
    """Return the pipeline that is saved in a folder, with enough held-out problems."""
    pipeline = load_pipeline(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    setting = SETTINGS[type(pipeline).__name__]
    if quick:
        setting = replace(setting, batches=setting.batches[:2], lengths=setting.lengths[:2])
    return System(folder.name, pipeline, pipeline.task.to_dataset("test", max(setting.batches[-1], 64)), setting)


def points_of(system: System, workers: Workers, processes: tuple[int, ...]) -> list[Point]:
    """Return the points of a system."""
    batches, found = system.setting.batches, []

    def add(panel: str, value: int, count: int, action: Callable[[], None]) -> None:
        found.append(Point(system.name, panel, value, count, lambda: timed(action), action))

    small, usual = batches[1], system.setting.batch_of_processes
    for times in (1, 2, 4)[: len(batches)]:  # two where all is quick
        add("problems", times * small, times * small, lambda count=times * small: system.ask(count, small))
    for size in batches:
        add("batch", size, size, lambda size=size: system.ask(size, size))
    for length in system.setting.lengths:
        longer, value = of_length(system, length)
        add("length", value, small, lambda longer=longer: longer.ask(small, small))
    for count in processes:
        run = lambda count=count: workers.run(system.name, count, usual)  # noqa: E731
        found.append(Point(system.name, "processes", count, count * usual, run))
    return found


def of_length(system: System, length: float) -> tuple[System, int]:
    """Return a system that generates so much, and how much that is; what it writes is of no use, its time is."""
    pipeline, arguments = system.pipeline, dict(system.setting.arguments)
    if isinstance(pipeline, LatentReasoningPipeline):
        own = pipeline.denoiser.config
        value = round(length * own.latent_length)
        width = round(length * (own.diffusion_length or own.latent_length))
        denoiser = LatentDiT.from_config({**own, "latent_length": value, "diffusion_length": width})
        config = pipeline.autoencoder.config.to_dict() | {"latent_length": value}
        autoencoder = TextLatentAutoencoder(type(pipeline.autoencoder.config).from_dict(config))
        autoencoder.latent_count.fill_(1)
        pipeline = LatentReasoningPipeline(autoencoder, denoiser, pipeline.scheduler, pipeline.tokenizer)
        pipeline.set_progress_bar_config(disable=True)
        arguments["output_type"] = "latent"  # random weights would write texts of any length
    elif system.setting.unit == "tokens":
        value = int(length)
        pipeline.language_model.max_length = None  # positions beyond those of the training take as long
        arguments |= {"gen_length": value, "num_inference_steps": value // 2}
        if "block_lengths" in arguments:
            arguments |= {"block_lengths": (4, 8), "num_seeds": 2, "early_stop": False}
    else:
        value = int(length)
        arguments |= {"min_blocks": value, "max_blocks": value}
    return replace(system, pipeline=pipeline, setting=replace(system.setting, arguments=arguments)), value


def timed(action: Callable[[], None]) -> dict[str, float]:
    """Return how long an action takes, by the processor's clock of this process and by the wall's."""
    wall, processor = monotonic(), process_time()
    action()
    return {"processor_seconds": process_time() - processor, "wall_seconds": monotonic() - wall}


def run_rounds(points: list[Point], rounds: int) -> tuple[list[dict[str, float]], float]:
    """Run all points in turn, round after round; return the medians of each, and the seconds of a product of matrices."""
    a, b = torch.randn(2, MATRIX, MATRIX)
    seconds: list[list[dict[str, float]]] = [[] for _ in points]
    products = []
    for round_number in range(rounds + 1):
        for point, record in zip(points, seconds, strict=True):
            record.append(point.run())
        products.append(timed(lambda: torch.mm(a, b))["processor_seconds"])
        print(f"round {round_number} of {rounds}", flush=True)
    medians = [{key: statistics.median(run[key] for run in record[1:]) for key in record[0]} for record in seconds]
    return medians, statistics.median(products[1:])


def describe(system: System) -> dict:
    """Return what a system is, and the work of one answer and of a few."""
    # All rows of a vote at once, as on a GPU.
    arguments = {name: value for name, value in system.setting.arguments.items() if name != "max_batch_size"}
    unbound, several = replace(system, setting=replace(system.setting, arguments=arguments)), system.setting.batches[1]
    single, together = (
        count_work(lambda count=count: unbound.ask(count, count), system.models) for count in (1, several)
    )
    return {
        "pipeline": type(system.pipeline).__name__,
        "parameters": sum(weight.numel() for model in system.models for weight in model.parameters()),
        "arguments": system.setting.arguments,
        "unit": system.setting.unit,
        "batch_of_processes": system.setting.batch_of_processes,
        "work": {"1": asdict(single), str(several): asdict(together)},
    }


def summarize(scaling: dict) -> None:
    """Add to each system of what was measured where resources bind, and what an answer takes."""
    for name, system in scaling["systems"].items():
        points = [point for point in scaling["points"] if point["system"] == name]
        (_, single), (size, several) = works_of(system)
        system |= summarize_system(points, single, several, size, scaling["machine"])


def works_of(system: dict) -> list[tuple[int, Work]]:
    """Return the work of a batch of one and of a few, each with the size of the batch."""
    return [(int(count), Work(**work)) for count, work in system["work"].items()]


def costs(scaling: dict, assumed: Assumptions) -> dict:
    """Return what a million problems cost: as measured on CPUs, and by counting on GPUs and for the papers' models."""
    rows, cores = {}, scaling["machine"]["cores"]
    for name, system in scaling["systems"].items():
        (_, single), (size, several) = works_of(system)
        batch = assumed.gpu_batch_size
        rows[name] = {
            "cpu": million_on_cpu(system["seconds_with_all_cores"], cores, assumed),
            "gpu": million_on_gpu(linear_work(single, several, size, batch), batch, assumed),
        }
    best = max(system["share_of_matrix_rate"]["best"] for system in scaling["systems"].values())
    rate = best * scaling["machine"]["matrix_flops"] * cores
    return {
        "assumptions": asdict(assumed),
        "million": rows,
        "cheaper_on_cpu": [name for name, row in rows.items() if row["cpu"]["usd"] < min(row["gpu"]["usd"])],
        "paper_size": paper_size_rows(assumed, rate),
        "paper_batch": PAPER_BATCH,
        "cpu_flops": rate,
    }


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Workers:
    """Processes that each have all systems, and answer when they are told to.

    Args:
        systems (`list[System]`): loaded already; a process shares their weights.
        count (`int`): processes.
    """

    def __init__(self, systems: list[System], count: int) -> None:
        """Fork the processes."""
        context = get_context("fork")
        self._pipes, self._processes = [], []
        for _ in range(count):
            own, other = context.Pipe()
            process = context.Process(target=_work, args=(other, {each.name: each for each in systems}), daemon=True)
            process.start()
            self._pipes.append(own)
            self._processes.append(process)

    def run(self, name: str, count: int, num_problems: int) -> dict[str, float]:
        """Let `count` processes each answer the first problems of a system, as one batch; return what they took together."""
        for pipe in self._pipes[:count]:
            pipe.send((name, num_problems))
        answers = [pipe.recv() for pipe in self._pipes[:count]]
        starts, ends, processor_seconds, resident = zip(*answers, strict=True)
        return {
            "processor_seconds": sum(processor_seconds),
            "wall_seconds": max(ends) - min(starts),
            "bytes": sum(resident),
        }

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(10)
            process.terminate()


def _work(pipe: Connection, systems: dict[str, System]) -> None:
    torch.set_num_threads(1)
    while (told := pipe.recv()) is not None:
        name, num_problems = told
        start = monotonic()
        processor_seconds = timed(partial(systems[name].ask, num_problems, num_problems))["processor_seconds"]
        pipe.send((start, monotonic(), processor_seconds, resident_bytes()))


if __name__ == "__main__":
    main()
