"""Train a reasoner or a baseline from a recipe: every stage, then the evaluation, the saved model and its card.

python examples/run_train.py examples/recipes/ldlm/addition.yaml
python examples/run_train.py examples/recipes/ldlm/addition.yaml --resume
python examples/run_train.py examples/recipes/ldlm/addition.yaml --override seed=1 denoiser_training.max_steps=100
python examples/run_train.py examples/recipes/ldlm/a1_architecture_adaln_zero --preset tiny --task continuation:texts
python examples/run_train.py examples/recipes/ldlm/rotation_answer_last
python examples/run_train.py examples/recipes/llada/sudoku_4x4.yaml
python examples/run_train.py examples/recipes/d1/sudoku_4x4_elicitation.yaml
python examples/run_train.py examples/recipes/ladir/countdown.yaml
accelerate launch examples/run_train.py examples/recipes/ldlm/a7_multistep_addition_t1000 --report_to tensorboard
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import run_evaluate  # beside this script
from datasets import Dataset
from matmul_precision import add_matmul_precision, set_matmul_precision

from ldlm_hf import LatentReasoningPipeline, get_task
from ldlm_hf.d1.recipe import D1Recipe, train_d1
from ldlm_hf.evaluation import (
    answer_decision,
    count_parameters,
    decoding_trajectory,
    environment,
    evaluate_pipeline,
    load_pipeline,
    record_texts,
    summarize,
    write_results,
)
from ldlm_hf.ladir.recipe import LaDiRRecipe, train_ladir, train_stages
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, load_problems, train_recipe
from ldlm_hf.ldlm.recipe_baseline import BaselineRecipe, train_baseline, write_answers
from ldlm_hf.ldlm.reconstruction import reconstruction_accuracy
from ldlm_hf.llada.recipe import MaskedDiffusionRecipe, train_masked_diffusion
from ldlm_hf.model_card import load_results, write_model_card
from ldlm_hf.pipeline import ReasoningPipeline
from ldlm_hf.plots import plot_accuracy, plot_answer_decision, plot_decoding_trajectory
from ldlm_hf.training import read_recipe, read_section


NOISE_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5)
FIGURE_PROBLEMS = 500  # problems for each point of the card's curves


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe that the command line names."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    set_matmul_precision(args.matmul_precision)
    values = read_recipe(args.recipe, args.override, args.preset)
    for name in ("output_dir", "report_to", "task", "dataset"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.dataset is not None and args.task is None:
        values.pop("task", None)
    evaluation = values.pop("evaluation", {})
    values.pop("variants", None)  # those are a study's
    command = shlex.join(["python", "examples/run_train.py", *arguments])
    system = values.get("system", "latent_diffusion")
    if args.last_stage is not None and system != "ladir":
        raise ValueError(
            f"`last_stage` is for recipes of the system 'ladir', but {str(args.recipe)!r} is of {system!r}."
        )
    if system == "latent_diffusion":
        recipe = read_section(LatentReasoningRecipe, fields_of(LatentReasoningRecipe, values))
        run_reasoner(recipe, evaluation, command, args.resume)
    elif system == "masked_diffusion":
        del values["system"]
        recipe = read_section(MaskedDiffusionRecipe, values)
        run_masked_diffusion(recipe, evaluation, command, args.resume)
    elif system == "d1":
        del values["system"]
        pipeline, _ = train_d1(read_section(D1Recipe, values), args.resume)
        if args.push_to_hub:
            print(pipeline.push_to_hub(args.push_to_hub))
        return
    elif system == "ladir":
        del values["system"]
        run_ladir(read_section(LaDiRRecipe, values), command, args)
        return
    if system in ("latent_diffusion", "masked_diffusion"):
        if args.push_to_hub:
            print(load_pipeline(recipe.folder("pipeline")).push_to_hub(args.push_to_hub))
    else:
        recipe = read_section(BaselineRecipe, fields_of(BaselineRecipe, values))
        run_baseline(recipe, evaluation, command, args)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file, or the name of a recipe in a table beside it")
    parser.add_argument("--resume", action="store_true", help="go on from what output_dir holds")
    parser.add_argument(
        "--last_stage", help="of LaDiR: stop after this one; go on with --resume, maybe launched otherwise"
    )
    parser.add_argument("--preset", help="lay a file of the recipe's presets folder over it, such as tiny")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value", help="change the recipe")
    parser.add_argument("--output_dir", help="where everything goes")
    parser.add_argument("--dataset", help="Hub id or JSONL file with the columns prompt, target and answer")
    parser.add_argument("--task", help="in place of the recipe's; with --dataset: whose prompts and answers it holds")
    parser.add_argument("--report_to", help="any tracker of the Trainer")
    parser.add_argument("--push_to_hub", metavar="user/name", help="push the pipeline or the baseline when done")
    add_matmul_precision(parser)
    return parser


def fields_of(recipe_class: type, values: dict) -> dict:
    """Return what a recipe of this class reads; a recipe may hold sections for reasoner and baseline at once.

    Raises:
        ValueError: for a key that neither knows.
    """
    known = {*LatentReasoningRecipe.__dataclass_fields__, *BaselineRecipe.__dataclass_fields__}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"The recipe has sections that nothing reads: {unknown}; there are {sorted(known)}.")
    return {key: value for key, value in values.items() if key in recipe_class.__dataclass_fields__}


def run_reasoner(recipe: LatentReasoningRecipe, evaluation: dict, command: str, resume: bool) -> None:
    """Train all stages; write what they cost, how good the result is, its figures and its card."""
    pipeline, records = train_recipe(recipe, resume=resume)
    folder = recipe.folder("pipeline")
    write_results(folder / "results" / "training.json", training_results(recipe, records, pipeline, command))
    if recipe.task is None:
        write_results(folder / "results" / "evaluation.json", plain_evaluation(recipe, pipeline, evaluation, command))
        return
    results = evaluate_saved(recipe, evaluation)
    if "answer_accuracy" in results["evaluation"]:
        curves = measure_curves(recipe, pipeline, evaluation.get("num_inference_steps", 20))
        write_results(folder / "results" / "curves.json", {**curves, "environment": environment()})
        draw_figures(folder, {**results, **curves})
        write_model_card(load_results(folder / "results"), folder / "README.md")


def run_masked_diffusion(recipe: MaskedDiffusionRecipe, evaluation: dict, command: str, resume: bool) -> None:
    """Train a masked diffusion language model; write what it cost and, where a task says how, how good it is."""
    pipeline, records = train_masked_diffusion(recipe, resume=resume)
    folder = recipe.folder("pipeline")
    results = {"training": training_cost(records, command), "recipe": asdict(recipe)}
    write_results(folder / "results" / "training.json", results)
    if recipe.task is None:
        return
    results = evaluate_saved(recipe, evaluation)
    if "answer_accuracy" in results["evaluation"]:
        steps = results["evaluation"]["num_inference_steps"]
        curves = {"training_curve": measure_training(recipe, pipeline, "model", steps)}
        write_results(folder / "results" / "curves.json", {**curves, "environment": environment()})
        figures = draw_curves(folder, {**results, **curves})
        write_results(folder / "results" / "figures.json", {"figures": figures})
        write_model_card(load_results(folder / "results"), folder / "README.md")


def run_ladir(recipe: LaDiRRecipe, command: str, args: argparse.Namespace) -> None:
    """Train all stages of a LaDiR; write what they cost and, where a task says how, how often it answers right."""
    if args.last_stage is not None:
        train_stages(recipe, args.resume, args.last_stage)
        return
    pipeline, records = train_ladir(recipe, resume=args.resume)
    results = {"training": training_cost(records, command), "recipe": asdict(recipe)}
    if recipe.task is not None:
        problems = recipe.make_task().to_dataset("test")
        answered = evaluate_pipeline(pipeline, problems, batch_size=64, **recipe.sampling)
        results["evaluation"] = {**summarize(answered, recipe.make_task()), "split": "test"}
        print(json.dumps(results["evaluation"], indent=2))
    write_results(recipe.folder("pipeline") / "results" / "training.json", results)
    if args.push_to_hub:
        print(pipeline.push_to_hub(args.push_to_hub))


def evaluate_saved(recipe: LatentReasoningRecipe | MaskedDiffusionRecipe, evaluation: dict) -> dict:
    """Evaluate the saved pipeline as the recipe's section says, by the script and command that anyone could use."""
    folder = recipe.folder("pipeline")
    dataset = [] if recipe.dataset is None else ["--dataset", recipe.dataset]
    options = [item for name, value in evaluation.items() for item in (f"--{name}", str(value))]
    output = ["--output", str(folder / "results" / "evaluation.json"), "--model_name", Path(recipe.output_dir).name]
    return run_evaluate.main([str(folder), *dataset, *options, *output])


def run_baseline(recipe: BaselineRecipe, evaluation: dict, command: str, args: argparse.Namespace) -> None:
    """Train a baseline and evaluate it on the held-out problems."""
    model, tokenizer, record = train_baseline(recipe, resume=args.resume)
    task = recipe.make_task()
    problems = task.to_dataset("test", evaluation.get("num_problems"))
    records = record_texts(problems, write_answers(recipe, model, tokenizer, problems["prompt"][:]), task)
    results = {
        "system": recipe.system,
        "task": recipe.task,
        "task_arguments": recipe.task_arguments,
        "parameters": {"total": count_parameters(model)},
        "training": {key: value for key, value in record.items() if key != "log"},
        "evaluation": {**summarize(records, task), "split": "test", "command": command},
        "environment": environment(),
    }
    write_results(Path(recipe.output_dir) / "results" / "evaluation.json", results)
    print(json.dumps(results["evaluation"], indent=2))
    if args.push_to_hub:
        print(model.push_to_hub(args.push_to_hub), tokenizer.push_to_hub(args.push_to_hub))


def training_results(
    recipe: LatentReasoningRecipe, records: dict, pipeline: LatentReasoningPipeline, command: str
) -> dict:
    """Return what the training cost, stage by stage, and how well the autoencoder gives held-out targets back."""
    heldout = load_problems(recipe)[1]
    texts, prompts = heldout["target"][:], heldout["prompt"][:]
    parts = (pipeline.autoencoder, pipeline.tokenizer, texts)
    curve = [reconstruction_accuracy(*parts, noise, prompts=prompts) for noise in NOISE_LEVELS]
    return {
        "training": training_cost(records, command),
        "reconstruction": {"exact_match": curve[0], "num_texts": len(texts)},
        "decodability": [
            {"noise": noise, "exact_match": exact} for noise, exact in zip(NOISE_LEVELS, curve, strict=True)
        ],
        "recipe": asdict(recipe),
    }


def training_cost(records: dict, command: str) -> dict:
    """Return what a training cost, stage by stage."""
    stages = [
        {"name": name, **{key: value for key, value in record.items() if key != "log"}}
        for name, record in records.items()
    ]
    seconds = sum(stage["seconds"] for stage in stages)
    return {"stages": stages, "total_seconds": seconds, "machine": environment(), "command": command}


def measure_curves(recipe: LatentReasoningRecipe, pipeline: LatentReasoningPipeline, num_inference_steps: int) -> dict:
    """Return the accuracy at each kept checkpoint of the denoiser, and when during sampling the answers are decided."""
    curve = measure_training(recipe, pipeline, "denoiser", num_inference_steps)
    problems = figure_problems(recipe)
    return {"training_curve": curve, "answer_decision": answer_decision(pipeline, problems, num_inference_steps)}


def measure_training(
    recipe: LatentReasoningRecipe | MaskedDiffusionRecipe,
    pipeline: ReasoningPipeline,
    part: str,
    num_inference_steps: int,
) -> list[dict]:
    """Return the accuracy with the `part` of the pipeline that each kept checkpoint of its training holds."""
    own, curve = pipeline.components[part], []
    for place in sorted(recipe.folder(part).glob("checkpoint-*"), key=lambda place: int(place.name[11:])):
        averaged = place / "ema"
        trained = type(own).from_pretrained(averaged if averaged.is_dir() else place).eval()
        pipeline.register_modules(**{part: trained})
        records = evaluate_pipeline(pipeline, figure_problems(recipe), num_inference_steps=num_inference_steps)
        point = run_evaluate.figures_of(summarize(records, recipe.make_task()))
        curve.append({"training_steps": int(place.name[11:]), "num_inference_steps": num_inference_steps, **point})
    pipeline.register_modules(**{part: own})
    return curve


def figure_problems(recipe: LatentReasoningRecipe | MaskedDiffusionRecipe) -> Dataset:
    """Return the held-out problems that each point of a figure is measured on."""
    task = recipe.make_task()
    return task.to_dataset("test", min(FIGURE_PROBLEMS, task.num_problems("test")))


def draw_figures(folder: Path, results: dict) -> None:
    """Draw the card's figures from what was measured, and note which there are."""
    (folder / "figures").mkdir(exist_ok=True)
    pipeline = LatentReasoningPipeline.from_pretrained(folder)
    prompt = get_task(results["task"]).problem("test", 0).prompt
    trajectory = decoding_trajectory(pipeline, prompt)
    plot_decoding_trajectory(trajectory, folder / "figures" / "trajectory.png", prompt)
    figures = {"What the estimate of a held-out problem's latents reads as at each step": "figures/trajectory.png"}
    if results.get("answer_decision"):
        plot_answer_decision(results["answer_decision"], folder / "figures" / "answer_decision.png")
        figures["At which step the answers are decided"] = "figures/answer_decision.png"
    figures |= draw_curves(folder, results)
    write_results(folder / "results" / "figures.json", {"figures": figures})


def draw_curves(folder: Path, results: dict) -> dict[str, str]:
    """Draw accuracy against training steps, denoising steps and forward passes, as far as measured; return titles and paths."""
    (folder / "figures").mkdir(exist_ok=True)
    figures = {}
    if results.get("training_curve"):
        place = folder / "figures" / "accuracy_against_training.png"
        axis = {"against": "training_steps", "label": "training steps", "logarithmic": False}
        plot_accuracy(results["training_curve"], place, **axis)
        figures["Accuracy against training steps"] = "figures/accuracy_against_training.png"
    if results.get("steps_curve"):
        plot_accuracy(results["steps_curve"], folder / "figures" / "accuracy_against_steps.png")
        figures["Accuracy against denoising steps"] = "figures/accuracy_against_steps.png"
    if results.get("threshold_curve"):
        place = folder / "figures" / "accuracy_against_passes.png"
        axis = {"against": "mean_nfe", "label": "forward passes, mean", "logarithmic": False}
        points = [{**point, "mean_nfe": round(point["mean_nfe"], 2)} for point in results["threshold_curve"]]
        plot_accuracy(points, place, **axis)
        figures["Accuracy against forward passes, committing by confidence"] = "figures/accuracy_against_passes.png"
    return figures


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
