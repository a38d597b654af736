"""Train a reasoner from a recipe: every stage, then the evaluation, the saved pipeline and its card.

    python examples/run_train.py examples/recipes/ldlm/addition.yaml
    python examples/run_train.py examples/recipes/ldlm/addition.yaml --resume
    python examples/run_train.py examples/recipes/ldlm/addition.yaml --override seed=1 denoiser_training.max_steps=100
    accelerate launch examples/run_train.py examples/recipes/ldlm/addition_paper.yaml --report_to tensorboard
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from diffusers import DDIMScheduler

from ldlm_hf.evaluation import baselines_of_chance, environment, evaluate_pipeline, split_overlap, summarize, write_results
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, load_problems, train_recipe
from ldlm_hf.ldlm.reconstruction import reconstruction_accuracy
from ldlm_hf.model_card import load_results, write_model_card
from ldlm_hf.tasks import TASKS
from ldlm_hf.training import read_recipe, read_section


NOISE_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5)


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe that the command line names."""
    args = make_parser().parse_args(arguments)
    values = read_recipe(args.recipe, args.override)
    for name in ("output_dir", "dataset", "report_to"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    evaluation = values.pop("evaluation", {})
    recipe = read_section(LatentReasoningRecipe, values)
    pipeline, records = train_recipe(recipe, resume=args.resume)
    command = shlex.join(["python", "examples/run_train.py", *(arguments if arguments is not None else sys.argv[1:])])
    folder = recipe.folder("pipeline")
    write_results(folder / "results" / "training.json", training_results(recipe, records, pipeline, command))
    results = evaluation_results(recipe, pipeline, evaluation, command)
    write_results(folder / "results" / "evaluation.json", results)
    write_model_card(load_results(folder / "results"), folder / "README.md")
    print(json.dumps(results["evaluation"], indent=2))
    if args.push_to_hub:
        pipeline = type(pipeline).from_pretrained(folder)
        print(pipeline.push_to_hub(args.push_to_hub))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("--resume", action="store_true", help="go on from what output_dir holds")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value", help="change the recipe")
    parser.add_argument("--output_dir", help="where everything goes")
    parser.add_argument("--dataset", help="Hub id or JSONL file with the columns prompt, target and answer")
    parser.add_argument("--report_to", help="any tracker of the Trainer")
    parser.add_argument("--push_to_hub", metavar="user/name", help="push the pipeline when done")
    return parser


def training_results(recipe: LatentReasoningRecipe, records: dict, pipeline, command: str) -> dict:
    """Return what the training cost, stage by stage."""
    stages = [
        {"name": name, **{key: value for key, value in record.items() if key != "log"}} for name, record in records.items()
    ]
    sizes = {
        "autoencoder": sum(parameter.numel() for parameter in pipeline.autoencoder.parameters()),
        "denoiser": sum(parameter.numel() for parameter in pipeline.denoiser.parameters()),
    }
    surroundings = environment()
    return {
        "model_name": Path(recipe.output_dir).name,
        "task": recipe.task,
        "parameters": {**sizes, "total": sum(sizes.values())},
        "training": {
            "stages": stages,
            "total_seconds": sum(stage["seconds"] for stage in stages),
            "machine": surroundings,
            "command": command,
        },
        "recipe": asdict(recipe),
    }


def evaluation_results(recipe: LatentReasoningRecipe, pipeline, settings: dict, command: str) -> dict:
    """Evaluate on held-out problems: the answer, the denoising steps, the autoencoder and the lines of chance."""
    if recipe.dataset is None:
        task = TASKS[recipe.task]()
        train, test = task.to_dataset("train"), task.to_dataset("test", settings.get("num_problems"))
    else:
        train, test = load_problems(recipe)
    steps, seed = settings.get("num_inference_steps", 20), settings.get("seed", 0)
    records = evaluate_pipeline(pipeline, test, num_inference_steps=steps, seed=seed)
    summary = summarize(records, recipe.task)
    curve_rows = test.select(range(min(len(test), settings.get("curve_problems", 1000))))
    curve = []
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    for count in settings.get("curve_steps", (1, 2, 5, 10, 20, 50)):
        accuracy = summarize(evaluate_pipeline(pipeline, curve_rows, num_inference_steps=count, seed=seed), recipe.task)
        point = {"scheduler": "DDIMScheduler", "num_inference_steps": count, "num_problems": len(curve_rows)}
        curve.append({**point, "answer_accuracy": accuracy["answer_accuracy"]})
    texts = test["target"]
    decodability = [
        {"noise": noise, "exact_match": reconstruction_accuracy(pipeline.autoencoder, pipeline.tokenizer, texts, noise)}
        for noise in NOISE_LEVELS
    ]
    return {
        "evaluation": {
            **summary,
            "num_inference_steps": steps,
            "guidance_scale": 1.0,
            "scheduler": "DDPMScheduler",
            "seed": seed,
            "dtype": "float32",
            "split": "test",
            "command": command,
        },
        "steps_curve": curve,
        "decodability": decodability,
        "reconstruction": {"exact_match": decodability[0]["exact_match"], "num_texts": len(texts)},
        **baselines_of_chance(train["answer"], test["answer"]),
        "split_overlap": split_overlap(train, test),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
