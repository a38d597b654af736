"""What thinking in latents is worth on Countdown: a language model that writes its steps, LaDiR's stages, and controls.

python examples/run_ladir_study.py --seeds 0 1 2
python examples/run_ladir_study.py --seeds 0 --arms autoregressive stage_1 --sweeps --override reasoner_training.max_steps=500

Each arm and each sweep of each seed writes a file of its own as soon as it is done, and is left out where that is there already.

autoregressive  the language model that VAE and reasoner start from
longer_autoregressive  the same for as many steps as take as long as language model, VAE and stage 1 together
masked_diffusion  a masked diffusion language model of its size that writes the same, after as many steps as the longer one
stage_1         the reasoner, taught on true steps
longer_stage_1  and taught on for `--restart_steps` from the top of the learning rate's schedule
more_stage_1    stage 1 taught further for as many seconds as stage 2 takes, the control of
stage_2         stage 1 taught further on steps that it generates itself

All see the same problems. What a sampler can be told is chosen on validation problems: for the share of all solutions that as
many samples of each arm find, temperature and initial noise (`sampled`; `drawn` is the same with answers that are not greedy, whose
temperature is chosen along with the noise), and for one right answer, noise, denoising steps and guidance (`precise`; of the
language model, its greedy text). `given_latents` are answers after the true steps (oracle), those of
another problem (shuffled) or zeros; they tell whether answers come from latents at all. The sweeps vary one setting of
`--sweep_arm`: denoising steps, initial noise, trajectories, guidance, and repulsion beside its controls, which are
attraction, repulsion between different problems, and noise that is as strong; the last puts true steps in place of the
first ones, which tells where problems of the most steps go wrong. A variant is stage 1, or what `--variant_arms` names, and
the autoencoder under it, with the changes that the recipe lists under its name.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree, ignore_patterns
from time import perf_counter

import torch
from datasets import Dataset
from ladir_controls import ControlledPush, GivenSteps
from ladir_masked_diffusion import measure_masked_writer, train_masked_writer
from matmul_precision import add_matmul_precision, set_matmul_precision
from torch import Tensor
from transformers import AutoModelForCausalLM

from ldlm_hf import LaDiRPipeline
from ldlm_hf.arguments import check_option
from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.ladir.recipe import LaDiRRecipe, make_pipeline, train_stages
from ldlm_hf.ladir.reconstruction import tokenize_blocks
from ldlm_hf.ladir.solution_figures import solution_figures, thought_figures
from ldlm_hf.ladir.text_sampling import write_continuations, write_from_latents
from ldlm_hf.loading import load_complete, load_tokenizer
from ldlm_hf.noise import row_generators
from ldlm_hf.training import merge_recipes, read_recipe, read_section


RECIPE = Path(__file__).parent / "recipes" / "ladir" / "countdown_2_to_4.yaml"
STAGES = {
    "autoregressive": "language_model",
    "longer_autoregressive": "language_model",
    "masked_diffusion": "language_model",
    "stage_1": "reasoner",
    "longer_stage_1": "continued",
    "more_stage_1": "continued",
    "stage_2": "rollout",
}
TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0)
NOISES = (0.5, 1.0, 1.5, 2.0, 3.0)
ANSWER_TEMPERATURES = (0.7, 1.0)  # the first is the paper's
CAREFUL_NOISES = (0.0, 0.3)
CAREFUL_STEPS = (5, 10)
CAREFUL_GUIDANCES = (1.0, 1.5)
CAREFUL_TRAJECTORIES = 8  # of each problem where there is noise
SWEEPS = {
    "num_inference_steps": (1, 2, 5, 10, 20, 50),
    "initial_noise_scale": (0.5, 1.0, 1.5, 2.0, 3.0),
    "num_trajectories": (1, 2, 4, 8, 16, 32, 64),
    "guidance_scale": (1.0, 1.3, 1.7, 2.5, 4.0),
    "diversity_scale": (0.0, 0.1, 0.3, 0.5, 0.8, 1.0),
    "given_steps": (),  # as many as there are
}
FORCED_SWEEPS = ("diversity_scale", "given_steps")
DIVERSITY_CONTROLS = ("repulsion", "attraction", "across_questions", "equal_norm_noise")
ROWS_AT_A_TIME = 512  # trajectories or samples


def main(arguments: list[str] | None = None) -> None:
    """Run the arms and sweeps that the command line names and print a table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    command = shlex.join(["python", "examples/run_ladir_study.py", *arguments])
    torch.set_num_threads(args.threads)
    set_matmul_precision(args.matmul_precision)
    values = read_recipe(args.recipe, args.override)
    variants = values.pop("variants", {})
    values.pop("system")
    for name in args.variants:
        check_option("variants", name, tuple(variants))
    for seed in args.seeds:
        own = {**values, "seed": seed, "output_dir": str(args.runs / f"seed-{seed}")}
        recipe = read_section(LaDiRRecipe, own)
        for arm in args.arms:
            run_once(args, f"{arm}-{seed}", command, lambda arm=arm, recipe=recipe: run_arm(arm, recipe, args))
        for sweep in args.sweeps:
            run_once(
                args, f"{sweep}-{seed}", command, lambda sweep=sweep, recipe=recipe: run_sweep(sweep, recipe, args)
            )
        for name in args.variants:
            start = train_stages(recipe, resume=True, last="language_model")  # the same for all
            ready = {"pretrained_lm": str(recipe.folder("language_model") / "model")}
            changed = {**merge_recipes(own, variants[name]), **ready, "output_dir": f"{recipe.output_dir}-{name}"}
            variant = read_section(LaDiRRecipe, changed)
            for arm in args.variant_arms:
                own_name = name if arm == "stage_1" else f"{name}_{arm}"
                run_once(args, f"{own_name}-{seed}", command, partial(run_variant, arm, variant, start, args))
    print(table(args.results, args.arms))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="YAML file with all stages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(STAGES), choices=STAGES)
    parser.add_argument("--sweeps", nargs="*", default=list(SWEEPS), choices=SWEEPS)
    parser.add_argument("--variants", nargs="*", default=[], help="names under the recipe's `variants`")
    parser.add_argument("--variant_arms", nargs="+", default=["stage_1"], choices=list(STAGES)[3:], help="of those")
    parser.add_argument("--sweep_arm", default="stage_2", choices=list(STAGES)[3:], help="whose setting is varied")
    parser.add_argument(
        "--results", type=Path, default=Path("results/ladir/countdown_2_to_4"), help="where the files go"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/ladir-2-to-4"), help="where the models go")
    parser.add_argument("--longer_steps", type=int, default=4000, help="of longer_autoregressive and masked_diffusion")
    parser.add_argument("--restart_steps", type=int, default=3000, help="of longer_stage_1, after those of stage 1")
    parser.add_argument("--num_problems", type=int, default=200, help="held-out problems")
    parser.add_argument("--num_trajectories", type=int, default=32, help="samples of each")
    parser.add_argument("--num_inference_steps", type=int, default=2, help="denoising steps, but in their sweep")
    parser.add_argument("--threads", type=int, default=1)
    add_matmul_precision(parser)
    parser.add_argument("--override", nargs="*", default=[], metavar="section.key=value", help="change the recipe")
    return parser


def run_once(args: argparse.Namespace, name: str, command: str, run: Callable[[], dict]) -> None:
    """Write the result of one arm or sweep, unless it is there."""
    path = args.results / f"{name}.json"
    if not path.exists():
        write_results(path, {**run(), "command": command, "environment": environment()})
    print(f"{name:<24}", json.dumps(json.loads(path.read_text())["summary"]), flush=True)


def run_arm(arm: str, recipe: LaDiRRecipe, args: argparse.Namespace) -> dict:
    """Train one arm, after what it stands on, and measure it.

    Raises:
        ValueError: if the recipe has no section for it.
    """
    section = f"{STAGES[arm]}_training"
    if not getattr(recipe, section):
        raise ValueError(
            f"`--recipe` has no section {section!r}, which the arm {arm!r} needs; add one or leave it out."
        )
    if arm == "longer_autoregressive":
        longer = {**recipe.language_model_training, "max_steps": args.longer_steps}
        recipe = replace(recipe, output_dir=f"{recipe.output_dir}-longer", language_model_training=longer)
    if arm == "longer_stage_1":
        train_stages(recipe, resume=True, last="reasoner")
        start = Path(recipe.output_dir)
        longer = {**recipe.reasoner_training, "max_steps": args.restart_steps}
        recipe = replace(restarted(recipe), continued_training=longer)
        if not Path(recipe.output_dir).exists():
            copy = f"{recipe.output_dir}-copy"
            copytree(start, copy, ignore=ignore_patterns("checkpoint-*", "continued", "rollout"), dirs_exist_ok=True)
            Path(copy).rename(recipe.output_dir)  # there as a whole or not at all
    problems, validation = held_out("test", recipe, args), held_out("validation", recipe, args)
    if arm == "masked_diffusion":
        pipeline, records = train_masked_writer(recipe, args.longer_steps)
        measured = measure_masked_writer(pipeline, problems, validation, args.num_trajectories)
        measured["summary"] = {"precise": measured["precise"]["pass@1"], **summary_of(measured["sampled"])}
        return {"arm": arm, **measured, "training": without_logs(records), "log": records["model"]["log"]}
    records = train_stages(recipe, resume=True, last=STAGES[arm])
    if arm.endswith("autoregressive"):
        measured = measure_writer(recipe, problems, validation, args)
    else:
        pipeline = make_pipeline(recipe, STAGES[arm])
        measured = tune_reasoner(pipeline, problems, validation, args)
        measured["given_latents"] = measure_given_latents(pipeline, problems, recipe)
    return {"arm": arm, **measured, "training": without_logs(records), "log": records[STAGES[arm]].get("log")}


def run_variant(arm: str, recipe: LaDiRRecipe, start: dict[str, dict], args: argparse.Namespace) -> dict:
    """Train and measure an arm of a variant, whose recipe takes its language model ready; `start` is the record of that."""
    measured = run_arm(arm, recipe, args)
    training = {**measured["training"], **without_logs(start)}
    training["language_model"]["pretrained"] = recipe.pretrained_lm
    return {**measured, "training": training}


def restarted(recipe: LaDiRRecipe) -> LaDiRRecipe:
    """Return the recipe with the folder of `longer_stage_1`."""
    return replace(recipe, output_dir=f"{recipe.output_dir}-restarted")


def without_logs(records: dict[str, dict]) -> dict[str, dict]:
    """Return the records of all stages but for their long logs."""
    return {stage: {key: value for key, value in record.items() if key != "log"} for stage, record in records.items()}


def held_out(split: str, recipe: LaDiRRecipe, args: argparse.Namespace) -> Dataset:
    """Return held-out problems of the recipe's task, each once and the same for every seed."""
    task = recipe.make_task()
    return task.to_dataset(split, min(args.num_problems, task.num_problems(split)))


def measure_writer(recipe: LaDiRRecipe, problems: Dataset, validation: Dataset, args: argparse.Namespace) -> dict:
    """Return what the language model writes, greedily and at the temperature that finds most on validation problems."""
    folder, count = recipe.folder("language_model") / "model", args.num_trajectories
    model, tokenizer = load_complete(AutoModelForCausalLM, folder).eval(), load_tokenizer(folder)
    length = 8 * most_numbers(problems) + 4

    def write(rows: Dataset, temperature: float, num_samples: int) -> dict:
        generator, samples, started = torch.Generator().manual_seed(0), [], perf_counter()
        for prompts in pieces(rows["prompt"][:], num_samples):
            texts = write_continuations(model, tokenizer, prompts, temperature, num_samples, length, generator)
            samples += [[(text.split() or [""])[-1] for text in row] for row in texts]  # the answer stands last
        seconds = perf_counter() - started
        return {**solution_figures(rows["prompt"][:], samples), "seconds": seconds}

    tuned = {str(temperature): write(validation, temperature, count) for temperature in TEMPERATURES}
    best = max(TEMPERATURES, key=lambda temperature: tuned[str(temperature)]["share_of_solutions"])
    precise, sampled = write(problems, 0.0, 1), write(problems, best, count)
    summary = {"precise": precise["pass@1"], "temperature": best, **summary_of(sampled)}
    return {"summary": summary, "precise": precise, "sampled": sampled, "validation": tuned}


def tune_reasoner(pipeline: LaDiRPipeline, problems: Dataset, validation: Dataset, args: argparse.Namespace) -> dict:
    """Return what a reasoner's trajectories write with the settings that are best on validation problems, for each purpose.

    For one answer, noise, denoising steps and guidance are chosen by pass@1; for many, by the solutions found, noise alone
    where answers are greedy, and noise and temperature where they are drawn.
    """

    def measure(rows: Dataset, noise: float, **sampling) -> dict:
        return measure_reasoner(pipeline, rows, args, initial_noise_scale=noise, **sampling)["sampled"]

    def answer_carefully(rows: Dataset, noise: float, steps: int, guidance: float) -> dict:
        count = CAREFUL_TRAJECTORIES if noise else 1  # without noise all are the same
        return measure(rows, noise, num_inference_steps=steps, guidance_scale=guidance, num_trajectories=count)

    settings = list(itertools.product(CAREFUL_NOISES, CAREFUL_STEPS, CAREFUL_GUIDANCES))
    careful = {setting: answer_carefully(validation, *setting) for setting in settings}
    wide = {noise: measure(validation, noise) for noise in NOISES}
    precise = answer_carefully(problems, *max(careful, key=lambda setting: careful[setting]["pass@1"]))
    noise = max(NOISES, key=lambda value: wide[value]["share_of_solutions"])
    sampled = measure(problems, noise)
    grid = itertools.product(NOISES, ANSWER_TEMPERATURES)
    warm = {setting: measure(validation, setting[0], temperature=setting[1]) for setting in grid}
    warmest = max(warm, key=lambda setting: warm[setting]["share_of_solutions"])
    drawn = measure(problems, warmest[0], temperature=warmest[1])
    summary = {"precise": precise["pass@1"], "noise": noise, **summary_of(sampled), "drawn": summary_of(drawn)}
    tuned = {
        "drawn": drawn,
        "validation": {str(value): figures for value, figures in wide.items()},
        "validation_drawn": {" ".join(map(str, setting)): figures for setting, figures in warm.items()},
        "validation_careful": {" ".join(map(str, setting)): figures for setting, figures in careful.items()},
    }
    return {"summary": summary, "precise": precise, "sampled": sampled, **tuned}


def measure_reasoner(pipeline: LaDiRPipeline, problems: Dataset, args: argparse.Namespace, **sampling) -> dict:
    """Return what a reasoner's trajectories write, how often it stops in time, and what its blocks read as."""
    pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": args.num_inference_steps, "num_trajectories": args.num_trajectories, **sampling}
    prompts, count = problems["prompt"][:], settings["num_trajectories"]
    samples, texts, thoughts, num_blocks, first, started = [], [], [], [], 0, perf_counter()
    for batch in pieces(prompts, count):
        generators = row_generators(0, 0, first, len(batch))
        output = pipeline(batch, generator=generators, select="first", **settings)
        samples, texts = samples + output.samples, texts + output.texts
        thoughts, num_blocks = thoughts + output.thoughts, num_blocks + output.num_blocks.tolist()
        first += len(batch)
    seconds = perf_counter() - started
    stops = [made == prompt.count(",") for made, prompt in zip(num_blocks, prompts, strict=True)]
    figures = {**solution_figures(prompts, samples), "seconds": seconds, "stop_accuracy": sum(stops) / len(stops)}
    figures |= {"thoughts": thought_figures(prompts, thoughts, texts), "settings": settings}
    return {"summary": summary_of(figures), "sampled": figures}


def measure_given_latents(pipeline: LaDiRPipeline, problems: Dataset, recipe: LaDiRRecipe) -> dict:
    """Return how often answers are right after true steps, the steps of the next problem of as many, and zeros."""
    prompts, oracle = problems["prompt"][:], true_latents(pipeline, problems, recipe)
    alike = [[i for i, other in enumerate(oracle) if len(other) == len(own)] for own in oracle]
    shuffled = [oracle[places[(places.index(i) + 1) % len(places)]] for i, places in enumerate(alike)]
    given = {"oracle": oracle, "shuffled": shuffled, "zero": [torch.zeros_like(blocks) for blocks in oracle]}
    length = pipeline.config.max_new_tokens
    return {
        name: solution_figures(
            prompts,
            [[text] for text in write_from_latents(pipeline.model, pipeline.tokenizer, prompts, blocks, length)],
        )["pass@1"]
        for name, blocks in given.items()
    }


def true_latents(pipeline: LaDiRPipeline, problems: Dataset, recipe: LaDiRRecipe) -> list[Tensor]:
    """Return the latents of each problem's true steps, `(blocks, latents_per_block, latent_dim)`."""
    splitter, latents = BlockSplitter(**recipe.splitter), []
    for target, answer in zip(problems["target"], problems["answer"], strict=True):
        tokens = tokenize_blocks(pipeline.tokenizer, splitter.split_target(target, answer)[0])
        latents.append(pipeline.vae.encode(tokens["input_ids"], tokens["attention_mask"]).detach())
    return latents


def run_sweep(sweep: str, recipe: LaDiRRecipe, args: argparse.Namespace) -> dict:
    """Measure one reasoner under several values of a setting."""
    own = restarted(recipe) if args.sweep_arm == "longer_stage_1" else recipe
    pipeline, problems = make_pipeline(own, STAGES[args.sweep_arm]), held_out("test", recipe, args)
    if sweep in FORCED_SWEEPS:
        # As many numbers in every problem and as many blocks as it takes: no trajectory leaves, which a callback would not see.
        size = most_numbers(problems)
        problems = problems.filter(lambda row: row["prompt"].count(",") + 1 == size)
        make = make_pushes if sweep == "diversity_scale" else make_given_steps
        points = {}
        for name, change, callback in make(pipeline, problems, recipe, args):
            forced = {"min_blocks": size - 1, "max_blocks": size - 1, "callback_on_step_end": callback}
            points[name] = measure_reasoner(pipeline, problems, args, **forced)
            points[name]["sampled"]["settings"] = {"num_inference_steps": args.num_inference_steps, **change}
    else:
        points = {str(value): measure_reasoner(pipeline, problems, args, **{sweep: value}) for value in SWEEPS[sweep]}
    summary = {name: {key: point["summary"][key] for key in ("pass@1", "share")} for name, point in points.items()}
    return {"sweep": sweep, "arm": args.sweep_arm, "summary": summary, "points": points}


def make_pushes(pipeline: LaDiRPipeline, problems: Dataset, recipe: LaDiRRecipe, args: argparse.Namespace) -> Iterator:
    """Yield the name, the settings and the callback of each strength of repulsion and its controls."""
    for control, scale in itertools.product(DIVERSITY_CONTROLS, SWEEPS["diversity_scale"]):
        push = ControlledPush(control, scale, args.num_trajectories)
        yield f"{control} {scale}", {"diversity_scale": scale, "control": control}, push


def make_given_steps(
    pipeline: LaDiRPipeline, problems: Dataset, recipe: LaDiRRecipe, args: argparse.Namespace
) -> Iterator:
    """Yield the name, the settings and the callback for each number of true steps."""
    latents = true_latents(pipeline, problems, recipe)
    for num_given in range(len(latents[0])):
        given = GivenSteps(latents, num_given, args.num_trajectories, args.num_inference_steps)
        yield str(num_given), {"given_steps": num_given}, given


def most_numbers(problems: Dataset) -> int:
    """Return how many numbers the longest problem has."""
    return max(prompt.count(",") + 1 for prompt in problems["prompt"])


def pieces(prompts: list[str], count: int) -> list[list[str]]:
    """Return the prompts in batches of about so many rows as fit at a time, with `count` samples of each."""
    size = max(1, ROWS_AT_A_TIME // count)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def summary_of(figures: dict) -> dict:
    """Return the figures that arms are compared by: pass@1, pass@k for all samples, shares of solutions, seconds."""
    most = max((name for name in figures if name.startswith("pass@")), key=lambda name: int(name[5:]))
    summary = {name: round(figures[name], 4) for name in dict.fromkeys(("pass@1", most))}
    return {**summary, "share": round(figures["share_of_solutions"], 4), "seconds": round(figures["seconds"], 1)}


def table(folder: Path, arms: list[str]) -> str:
    """Return the means over the seeds of every arm that was run, as a Markdown table."""
    lines = [
        "| arm | seeds | precise | pass@1 | pass@k | solutions found | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        found = [json.loads(path.read_text())["summary"] for path in sorted(folder.glob(f"{arm}-[0-9]*.json"))]
        if found:
            names = [
                "precise",
                "pass@1",
                next(name for name in found[0] if name.startswith("pass@") and name != "pass@1"),
                "share",
            ]
            shares = [f"{100 * sum(one[name] for one in found) / len(found):.1f}" for name in names]
            seconds = f"{sum(one['seconds'] for one in found) / len(found):.1f}"
            lines.append(" | ".join([f"| {arm}", str(len(found)), *shares, seconds]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
