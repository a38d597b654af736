"""Speed of sampling from a masked diffusion model, and memory of fine-tuning one, against what is published.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python examples/run_llada_benchmark.py --output llada_benchmark.json
    python examples/run_llada_benchmark.py --parts checkpoint --checkpoint model_cards/llada-sudoku-4x4

All samplers have the same weights and tokens and take turns, forward pass by forward pass:

* `plain`: LLaDA's published loop, with the output layer and a float64 softmax over the whole canvas; `plain_float32`: the same
  with a float32 softmax, as its later releases have it;
* `diffusers`: `LLaDA2Pipeline`, which shows the model nothing behind the current block;
* `full` and `truncated`: this package, token for token the same as `plain` and as `diffusers`;
* `prefix` and `dual`: this package with keys and values kept, an approximation of `full`;
* `block_causal` and `block_causal_cached`: the weights in a block-causal model, where keeping them is exact.

`grid` times single forward passes from states spread evenly over a generation, at every length and block length; `whole`
runs one setting from beginning to end; `pieces` says what a forward pass consists of. Weights are random there: how many
tokens a threshold commits, or how well caches agree, they cannot tell. `checkpoint` measures that on a trained model.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import product
from pathlib import Path
from statistics import fmean, median

import torch
from llada_samplers import EXACT, REFERENCES, SAMPLERS, Samplers, Setting, make_state, random_prompt
from measure_llada_checkpoint import measure_checkpoint, print_checkpoint
from measure_llada_memory import SIZES, compare_ways, print_memory
from run_paper_size import time_of, uses_processor_time
from torch import Tensor

from ldlm_hf.evaluation import count_parameters, environment, write_results


PARTS = ("grid", "whole", "pieces", "memory", "checkpoint")
QUICK = {"lengths": [64], "blocks": [32], "places": 1, "rounds": 1, "whole": [64, 32, 4], "batch_sizes": []}


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for, write it down and print it; end with an error if exact samplers disagree."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    command = ["python", "examples/run_llada_benchmark.py", *(sys.argv[1:] if arguments is None else arguments)]
    results = {
        "clock": "processor" if uses_processor_time(args.device) else "wall",
        "rounds": args.rounds,
        "command": shlex.join(command),
    }
    if set(args.parts) & {"grid", "whole", "pieces"}:
        longest = args.prompt_length + max(args.lengths + args.whole[:1])
        samplers = Samplers(args.hidden_size, args.num_layers, args.vocab_size, longest, args.device)
        prompt = random_prompt(args.prompt_length, args.vocab_size, args.device)
        results["model"] = {
            "hidden_size": args.hidden_size,
            "num_layers": args.num_layers,
            "vocab_size": args.vocab_size,
            "num_parameters": count_parameters(samplers.model),
            "prompt_length": args.prompt_length,
        }
        if "grid" in args.parts:
            results["grid"] = measure_grid(samplers, prompt, args)
        if "whole" in args.parts:
            results["whole"] = measure_whole(samplers, prompt, Setting(*args.whole))
        if "pieces" in args.parts:
            results["pieces"] = measure_pieces(samplers, prompt, Setting(*args.whole), args.rounds)
    if "memory" in args.parts:
        results["memory"] = [compare_ways({**SIZES, "batch_size": size}) for size in args.batch_sizes]
        for table in results["memory"]:
            print(f"\nMemory of a step, {table['batch_size']} x {table['length']} tokens\n")
            print_memory(table)
    if "checkpoint" in args.parts and args.checkpoint is not None:
        results["checkpoint"] = measure_checkpoint(args.checkpoint, args.problems, args.batch_size, args.rounds)
        print_checkpoint(results["checkpoint"])
    write_results(args.output, {"llada_benchmark": results, "environment": environment()})
    different = disagreements(results)
    if different:
        raise SystemExit(f"Samplers that have to write the same tokens do not: {different}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("llada_benchmark.json"), help="JSON file to write")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--lengths", type=int, nargs="*", default=[128, 256, 512], help="tokens to generate")
    parser.add_argument("--blocks", type=int, nargs="*", default=[8, 32, 128], help="block lengths")
    parser.add_argument("--tokens_per_step", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--whole", type=int, nargs=3, default=[256, 32, 2], help="length, block, tokens a step")
    parser.add_argument("--prompt_length", type=int, default=128, help="whole blocks, where the grids of all agree")
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--num_layers", type=int, default=6)
    parser.add_argument("--vocab_size", type=int, default=30_000)
    parser.add_argument("--places", type=int, default=3, help="states of a generation at which a forward is timed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each sampler at a state, and at a checkpoint")
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[1, 2], help="of the memory of a step")
    parser.add_argument("--checkpoint", type=Path, help="a saved MaskedDiffusionPipeline with a task")
    parser.add_argument("--problems", type=int, default=128, help="held-out problems for the checkpoint")
    parser.add_argument("--batch_size", type=int, default=32, help="problems at a time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one small setting, a minute or two")
    args = parser.parse_args(arguments)
    if args.quick:
        vars(args).update(QUICK)
    if args.prompt_length % args.whole[1]:
        parser.error(
            f"--prompt_length {args.prompt_length} has to be whole blocks of {args.whole[1]}, else grids differ"
        )
    return args


def measure_grid(samplers: Samplers, prompt: Tensor, args: argparse.Namespace) -> list[dict]:
    """Time single forward passes of every sampler at each setting; settings whose blocks do not fit are left out."""
    print("\nTokens a second, and times as many as `plain`\n")
    print(f"| length | block | tokens/forward | {' | '.join(f'`{name}`' for name in SAMPLERS)} |")
    print("|---" * (3 + len(SAMPLERS)) + "|")
    rows = []
    for sizes in product(args.lengths, args.blocks, args.tokens_per_step):
        setting = Setting(*sizes)
        if setting.gen_length % setting.block_length or setting.tokens_per_step >= setting.block_length:
            continue
        found = measure_setting(samplers, prompt, setting, args.places, args.rounds)
        cells = [f"{row['tokens_per_second']:.1f} ({row['speedup']:.1f})" for row in found]
        print(f"| {' | '.join(map(str, sizes))} | {' | '.join(cells)} |", flush=True)
        rows += found
    return rows


def measure_setting(samplers: Samplers, prompt: Tensor, setting: Setting, places: int, rounds: int) -> list[dict]:
    """Time forward passes at evenly spaced states: the median of the rounds at each, the mean over the states."""
    seconds: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    identical = dict.fromkeys(EXACT, True)
    for place in range(places):
        state = make_state(prompt, setting, (place + 0.5) / places, samplers.mask_token_id, seed=place)
        turns: dict[str, list[float]] = {name: [] for name in SAMPLERS}
        for turn in range(rounds + 1):
            after = {}
            for name in SAMPLERS:
                time, after[name] = samplers.time_forward(name, setting, state)
                if turn:  # the first is to warm up
                    turns[name].append(time)
        for name in SAMPLERS:
            seconds[name].append(median(turns[name]))
        for name in EXACT:
            other = after[REFERENCES[name]]
            if other is not None:
                identical[name] &= torch.equal(after[name], other)
    rows = []
    for name in SAMPLERS:
        row = {**vars(setting), "sampler": name, "seconds_per_forward": fmean(seconds[name])}
        row |= {"forwards_per_second": 1 / row["seconds_per_forward"], "tokens_per_forward": setting.tokens_per_step}
        row["tokens_per_second"] = row["forwards_per_second"] * row["tokens_per_forward"]
        row["speedup"] = fmean(seconds["plain"]) / row["seconds_per_forward"]
        known = name in EXACT and after[REFERENCES[name]] is not None
        row["identical"] = identical[name] if known else None
        rows.append(row)
    return rows


def measure_whole(samplers: Samplers, prompt: Tensor, setting: Setting) -> list[dict]:
    """Run one generation with every sampler from beginning to end, and compare what they wrote."""
    written, rows = {}, []
    for name in SAMPLERS:
        seconds, forwards, written[name] = samplers.time_generation(name, setting, prompt)
        reference = REFERENCES.get(name)
        agreement = None
        if reference is not None:
            agreement = float((written[name] == written[reference]).float().mean())
        rows.append(
            {
                **vars(setting),
                "sampler": name,
                "seconds": seconds,
                "num_forwards": forwards,
                "forwards_per_second": forwards / seconds,
                "tokens_per_forward": setting.gen_length / forwards,
                "tokens_per_second": setting.gen_length / seconds,
                "reference": reference,
                "agreement": agreement,
                "identical": agreement == 1.0 if name in EXACT else None,
            }
        )
        rows[-1]["speedup"] = rows[0]["seconds"] / seconds
    print_whole(rows)
    return rows


@torch.no_grad()
def measure_pieces(samplers: Samplers, prompt: Tensor, setting: Setting, rounds: int) -> dict[str, float]:
    """Return the seconds of what forward passes over the whole canvas are made of, the output layer on half a block."""
    state = make_state(prompt, setting, 0.5, samplers.mask_token_id)
    model, scheduler = samplers.model, samplers.pipeline.scheduler
    masks = max(1, setting.block_length // 2)
    hidden = model.model(state.now)[0]
    logits = model.lm_head(hidden)
    few = logits[:, :masks].clone()
    sample = state.now.new_full((1, masks), samplers.mask_token_id)
    count = torch.tensor([1], device=few.device)

    def choose() -> None:
        scheduler.step(few, 0, sample, mask_token_id=samplers.mask_token_id, num_transfer_tokens=count)

    pieces = {
        "backbone": lambda: model.model(state.now),
        "backbone_block": lambda: model.model(state.now[:, : setting.block_length]),
        "output_layer": lambda: model.lm_head(hidden),
        "output_layer_half_block": lambda: model.lm_head(hidden[:, :masks]),
        "argmax": lambda: logits.argmax(-1),
        "softmax_float64": lambda: logits.double().softmax(-1),
        "softmax_float32": lambda: logits.softmax(-1),
        "scheduler_half_block": choose,
    }
    turns = [{name: time_of(piece, samplers.device) for name, piece in pieces.items()} for _ in range(rounds + 1)]
    found = {name: median(turn[name] for turn in turns[1:]) for name in pieces}
    print(f"\nPieces of a forward pass over {state.now.shape[1]} positions\n\n| piece | ms |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {1e3 * seconds:.1f} |")
    return found


def disagreements(results: dict) -> list[str]:
    """Return which rows of an exact sampler differ from their reference."""
    rows = [row for part in ("grid", "whole") for row in results.get(part, [])]
    return [
        f"{row['sampler']} at {row['gen_length']}/{row['block_length']}/{row['tokens_per_step']}"
        for row in rows
        if row["identical"] is False
    ]


def print_whole(rows: list[dict]) -> None:
    """Print a Markdown table of samplers."""
    first = rows[0]
    print(
        f"\nA whole generation: {first['gen_length']} tokens in blocks of {first['block_length']}, "
        f"{first['tokens_per_step']} a step\n"
    )
    print("| sampler | tokens/s | forwards/s | tokens/forward | against `plain` | tokens the same |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        same = "" if row["reference"] is None else f"{row['agreement']:.0%} of `{row['reference']}`"
        print(
            f"| `{row['sampler']}` | {row['tokens_per_second']:.1f} | {row['forwards_per_second']:.1f} | "
            f"{row['tokens_per_forward']:.2f} | {row['speedup']:.2f} | {same} |"
        )


if __name__ == "__main__":
    main()
