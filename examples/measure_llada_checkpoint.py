"""Accuracy, forward passes and speed of a trained masked diffusion model, by how many tokens it commits at once.

    python examples/measure_llada_checkpoint.py --checkpoint model_cards/llada-sudoku-4x4

The published loop at one and two tokens a step, this package at the same, with caches, and with thresholds. All answer the same
held-out problems and take turns. `run_llada_benchmark.py` does the same and writes it down.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import torch
from llada_samplers import Setting, counted_forwards, plain_generate
from run_paper_size import time_of
from torch import Tensor

from ldlm_hf import MaskedDiffusionPipeline
from ldlm_hf.evaluation import record_texts


THRESHOLDS = (0.5, 0.7, 0.9, 0.95)
TOKENS_PER_STEP = (1, 2)


def main(arguments: list[str] | None = None) -> None:
    """Measure a checkpoint and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("model_cards/llada-sudoku-4x4"))
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print_checkpoint(measure_checkpoint(args.checkpoint, args.problems, args.batch_size, args.rounds))


def measure_checkpoint(path: str | Path, num_problems: int, batch_size: int, rounds: int) -> dict:
    """Answer held-out problems with every sampler in turn; the seconds are medians of the rounds."""
    pipeline = MaskedDiffusionPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    if pipeline.task is None:
        raise ValueError(f"The pipeline in {str(path)!r} has no task, so that there is nothing to solve.")
    problems = pipeline.task.to_dataset("test", num_problems)
    length = pipeline.config.gen_length or 128
    block = min(pipeline.scheduler.config.block_length, length)
    batches = [problems[start : start + batch_size]["prompt"] for start in range(0, len(problems), batch_size)]
    samplers = make_samplers(pipeline, length, block)
    rows = {name: {"sampler": name} for name in samplers}
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    written: dict[str, list[Tensor]] = {}
    for turn in range(rounds):
        for name, sample in samplers.items():
            outputs: list[tuple[Tensor, Tensor]] = []
            with counted_forwards(pipeline.model) as passes:
                seconds[name].append(time_of(lambda: outputs.extend(map(sample, batches)), "cpu"))  # noqa: B023
            if turn == 0:
                written[name] = torch.cat([sequences for sequences, _ in outputs])
                nfe = torch.cat([nfe for _, nfe in outputs]).tolist()
                rows[name] |= {"nfe": fmean(nfe), "num_forwards": len(passes)}
    for name, row in rows.items():
        records = record_texts(problems, pipeline.decode(written[name]), pipeline.task)
        row["accuracy"] = fmean(record.is_correct for record in records)
        row["exact_accuracy"] = fmean(record.is_exact for record in records)
        row["tokens_per_forward"] = length / row["nfe"]
        row["tokens_per_second"] = len(problems) * length / median(seconds[name])
        row["forwards_per_second"] = row["num_forwards"] / median(seconds[name])
        row["speedup"] = median(a / b for a, b in zip(seconds["plain_1"], seconds[name], strict=True))
        row["agreement"] = float((written[name] == written["plain_1"]).float().mean())
    return {
        "checkpoint": Path(path).name,
        "task": pipeline.task.name,
        "num_problems": len(problems),
        "batch_size": batch_size,
        "gen_length": length,
        "block_length": block,
        "rows": list(rows.values()),
    }


def make_samplers(
    pipeline: MaskedDiffusionPipeline, length: int, block: int
) -> dict[str, Callable[[list[str]], tuple[Tensor, Tensor]]]:
    """Return what maps prompts to `(batch, length)` tokens and to the `(batch,)` forward passes of each, by name."""

    def plain(setting: Setting) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
        def sample(prompts: list[str]) -> tuple[Tensor, Tensor]:
            ids, mask = pipeline.encode_prompt(prompts, None, None, None)
            if not bool(mask.all()):
                raise ValueError("The published loop knows no padding, but the prompts differ in length.")
            tokens = plain_generate(pipeline.model, ids, pipeline.language_model.mask_token_id, setting)
            return tokens, torch.full((len(prompts),), setting.num_steps)

        return sample

    def ours(**arguments) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
        def sample(prompts: list[str]) -> tuple[Tensor, Tensor]:
            output = pipeline(prompts, gen_length=length, block_length=block, output_type="seq", **arguments)
            return output.sequences, output.nfe

        return sample

    samplers = {}
    for tokens in TOKENS_PER_STEP:
        samplers[f"plain_{tokens}"] = plain(Setting(length, block, tokens))
    for tokens in TOKENS_PER_STEP:
        samplers[f"ours_{tokens}"] = ours(num_inference_steps=Setting(length, block, tokens).num_steps)
    for cache in ("prefix", "dual"):
        samplers[f"{cache}_1"] = ours(num_inference_steps=length, cache=cache)
    for threshold in THRESHOLDS:
        samplers[f"threshold_{threshold}"] = ours(threshold=threshold)
    return samplers


def print_checkpoint(results: dict) -> None:
    """Print a Markdown table."""
    print(
        f"\n{results['checkpoint']}: {results['num_problems']} held-out problems of {results['task']}, "
        f"{results['batch_size']} at a time, {results['gen_length']} tokens in blocks of {results['block_length']}\n"
    )
    print("| sampler | accuracy | exact | nfe | tokens/forward | tokens/s | against `plain_1` | tokens as `plain_1` |")
    print("|---|---|---|---|---|---|---|---|")
    for row in results["rows"]:
        print(
            f"| `{row['sampler']}` | {row['accuracy']:.1%} | {row['exact_accuracy']:.1%} | {row['nfe']:.1f} | "
            f"{row['tokens_per_forward']:.2f} | {row['tokens_per_second']:.1f} | {row['speedup']:.2f} | "
            f"{row['agreement']:.1%} |"
        )


if __name__ == "__main__":
    main()
