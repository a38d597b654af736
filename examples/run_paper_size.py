"""Speed of the denoiser at the paper's size, as shares of the rate of matrix products measured in turn with it.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python examples/run_paper_size.py \\
        --output model_cards/ldlm-addition/results/paper_size.json --figure model_cards/ldlm-addition/figures/cost_model.png

Weights are random: speed does not depend on them. A training step is a forward and a backward pass and the step of AdamW;
sampling is one forward pass without gradients. The matrix products beside them are those of one block, forward or forward
and backward, of the same sizes and precision, into memory that is there already: what a step would reach that did nothing
else. On one thread of a CPU the clock counts the processor's time for this process, so that other work of the machine,
which has its own share of the wall clock, does not count. A step of 24 layers at batch 128 takes about a minute on such a
thread: `--depths`, `--conditionings`, `--modes` and `--rounds` choose less. `--figure` adds the cost model.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter, process_time

import torch
from diffusers import DDIMScheduler

from ldlm_hf import LatentDiT
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ldlm.cost import count_flops, fit_cost_model
from ldlm_hf.ldlm.losses import squared_error
from ldlm_hf.ldlm.transformer_latent_dit import CONDITIONINGS
from ldlm_hf.plots import plot_cost_model


PRECISIONS = {
    "training": ("float32", "bfloat16 autocast"),
    "sampling": ("float32", "bfloat16 autocast", "bfloat16"),
}
COST_BASE = {"latents": 16, "layers": 2, "batch": 8, "steps": 5}
COST_GRID = {"latents": (4, 16, 64), "layers": (1, 2, 4), "batch": (1, 8, 32), "steps": (1, 5, 20)}
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("paper_size.json"), help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="PNG file to draw the cost model to")
    parser.add_argument("--conditionings", nargs="*", default=list(CONDITIONINGS), choices=CONDITIONINGS)
    parser.add_argument("--depths", type=int, nargs="*", default=[6, 12, 24])
    parser.add_argument("--modes", nargs="*", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--hidden_size", type=int, default=768, help="width; 12 heads, or one for 64 where fewer")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, after one to warm up")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", nargs="?", const="inductor", dest="compile_backend", metavar="BACKEND", help="compile the blocks"
    )
    args = parser.parse_args(arguments)
    made_with = environment()  # before the figure changes the checkout

    rows = [
        measure(args, conditioning, depth, mode, precision)
        for conditioning in args.conditionings
        for depth in args.depths
        for mode in args.modes
        for precision in PRECISIONS[mode]
    ]
    results = {
        "hidden_size": args.hidden_size,
        "batch_size": args.batch_size,
        "clock": "processor" if uses_processor_time(args.device) else "wall",
        "has_amx": args.device == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False),
        "compiled": args.compile_backend is not None,
        "rounds": args.rounds,
        "rows": rows,
        "cost": None,
        "command": command_line("run_paper_size.py", arguments),
    }
    if args.figure is not None:
        place = os.path.relpath(args.figure, args.output.parent.parent)  # seen from the card
        results["cost"] = {**measure_cost(args), "figure": place}
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        plot_cost_model(results["cost"]["points"], args.figure)
    write_results(args.output, {"paper_size": results, "environment": made_with})


def command_line(script: str, arguments: list[str] | None) -> str:
    """Return the command that runs a script of this folder, with what of the environment decides its speed."""
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    command = shlex.join(["python", f"examples/{script}", *(sys.argv[1:] if arguments is None else arguments)])
    return " ".join([*settings, command])


def uses_processor_time(device: str) -> bool:
    """Return whether the time of this process is the time of the work: not with threads, nor on an accelerator."""
    return device == "cpu" and torch.get_num_threads() == 1


def time_of(action: Callable[[], object], device: str) -> float:
    """Return the seconds that an action takes."""
    clock = process_time if uses_processor_time(device) else perf_counter
    if device != "cpu":
        torch.accelerator.synchronize()
    started = clock()
    action()
    if device != "cpu":
        torch.accelerator.synchronize()
    return clock() - started


def make_denoiser(args: argparse.Namespace, conditioning: str, depth: int, latents: int = 16) -> LatentDiT:
    """Return a denoiser of the paper's width with random weights, none of them zero."""
    sizes = {"hidden_size": args.hidden_size, "num_attention_heads": args.hidden_size // 64, "num_layers": depth}
    denoiser = LatentDiT(latent_length=latents, conditioning=conditioning, **sizes).to(args.device)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    if args.compile_backend is not None:
        denoiser.compile_repeated_blocks(fullgraph=True, backend=args.compile_backend)
    return denoiser


def make_action(
    args: argparse.Namespace, denoiser: LatentDiT, batch_size: int, mode: str, precision: str, steps: int = 1
) -> Callable[[], object]:
    """Return what takes a training step, or `steps` denoising steps, on random latents."""
    shape = (batch_size, denoiser.config.latent_length, denoiser.config.latent_dim)
    x0, condition = (torch.randn(shape, device=args.device) for _ in range(2))
    if precision == "bfloat16":
        denoiser.to(torch.bfloat16)
    autocast = torch.autocast(args.device, torch.bfloat16) if precision.endswith("autocast") else nullcontext()
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)

    @torch.no_grad()
    def sample() -> None:
        xt = x0
        for timestep in scheduler.timesteps:
            with autocast:
                output = denoiser(xt, timestep.to(args.device), condition)
            xt = scheduler.step(output.sample.float(), timestep, xt).prev_sample

    if mode == "sampling":
        return sample
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)  # as `Trainer` does
    timesteps = torch.randint(1000, (batch_size,), device=args.device)

    def train() -> None:
        with autocast:
            loss = squared_error(denoiser(x0, timesteps, condition).sample.float(), x0).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def make_products(args: argparse.Namespace, tokens: int, precision: str, mode: str) -> tuple[Callable[[], None], int]:
    """Return what computes the matrix products of a block's linear layers, and their number of operations."""
    dtype, width = torch.float32 if precision == "float32" else torch.bfloat16, args.hidden_size
    products, flops = [], 0
    for inner, outer, count in ((width, width, 4), (width, 4 * width, 1), (4 * width, width, 1)):
        x, weight, y = (
            torch.randn(shape, device=args.device, dtype=dtype)
            for shape in ((tokens, inner), (outer, inner), (tokens, outer))
        )
        made = [(x, weight.T, torch.empty_like(y))]
        if mode == "training":
            made += [(y, weight, torch.empty_like(x)), (y.T, x, torch.empty_like(weight))]
        products += made * count
        flops += 2 * tokens * inner * outer * count * len(made)

    def multiply() -> None:
        for a, b, out in products:
            torch.mm(a, b, out=out)

    return multiply, flops


def measure(args: argparse.Namespace, conditioning: str, depth: int, mode: str, precision: str) -> dict:
    """Time training or sampling in turn with matrix products, and return its rate as a share of theirs."""
    denoiser = make_denoiser(args, conditioning, depth)
    flops = count_flops(denoiser, args.batch_size, training=mode == "training")
    tokens = args.batch_size * 16 * (2 if conditioning == "in_context" else 1)
    action = make_action(args, denoiser, args.batch_size, mode, precision)
    multiply, product_flops = make_products(args, tokens, precision, mode)
    action(), multiply()
    seconds, rates, shares = [], [], []
    for _ in range(args.rounds):
        seconds.append(time_of(action, args.device))
        rates.append(product_flops / time_of(multiply, args.device))
        shares.append(flops / seconds[-1] / rates[-1])
    row = {
        "conditioning": conditioning,
        "num_layers": depth,
        "mode": mode,
        "precision": precision,
        "seconds": statistics.median(seconds),
        "samples_per_second": args.batch_size / statistics.median(seconds),
        "gflops": flops / statistics.median(seconds) / 1e9,
        "matrix_rate_gflops": statistics.median(rates) / 1e9,
        "share_of_matrix_rate": statistics.median(shares),
    }
    print(
        f"{conditioning:15s} {depth:2d} layers  {mode:8s} {precision:17s} {row['seconds']:8.3f} s  "
        f"{row['gflops']:8.1f} of {row['matrix_rate_gflops']:8.1f} GFLOP/s = {row['share_of_matrix_rate']:.0%}",
        flush=True,
    )
    return row


def measure_cost(args: argparse.Namespace) -> dict:
    """Time in-context denoisers in float32 over a small grid, one size changed at a time, and fit the cost model."""
    result = {"base": COST_BASE, "precision": "float32", "conditioning": "in_context", "points": []}
    for mode in PRECISIONS:
        points = []
        for vary in COST_GRID if mode == "sampling" else [name for name in COST_GRID if name != "steps"]:
            for value in COST_GRID[vary]:
                sizes = {**COST_BASE, vary: value}
                denoiser = make_denoiser(args, "in_context", sizes["layers"], sizes["latents"])
                steps = sizes["steps"] if mode == "sampling" else 1
                action = make_action(args, denoiser, sizes["batch"], mode, "float32", steps)
                action()
                seconds = statistics.median(time_of(action, args.device) for _ in range(args.rounds))
                flops = count_flops(denoiser, sizes["batch"], training=mode == "training")
                points.append({"what": mode, "vary": vary, "value": value, "seconds": seconds})
                points[-1] |= {"flops": flops, "layers": sizes["layers"], "passes": steps}
        work = [(point["flops"], point["layers"], point["seconds"] / point["passes"]) for point in points]
        model = fit_cost_model(*zip(*work, strict=True))
        for point in points:
            point["predicted_seconds"] = model.seconds(point["flops"], point["layers"], point["passes"])
        errors = [abs(point["predicted_seconds"] / point["seconds"] - 1) for point in points]
        result[mode] = {
            "gflops": model.rate / 1e9,
            "seconds_per_layer": model.seconds_per_layer,
            "median_error": statistics.median(errors),
            "largest_error": max(errors),
        }
        result["points"] += points
    return result


if __name__ == "__main__":
    main()
