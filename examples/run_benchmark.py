"""Speed, as ratios measured side by side in one run, since machines differ and are shared.

    python examples/run_benchmark.py --model model_cards/ldlm-addition --output benchmark.json

* stage 2: optimizer steps per second on cached latents, and with the autoencoder's encoder in the loop;
* sampling: problems per second at 1 to 50 denoising steps, against greedy chain-of-thought decoding of a
  sequence-to-sequence baseline of equal size (its weights are random: it writes as many tokens as the chains have);
* the share of the machine's matrix-product rate that a training step reaches.

Each pair is run in turn, A B A B …; the figures are medians, the ratios medians of the pairwise ratios.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartForConditionalGeneration, GenerationConfig

from ldlm_hf import LatentDiT, LatentReasoningPipeline
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ldlm.losses import squared_error
from ldlm_hf.ldlm.recipe import bart_of_size
from ldlm_hf.noise import add_noise
from ldlm_hf.tasks import get_task


def main(arguments: list[str] | None = None) -> None:
    """Run all benchmarks and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("model_cards/ldlm-addition"), help="a saved pipeline")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side of a pair")
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[1, 32, 256])
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 5, 10, 20, 50])
    args = parser.parse_args(arguments)

    pipeline = LatentReasoningPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    rate = matrix_rate()
    results = {
        "benchmark": {
            "matrix_rate_gflops": rate,
            "training": training_speed(pipeline, args.rounds, rate),
            "sampling": [
                row for size in args.batch_sizes for row in sampling_speed(pipeline, size, args.steps, args.rounds)
            ],
            "rounds": args.rounds,
            "command": shlex.join(["python", "examples/run_benchmark.py", *(arguments or sys.argv[1:])]),
        },
        "environment": environment(),
    }
    write_results(args.output, results)
    print_results(results["benchmark"])


def side_by_side(first: Callable[[], None], second: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median of `second / first` round by round, after one warm-up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 1):
        for action, record in zip((first, second), seconds, strict=True):
            started = perf_counter()
            action()
            if round_number:
                record.append(perf_counter() - started)
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    return statistics.median(seconds[0]), statistics.median(seconds[1]), statistics.median(ratios)


def matrix_rate(size: int = 1024, repeats: int = 20) -> float:
    """Return the float32 rate of square matrix products in GFLOP/s, the best of three runs."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(3):
        started = perf_counter()
        for _ in range(repeats):
            a @ b
        best = max(best, 2 * size**3 * repeats / (perf_counter() - started) / 1e9)
    return best


def training_speed(pipeline: LatentReasoningPipeline, rounds: int, rate: float, batch_size: int = 128) -> dict:
    """Time optimizer steps of stage 2 on cached latents, and with the encoder in the loop."""
    problems = get_task(pipeline.config.task).to_dataset("train", batch_size)
    denoiser = LatentDiT.from_config(pipeline.denoiser.config).train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4)
    alpha_bar = pipeline.scheduler.alphas_cumprod

    @torch.no_grad()
    def encode() -> list[torch.Tensor]:
        return [pipeline.encode_prompt(problems[column][:], torch.device("cpu")) for column in ("prompt", "target")]

    cached = encode()

    def step(condition: torch.Tensor, x0: torch.Tensor) -> None:
        timesteps = torch.randint(len(alpha_bar), (len(x0),))
        xt = add_noise(x0, torch.randn_like(x0), alpha_bar[timesteps])
        squared_error(denoiser(xt, timesteps, condition).sample, x0).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def with_cache() -> None:
        for _ in range(5):
            step(*cached)

    def with_encoder() -> None:
        for _ in range(5):
            step(*encode())

    fast, slow, ratio = side_by_side(with_cache, with_encoder, rounds)
    with FlopCounterMode(display=False) as counter:
        step(*cached)
    return {
        "batch_size": batch_size,
        "steps_per_second_cached": 5 / fast,
        "steps_per_second_with_encoder": 5 / slow,
        "speedup_of_cache": ratio,
        "share_of_matrix_rate": counter.get_total_flops() / (fast / 5) / 1e9 / rate,
    }


def sampling_speed(pipeline: LatentReasoningPipeline, batch_size: int, steps: list[int], rounds: int) -> list[dict]:
    """Time answering a batch at each number of steps, in turn with the baseline's chain-of-thought."""
    name = pipeline.config.task
    problems = get_task(name).to_dataset("test", batch_size)
    chains = get_task(name, answer_position="last").to_dataset("test", batch_size)["target"]
    length = max(len(ids) for ids in pipeline.tokenizer(chains[:])["input_ids"])
    wanted = sum(p.numel() for part in (pipeline.autoencoder, pipeline.denoiser) for p in part.parameters())
    baseline = BartForConditionalGeneration(bart_of_size(pipeline.tokenizer, wanted)).eval()
    size = sum(parameter.numel() for parameter in baseline.parameters())
    special = {name: getattr(pipeline.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = GenerationConfig(**special, decoder_start_token_id=2, min_new_tokens=length, max_new_tokens=length)

    def decode_chain() -> None:
        batch = pipeline.tokenizer(problems["prompt"][:], padding=True, return_tensors="pt")
        baseline.generate(**batch, generation_config=config)

    rows = []
    for count in steps:
        seconds, other, ratio = side_by_side(
            lambda count=count: pipeline(problems["prompt"][:], num_inference_steps=count), decode_chain, rounds
        )
        rows.append(
            {
                "batch_size": batch_size,
                "num_inference_steps": count,
                "problems_per_second": batch_size / seconds,
                "baseline_problems_per_second": batch_size / other,
                "speed_relative_to_baseline": ratio,
                "baseline_parameters": size,
            }
        )
    return rows


def print_results(benchmark: dict) -> None:
    """Print the figures as two small tables."""
    training = benchmark["training"]
    print(f"matrix products: {benchmark['matrix_rate_gflops']:.0f} GFLOP/s in float32")
    print(
        f"stage 2: {training['steps_per_second_cached']:.1f} steps/s cached, {training['speedup_of_cache']:.1f} times as many "
        f"as with the encoder; {training['share_of_matrix_rate']:.0%} of the matrix rate"
    )
    print("batch  steps  problems/s  baseline/s  ratio")
    for row in benchmark["sampling"]:
        print(
            f"{row['batch_size']:5d}  {row['num_inference_steps']:5d}  {row['problems_per_second']:10.1f}  "
            f"{row['baseline_problems_per_second']:10.1f}  {row['speed_relative_to_baseline']:5.2f}"
        )


if __name__ == "__main__":
    main()
