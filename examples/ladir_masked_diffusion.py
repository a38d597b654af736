"""The masked diffusion baseline of `run_ladir_study.py`: a LLaDA that writes steps and answer as the language model does.

It has the size, the tokens and the problems of the language model, and as many steps as the longer training of that. What
else a sampler of masked diffusion can be told, the temperature and whether tokens are committed from left to right or
wherever the model is surest, is chosen on validation problems.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from time import perf_counter

from datasets import Dataset

from ldlm_hf import MaskedDiffusionPipeline
from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.ladir.recipe import LaDiRRecipe, load_problems
from ldlm_hf.ladir.solution_figures import solution_figures
from ldlm_hf.ladir.trainer_thought_vae import split_targets
from ldlm_hf.llada.recipe import MaskedDiffusionRecipe, train_masked_diffusion
from ldlm_hf.noise import row_generators
from ldlm_hf.tokenization import build_tokenizer


TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
ORDERS = ("left_to_right", "low_confidence")
ROWS_AT_A_TIME = 512
TRAINING = {"ema_decay": 0.998, "adam_beta2": 0.99, "append_eos": True, "pad_to_max_length": True}


def train_masked_writer(recipe: LaDiRRecipe, max_steps: int) -> tuple[MaskedDiffusionPipeline, dict[str, dict]]:
    """Train the model on the problems of a recipe, written out, or read it back; return its pipeline and the record."""
    folder = Path(recipe.output_dir) / "masked_diffusion"
    path = folder / "written.jsonl"
    rows = write_problems(path, recipe)
    words = build_tokenizer([text for row in rows for text in row.values()], **recipe.tokenizer)
    gen_length = max(len(words.tokenize(row["target"])) for row in rows) + 1  # with the end of the text
    prompt_length = max(len(words(row["prompt"])["input_ids"]) for row in rows)
    training = {
        **recipe.language_model_training,
        **TRAINING,
        "max_steps": max_steps,
        "max_length": prompt_length + gen_length,
    }
    model = {name: value for name, value in recipe.language_model.items() if name != "model_type"}
    return train_masked_diffusion(
        MaskedDiffusionRecipe(
            output_dir=str(folder),
            dataset=str(path),
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=model,
            model_training=training,
            scheduler={"block_length": gen_length, "num_inference_steps": gen_length},
            gen_length=gen_length,
        ),
        resume=True,
    )


def write_problems(path: Path, recipe: LaDiRRecipe) -> list[dict[str, str]]:
    """Write the training problems of a recipe with their steps as text; every twentieth is not trained on, but validated."""
    problems = load_problems(recipe)[0]
    written = split_targets(problems, BlockSplitter(**recipe.splitter))
    rows = [
        {"prompt": prompt, "target": " ".join([*blocks, answer])}
        for prompt, (blocks, answer) in zip(problems["prompt"][:], written, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return rows


def measure_masked_writer(
    pipeline: MaskedDiffusionPipeline, problems: Dataset, validation: Dataset, count: int
) -> dict:
    """Return what the model writes at the settings that are best on validation problems, one for each of two purposes."""
    pipeline.set_progress_bar_config(disable=True)
    tuned = {
        f"{order} {temperature}": write(pipeline, validation, order, temperature, count)
        for order, temperature in product(ORDERS, TEMPERATURES)
    }
    greedy = {order: write(pipeline, validation, order, 0.0, 1) for order in ORDERS}
    precise = write(pipeline, problems, max(ORDERS, key=lambda order: greedy[order]["pass@1"]), 0.0, 1)
    best = max(tuned, key=lambda name: tuned[name]["share_of_solutions"])
    order, temperature = best.split()
    sampled = write(pipeline, problems, order, float(temperature), count)
    return {"precise": precise, "sampled": sampled, "validation": {**tuned, "greedy": greedy}}


def write(
    pipeline: MaskedDiffusionPipeline, problems: Dataset, order: str, temperature: float, count: int
) -> dict[str, float]:
    """Return what `count` texts of each problem are worth, whose last word is the answer, one token a step."""
    prompts = [prompt for prompt in problems["prompt"] for _ in range(count)]
    generators = row_generators(0, 0, 0, len(prompts)) if temperature > 0 else [None] * len(prompts)
    blocks = {"block_length": 1} if order == "left_to_right" else {}
    texts, started = [], perf_counter()
    for start in range(0, len(prompts), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        own = generators[rows] if temperature > 0 else None
        texts += pipeline(prompts[rows], temperature=temperature, generator=own, **blocks).texts
    answers = [(text.split() or [""])[-1] for text in texts]
    samples = [answers[start : start + count] for start in range(0, len(answers), count)]
    settings = {"order": order, "temperature": temperature}
    return {
        **solution_figures(problems["prompt"][:], samples),
        "seconds": perf_counter() - started,
        "settings": settings,
    }
