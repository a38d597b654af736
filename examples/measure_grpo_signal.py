"""Measure how far gradients of diffu-GRPO from different prompts agree: what a reinforcement has to climb by.

    python examples/measure_grpo_signal.py --model runs/d1-sudoku-4x4-skill/seed-0/base/base/model/model --output results/d1/signal.json

One policy, many batches, no update: the mean cosine between the gradients of two batches is the share of a batch's gradient
(squared) that is signal. Near zero, updates are a random walk. Each advantage and each estimator sees the same prompts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ldlm_hf import DiffuGRPOConfig, DiffuGRPOTrainer
from ldlm_hf.d1.recipe import ReinforcementRecipe
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.llada.recipe import load_model
from ldlm_hf.loading import load_tokenizer
from ldlm_hf.training import read_recipe, read_section


RECIPE = Path(__file__).parent / "recipes" / "d1" / "sudoku_4x4_skill.yaml"
ADVANTAGES = {
    "reward": {"advantage_baseline": "none"},
    "reward less the group's mean": {"advantage_baseline": "group"},
    "the same, groups of 8": {"advantage_baseline": "group", "num_generations": 8},
}
ESTIMATORS = {"one_step": {}, "elbo": {"n_mc": 4}, "trajectory": {"n_mc": 9}}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the policy, with its tokenizer")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose reinforcement to measure")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--override", nargs="*", default=[], metavar="rl.training.key=value", help="change the recipe")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    section = read_section(ReinforcementRecipe, read_recipe(args.recipe, args.override)["rl"])
    rows = []
    for advantage, rules in ADVANTAGES.items():
        for estimator, draws in ESTIMATORS.items():
            settings = {**section.training, **rules, **draws, "logprob_estimator": estimator}
            row = {"advantage": advantage, "estimator": estimator, **measure(args, section, settings)}
            print(f"{advantage:<28} {estimator:<12} cosine {row['cosine']:+.3f} ± {row['standard_error']:.3f}")
            rows.append(row)
    if args.output is not None:
        shown = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["python", "examples/measure_grpo_signal.py", *shown])
        signal = {
            "rows": rows,
            "batches": args.batches,
            "rows_of_a_batch": section.training["per_device_train_batch_size"],
        }
        write_results(args.output, {"grpo_signal": {**signal, "command": command}, "environment": environment()})


def measure(args: argparse.Namespace, section: ReinforcementRecipe, settings: dict) -> dict[str, float]:
    """Return the mean cosine between the gradients of two batches, its standard error over disjoint pairs, and the reward."""
    with TemporaryDirectory() as folder:
        own = {
            "output_dir": folder,
            "num_iterations": 1,
            "beta": 0.0,
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
        }
        config = read_section(DiffuGRPOConfig, {**settings, **own})
        functions, _ = section.make_rewards()
        tokenizer = load_tokenizer(args.model)
        trainer = DiffuGRPOTrainer(load_model(args.model), functions, config, section.problems(), tokenizer)
        gradients, rewards = [], []
        for generation in range(args.batches):
            gradients.append(gradient_of(trainer, generation))
            rewards.append(trainer.means["train"].pop(list)["reward"])
    directions = torch.stack([gradient / gradient.norm().clamp(min=1e-12) for gradient in gradients])
    cosines = [float(directions[one] @ directions[other]) for one, other in combinations(range(len(directions)), 2)]
    disjoint = [float(one @ other) for one, other in zip(directions[::2], directions[1::2], strict=False)]
    error = stdev(disjoint) / len(cosines) ** 0.5
    return {"cosine": fmean(cosines), "standard_error": error, "reward": fmean(rewards)}


def gradient_of(trainer: DiffuGRPOTrainer, generation: int) -> Tensor:
    """Return the gradient of the loss of one generation's completions, `(parameters,)`."""
    trainer.state.global_step = generation  # with one inner iteration, updates and generations are the same
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, trainer._prepare_inputs({})).backward()
    return torch.cat(
        [parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.grad is not None]
    )


if __name__ == "__main__":
    main()
