"""Compare trainings over seeds: the reasoner, its sequence-to-sequence baselines, and one changed setting at a time.

    python examples/run_comparison.py examples/recipes/ldlm/addition_comparison.yaml
    python examples/run_comparison.py examples/recipes/ldlm/addition_comparison.yaml --section ablations

Every run writes its own JSON file and is not repeated if that is there, so a comparison can be broken off, taken up again
and divided among processes with `--seeds`. The last one writes `comparison.json` or `ablations.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from time import perf_counter

from transformers import BartForConditionalGeneration, set_seed

from ldlm_hf import TASKS, DenoiserTrainer, DenoiserTrainingArguments, LatentDiT, LatentReasoningPipeline
from ldlm_hf.evaluation import EvalRecord, environment, evaluate_pipeline, mean_and_standard_error, write_results
from ldlm_hf.ldlm.recipe import bart_of_size
from ldlm_hf.ldlm.trainer_baseline import BaselineTrainer, write_greedily
from ldlm_hf.training import ReproducibleTrainingArguments, read_recipe, read_section


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing of one section, then write it down as a whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("--section", choices=("comparison", "ablations"), default="comparison")
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value")
    args = parser.parse_args(arguments)
    plan = read_recipe(args.recipe, args.override)
    runs = {}
    for row in plan[args.section]:
        for seed in args.seeds or plan["seeds"]:
            path = (
                Path(plan["output_dir"]) / f"{re.sub('[^a-z0-9]+', '-', row['name'].lower()).strip('-')}-{seed}.json"
            )
            if not path.exists():
                print(f"{row['name']}, seed {seed}")
                write_results(path, run(plan, row, seed))
            runs[row["name"], seed] = json.loads(path.read_text())
    if args.seeds is None or args.seeds == plan["seeds"]:
        command = shlex.join(["python", "examples/run_comparison.py", *(arguments or sys.argv[1:])])
        results = {args.section: collect(plan, args.section, runs, command), "environment": environment()}
        write_results(Path(plan["output_dir"]) / "results" / f"{args.section}.json", results)
        print(json.dumps(results[args.section], indent=2))


def run(plan: dict, row: dict, seed: int) -> dict:
    """Train and evaluate one row under one seed."""
    pipeline = LatentReasoningPipeline.from_pretrained(plan["model"])
    pipeline.set_progress_bar_config(disable=True)
    started = perf_counter()
    if row.get("system", "reasoner") == "reasoner":
        records, size = run_reasoner(plan, row, seed, pipeline)
    else:
        records, size = run_baseline(plan, row, seed, pipeline)
    correct = sum(record.is_correct for record in records)
    seconds = round(perf_counter() - started, 1)
    return {
        "answer_accuracy": correct / len(records),
        "parameters": size,
        "seconds": seconds,
        "row": row,
        "seed": seed,
    }


def run_reasoner(plan: dict, row: dict, seed: int, pipeline: LatentReasoningPipeline) -> tuple[list[EvalRecord], int]:
    """Train a new denoiser on the pipeline's autoencoder."""
    task = TASKS[pipeline.config.task]()
    values = {
        **plan["training"],
        **plan["denoiser_training"],
        **row.get("training", {}),
        **row.get("denoiser_training", {}),
    }
    folders = {"output_dir": plan["output_dir"], "latent_cache_dir": str(Path(plan["output_dir"]) / "latents")}
    args = read_section(DenoiserTrainingArguments, values, seed=seed, **folders)
    set_seed(seed)
    denoiser = LatentDiT.from_config({**pipeline.denoiser.config, **row.get("denoiser", {})})
    parts = (pipeline.autoencoder, pipeline.scheduler, task.to_dataset("train"), pipeline.tokenizer)
    trainer = DenoiserTrainer(denoiser, args, *parts)
    trainer.train()
    with trainer.ema.applied():
        pipeline.register_modules(denoiser=denoiser.eval())
        test = task.to_dataset("test", plan["num_problems"])
        records = evaluate_pipeline(pipeline, test, num_inference_steps=plan["num_inference_steps"], seed=seed)
    return records, sum(p.numel() for part in (pipeline.autoencoder, denoiser) for p in part.parameters())


def run_baseline(plan: dict, row: dict, seed: int, pipeline: LatentReasoningPipeline) -> tuple[list[EvalRecord], int]:
    """Train a BART of the pipeline's size to write the target given the prompt."""
    task = TASKS[pipeline.config.task](answer_position=row["answer_position"])
    args = read_section(ReproducibleTrainingArguments, plan["training"], seed=seed, output_dir=plan["output_dir"])
    wanted = sum(p.numel() for part in (pipeline.autoencoder, pipeline.denoiser) for p in part.parameters())
    set_seed(seed)
    model = BartForConditionalGeneration(bart_of_size(pipeline.tokenizer, wanted))
    BaselineTrainer(model, args, task.to_dataset("train"), pipeline.tokenizer).train()
    test = task.to_dataset("test", plan["num_problems"])
    texts = write_greedily(
        model, pipeline.tokenizer, test["prompt"][:], max_new_tokens=pipeline.tokenizer.model_max_length - 1
    )
    columns = (test["prompt"], test["target"], test["answer"], texts, map(task.parse_answer, texts))
    return [EvalRecord(*values) for values in zip(*columns, strict=True)], sum(p.numel() for p in model.parameters())


def collect(plan: dict, section: str, runs: dict, command: str) -> dict:
    """Return the section as the card wants it."""
    rows = []
    for row in plan[section]:
        results = [runs[row["name"], seed] for seed in plan["seeds"]]
        accuracies = [result["answer_accuracy"] for result in results]
        mean, error = mean_and_standard_error(accuracies)
        seconds = sum(result["seconds"] for result in results) / len(results)
        figures = {"mean": mean, "standard_error": error, "parameters": results[0]["parameters"], "seconds": seconds}
        rows.append({"name": row["name"], "accuracies": accuracies, **figures})
    training = plan["training"]
    return {
        "rows": rows,
        "seeds": plan["seeds"],
        "steps": training["max_steps"],
        "batch_size": training["per_device_train_batch_size"],
        "num_problems": plan["num_problems"],
        "num_inference_steps": plan["num_inference_steps"],
        "command": command,
    }


if __name__ == "__main__":
    main()
