"""Measure an outer iteration of diffu-GRPO, sampling, scoring and all updates, against a plain reading of d1's released loop.

    python examples/run_d1_benchmark.py --output results/d1/speed.json

Both take turns on the same random weights and prompts. The plain loop runs the whole canvas and makes the logits of every position in
each pass, and scores the completions under the old policy and under the reference for every update, as released. Nothing
is learned here; what is equal between the two is tested in `tests/d1`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from datasets import Dataset
from llada_samplers import Samplers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ldlm_hf import DiffuGRPOConfig, DiffuGRPOTrainer, LLaDAForMaskedDiffusion
from ldlm_hf.evaluation import environment, write_results


PARTS = ("sampling", "scoring", "updating")
TEMPERATURE, PROMPT_MASKS, EPSILON, BETA, LEARNING_RATE = 0.9, 0.15, 0.5, 0.04, 1e-5


@dataclass(frozen=True)
class Setting:
    """Sizes of an outer iteration.

    Attributes:
        hidden_size, num_layers, vocab_size (`int`): of the model.
        prompt_length, gen_length, block_length, num_inference_steps (`int`): of the completions.
        rows (`int`): completions, all of one group.
        num_iterations (`int`): updates on them.
    """

    hidden_size: int
    num_layers: int
    vocab_size: int
    prompt_length: int = 64
    gen_length: int = 64
    block_length: int = 16
    num_inference_steps: int = 32
    rows: int = 6
    num_iterations: int = 12


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=6)
    parser.add_argument("--vocab_sizes", type=int, nargs="*", default=[500, 2000, 8000, 32000])
    parser.add_argument("--gen_length", type=int, default=64)
    parser.add_argument("--num_iterations", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for vocab_size in args.vocab_sizes:
        sizes = {"gen_length": args.gen_length, "num_inference_steps": args.gen_length // 2}
        setting = Setting(args.hidden_size, args.num_layers, vocab_size, num_iterations=args.num_iterations, **sizes)
        rows += measure(setting, args.rounds)
    for row in rows:
        parts = ", ".join(f"{name} {row[name]:.0%}" for name in PARTS)
        print(f"{row['vocab_size']:6} {row['way']:>12} {row['seconds']:8.2f} s {row['speedup']:6.2f}x  {parts}")
    if args.output is not None:
        shown = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["python", "examples/run_d1_benchmark.py", *shown])
        model = {"hidden_size": args.hidden_size, "num_layers": args.num_layers}
        results = {"model": model, "gen_length": args.gen_length, "num_iterations": args.num_iterations}
        speed = {**results, "rounds": args.rounds, "rows": rows, "command": command}
        write_results(args.output, {"grpo_speed": speed, "environment": environment()})


def measure(setting: Setting, rounds: int) -> list[dict]:
    """Return seconds and shares of each way; ratios are medians of the turns'."""
    length = setting.prompt_length + setting.gen_length
    source = Samplers(setting.hidden_size, setting.num_layers, setting.vocab_size, length).model
    ways = {
        "released": lambda: plain_iteration(deepcopy(source), setting),
        "ours": lambda: our_iteration(deepcopy(source), setting),
        "ours, cached": lambda: our_iteration(deepcopy(source), setting, cache="dual"),
    }
    times: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            spent = run()
            if turn > 0:  # the first is for warming up
                times[way].append(spent)
    rows = []
    for way, turns in times.items():
        totals = [sum(spent.values()) for spent in turns]
        pairs = zip(times["released"], totals, strict=True)
        row = {"vocab_size": setting.vocab_size, "way": way, "seconds": median(totals)}
        row["speedup"] = median(sum(plain.values()) / total for plain, total in pairs)
        shares = {
            part: median(spent[part] / total for spent, total in zip(turns, totals, strict=True)) for part in PARTS
        }
        rows.append({**row, **shares, "iterations_per_hour": 3600 / row["seconds"]})
    return rows


class Clock:
    """Adds up the seconds of each part."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens within."""
        start = perf_counter()
        yield
        self.seconds[name] += perf_counter() - start


def prompt_ids(setting: Setting) -> Tensor:
    """Return the `(rows, prompt)` ids of one prompt, repeated; none is special."""
    ids = torch.randint(
        2, setting.vocab_size - 1, (1, setting.prompt_length), generator=torch.Generator().manual_seed(0)
    )
    return ids.expand(setting.rows, -1)


def plain_iteration(model: LLaDAForMaskedDiffusion, setting: Setting) -> dict[str, float]:
    """Run the released loop once, as it reads, and return the seconds of its parts."""
    clock, reference, mask = Clock(), deepcopy(model).eval(), setting.vocab_size - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    prompts = prompt_ids(setting)
    with clock.part("sampling"):
        completions = plain_samples(model, prompts, mask, setting)
    advantages = torch.linspace(-1, 1, setting.rows)[:, None]
    masks = [torch.rand(prompts.shape) < PROMPT_MASKS for _ in range(setting.num_iterations)]
    with clock.part("scoring"), torch.no_grad():
        old, known = (
            [plain_log_probs(network, prompts, masking, completions, mask) for masking in masks]
            for network in (model, reference)
        )
    with clock.part("updating"):
        for iteration, masking in enumerate(masks):
            log_probs = plain_log_probs(model, prompts, masking, completions, mask)
            ratio = (log_probs - old[iteration]).exp()
            gain = torch.min(ratio * advantages, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages)
            difference = known[iteration] - log_probs
            loss = (BETA * (difference.exp() - difference - 1) - gain).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return clock.seconds


@torch.no_grad()
def plain_samples(model: LLaDAForMaskedDiffusion, prompts: Tensor, mask: int, setting: Setting) -> Tensor:
    """Return the `(rows, gen_length)` completions of the published sampler at a temperature."""
    start = prompts.shape[1]
    canvas = torch.nn.functional.pad(prompts, (0, setting.gen_length), value=mask)
    blocks = setting.gen_length // setting.block_length
    steps, count = setting.num_inference_steps // blocks, setting.gen_length // setting.num_inference_steps
    for block in range(blocks):
        end = start + (block + 1) * setting.block_length
        for _ in range(steps):
            logits = model(input_ids=canvas).logits
            noise = torch.rand(logits.shape, dtype=torch.float64)
            chosen = (logits.double().exp() / (-noise.log()) ** TEMPERATURE).argmax(dim=-1)
            confidence = logits.double().softmax(dim=-1).gather(2, chosen[..., None]).squeeze(2)
            confidence[:, end:] = -torch.inf
            confidence = torch.where(canvas == mask, confidence, -torch.inf)
            places = confidence.topk(count, dim=1).indices
            canvas = canvas.scatter(1, places, chosen.gather(1, places))
    return canvas[:, start:]


def plain_log_probs(
    model: LLaDAForMaskedDiffusion, prompts: Tensor, masking: Tensor, completions: Tensor, mask: int
) -> Tensor:
    """Return d1's one-step log-probabilities `(rows, gen_length)`, with logits of the whole canvas."""
    canvas = torch.cat([prompts.masked_fill(masking, mask), torch.full_like(completions, mask)], dim=1)
    scores = model(input_ids=canvas).logits[:, prompts.shape[1] :].log_softmax(dim=-1)
    return scores.gather(2, completions[..., None]).squeeze(2)


class ClockedTrainer(DiffuGRPOTrainer):
    """The trainer, with a clock."""

    clock: Clock

    def _write(self, *args):
        with self.clock.part("sampling"):
            return super()._write(*args)

    def _with_estimates(self, *args):
        with self.clock.part("scoring"):
            return super()._with_estimates(*args)


def our_iteration(model: LLaDAForMaskedDiffusion, setting: Setting, **generation) -> dict[str, float]:
    """Run this package's trainer for as many updates, and return the seconds of its parts."""
    tokenizer = word_tokenizer(setting.vocab_size)
    data = Dataset.from_dict({"prompt": [" ".join(tokenizer.convert_ids_to_tokens(prompt_ids(setting)[0].tolist()))]})

    def rising(prompts: list[str], completions: list[str], **columns) -> list[float]:
        return torch.linspace(-1, 1, len(completions)).tolist()

    with TemporaryDirectory() as folder:
        config = DiffuGRPOConfig(
            folder,
            num_generations=setting.rows,
            per_device_train_batch_size=setting.rows,
            num_iterations=setting.num_iterations,
            max_steps=setting.num_iterations,
            max_completion_length=setting.gen_length,
            block_length=setting.block_length,
            num_inference_steps=setting.num_inference_steps,
            generation_kwargs={"eos_early_stop": False, **generation},
            learning_rate=LEARNING_RATE,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = ClockedTrainer(model, [rising], config, data, tokenizer)
        trainer.clock = Clock()
        start = perf_counter()
        trainer.train()
        seconds = trainer.clock.seconds
        seconds["updating"] = perf_counter() - start - sum(seconds.values())
    return seconds


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of so many words, the first two and the last of which are special."""
    special = {0: "<pad>", 1: "<eos>", vocab_size - 1: "<mask>"}
    words = {special.get(i, f"w{i}"): i for i in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


if __name__ == "__main__":
    main()
