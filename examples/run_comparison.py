"""Compare trainings over seeds: reasoners, their baselines, and one changed setting at a time.

    python examples/run_comparison.py examples/recipes/ldlm/ablations.yaml --section study
    python examples/run_comparison.py examples/recipes/ldlm/tables.yaml --section table4 --seeds 0

A plan is a YAML file of sections; a section is a list of rows and what they share. A row trains one system
(`system: denoiser`, on the autoencoder of `pipeline`; `recipe`, all stages; `sequence_to_sequence` or `classifier`) or
only evaluates a `pipeline`, once for each seed, or the texts that scores of generated ones are read against (`TEXTS`). If
there is no `pipeline` yet, but a `recipe` for it, that is trained first. Under `variants` it lists further ways to sample.
Every run writes its own JSON file and is not repeated if that is there, so a comparison can be broken off, taken up again
and divided among processes with `--seeds` and `--rows`; a file that other settings or other weights made is refused, not
mixed in. When all runs of a section are there, its results are written.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from datasets import Dataset
from transformers import set_seed

from ldlm_hf import DenoiserTrainer, DenoiserTrainingArguments, LatentDiT, LatentReasoningPipeline
from ldlm_hf.evaluation import (
    count_parameters,
    environment,
    evaluate_pipeline,
    mean_and_standard_error,
    record_texts,
    summarize,
    write_results,
)
from ldlm_hf.ldlm.recipe import LatentReasoningRecipe, fit_problems, make_scheduler, train_recipe
from ldlm_hf.ldlm.recipe_baseline import SYSTEMS as BASELINES
from ldlm_hf.ldlm.recipe_baseline import BaselineRecipe, train_baseline, write_answers
from ldlm_hf.ldlm.reconstruction import reconstruct
from ldlm_hf.ldlm.supported_schedulers import make_sampler
from ldlm_hf.metrics.bert_score import bert_scores
from ldlm_hf.tasks import Task, get_task
from ldlm_hf.training import merge_recipes, read_recipe, read_section


class OtherSettingsError(ValueError):
    """A run that is there was made with other settings than its row has now."""


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing of a section, and write it down if it is whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="YAML file")
    parser.add_argument("--section", default="comparison", help="which section of the plan")
    parser.add_argument("--seeds", type=int, nargs="*", help="run only these")
    parser.add_argument("--rows", type=int, nargs="*", help="run only these, counted from 0")
    parser.add_argument("--no_run", action="store_true", help="write down what is there, run nothing")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value")
    args = parser.parse_args(arguments)
    plan = read_recipe(args.plan, args.override)
    shown = [str(args.plan), "--section", args.section, *(["--override", *args.override] if args.override else [])]
    command = shlex.join(["python", "examples/run_comparison.py", *shown])
    options = {"partial": args.no_run, "run": not args.no_run}
    results = run_section(plan, args.section, command, args.rows, args.seeds, **options)
    if results is not None:
        print(json.dumps(results, indent=2))


def run_section(
    plan: dict,
    name: str,
    command: str,
    rows: list[int] | None = None,
    seeds: list[int] | None = None,
    partial: bool = False,
    run: bool = True,
) -> dict | None:
    """Run what is missing of a section; return and write its results if it is whole then, or in any case if `partial`."""
    if name not in plan["sections"]:
        raise ValueError(f"`section` has to be one of {sorted(plan['sections'])}, but is {name!r}.")
    section = merge_recipes(plan.get("shared", {}), plan["sections"][name])
    every_row = [merge_recipes(section, row) for row in section.pop("rows")]
    folders = {
        (number, seed): Path(plan["output_dir"]) / name / f"{slug(row['name'])}-{seed}"
        for number, row in enumerate(every_row)
        for seed in row["seeds"]
    }
    paths = {key: folder.with_suffix(".json") for key, folder in folders.items()}
    asked = [key for key in paths if (rows is None or key[0] in rows) and (seeds is None or key[1] in seeds)]
    for number, seed in asked:
        if other := other_settings(paths[number, seed], every_row[number]):
            raise OtherSettingsError(f"{other} Delete it to run the row anew, or give the plan another `output_dir`.")
    wanted = asked if run else []
    missing = [number for number, seed in wanted if not paths[number, seed].exists()]
    for encoder in {json.dumps(row["bertscore"]) for row in map(every_row.__getitem__, missing) if "bertscore" in row}:
        bert_scores(["a"], ["a"], **json.loads(encoder))  # one that fails is told of before anything is trained
    for number, seed in wanted:
        row, folder = every_row[number], folders[number, seed]
        if not paths[number, seed].exists():
            print(f"{name}: {row['name']}, seed {seed}", file=sys.stderr)
            found = {**run_row(row, seed, folder), "settings": settings_of(row), "environment": environment()}
            write_results(paths[number, seed], found)
            shutil.rmtree(folder, ignore_errors=True)  # checkpoints; what they answered is written down
    runs = {}
    for key, path in paths.items():
        if other := other_settings(path, every_row[key[0]]):
            print(f"Left out: {other}", file=sys.stderr)
        elif path.exists():
            runs[key] = json.loads(path.read_text())
    if len(runs) < len(paths) and not partial:
        return None
    results = {"rows": collect(every_row, runs), "seeds": section["seeds"], "command": command}
    for name_of_figure in ("num_problems", "steps", "batch_size"):  # the same in most rows
        values = [found.get(name_of_figure) for found in runs.values()]
        results[name_of_figure] = max((value for value in values if value is not None), default=None)
    place = Path(plan["output_dir"]) / "results" / f"{name}.json"
    write_results(place, {name: results, "environment": environment()})
    return results


def other_settings(path: Path, row: dict) -> str | None:
    """Return in what the run in `path` differs from what the row says now; `None` if in nothing, or there is none."""
    if not path.exists():
        return None
    found, wanted = json.loads(path.read_text()).get("settings", {}), settings_of(row)
    if found == wanted:
        return None
    changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    return f"{path} was made with other settings of {changed} than the plan has now for the row {row['name']!r}."


def settings_of(row: dict) -> dict:
    """Return all that a run of the row depends on but its seed, with recipe and stored weights as they are now."""
    system = row.get("system", "denoiser")
    keys = ["system", "task", "task_arguments", "num_problems", "bertscore"]
    if system in BASELINES:
        keys += [key for key in BaselineRecipe.__dataclass_fields__ if key != "seed"]
    elif system not in TEXTS:
        keys += ["sampling", "variants"]
    keys += ["denoiser", "denoiser_training", "scheduler", "train_size"] if system == "denoiser" else []
    settings = {key: row[key] for key in keys if key in row}
    if system == "recipe":
        settings["recipe"] = recipe_values(row, 0, Path(row["recipe"]))
    elif system not in (*BASELINES, "other_targets"):
        settings["pipeline"] = pipeline_values(row) if "recipe" in row else row["pipeline"]
    if "pipeline" in settings and "recipe" not in row:
        settings["weights"] = digest_of_weights(Path(row["pipeline"]), trains_denoiser=system == "denoiser")
    return json.loads(json.dumps(settings))


def digest_of_weights(pipeline: Path, trains_denoiser: bool) -> str:
    """Return twelve hexadecimal digits that tell apart what rows take from a stored pipeline.

    That is all its weights, or those of the autoencoder and the sizes of the denoiser, if a new one is trained.
    """
    files = [*pipeline.glob("autoencoder/*.safetensors"), pipeline / "denoiser" / "config.json"]
    digest = sha256()
    for path in sorted(files if trains_denoiser else pipeline.glob("*/*.safetensors")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_row(row: dict, seed: int, folder: Path) -> dict:
    """Train and evaluate one row under one seed; `folder` is for what its training leaves behind."""
    task = get_task(row["task"], **row.get("task_arguments", {}))
    started = perf_counter()
    system = row.get("system", "denoiser")
    if system in TEXTS:
        problems = task.to_dataset("test", row.get("num_problems"))
        records = record_texts(problems, TEXTS[system](row, problems), task)
        return {**scores(records, task, row), "seconds": round(perf_counter() - started, 1), "seed": seed}
    if system in BASELINES:
        fields = BaselineRecipe.__dataclass_fields__
        values = {key: value for key, value in row.items() if key in fields and key != "pipeline"}
        recipe = BaselineRecipe(**{**values, "output_dir": str(folder), "seed": seed})
        model, tokenizer, record = train_baseline(recipe)
        problems = task.to_dataset("test", row.get("num_problems"))
        records = record_texts(problems, write_answers(recipe, model, tokenizer, problems["prompt"][:]), task)
        results = {"parameters": count_parameters(model), **without_log(record)}
        return {**results, **scores(records, task, row), "seconds": round(perf_counter() - started, 1), "seed": seed}
    if system == "recipe":
        pipeline, stages = train_recipe(read_section(LatentReasoningRecipe, recipe_values(row, seed, folder)))
        record = {**stages["denoiser"], "exact_reconstruction": stages["autoencoder"]["exact_reconstruction"]}
    else:
        pipeline = load_pipeline(row)
        trained = system == "denoiser"
        record = train_denoiser(pipeline, row, task, seed, folder) if trained else steps_of(Path(row["pipeline"]))
    results = {"parameters": sum(count_parameters(pipeline.components[part]) for part in ("autoencoder", "denoiser"))}
    variants = [{}, *row.get("variants", [])]
    outcomes = [sample(pipeline, row, task, seed, variant) for variant in variants]
    results |= {**without_log(record), **outcomes[0], "variants": outcomes[1:]}
    return {**results, "seconds": round(perf_counter() - started, 1), "seed": seed}


def load_pipeline(row: dict) -> LatentReasoningPipeline:
    """Return the row's pipeline, trained by the row's recipe if there is none yet: one for all rows and seeds."""
    folder = Path(row["pipeline"])
    if "recipe" in row and not folder.exists():
        train_recipe(read_section(LatentReasoningRecipe, pipeline_values(row)))
    return LatentReasoningPipeline.from_pretrained(folder)


def steps_of(pipeline: Path) -> dict:
    """Return how long the denoiser of a stored pipeline was trained, as far as it came with its results."""
    path = pipeline / "results" / "training.json"
    if not path.exists():
        return {}
    arguments = json.loads(path.read_text())["recipe"]["denoiser_training"]
    return {"steps": arguments["max_steps"], "batch_size": arguments["per_device_train_batch_size"]}


def reconstructions(row: dict, problems: Dataset) -> list[str]:
    """Return what the pipeline's autoencoder gives back of the targets: no denoiser on it can do better."""
    pipeline = load_pipeline(row)
    return reconstruct(pipeline.autoencoder, pipeline.tokenizer, problems["target"][:], prompts=problems["prompt"][:])


def other_targets(row: dict, problems: Dataset) -> list[str]:
    """Return for each problem the target of the next one: texts of the right kind about something else."""
    return [*problems["target"][1:], problems["target"][0]]


TEXTS = {"reconstructions": reconstructions, "other_targets": other_targets}


def train_denoiser(pipeline: LatentReasoningPipeline, row: dict, task: Task, seed: int, folder: Path) -> dict:
    """Put a new denoiser, trained on the pipeline's autoencoder, into the pipeline."""
    folders = {"output_dir": str(folder), "latent_cache_dir": str(folder.parents[1] / "latents")}
    args = read_section(DenoiserTrainingArguments, row["denoiser_training"], seed=seed, **folders)
    scheduler = make_scheduler(row.get("scheduler", {}))
    changes = {"num_train_timesteps": scheduler.config.num_train_timesteps, **row.get("denoiser", {})}
    set_seed(seed)
    denoiser = LatentDiT.from_config({**pipeline.denoiser.config, **changes})
    problems = fit_problems(task, task.to_dataset("train", row.get("train_size")), pipeline.tokenizer)
    trainer = DenoiserTrainer(denoiser, args, pipeline.autoencoder, scheduler, problems, pipeline.tokenizer)
    output = trainer.train()
    if trainer.ema is not None:
        trainer.ema.average.copy_to(denoiser.parameters())
    pipeline.register_modules(denoiser=denoiser.eval(), scheduler=scheduler)
    return {
        "steps": trainer.state.global_step,
        "batch_size": args.train_batch_size,
        "train_loss": output.training_loss,
    }


def sample(pipeline: LatentReasoningPipeline, row: dict, task: Task, seed: int, variant: dict) -> dict:
    """Answer the row's problems with its own settings of sampling, changed by those of the variant."""
    settings = {**row.get("sampling", {}), **variant}
    own, problems = pipeline.scheduler, task.to_dataset("test", row.get("num_problems"))
    sampler = {key: settings.pop(key) for key in ("scheduler", "variance_type") if key in settings}
    pipeline.scheduler = make_sampler(own, sampler.get("scheduler"), sampler.get("variance_type"))
    started = perf_counter()
    records = evaluate_pipeline(pipeline, problems, seed=seed, **settings)
    pipeline.scheduler = own
    seconds = round(perf_counter() - started, 1)
    return {"sampling": {**sampler, **settings}, **scores(records, task, row), "sampling_seconds": seconds}


def scores(records: list, task: Task, row: dict) -> dict:
    """Return the figures of a run: of lists, its accuracy by kind of problem alone."""
    summary = summarize(records, task, row.get("bertscore"))
    judged_by = {"bertscore": row["bertscore"]} if "bertscore" in row else {}
    kept = {name: value for name, value in summary.items() if name == "by_kind" or not isinstance(value, list)}
    return {**kept, **judged_by}


def recipe_values(row: dict, seed: int, folder: Path) -> dict:
    """Return the recipe of a row that trains all stages."""
    changes = {key: value for key, value in row.items() if key in LatentReasoningRecipe.__dataclass_fields__}
    values = read_recipe(Path(row["recipe"]), preset=row.get("preset"))  # which has sections of other systems, too
    values = {key: value for key, value in values.items() if key in LatentReasoningRecipe.__dataclass_fields__}
    return {**merge_recipes(values, changes), "output_dir": str(folder), "seed": seed}


def pipeline_values(row: dict) -> dict:
    """Return the recipe of the pipeline whose autoencoder a row's denoiser is trained on."""
    shared = {key: value for key, value in row.items() if key not in ("denoiser", "denoiser_training", "scheduler")}
    return recipe_values(shared, 0, Path(row["pipeline"]).parent)


def without_log(record: dict) -> dict:
    """Return a stage's record without its log and what depends on the machine."""
    kept = ("steps", "best_step", "batch_size", "train_loss", "exact_reconstruction")
    return {key: record[key] for key in kept if key in record}


def collect(rows: list[dict], runs: dict[tuple[int, int], dict]) -> list[dict]:
    """Return a line for each row and each of its variants: accuracy by seed, its mean and standard error."""
    lines = []
    for number, row in enumerate(rows):
        results = [runs[number, seed] for seed in row["seeds"] if (number, seed) in runs]
        if not results:
            continue
        metric = row.get("metric", "answer_accuracy")
        shipped = {"shipped": True} if row.get("system") == "pipeline" else {}  # one training, seeds of the sampling
        lines.append({**line(row["name"], results, metric), **shipped})
        for place, variant in enumerate(row.get("variants", [])):
            name = f"{row['name']}; " + ", ".join(f"{key} {value}" for key, value in variant.items())
            sampled = [{**result, **result["variants"][place]} for result in results]
            lines.append({**line(name, sampled, metric), **shipped})
    return lines


def line(name: str, results: list[dict], metric: str) -> dict:
    """Return the metric of each seed, its mean and standard error, and what the trainings cost."""
    accuracies = [result[metric] for result in results]
    mean, error = mean_and_standard_error(accuracies)
    figures = {
        key: results[0][key] for key in ("parameters", "num_problems", "batch_size", "bertscore") if key in results[0]
    }
    for key in ("steps", "exact_reconstruction"):  # by seed
        figures |= {key: [result[key] for result in results]} if all(key in result for result in results) else {}
    seconds = sum(result["seconds"] for result in results) / len(results)
    return {
        "name": name,
        "accuracies": accuracies,
        "mean": mean,
        "standard_error": error,
        "seconds": seconds,
        **figures,
    }


def slug(name: str) -> str:
    """Return a name as it may stand in a path."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
