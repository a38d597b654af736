"""Train a reasoner from a recipe: every stage, then the evaluation, the saved pipeline and its card.

python examples/run_train.py examples/recipes/ldlm/addition.yaml
python examples/run_train.py examples/recipes/ldlm/addition.yaml --resume
python examples/run_train.py examples/recipes/ldlm/addition.yaml --override seed=1 denoiser_training.max_steps=100
accelerate launch examples/run_train.py examples/recipes/ldlm/addition_paper.yaml --report_to tensorboard
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import run_evaluate  # beside this script

from ldlm_hf import LatentReasoningPipeline, get_task
from ldlm_hf.evaluation import decoding_trajectory, environment, evaluate_pipeline, write_results
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, load_problems, train_recipe
from ldlm_hf.ldlm.reconstruction import reconstruction_accuracy
from ldlm_hf.model_card import load_results, write_model_card
from ldlm_hf.plots import plot_accuracy_against_steps, plot_decoding_trajectory
from ldlm_hf.training import read_recipe, read_section


NOISE_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5)


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe that the command line names."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    values = read_recipe(args.recipe, args.override, args.preset)
    for name in ("output_dir", "report_to"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.dataset is not None:
        values |= {"dataset": args.dataset, "task": args.task}
    evaluation = values.pop("evaluation", {})
    recipe = read_section(LatentReasoningRecipe, values)
    pipeline, records = train_recipe(recipe, resume=args.resume)
    folder = recipe.folder("pipeline")
    command = shlex.join(["python", "examples/run_train.py", *arguments])
    write_results(folder / "results" / "training.json", training_results(recipe, records, pipeline, command))
    if recipe.task is None:
        write_results(folder / "results" / "evaluation.json", plain_evaluation(recipe, pipeline, evaluation, command))
    else:
        dataset = [] if recipe.dataset is None else ["--dataset", recipe.dataset]
        options = [item for name, value in evaluation.items() for item in (f"--{name}", str(value))]
        output = [
            "--output",
            str(folder / "results" / "evaluation.json"),
            "--model_name",
            Path(recipe.output_dir).name,
        ]
        results = run_evaluate.main([str(folder), *dataset, *options, *output])
        draw_figures(folder, results)
        write_model_card(load_results(folder / "results"), folder / "README.md")
    if args.push_to_hub:
        print(LatentReasoningPipeline.from_pretrained(folder).push_to_hub(args.push_to_hub))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("--resume", action="store_true", help="go on from what output_dir holds")
    parser.add_argument("--preset", help="lay a file of the recipe's presets folder over it, such as tiny")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value", help="change the recipe")
    parser.add_argument("--output_dir", help="where everything goes")
    parser.add_argument("--dataset", help="Hub id or JSONL file with the columns prompt, target and answer")
    parser.add_argument("--task", help="with --dataset: the task whose prompts and answers it holds, if any")
    parser.add_argument("--report_to", help="any tracker of the Trainer")
    parser.add_argument("--push_to_hub", metavar="user/name", help="push the pipeline when done")
    return parser


def training_results(
    recipe: LatentReasoningRecipe, records: dict, pipeline: LatentReasoningPipeline, command: str
) -> dict:
    """Return what the training cost, stage by stage, and how well the autoencoder gives held-out targets back."""
    stages = [
        {"name": name, **{key: value for key, value in record.items() if key != "log"}}
        for name, record in records.items()
    ]
    texts = load_problems(recipe)[1]["target"][:]
    curve = [reconstruction_accuracy(pipeline.autoencoder, pipeline.tokenizer, texts, noise) for noise in NOISE_LEVELS]
    return {
        "training": {
            "stages": stages,
            "total_seconds": sum(stage["seconds"] for stage in stages),
            "machine": environment(),
            "command": command,
        },
        "reconstruction": {"exact_match": curve[0], "num_texts": len(texts)},
        "decodability": [
            {"noise": noise, "exact_match": exact} for noise, exact in zip(NOISE_LEVELS, curve, strict=True)
        ],
        "recipe": asdict(recipe),
    }


def draw_figures(folder: Path, results: dict) -> None:
    """Draw the card's figures from what was measured, and note which there are."""
    (folder / "figures").mkdir(exist_ok=True)
    pipeline = LatentReasoningPipeline.from_pretrained(folder)
    prompt = get_task(results["task"]).problem("test", 0).prompt
    trajectory = decoding_trajectory(pipeline, prompt)
    plot_decoding_trajectory(trajectory, folder / "figures" / "trajectory.png", prompt)
    figures = {"What the latents of a held-out problem read as after each step": "figures/trajectory.png"}
    if "steps_curve" in results:
        plot_accuracy_against_steps(results["steps_curve"], folder / "figures" / "accuracy_against_steps.png")
        figures["Accuracy against denoising steps"] = "figures/accuracy_against_steps.png"
    write_results(folder / "results" / "figures.json", {"figures": figures})


def plain_evaluation(
    recipe: LatentReasoningRecipe, pipeline: LatentReasoningPipeline, settings: dict, command: str
) -> dict:
    """Evaluate on the held-out rows of a data set that belongs to no task: the answer is the first word."""
    heldout = load_problems(recipe)[1]
    records = evaluate_pipeline(pipeline, heldout, num_inference_steps=settings.get("num_inference_steps", 20))
    figures = {
        "answer_accuracy": sum(record.is_correct for record in records) / len(records),
        "exact_match": sum(record.is_exact for record in records) / len(records),
        "num_problems": len(records),
        "command": command,
    }
    print(figures)
    return {"evaluation": figures, "environment": environment()}


if __name__ == "__main__":
    main()
