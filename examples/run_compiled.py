"""What `torch.compile` is worth for the denoiser: plain and compiled blocks in turn, in every precision, by width.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python examples/run_compiled.py \\
        --output model_cards/ldlm-addition/results/compilation.json

One block is compiled for all (`compile_repeated_blocks`), so that depth hardly matters. A row has the seconds of a plain
training step or denoising step over those of one with compiled blocks, median and range over rounds in which they go first
in turn, and the seconds by the clock on the wall that compiling takes, anew each time. Weights are random; the clock of the
steps is that of `run_paper_size.py`. On a CPU it needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import perf_counter

import torch
from run_paper_size import PRECISIONS, command_line, make_action, make_denoiser, time_of, uses_processor_time

from ldlm_hf.evaluation import environment, write_results


def main(arguments: list[str] | None = None) -> None:
    """Measure every width, mode and precision, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("compilation.json"), help="JSON file to write")
    parser.add_argument("--hidden_sizes", type=int, nargs="*", default=[128, 768], help="multiples of 64")
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[128, 32], help="one for each width")
    parser.add_argument("--depth", type=int, default=6, help="layers")
    parser.add_argument("--conditioning", default="in_context")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side, after one to warm up")
    parser.add_argument("--backend", default="inductor", help="of `torch.compile`")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    if len(args.hidden_sizes) != len(args.batch_sizes):
        parser.error(f"`--batch_sizes` {args.batch_sizes} has to have one size for each of {args.hidden_sizes}.")

    with torch.compiler.config.patch(force_disable_caches=True):
        rows = [
            measure(args, hidden_size, batch_size, mode, precision)
            for hidden_size, batch_size in zip(args.hidden_sizes, args.batch_sizes, strict=True)
            for mode, precisions in PRECISIONS.items()
            for precision in precisions
        ]
    results = {
        "rows": rows,
        "conditioning": args.conditioning,
        "num_layers": args.depth,
        "rounds": args.rounds,
        "clock": "processor" if uses_processor_time(args.device) else "wall",
        "command": command_line("run_compiled.py", arguments),
    }
    write_results(args.output, {"compilation": results, "environment": environment()})


def measure(args: argparse.Namespace, hidden_size: int, batch_size: int, mode: str, precision: str) -> dict:
    """Time plain and compiled steps in turn."""
    torch.compiler.reset()
    actions, warm_up = {}, {}
    for name, backend in (("plain", None), ("compiled", args.backend)):
        made = argparse.Namespace(hidden_size=hidden_size, device=args.device, compile_backend=backend)
        torch.manual_seed(0)
        denoiser = make_denoiser(made, args.conditioning, args.depth)
        actions[name] = make_action(made, denoiser, batch_size, mode, precision)
        started = perf_counter()
        actions[name]()
        warm_up[name] = perf_counter() - started
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(args.rounds):
        for name in sorted(actions, reverse=number % 2 == 0):
            seconds[name].append(time_of(actions[name], args.device))
    ratios = [plain / compiled for plain, compiled in zip(seconds["plain"], seconds["compiled"], strict=True)]
    row = {
        "hidden_size": hidden_size,
        "batch_size": batch_size,
        "mode": mode,
        "precision": precision,
        "seconds": seconds,
        "speedup": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "compile_seconds": warm_up["compiled"] - warm_up["plain"],
    }
    print(f"{hidden_size:4d} wide  {mode:8s} {precision:17s} {row['speedup']:.2f} times as fast compiled", flush=True)
    return row


if __name__ == "__main__":
    main()
