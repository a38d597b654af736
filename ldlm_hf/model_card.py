"""Results JSON to model card: every number in a card is read from a file that a named command wrote.

The files in a `results/` folder are merged; the keys a card knows, each optional but the first three:

* `system`: `"latent_diffusion"` (by default), `"masked_diffusion"`, `"voting"` or `"block_latent_diffusion"`, which
  decides the card's template
* `model_name`, `task`, `evaluation` {answer_accuracy, standard_error, exact_match, step_accuracy, consistency,
  invalid_rate, num_problems, by_steps[{steps, answer_accuracy, num_problems}], num_inference_steps, guidance_scale,
  scheduler, seed, dtype, split, command}
* `parameters` {autoencoder, denoiser, total}; `chance`, `majority`, `split_overlap`
* `training` {stages[{name, steps, batch_size, seconds, parameters}], total_seconds, machine, command}; `recipe`
* `reconstruction` {exact_match, num_texts}; `decodability` [{noise, exact_match}]
* `steps_curve` [{scheduler, num_inference_steps, answer_accuracy, num_problems}]
* `table` {title, rows[{name, published, and where measured accuracies, mean, standard_error, parameters, steps,
  batch_size}], chance, majority, command}
* `vote_curve` [{num_samples, select, answer_accuracy, exact_match, num_problems}]
* `training_curve` [{training_steps, answer_accuracy, num_problems}]; `answer_decision` [{timestep, share_final,
  share_correct, num_problems}]
* `comparison` {rows[{name, accuracies, mean, standard_error, parameters, seconds}], num_problems, steps, batch_size,
  command}
* `ablations` {rows[{name, accuracies, mean, standard_error}], seeds, num_problems, steps, batch_size, command}
* `figures` {title: path}
* `benchmark` {training, sampling[...], matrix_rate_gflops, command}
* `threshold_curve` [{threshold, answer_accuracy, mean_nfe, num_problems}]; `chance_levels` {what: accuracy}; `baselines`
  [{name, parameters, accuracies, mean, standard_error}]; `speed` {rows[{name, answer_accuracy, tokens_per_forward,
  tokens_per_second, speedup}], machine, command}: of masked diffusion
* `reinforcement` {study: {rows {arm: {name, seeds, greedy_solved {mean, standard_error, values}, …}}, recipe, commands}}: of
  reinforced models, see `examples/run_d1_study.py`; `grpo_signal` and `grpo_speed`, see `measure_grpo_signal.py` and `run_d1_benchmark.py`
* `ladir_study` {arms {arm: {name, seeds, precise, passes, share, …}}, sweeps, …}, `verdicts` {claim: sentence}, `ladir_speed`: of
  latent reasoners in blocks, see `examples/run_ladir_study.py` and `run_ladir_benchmark.py`
* `studies` {name: {title, rows, gate, single_paths, curve, work, num_problems, command}}, `hex_speed`, `paper_tables` {recipe: {row:
  published accuracy}}, `paper_rows`: of votes, see `examples/run_hex_study.py` and `run_hex_benchmark.py`
* `paper_size` {rows[{conditioning, num_layers, mode, precision, samples_per_second, share_of_matrix_rate}], hidden_size,
  batch_size, clock, compiled, cost{training, sampling, figure} or none, command}
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .ldlm.published import published_of
from .tasks import get_task


PAPER = "Latent Diffusion with LLMs for Reasoning"
EVALUATION_KEYS = (
    *("answer_accuracy", "standard_error", "invalid_rate", "by_steps"),
    *("num_problems", "num_inference_steps", "guidance_scale", "scheduler", "seed", "dtype", "split", "command"),
)
SYSTEM_KEYS = {  # further figures of the evaluation
    "latent_diffusion": ("exact_match", "step_accuracy", "consistency"),
    "masked_diffusion": (),
    "voting": ("mean_nfe", "sampling"),
    "block_latent_diffusion": ("sampling",),
}
TEMPLATES = {
    "latent_diffusion": "model_card_template.md",
    "masked_diffusion": "masked_model_card_template.md",
    "voting": "voting_model_card_template.md",
    "block_latent_diffusion": "block_latent_model_card_template.md",
}


def load_results(folder: str | Path) -> dict:
    """Merge every JSON file of a results folder, in the order of their names.

    Raises:
        OSError: if the folder holds none.
        ValueError: if two files disagree on a key other than `environment`.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise OSError(f"{str(folder)!r} holds no results; run examples/run_evaluate.py or run_train.py first.")
    merged: dict = {}
    for path in paths:
        for key, value in json.loads(path.read_text()).items():
            if key == "environment":
                merged.setdefault("environments", {})[path.stem] = value
            elif key in merged and merged[key] != value:
                raise ValueError(f"{path} and another file of {str(folder)!r} disagree on {key!r}.")
            else:
                merged[key] = value
    return merged


def render_model_card(results: dict) -> ModelCard:
    """Return the card of a pipeline.

    Args:
        results (`dict`): see the module's documentation.

    Raises:
        ValueError: if `model_name`, `task` or `evaluation`, or a figure of the evaluation, is missing.
    """
    missing = [key for key in ("model_name", "task", "evaluation") if key not in results]
    if missing:
        raise ValueError(f"`results` lacks {missing}, which every card needs.")
    system, evaluation = results.get("system", "latent_diffusion"), results["evaluation"]
    missing = [key for key in (*EVALUATION_KEYS, *SYSTEM_KEYS[system]) if key not in evaluation]
    if missing:
        raise ValueError(
            f"`results['evaluation']` lacks {missing}; write it with examples/run_evaluate.py or run_train.py."
        )
    result = EvalResult(
        task_type="text-generation",
        dataset_type=results["task"],
        dataset_name=f"{results['task']}, held out by problem",
        dataset_split=evaluation["split"],
        metric_type="answer_accuracy",
        metric_value=evaluation["answer_accuracy"],
    )
    data = ModelCardData(
        model_name=results["model_name"],
        library_name="ldlm_hf",
        pipeline_tag="text-generation",
        license="apache-2.0",
        tags=[system.replace("_", "-"), "reasoning", "diffusion", results["task"]],
        eval_results=[result],
    )
    template = files("ldlm_hf").joinpath(TEMPLATES[system]).read_text()
    task = get_task(results["task"])
    about_task = {
        "examples": [task.problem("test", index) for index in range(2)],
        "held_out": task.held_out,
        "published": published_of(results["task"]),
    }
    return ModelCard.from_template(
        data, template_str=template, paper=PAPER, percent=percent, **about_task, **_with_defaults(results)
    )


def write_model_card(results: dict, path: str | Path) -> None:
    """Write the card of a pipeline to a Markdown file."""
    Path(path).write_text(str(render_model_card(results)).rstrip() + "\n")


def _with_defaults(results: dict) -> dict:
    keys = (
        *("parameters", "chance", "majority", "split_overlap", "training", "recipe", "reconstruction", "decodability"),
        *(
            "table",
            "vote_curve",
            "training_curve",
            "answer_decision",
            "figures",
            "steps_curve",
            "comparison",
            "ablations",
            "benchmark",
            "paper_size",
            "threshold_curve",
            "chance_levels",
            "baselines",
            "speed",
            "reinforcement",
            "grpo_signal",
            "grpo_speed",
            "ladir_study",
            "ladir_speed",
            "environments",
        ),
    )
    return {**dict.fromkeys(keys), **results}


def percent(value: float, digits: int = 1) -> str:
    """Write a share as a percentage; one that is not quite 100 % is never rounded up to it."""
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) == 100:
        return percent(value, digits + 1)
    return f"{text} %"
