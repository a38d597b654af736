"""One pipeline, shared by threads: each of 1,000 mixed requests is answered as if it were alone, bit by bit.

Requests differ in their prompts, how many there are, seeds, steps, guidance and what is asked for; some are refused, and have
to be with the same message. Threads are switched a thousand times as often as Python does it, so that what one leaves behind in
a scheduler, a pipeline or a tokenizer is there when another comes back.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from ldlm_hf.evaluation import evaluate_pipeline, summarize
from ldlm_hf.hex import HexPipeline
from ldlm_hf.llada.pipeline_inputs import encode_prompts
from ldlm_hf.pipeline import ReasoningPipeline
from ldlm_hf.tasks import get_task
from ldlm_hf.voting import majority_vote, minimum_bayes_risk
from tests.faults.report import Case, make_parser, write_report
from tests.hex.tiny_hex import parity, tiny_hex_pipeline
from tests.ladir.tiny_ladir import tiny_pipeline as tiny_ladir_pipeline
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline, tiny_scheduler


THREADS, SWITCH_SECONDS = 8, 5e-6
REFUSED = {"prompt": ["1+2+3", " "]}
OPTIONS = {  # what requests of each pipeline choose from
    "LatentReasoningPipeline": [
        {"num_inference_steps": 1},
        {"num_inference_steps": 3, "guidance_scale": 1.5, "max_new_tokens": 4},
        {"num_inference_steps": 5, "output_type": "latent"},
        {"num_inference_steps": 2, "num_samples": 3, "select": "mbr", "max_new_tokens": 6},
        {"num_inference_steps": 2, "output_type": "trajectory", "max_new_tokens": 3},
        REFUSED,
    ],
    "MaskedDiffusionPipeline": [
        {"gen_length": 4, "block_length": 4, "num_inference_steps": 2},
        {"gen_length": 8, "block_length": 4, "temperature": 0.7, "guidance_scale": 1.5},
        {"gen_length": 8, "block_length": 2, "threshold": 0.8, "window": "truncated"},
        {"gen_length": 8, "block_length": 4, "cache": "dual", "output_type": "trajectory"},
        {"gen_length": 6, "block_length": 3, "remasking": "random", "temperature": 1.0, "eos_early_stop": True},
        {"gen_length": 7, "block_length": 4},  # refused
        REFUSED,
    ],
    "HexPipeline": [
        {"gen_length": 4, "block_lengths": (2, 4), "num_seeds": 2, "answer_fn": parity},
        {"gen_length": 8, "block_lengths": (4, 8), "num_seeds": 3, "max_batch_size": 3},
        {"gen_length": 8, "block_lengths": (4, (2, 6)), "num_seeds": 1, "temperature": 0.0},
        {"gen_length": 4, "block_lengths": (2, 4), "num_seeds": 2, "select": "one_step_nll", "answer_fn": parity},
        {"gen_length": 8, "block_lengths": (8,), "num_seeds": 2, "keep_agreement": 0.6, "early_stop": False},
        REFUSED,
    ],
    "LaDiRPipeline": [
        {"num_inference_steps": 1, "max_blocks": 1, "max_new_tokens": 2},
        {"num_inference_steps": 3, "max_blocks": 2, "max_new_tokens": 3, "guidance_scale": 2.0},
        {"num_inference_steps": 2, "max_blocks": 3, "output_type": "latent", "initial_noise_scale": 2.0},
        {
            "num_inference_steps": 2,
            "max_blocks": 1,
            "num_trajectories": 3,
            "diversity_scale": 0.5,
            "max_new_tokens": 2,
        },
        {
            "num_inference_steps": 2,
            "max_blocks": 2,
            "temperature": 0.7,
            "output_type": "trajectory",
            "max_new_tokens": 2,
        },
        REFUSED,
    ],
}
SCHEDULERS = (DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler)


@dataclass(frozen=True)
class Request:
    """What is asked: prompts, a seed for each from `seed` on, and arguments of the call."""

    prompts: tuple[str, ...]
    seed: int
    arguments: dict


def make_pipelines() -> dict[str, ReasoningPipeline]:
    """Return a tiny pipeline of each kind; voting and writing share model, scheduler and tokenizer."""
    voting, masked = tiny_hex_pipeline()
    layers = {"encoder_layers": [-1, 0], "encoder_layers_axis": "feature"}
    latent = tiny_pipeline(autoencoder=tiny_autoencoder(**layers), denoiser=tiny_denoiser(self_conditioning=True))
    return {
        "LatentReasoningPipeline": latent,
        "MaskedDiffusionPipeline": masked,
        "HexPipeline": voting,
        "LaDiRPipeline": tiny_ladir_pipeline(),
    }


def make_requests(name: str, count: int, seed: int = 0) -> list[Request]:
    """Return mixed requests for the pipeline of a name."""
    generator = random.Random(f"{name}/{seed}")
    sign = "," if name == "LaDiRPipeline" else "+"
    requests = []
    for _ in range(count):
        sums = [
            [generator.randrange(1, 10) for _ in range(generator.randrange(3, 6))]
            for _ in range(generator.randrange(1, 4))
        ]
        prompts = tuple(sign.join(map(str, terms)) for terms in sums)
        requests.append(Request(prompts, generator.randrange(2**31), generator.choice(OPTIONS[name])))
    return requests


def answer(pipeline: ReasoningPipeline, request: Request) -> tuple:
    """Return everything that a pipeline answers, what a callback saw of it on the way, or how it refuses."""
    arguments = {"prompt": list(request.prompts), **request.arguments}
    generators = [torch.Generator().manual_seed(request.seed + i) for i in range(len(arguments["prompt"]))]
    seen = []

    def watch(pipe: ReasoningPipeline, step: int, timestep: int, tensors: dict) -> dict:
        seen.append((step, float(timestep), tuple(pipe.scheduler.timesteps.tolist())))
        return tensors

    if not isinstance(pipeline, HexPipeline):
        arguments["callback_on_step_end"] = watch
    try:
        output = comparable(pipeline(generator=generators, **arguments))
    except ValueError as error:
        return (str(error),)
    return output, tuple(seen)


def comparable(value: object) -> object:
    """Return a value in a form that is equal only if all of its tensors are, to the last bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(torch.uint8).numpy().tobytes()
    if is_dataclass(value):
        return tuple((field.name, comparable(getattr(value, field.name))) for field in fields(value))
    if isinstance(value, dict):
        return tuple((key, comparable(item)) for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(comparable, value))
    return value


@contextmanager
def eager_switching() -> Iterator[None]:
    """Let Python switch threads a thousand times as often, and torch work in one thread each."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(SWITCH_SECONDS)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(threads)


def compare(kind: str, calls: Sequence[Callable[[], object]], num_threads: int = THREADS) -> list[Case]:
    """Return a case for each call: whether threads get from it what it gives when it runs alone.

    Args:
        kind (`str`): what is called.
        calls (`Sequence[Callable]`): each returns something that can be compared.
        num_threads (`int`, *optional*, defaults to 8): threads that share what is called.
    """
    with eager_switching():
        expected = [call() for call in calls]
        with ThreadPoolExecutor(num_threads) as threads:
            futures = [threads.submit(call) for call in calls]
    cases = []
    for number, (wanted, future) in enumerate(zip(expected, futures, strict=True)):
        error = future.exception()
        is_equal = error is None and future.result() == wanted
        detail = "" if is_equal else f"call {number}: {'another answer' if error is None else repr(error)}"
        cases.append(Case(kind, is_equal, detail))
    return cases


def calls_of(pipeline: ReasoningPipeline, requests: Iterable[Request]) -> list[Callable[[], object]]:
    """Return a call for each request."""
    return [lambda request=request: answer(pipeline, request) for request in requests]


def campaign(count: int, seed: int = 0) -> list[Case]:
    """Return the cases of every pipeline, of pipelines with the same parts, and of what reads and judges answers.

    Args:
        count (`int`): requests to each pipeline; a part of it of the rest.
        seed (`int`, *optional*, defaults to 0): of the requests.
    """
    pipelines, cases = make_pipelines(), []
    for name, pipeline in pipelines.items():
        cases += compare(f"{name}, {THREADS} threads", calls_of(pipeline, make_requests(name, count, seed)))
    cases += same_parts_cases(pipelines, count // 5 + 4, seed)
    for scheduler in SCHEDULERS:
        cases += scheduler_cases(scheduler, count // 10 + 4, seed)
    cases += tokenizer_cases(pipelines["LatentReasoningPipeline"], count // 2 + 4, seed)
    cases += scoring_cases(count // 5 + 4, seed)
    return cases + evaluation_cases(pipelines, count // 50 + 2)


def same_parts_cases(pipelines: dict[str, ReasoningPipeline], count: int, seed: int) -> list[Case]:
    """Return the cases of two pipelines, one made from the other, that are asked in turns."""
    names = ("MaskedDiffusionPipeline", "HexPipeline")
    calls = [calls_of(pipelines[name], make_requests(name, count, seed + 1)) for name in names]
    return compare(
        "a HexPipeline and the pipeline it was made from", [call for pair in zip(*calls, strict=True) for call in pair]
    )


def scheduler_cases(scheduler: type[SchedulerMixin], count: int, seed: int) -> list[Case]:
    """Return the cases of a scheduler that remembers earlier predictions."""
    pipeline = tiny_pipeline(scheduler=scheduler.from_config(tiny_scheduler(variance_type="fixed_small").config))
    requests = make_requests("LatentReasoningPipeline", count, seed + 2)
    return compare(f"LatentReasoningPipeline with {scheduler.__name__}", calls_of(pipeline, requests))


def tokenizer_cases(pipeline: ReasoningPipeline, count: int, seed: int) -> list[Case]:
    """Return the cases of one tokenizer that has to pad for one thread and not for another."""
    calls = []
    for request in make_requests("LatentReasoningPipeline", count, seed + 3):
        prompts = [*request.prompts, "1+2+3+4+5"] * 10
        calls.append(lambda prompts=prompts: comparable(pipeline.encode_prompt(prompts, torch.device("cpu"))))
        calls.append(lambda prompts=prompts: comparable(encode_prompts(prompts, None, pipeline.tokenizer, False)))
    return compare("one tokenizer, with and without padding", calls)


def scoring_cases(count: int, seed: int) -> list[Case]:
    """Return the cases of tasks that read and check texts, and of votes."""
    names, generator, calls = ("addition", "countdown", "sudoku", "gsm8k", "math500"), random.Random(seed), []
    tasks = {name: get_task(name) for name in names}
    texts = [
        "13 3+5=8 8+2=10 10+3=13",
        "#### 13",
        "The answer is \\boxed{1/2}.",
        "<answer>(3+5)*2</answer>",
        "",
        "1234 3412 2143 4321",
    ]
    for _ in range(count):
        task, text = tasks[generator.choice(names)], generator.choice(texts)
        votes = [generator.choice(["1", "2", "3", None]) for _ in range(9)]
        calls.append(
            lambda task=task, text=text, votes=votes: (
                task.parse_answer(text),
                task.is_correct(text, "3+5+2+3", "13") if task.name == "addition" else None,
                majority_vote(votes),
                minimum_bayes_risk([str(vote) for vote in votes]),
            )
        )
    return compare("reading answers and voting", calls)


def evaluation_cases(pipelines: dict[str, ReasoningPipeline], count: int) -> list[Case]:
    """Return the cases of whole evaluations of one pipeline, each on problems of its own."""
    task, stdout = get_task("addition"), sys.stdout

    def evaluate(name: str, number: int) -> tuple:
        rows = task.to_dataset("test", 3, seed=number)
        steps = {"num_inference_steps": 4}
        length = {"max_new_tokens": 6} if name == "LatentReasoningPipeline" else {"gen_length": 8}
        records = evaluate_pipeline(pipelines[name], rows, batch_size=2, show_progress=False, **steps, **length)
        return comparable(records), comparable(summarize(records, task))

    names = ("LatentReasoningPipeline", "MaskedDiffusionPipeline")
    calls = [lambda name=name, number=number: evaluate(name, number) for number in range(count) for name in names]
    cases = compare("evaluating and summarizing", calls)
    is_same, sys.stdout = sys.stdout is stdout, stdout
    return [*cases, Case("standard output is where it was after evaluating", is_same)]


def main() -> int:
    """Run the campaign."""
    parser = make_parser("threads", __doc__.splitlines()[0], 1000)
    args = parser.parse_args()
    started = time.monotonic()
    cases = campaign(args.count, args.seed)
    fault = f"One pipeline shared by {THREADS} threads: each answers as if it were alone, to the last bit"
    return write_report(parser, args.output, fault, cases, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
