"""Evaluate a saved reasoner on held-out problems, and write every figure with the command that made it.

    python examples/run_evaluate.py model_cards/ldlm-addition --output results.json
    python examples/run_evaluate.py model_cards/ldlm-addition --task addition --split test --num_inference_steps 20 \\
        --steps_curve 1,2,5,10,20,50,100 --curve_schedulers DDIMScheduler,DPMSolverMultistepScheduler --output results.json
    python examples/run_evaluate.py user/name --dataset my_problems.jsonl --num_problems 500 --device cuda --dtype bfloat16
    python examples/run_evaluate.py user/name --task continuation:texts --bertscore_model roberta-large
    python examples/run_evaluate.py model_cards/llada-sudoku-4x4 --steps_curve 4,8,16 --threshold_curve 0.7,0.9
    python examples/run_evaluate.py user/name --sampling '{"gen_length": 64, "block_length": 8, "temperature": 0.9}'
    python examples/run_evaluate.py runs/ladir-mixed/pipeline --num_samples 8 --sampling '{"initial_noise_scale": 2.0}'
    accelerate launch --multi_gpu --num_processes 8 examples/run_evaluate.py user/name --device cuda --dtype bfloat16 \\
        --output results.json --records records
    torchrun --nproc_per_node 2 examples/run_evaluate.py user/name --output results.json
    python examples/run_evaluate.py --suite tables --output results/tables.json

Several processes share the problems, each on a GPU of its own if it is `cuda`; on the CPU it is `torchrun` that starts them.
With `--records`, what is answered is written down batch by batch: after a kill, the same command goes on where it was, with
as many processes as there are now, and the results are those of one process that nobody killed. Several processes without
`--records` do that in `<output>.records` until the results are written. `seconds` is what answering took, added up over
processes and runs.

The last one makes every table of the paper anew (see `make_tables.py` beside this script). The JSON has the keys that `ldlm_hf.model_card` documents; put it into a pipeline's `results/` folder and its card shows it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import torch
from datasets import Dataset, load_dataset
from transformers import HfArgumentParser

from ldlm_hf import LatentReasoningPipeline, get_task
from ldlm_hf.evaluation import (
    EvalRecord,
    count_parameters,
    environment,
    evaluate_pipeline,
    load_pipeline,
    summarize,
    write_results,
)
from ldlm_hf.ldlm.supported_schedulers import DOCUMENTED_SCHEDULERS, make_sampler
from ldlm_hf.metrics.bert_score import bert_scores
from ldlm_hf.pipeline import ReasoningPipeline
from ldlm_hf.sharded_evaluation import Evaluation, evaluate_sharded, join_processes, num_inference_steps_of, own_device
from ldlm_hf.splits import baselines_of_chance, split_overlap
from ldlm_hf.tasks import SPLITS, Problem, Task


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SYSTEMS = {
    "LatentReasoningPipeline": "latent_diffusion",
    "MaskedDiffusionPipeline": "masked_diffusion",
    "HexPipeline": "voting",
    "LaDiRPipeline": "block_latent_diffusion",
}
SAMPLES = {"LatentReasoningPipeline": "num_samples", "LaDiRPipeline": "num_trajectories"}  # what a call says for them


@dataclass
class EvaluationArguments:
    """What to evaluate, on what, and how."""

    task: str | None = field(default=None, metadata={"help": "name of the task; by default the one of the pipeline"})
    task_arguments: str = field(default="{}", metadata={"help": "with --task: its further arguments, as JSON"})
    split: str = field(default="test", metadata={"help": "which problems", "choices": SPLITS})
    dataset: str | None = field(
        default=None, metadata={"help": "Hub id or JSONL file of problems of the task, in place of its own"}
    )
    num_problems: int | None = field(default=None, metadata={"help": "how many problems; all of them by default"})
    batch_size: int = field(default=256, metadata={"help": "problems at a time; has no influence on the results"})
    num_inference_steps: int | None = field(
        default=None, metadata={"help": "denoising steps; the pipeline's default by default"}
    )
    guidance_scale: float = field(default=1.0, metadata={"help": "classifier-free guidance; 1 is none"})
    num_samples: int = field(default=1, metadata={"help": "samples of each problem, of which one is chosen"})
    select: str = field(
        default="majority", metadata={"help": "how it is chosen", "choices": ("majority", "mbr", "verifier")}
    )
    sampling: str = field(default="{}", metadata={"help": "further arguments of the pipeline, as JSON"})
    scheduler: str | None = field(
        default=None, metadata={"help": "in place of the pipeline's own", "choices": DOCUMENTED_SCHEDULERS}
    )
    seed: int = field(default=0, metadata={"help": "of the noise"})
    dtype: str = field(default="float32", metadata={"help": "of the networks", "choices": list(DTYPES)})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, …"})
    steps_curve: str = field(default="", metadata={"help": "further numbers of steps to measure, such as 1,2,5,10"})
    curve_schedulers: str = field(default="", metadata={"help": "for the curve; by default the scheduler in use"})
    curve_problems: int | None = field(default=None, metadata={"help": "problems for the curve; all by default"})
    threshold_curve: str = field(
        default="", metadata={"help": "for masked diffusion: confidences to commit at, such as 0.7,0.9"}
    )
    vote_curve: str = field(default="", metadata={"help": "numbers of samples to vote over, such as 1,5,9"})
    bertscore_model: str | None = field(default=None, metadata={"help": "for text: path or Hub id of the encoder"})
    bertscore_layer: int | None = field(default=None, metadata={"help": "which of its hidden states"})
    model_name: str | None = field(
        default=None, metadata={"help": "for the card; by default the end of the model's path"}
    )
    records: Path | None = field(
        default=None,
        metadata={"help": "folder that answers are written to as they come, so that a killed run goes on"},
    )
    output: Path = field(default=Path("results.json"), metadata={"help": "JSON file to write"})


def main(arguments: list[str] | None = None) -> dict:
    """Evaluate what the command line names; write, print and return the results."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    args, rest = parser.parse_args_into_dataclasses(arguments)
    command = shlex.join(["python", "examples/run_evaluate.py", *arguments])
    if rest.suite is not None:
        import make_tables  # beside this script

        options = {"run": not rest.no_run, "text": rest.text, "bertscore": bertscore_arguments(args)}
        return make_tables.main(args.output, rest.tables, command, **options)
    if rest.model is None:
        parser.error("give a folder or Hub id of a saved pipeline, or --suite tables")
    curve, votes = read_curve(args), read_numbers("vote_curve", args.vote_curve)  # before anything costly
    thresholds = [float(word) for word in args.threshold_curve.split(",") if word.strip()]
    if (bertscore := bertscore_arguments(args)) is not None:
        bert_scores(["a"], ["a"], **bertscore)  # an encoder that fails is told of before anything is answered

    processes = join_processes()
    is_temporary = args.records is None and processes.num_processes > 1
    if is_temporary:
        args.records = args.output.with_name(f"{args.output.name}.records")
    pipeline = load_pipeline(rest.model, dtype=DTYPES[args.dtype]).to(own_device(args.device))
    check_pipeline(pipeline, args)
    if args.scheduler is not None:
        pipeline.scheduler = make_sampler(pipeline.scheduler, args.scheduler)
    task = pipeline.task if args.task is None else get_task(args.task, **json.loads(args.task_arguments))
    if task is None:
        raise ValueError(
            f"The pipeline {rest.model!r} belongs to no task; say with `--task` how its answers are read."
        )
    if votes and "answer_accuracy" not in task.metrics:
        raise ValueError(f"`vote_curve` counts right answers, but the task {task.name!r} has none; leave it out.")
    pipeline.task = task  # which reads its answers, and may be other than the one it was saved with
    problems, training_problems = load_problems(args, task)
    results, records = evaluate(pipeline, problems, args, task)
    results["model_name"] = args.model_name or Path(rest.model).name
    results["evaluation"]["command"] = command
    if curve[0]:
        results["steps_curve"] = measure_curve(pipeline, problems, args, task, *curve)
    if thresholds:
        results["threshold_curve"] = measure_thresholds(pipeline, problems, args, task, thresholds)
    if votes:
        results["vote_curve"] = measure_votes(pipeline, problems, args, task, votes)
    if training_problems is not None and "answer_accuracy" in results["evaluation"]:
        results |= baselines_of_chance(training_problems["answer"][:], problems["answer"][:])
        results["split_overlap"] = split_overlap(training_problems, problems)
    if levels := task.chance_levels([Problem(**row) for row in problems]):
        results["chance_levels"] = levels
    results["environment"] = environment()
    processes.wait_for_everyone()  # from here on nobody reads records
    if processes.is_main_process:
        write_results(args.output, results)
        print_results(results, records)
    if is_temporary and processes.is_main_process:
        shutil.rmtree(args.records, ignore_errors=True)
    return results


def make_parser() -> HfArgumentParser:
    """Return the parser of the command line."""
    parser = HfArgumentParser(EvaluationArguments, description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="folder or Hub id of a saved pipeline")
    parser.add_argument("--suite", choices=("tables",), help="make every table of the paper")
    parser.add_argument("--tables", nargs="*", help="with --suite: only these, such as table1 table4")
    parser.add_argument("--no_run", action="store_true", help="with --suite: write down what is there, run nothing")
    parser.add_argument("--text", help="with --suite: file, folder or Hub id of the texts; C4 by default")
    return parser


def evaluate(
    pipeline: ReasoningPipeline, problems: Dataset, args: EvaluationArguments, task: Task
) -> tuple[dict, list[EvalRecord]]:
    """Answer the problems; return the main results and the records they were counted from."""
    answered = run(pipeline, problems, args, args.num_inference_steps, "evaluation")
    sampling = sampling_arguments(pipeline, args)
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    sizes = {name: count_parameters(module) for name, module in modules.items()}
    results = {
        "system": SYSTEMS[type(pipeline).__name__],
        "task": args.task or pipeline.config.task,
        "parameters": {**sizes, "total": sum(sizes.values())},
        "evaluation": {
            **summarize(answered.records, task, bertscore_arguments(args)),
            "num_inference_steps": answered.num_inference_steps,
            "guidance_scale": args.guidance_scale,
            "num_samples": sampling.get(SAMPLES.get(type(pipeline).__name__), 1),
            "sampling": sampling,
            "scheduler": type(pipeline.scheduler).__name__,
            "seed": args.seed,
            "dtype": args.dtype,
            "split": args.split if args.dataset is None else args.dataset,
            "seconds": round(answered.seconds, 2),
        },
    }
    if "mean_nfe" in results["evaluation"]:
        gen_length = json.loads(args.sampling).get("gen_length", pipeline.config.gen_length)
        results["evaluation"]["tokens_per_forward"] = gen_length / results["evaluation"]["mean_nfe"]
    return results, answered.records


def check_pipeline(pipeline: ReasoningPipeline, args: EvaluationArguments) -> None:
    """Raise `ValueError` for an option that the pipeline has not."""
    is_latent, has_samples = isinstance(pipeline, LatentReasoningPipeline), type(pipeline).__name__ in SAMPLES
    wanted = {  # whether an option is given, and whether there is any use for it
        "scheduler": (args.scheduler, is_latent),
        "curve_schedulers": (args.curve_schedulers, is_latent),
        "vote_curve": (args.vote_curve, is_latent),
        "num_samples": (args.num_samples > 1, has_samples),
        "threshold_curve": (args.threshold_curve, not has_samples),
    }
    for option, (is_given, is_known) in wanted.items():
        if is_given and not is_known:
            raise ValueError(f"A {type(pipeline).__name__} has no use for `--{option}`; leave it out.")


def read_curve(args: EvaluationArguments) -> tuple[list[int], list[str]]:
    """Return the numbers of steps and the names of the schedulers of the curve.

    Raises:
        ValueError: for a number of steps that is none, or an unknown scheduler.
    """
    counts = read_numbers("steps_curve", args.steps_curve)
    names = [name.strip() for name in args.curve_schedulers.split(",") if name.strip()]
    unknown = [name for name in names if name not in DOCUMENTED_SCHEDULERS]
    if unknown:
        raise ValueError(f"`--curve_schedulers` has to be among {DOCUMENTED_SCHEDULERS}, but holds {unknown}.")
    return counts, names


def read_numbers(name: str, text: str) -> list[int]:
    """Return the numbers of an option such as `1,2,5`.

    Raises:
        ValueError: for anything that is no positive integer.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(f"`--{name}` has to hold positive integers, such as 1,2,5, but is {text!r}.")
    return [int(word) for word in words]


def bertscore_arguments(args: EvaluationArguments) -> dict | None:
    """Return what the metric of that name needs, if it is wanted."""
    if args.bertscore_model is None:
        return None
    return {"model_type": args.bertscore_model, "num_layers": args.bertscore_layer}


def load_problems(args: EvaluationArguments, task: Task) -> tuple[Dataset, Dataset | None]:
    """Return the problems to answer, and those of the training split where the task itself makes them."""
    if args.dataset is None:
        training_problems = task.to_dataset("train") if args.split != "train" and "train" in task.splits else None
        return task.to_dataset(args.split, args.num_problems), training_problems
    if args.dataset.endswith((".json", ".jsonl")):
        problems = load_dataset("json", data_files=args.dataset, split="train")
    else:
        problems = load_dataset(args.dataset, split=args.split)
    return first_rows(problems, args.num_problems), None


def first_rows(problems: Dataset, count: int | None) -> Dataset:
    """Return the first `count` problems, or all of them."""
    return problems if count is None else problems.select(range(min(count, len(problems))))


def run(
    pipeline: ReasoningPipeline,
    problems: Dataset,
    args: EvaluationArguments,
    num_inference_steps: int | None,
    place: str,
    **sampling,
) -> Evaluation:
    """Answer the problems with the settings of the command line, changed by `sampling`; records go to `place` in their folder."""
    options = {
        "batch_size": args.batch_size,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": args.guidance_scale,
        "seed": args.seed,
        **sampling_arguments(pipeline, args),
        **sampling,
    }
    if args.records is None:
        started = perf_counter()
        records = evaluate_pipeline(pipeline, problems, **options)
        return Evaluation(records, perf_counter() - started, num_inference_steps_of(pipeline))
    processes = join_processes()
    return evaluate_sharded(
        pipeline,
        problems,
        args.records / place,
        process_index=processes.process_index,
        num_processes=processes.num_processes,
        wait=processes.wait_for_everyone,
        show_progress=processes.is_main_process,
        **options,
    )


def sampling_arguments(pipeline: ReasoningPipeline, args: EvaluationArguments) -> dict:
    """Return the further arguments of the pipeline's call, those of choosing among samples with them."""
    sampling = json.loads(args.sampling)
    if args.num_samples > 1:
        sampling |= {SAMPLES[type(pipeline).__name__]: args.num_samples, "select": args.select}
    return sampling


def measure_curve(
    pipeline: ReasoningPipeline,
    problems: Dataset,
    args: EvaluationArguments,
    task: Task,
    counts: list[int],
    names: list[str],
) -> list[dict]:
    """Return the accuracy for each scheduler and number of denoising steps."""
    problems = first_rows(problems, args.curve_problems)
    own = pipeline.scheduler
    curve = []
    for name in names or [type(own).__name__]:
        pipeline.scheduler = make_sampler(own, name) if names else own
        for count in counts:
            answered = run(pipeline, problems, args, count, f"steps_curve/{name}-{count}")
            summary = summarize(answered.records, task, bertscore_arguments(args))
            curve.append({"scheduler": name, "num_inference_steps": count, **figures_of(summary)})
    pipeline.scheduler = own
    return curve


def measure_thresholds(
    pipeline: ReasoningPipeline, problems: Dataset, args: EvaluationArguments, task: Task, thresholds: list[float]
) -> list[dict]:
    """Return the accuracy and the forward passes of committing at each confidence."""
    problems = first_rows(problems, args.curve_problems)
    curve = []
    for value in thresholds:
        answered = run(pipeline, problems, args, None, f"threshold_curve/{value}", threshold=value)
        curve.append({"threshold": value, **figures_of(summarize(answered.records, task))})
    return curve


def figures_of(summary: dict, *further: str) -> dict:
    """Return what a point of a curve keeps of a summary."""
    names = ("answer_accuracy", "standard_error", "num_problems", "mean_nfe", "bertscore_f1", "mean_length_ratio")
    return {name: summary[name] for name in (*names, *further) if name in summary}


def measure_votes(
    pipeline: ReasoningPipeline, problems: Dataset, args: EvaluationArguments, task: Task, votes: list[int]
) -> list[dict]:
    """Return the accuracy of each way to choose among each number of samples."""
    problems = first_rows(problems, args.curve_problems)
    curve = []
    for select in ("majority", "mbr"):
        for count in votes:
            changed = replace(args, num_samples=count, select=select)
            answered = run(pipeline, problems, changed, args.num_inference_steps, f"vote_curve/{select}-{count}")
            point = figures_of(summarize(answered.records, task), "exact_match")
            curve.append({"num_samples": count, "select": select, **point})
    return curve


def print_results(results: dict, records: list[EvalRecord], num_mistakes: int = 5) -> None:
    """Print the figures as a table, the curve, and the first mistakes."""
    evaluation = results["evaluation"]
    rates = ("answer_accuracy", "standard_error", "exact_match", "step_accuracy", "consistency", "invalid_rate")
    rates = (*rates, "bertscore_f1", "mean_length_ratio", "empty_rate", "diversity")
    rows = [(name, evaluation[name]) for name in rates if evaluation.get(name) is not None]
    rows += [(f"  {group['steps']} steps", group["answer_accuracy"]) for group in evaluation.get("by_steps", [])]
    rows += [(name, results[name]) for name in ("chance", "majority") if name in results]
    print(
        f"\n{results['model_name']}: {evaluation['num_problems']:,} problems of {results['task']}, {evaluation['split']}"
    )
    print("\n".join(f"{name:<16} {value:>9.3%}" for name, value in rows))
    for point in results.get("steps_curve", []):
        name = next(name for name in ("answer_accuracy", "bertscore_f1", "mean_length_ratio") if name in point)
        print(f"{point['scheduler']:<28} {point['num_inference_steps']:>5} steps {point[name]:>9.3%} {name}")
    if "answer_accuracy" not in evaluation:
        return
    for record in [record for record in records if not record.is_correct][:num_mistakes]:
        print(f"wrong: {record.prompt} = {record.answer}, but written was {record.text!r}")


if __name__ == "__main__":
    main()
