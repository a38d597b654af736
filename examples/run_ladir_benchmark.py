"""Measure LaDiR's denoising with the keys and values of question and finished blocks kept, and without; and its latency.

    python examples/run_ladir_benchmark.py --pipeline model_cards/ladir-countdown --output results/ladir/speed.json
    python examples/run_ladir_benchmark.py --pipeline model_cards/ladir-countdown \\
        --language_model runs/ladir-study/seed-0/language_model/model --output results/ladir/speed.json

Both ways see the same model, questions and noise and take turns; ratios are of one turn. The full way reads question, finished
blocks and the noisy one anew at every step, as the published code does. Without a pipeline, a reasoner with random weights.
With a language model of the same task, also how long it takes to write its chains, and the pipeline to answer the same problems.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from ldlm_hf import LaDiRConfig, LaDiRForReasoning, LaDiRPipeline
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ladir.denoising import append_block, euler_times, predict_latents, read_question
from ldlm_hf.ladir.losses import predicted_velocity
from ldlm_hf.ladir.text_sampling import write_continuations
from ldlm_hf.loading import load_complete, load_tokenizer
from ldlm_hf.noise import randn_rows, row_generators


LLAMA = {
    "vocab_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "hidden_size": 128,
}
BATCH_SIZES, STEPS = (1, 32), (1, 2, 5, 10, 20)  # of the latency
LONGEST_CHAIN = 32  # tokens


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", type=Path, help="saved pipeline whose reasoner to take")
    parser.add_argument(
        "--language_model", type=Path, help="saved language model of the same task, with its tokenizer"
    )
    parser.add_argument("--rows", type=int, default=64, help="trajectories at a time")
    parser.add_argument("--question_lengths", type=int, nargs="+", default=[10, 32, 128])
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args(arguments)
    if args.device == "cpu":
        torch.set_num_threads(1)
    model = load_model(args.pipeline).to(args.device).eval()
    rows = [measure(model, length, args) for length in args.question_lengths]
    print(f"{'question':>9} {'full':>9} {'cached':>9} {'times as fast':>14} {'difference':>11}")
    for row in rows:
        print(
            f"{row['question_length']:9} {row['full_seconds']:9.2f} {row['cached_seconds']:9.2f} {row['speedup']:14.2f} "
            f"{row['largest_difference']:11.1e}"
        )
    latency = [] if args.language_model is None else measure_latency(args)
    for row in latency:
        print(f"{row['batch_size']:9} problems {row['way']:>24} {row['seconds']:9.3f} s {row['relative']:6.2f}")
    if args.output is not None:
        shown = shlex.join(["python", "examples/run_ladir_benchmark.py", *(arguments or sys.argv[1:])])
        settings = {name: getattr(args, name) for name in ("rows", "blocks", "steps", "rounds", "device")}
        speed = {"cache": rows, "latency": latency, **settings, "command": shown}
        write_results(args.output, {"ladir_speed": speed, "environment": environment()})


def load_model(pipeline: Path | None) -> LaDiRForReasoning:
    """Return the reasoner of a pipeline, or one of 0.9 million random weights."""
    if pipeline is not None:
        return LaDiRForReasoning.from_pretrained(pipeline / "model", dtype=torch.float32)
    torch.manual_seed(0)
    model = LaDiRForReasoning(LaDiRConfig(text_config=LlamaConfig(**LLAMA), latents_per_block=2, latent_dim=8))
    torch.nn.init.normal_(model.latent_out.weight, std=0.02)  # else all velocities are zero
    return model


@torch.no_grad()
def measure(model: LaDiRForReasoning, length: int, args: argparse.Namespace) -> dict:
    """Return the seconds of both ways for questions of a length, and how far apart their latents are."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.text_config.vocab_size, (args.rows, length), generator=generator)
    ids = ids.to(args.device)
    shape = (args.blocks, model.config.latents_per_block, model.config.latent_dim)
    noise = randn_rows(shape, row_generators(0, 0, 0, args.rows)).to(args.device)
    seconds = {"full": [], "cached": []}
    latents = {}
    for _ in range(args.rounds + 1):  # the first warms up
        for way, denoise in (("full", denoise_fully), ("cached", denoise_cached)):
            started = perf_counter()
            latents[way] = denoise(model, ids, noise, args.steps).cpu()
            seconds[way].append(perf_counter() - started)
    ratios = [full / cached for full, cached in zip(*seconds.values(), strict=True)][1:]
    medians = {way: median(values[1:]) for way, values in seconds.items()}
    return {
        "question_length": length,
        **{f"{way}_seconds": value for way, value in medians.items()},
        **{f"{way}_latents_per_second": noise[..., 0].numel() / value for way, value in medians.items()},
        "speedup": median(ratios),
        "largest_difference": (latents["full"] - latents["cached"]).abs().max().item(),
    }


def measure_latency(args: argparse.Namespace) -> list[dict]:
    """Return the seconds of a language model's chains and of the pipeline's answers to the same held-out problems.

    Raises:
        ValueError: without a pipeline that has a task.
    """
    if args.pipeline is None:
        raise ValueError("`--language_model` is compared with a `--pipeline`; give both.")
    pipeline = LaDiRPipeline.from_pretrained(args.pipeline, dtype=torch.float32).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    silent = LaDiRPipeline.from_pretrained(args.pipeline, vae=None, dtype=torch.float32).to(args.device)
    silent.set_progress_bar_config(disable=True)
    if pipeline.task is None:
        raise ValueError(f"`--pipeline` {str(args.pipeline)!r} has no task whose problems could be asked.")
    model = load_complete(AutoModelForCausalLM, args.language_model, dtype=torch.float32).to(args.device).eval()
    tokenizer = load_tokenizer(args.language_model)
    problems = pipeline.task.to_dataset("test", max(BATCH_SIZES))["prompt"][:]
    rows = []
    for size in BATCH_SIZES:
        prompts, generator = problems[:size], torch.Generator().manual_seed(0)
        ways = {
            "language model": lambda p=prompts, g=generator: write_continuations(
                model, tokenizer, p, 0.0, 1, LONGEST_CHAIN, g
            )
        }
        for (what, reasoner), steps in product((("", pipeline), (", thoughts not read", silent)), STEPS):
            ways[f"{steps} denoising steps{what}"] = lambda r=reasoner, p=prompts, n=steps: r(
                p, num_inference_steps=n, generator=row_generators(0, 0, 0, len(p))
            )
        seconds = {way: [] for way in ways}
        for _ in range(args.rounds + 1):  # the first warms up
            for way, answer in ways.items():
                started = perf_counter()
                answer()
                seconds[way].append(perf_counter() - started)
        for way, values in seconds.items():
            ratios = [own / text for own, text in zip(values, seconds["language model"], strict=True)][1:]
            rows.append({"batch_size": size, "way": way, "seconds": median(values[1:]), "relative": median(ratios)})
    return rows


def denoise_cached(model: LaDiRForReasoning, ids: Tensor, noise: Tensor, num_steps: int) -> Tensor:
    """Return `(rows, blocks, length, dim)` latents; question and finished blocks are read once."""
    prefix, blocks = read_question(model, ids, torch.ones_like(ids, dtype=torch.bool)), []
    for latents in noise.unbind(1):
        for time in euler_times(num_steps):
            latents = euler_step(
                model, latents, time, num_steps, lambda z, t, p=prefix: predict_latents(model, p, z, t)
            )
        prefix, _ = append_block(model, prefix, latents)
        blocks.append(latents)
    return torch.stack(blocks, dim=1)


def denoise_fully(model: LaDiRForReasoning, ids: Tensor, noise: Tensor, num_steps: int) -> Tensor:
    """Return the same; every step reads question and finished blocks anew."""
    blocks: list[Tensor] = []
    for latents in noise.unbind(1):
        for time in euler_times(num_steps):
            latents = euler_step(model, latents, time, num_steps, lambda z, t: predict_fully(model, ids, blocks, z, t))
        blocks.append(latents)
    return torch.stack(blocks, dim=1)


def predict_fully(model: LaDiRForReasoning, ids: Tensor, blocks: list[Tensor], latents: Tensor, t: Tensor) -> Tensor:
    """Return the prediction for a block by one pass over the whole sequence."""
    question = model.embed_question(ids, torch.ones_like(ids, dtype=torch.bool))
    parts = [question, *(model.embed_block(block) for block in blocks), model.embed_block(latents, t.expand(len(ids)))]
    sizes = [part.shape[1] for part in parts]
    piece = torch.arange(len(parts)).repeat_interleave(torch.tensor(sizes)).to(ids.device)
    order = torch.arange(sum(sizes), device=ids.device)
    is_own_block = (piece[:, None] == piece) & (piece > 0)[:, None]
    allowed = (order[:, None] >= order) | is_own_block
    positions = order - (order > sum(sizes[:-1])).long()  # the timestep token stands with ⟨BOT⟩
    embeddings = torch.cat(parts, dim=1)
    states, _ = model.read(embeddings, allowed.expand(len(ids), -1, -1), positions.expand(len(ids), -1))
    return model.latent_out(states[:, -sizes[-1] + 2 : -1]).float()


def euler_step(model: LaDiRForReasoning, latents: Tensor, time: float, num_steps: int, predict) -> Tensor:
    """Return the latents after a step."""
    t = torch.tensor(time, device=latents.device)
    prediction = predict(latents, t)
    return latents - predicted_velocity(prediction, latents, t, model.config.prediction_type) / num_steps


if __name__ == "__main__":
    main()
