"""What fine-tuning and reinforcement do to a small model: d1's four arms, two controls, and variants of the reinforcement.

python examples/run_d1_study.py --seeds 0 1 2 3 4
python examples/run_d1_study.py --recipe examples/recipes/d1/countdown_elicitation.yaml --results results/d1/countdown --runs runs/d1-countdown
python examples/run_d1_study.py --recipe examples/recipes/d1/sudoku_4x4_skill.yaml --arms base rl sft_in_task --results results/d1/skill --runs runs/d1-skill
python examples/run_d1_study.py --recipe examples/recipes/d1/sudoku_4x4_iterations.yaml --results results/d1/iterations --arms base variants

Each arm of each seed writes a file of its own as soon as it is done, and is left out where that is there already.

base           the model that stands for LLaDA-8B-Instruct
sft            and then demonstrations of the style on other problems, as s1K's are
rl             the base and then diffu-GRPO
sft_rl         both
sft_continued  the control of both: in place of the reinforcement, as many steps on the same demonstrations
sft_in_task    what as many steps on demonstrations of the task itself would do to the base
variants       of the arm rl: whatever the recipe names, each an arm `rl_NAME`
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from statistics import fmean, stdev
from time import time

from matmul_precision import add_matmul_precision, set_matmul_precision

from ldlm_hf.d1 import DiffuGRPOConfig
from ldlm_hf.d1.recipe import D1Recipe, train_d1
from ldlm_hf.d1.styles import style_figures
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.llada.pipeline_masked_diffusion import MaskedDiffusionPipeline
from ldlm_hf.noise import row_generators
from ldlm_hf.tasks import StyledTask, get_task
from ldlm_hf.training import merge_recipes, read_recipe, read_section


RECIPE = Path(__file__).parent / "recipes" / "d1" / "sudoku_4x4_elicitation.yaml"
ARMS = ("base", "sft", "rl", "sft_rl", "sft_continued", "sft_in_task")
FIGURES = {"graded_style": "graded style", "cell_accuracy": "blank cells", "solved": "solved"}


def main(arguments: list[str] | None = None) -> None:
    """Run the arms that the command line names and print a table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    set_matmul_precision(args.matmul_precision)
    command = shlex.join(["python", "examples/run_d1_study.py", *arguments])
    values = read_recipe(args.recipe, args.override)
    values.pop("system")
    variants = {f"rl_{name}": changes for name, changes in values.pop("variants", {}).items()}
    arms = [name for arm in args.arms for name in (variants if arm == "variants" else (arm,))]
    for seed in args.seeds:
        for arm in arms:
            path = args.results / f"{arm}-{seed}.json"
            if not path.exists():
                own = {"rl": variants[arm]} if arm in variants else {}
                write_results(path, run_arm(arm, seed, merge_recipes(values, own), args, command))
            print(f"{path.stem:<16}", json.dumps(json.loads(path.read_text())["greedy"]), flush=True)
    print(table(args.results, arms))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="YAML file with the stages base, sft and rl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=(*ARMS, "variants"))
    parser.add_argument("--results", type=Path, default=Path("results/d1/elicitation"), help="where the files go")
    parser.add_argument("--runs", type=Path, default=Path("runs/d1-elicitation"), help="where the models go")
    parser.add_argument("--num_problems", type=int, default=384, help="held-out puzzles of each evaluation")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value", help="change the recipe")
    add_matmul_precision(parser)
    return parser


def run_arm(arm: str, seed: int, values: dict, args: argparse.Namespace, command: str) -> dict:
    """Train one arm, on top of what was trained for others of this seed, and measure it."""
    started, updates = time(), values["rl"]["training"]["max_steps"]
    folder = args.runs / f"seed-{seed}"
    if arm == "base":
        pipeline, records = train(folder / "base", seed, values, None, "base")
    elif arm == "sft":
        pipeline, records = train(folder / "sft", seed, values, model_of(folder, "base"), "sft")
    elif arm.startswith("rl") or arm == "sft_rl":
        source = model_of(folder, "sft" if arm == "sft_rl" else "base")
        pipeline, records = train(folder / arm, seed, values, source, "rl")
    else:
        changed = merge_recipes(values, {"sft": {"model_training": {"max_steps": updates}}})
        if arm == "sft_in_task":
            own = {name: values["rl"].get(name) for name in ("task", "task_arguments")}
            without = merge_recipes(changed["sft"], {"train_size": None, "task_arguments": None})
            changed["sft"] = merge_recipes(without, own)  # nothing is left of the arguments of the other problems
        source = model_of(folder, "base" if arm == "sft_in_task" else "sft")
        pipeline, records = train(folder / arm, seed, changed, source, "sft")
    return {
        "arm": arm,
        "seed": seed,
        "greedy": measure(pipeline, values["rl"], args.num_problems),
        "sampled": measure(pipeline, values["rl"], args.num_problems, as_trained=True),
        "training": records,
        "seconds": round(time() - started, 1),
        "recipe": values,
        "command": command,
        "environment": environment(),
    }


def train(
    folder: Path, seed: int, values: dict, source: str | None, stage: str
) -> tuple[MaskedDiffusionPipeline, dict]:
    """Run one stage of the recipe, from a model or from nothing."""
    kept = {name: value for name, value in values.items() if name not in ("base", "sft", "rl", "output_dir", "seed")}
    own = {"output_dir": str(folder), "seed": seed, "pretrained": source, stage: values[stage]}
    return train_d1(read_section(D1Recipe, {**kept, **own}), resume=True)


def model_of(folder: Path, arm: str) -> str:
    """Return where the model of an earlier arm of the same seed is.

    Raises:
        ValueError: if it was not trained yet.
    """
    place = folder / arm / arm / "model" / "model"
    if not place.is_dir():
        raise ValueError(
            f"There is no {str(place)!r}; run the arm {arm!r} of this seed first, into the same `--runs`."
        )
    return str(place)


def measure(
    pipeline: MaskedDiffusionPipeline, rl: dict, num_problems: int, as_trained: bool = False
) -> dict[str, float]:
    """Return what share of held-out problems is solved, and of what can be right in parts; none is in the training data.

    Answers are greedy, or one sample each, by the rules by which the reinforcement writes its completions.
    """
    task = get_task(rl["task"], **rl.get("task_arguments", {}))
    problems = task.to_dataset("test", num_problems)
    pipeline.set_progress_bar_config(disable=True)
    generators = row_generators(0, 0, 0, len(problems))
    rules = {}
    if as_trained:
        config = read_section(DiffuGRPOConfig, {**rl["training"], "output_dir": "unused"})
        rules = {name: getattr(config, name) for name in ("temperature", "remasking", "num_inference_steps")}
    texts = pipeline(problems["prompt"][:], generator=generators, **rules).texts
    rows = list(zip(texts, problems["prompt"], problems["answer"], strict=True))
    if isinstance(task, StyledTask):
        return style_figures(*(list(column) for column in zip(*rows, strict=True)), task=task)
    figures = {"solved": fmean(task.is_correct(*row) for row in rows)}
    parts = [task.partial_score(*row) for row in rows]
    if None not in parts:
        figures["cell_accuracy"] = fmean(parts)
    return {**figures, "num_problems": len(rows)}


def table(folder: Path, arms: list[str]) -> str:
    """Return mean and standard error over the seeds of every arm that was run, as a Markdown table."""
    found = {arm: [read(path) for path in sorted(folder.glob(f"{arm}-[0-9]*.json"))] for arm in arms}
    figures = [name for name in FIGURES if all(name in row for rows in found.values() for row in rows)]
    lines = [
        " | ".join(["| arm", "seeds", *(FIGURES[name] for name in figures)]) + " |",
        "|---" * (2 + len(figures)) + "|",
    ]
    for arm, rows in found.items():
        if rows:
            columns = [describe([row[name] for row in rows]) for name in figures]
            lines.append(" | ".join([f"| {arm}", str(len(rows)), *columns]) + " |")
    return "\n".join(lines)


def read(path: Path) -> dict[str, float]:
    """Return the greedy figures of one arm and seed."""
    return json.loads(path.read_text())["greedy"]


def describe(shares: list[float]) -> str:
    """Return mean and standard error in per cent."""
    mean = f"{100 * fmean(shares):.1f}"
    return mean if len(shares) < 2 else f"{mean} ± {100 * stdev(shares) / len(shares) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
