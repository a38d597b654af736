"""Results JSON to model card: every number in a card is read from a file that a named command wrote.

The files in a `results/` folder are merged; the keys a card knows, each optional but the first three:

* `system`: `"latent_diffusion"` (by default), `"masked_diffusion"`, `"voting"` or `"block_latent_diffusion"`, which
  decides the card's template
* `model_name`, `task`, `evaluation` {answer_accuracy, standard_error, exact_match, step_accuracy, consistency,
  invalid_rate, num_problems, by_steps[{steps, answer_accuracy, num_problems}], num_inference_steps, guidance_scale,
  scheduler, seed, dtype, split, command}
* `parameters` {autoencoder, denoiser, total}; `chance`, `majority`, `split_overlap`; `known_targets` {share, training_problems,
  further_share or none, further_problems, example {held_out, further}}: of held-out problems, see `splits.py`
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
* `ladir_studies` {name: {title, arms {arm: {name, seeds, precise, passes, share, …}}, sweeps, variants, verdicts {claim: sentence},
  …}}, `ladir_speed`: of latent reasoners in blocks, see `examples/run_ladir_study.py` and `run_ladir_benchmark.py`
* `studies` {name: {title, rows, gate, single_paths, curve, work, num_problems, command}}, `hex_speed`, `paper_tables` {recipe: {row:
  published accuracy}}, `paper_rows`: of votes, see `examples/run_hex_study.py` and `run_hex_benchmark.py`
* `paper_size` {rows[{conditioning, num_layers, mode, precision, samples_per_second, matrix_rate_gflops, share_of_matrix_rate}],
  hidden_size, batch_size, clock, rounds, compiled, cost{training, sampling, figure} or none, command}; `compilation` {rows[{hidden_size, batch_size, mode,
  precision, speedup, range, compile_seconds}], conditioning, num_layers, rounds, clock, command}
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .arguments import check_integer, check_number, check_option, checked, shown
from .ldlm.published import published_of
from .tasks import Problem, get_task


PAPER = "Latent Diffusion with LLMs for Reasoning"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a repository on the Hub
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
MOST_DIGITS, MOST_SHARE = 99, 1e9  # of a percentage
TEMPLATES = {
    "latent_diffusion": "model_card_template.md",
    "masked_diffusion": "masked_model_card_template.md",
    "voting": "voting_model_card_template.md",
    "block_latent_diffusion": "block_latent_model_card_template.md",
}


@checked
def load_results(folder: str | Path) -> dict:
    """Merge every JSON file of a results folder, in the order of their names.

    Raises:
        OSError: if the folder holds none.
        ValueError: if two files disagree on a key other than `environment`.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise OSError(
            f"`folder` {str(folder)!r} holds no results; run examples/run_evaluate.py or run_train.py first."
        )
    merged: dict = {}
    for path in paths:
        for key, value in _read_object(path).items():
            if key == "environment":
                merged.setdefault("environments", {})[path.stem] = value
            elif key in merged and merged[key] != value:
                raise ValueError(f"{path} and another file of {str(folder)!r} disagree on {key!r}.")
            else:
                merged[key] = value
    return merged


def _read_object(path: Path) -> dict:
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`folder` has the file {str(path)!r}, which is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"`folder` has the file {str(path)!r}, which holds a {type(values).__name__} and no results.")
    return values


def render_model_card(results: dict) -> ModelCard:
    """Return the card of a pipeline.

    Args:
        results (`dict`): see the module's documentation.

    Raises:
        ValueError: if `model_name`, `task` or `evaluation`, or a figure of the evaluation, is missing, if the name is none that
            the Hub takes, or if a text has line breaks or other characters that could make another document of the card.
    """
    if not isinstance(results, dict):
        raise ValueError(f"`results` has to be a dictionary, but is {shown(results)}.")
    missing = [key for key in ("model_name", "task", "evaluation") if key not in results]
    if missing:
        raise ValueError(f"`results` lacks {missing}, which every card needs.")
    if not NAME.fullmatch(str(results["model_name"])):
        raise ValueError(
            f"`model_name` has to be made of letters, digits, '.', '-' and '_', but is {results['model_name']!r}."
        )
    _check_texts("results", results)
    system, evaluation = results.get("system", "latent_diffusion"), results["evaluation"]
    check_option("results['system']", system, tuple(TEMPLATES))
    if not isinstance(results["task"], str) or not isinstance(evaluation, dict):
        raise ValueError("`results` has to hold `task`, a name, and `evaluation`, a dictionary.")
    check_number("results['evaluation']['answer_accuracy']", evaluation.get("answer_accuracy", 0), 0, 1)
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
        "examples": [_in_quotes(task.problem("test", index)) for index in range(2)],
        "held_out": task.held_out,
        "published": published_of(results["task"]),
    }
    try:
        return ModelCard.from_template(
            data, template_str=template, paper=PAPER, percent=percent, **about_task, **_with_defaults(results)
        )
    except Exception as error:  # a template is a program, and results are whatever a file holds
        raise ValueError(f"`results` make no card: {type(error).__name__}: {error}") from error


def write_model_card(results: dict, path: str | Path) -> None:
    """Write the card of a pipeline to a Markdown file."""
    Path(path).write_text(str(render_model_card(results)).rstrip() + "\n")


def _in_quotes(problem: Problem) -> Problem:
    """Return a problem whose texts can stand between the quotes of a line of code."""
    texts = [json.dumps(text, ensure_ascii=False)[1:-1] for text in (problem.prompt, problem.answer)]
    prompt, answer = (text.replace("'", "\\'") for text in texts)
    return Problem(prompt, problem.target, answer)


def _check_texts(name: str, value: object) -> None:
    """Raise `ValueError`, naming its place, for a text that does not stay in the line of the card that it stands in."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"`{name}` has to be a text of one line that can be printed, but is {value[:100]!r}.")
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_texts(f"a key of {name}", key)
            _check_texts(f"{name}[{key!r}]", entry)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            _check_texts(f"{name}[{place}]", entry)


def _with_defaults(results: dict) -> dict:
    keys = (
        *(
            "parameters",
            "chance",
            "majority",
            "split_overlap",
            "known_targets",
            "training",
            "recipe",
            "reconstruction",
            "decodability",
        ),
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
            "compilation",
            "threshold_curve",
            "chance_levels",
            "baselines",
            "speed",
            "reinforcement",
            "grpo_signal",
            "grpo_speed",
            "ladir_studies",
            "ladir_speed",
            "environments",
        ),
    )
    return {**dict.fromkeys(keys), **results}


@checked
def percent(value: float, digits: int = 1) -> str:
    """Write a share as a percentage; one that is not quite 100 % is never rounded up to it."""
    check_number("value", value, -MOST_SHARE, MOST_SHARE)
    check_integer("digits", digits, MOST_DIGITS, least=0)
    text = f"{100 * value:.{digits}f}"
    if value < 1 and float(text) == 100:
        return percent(value, digits + 1)
    return f"{text} %"
