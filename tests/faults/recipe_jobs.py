"""Whole recipes that are interrupted: every stage of each at tiny size, resumed until the pipeline is saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ldlm_hf import (
    LaDiRForReasoning,
    LaDiRPipeline,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAForMaskedDiffusion,
    MaskedDiffusionPipeline,
    TextLatentAutoencoder,
    ThoughtVAE,
)
from ldlm_hf.checkpoints import write_whole
from ldlm_hf.d1.recipe import train_d1
from ldlm_hf.ladir.recipe import train_ladir
from ldlm_hf.ldlm.recipe import train_recipe
from ldlm_hf.llada.recipe import train_masked_diffusion
from tests.d1 import test_recipe as d1_recipes
from tests.faults.jobs import Job, digest, load_all, read_text
from tests.ladir import test_recipe as ladir_recipes
from tests.ldlm import test_recipe as ldlm_recipes
from tests.llada import test_recipe as llada_recipes


def recipe_job(name: str, over_another: bool = False) -> Job:
    """Return the job of a whole recipe, resumed until it is done; perhaps begun where another one has been finished."""
    train, make, pipeline_class, stages = RECIPES[name]

    def run(folder: Path, attempt: int) -> None:
        recipe, resume = make(folder, 0), attempt > 0 or not over_another
        try:
            _, records = train(recipe, resume=resume)
        except ValueError as error:  # killed before the other one was discarded: it is refused, not taken up
            if not over_another or "another recipe" not in str(error):
                raise
            _, records = train(recipe, resume=False)
        figures = {
            stage: {name: record[name] for name in ("steps", "parameters")} for stage, record in records.items()
        }
        write_whole(folder / "records", digest(figures))

    def prepare(folder: Path) -> None:
        if over_another:
            train(make(folder, 1), resume=False)

    def loadable(folder: Path) -> dict[str, str]:
        found = load_all({"pipeline": (pipeline_class, folder / "run" / "pipeline")})
        return found | done_stages(folder / "run", stages) | read_text(folder / "records")

    again = " begun where another is, without resume" if over_another else ""
    return Job(f"kill -9 in a recipe of {name}{again}", run, loadable, prepare)


def done_stages(folder: Path, stages: Mapping[str, tuple[str, type]]) -> dict[str, str]:
    """Return the digests of the models of those stages that are taken as done."""
    found = {}
    for stage, (place, model_class) in stages.items():
        if (folder / stage / "stage.json").is_file():
            found[stage] = digest(model_class.from_pretrained(folder / stage / place))
    return found


def _ldlm_recipe(folder: Path, seed: int):
    steps = {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "save_steps": 1, "use_cpu": True}
    recipe = ldlm_recipes.recipe(folder, seed=seed)
    recipe.seq2seq_training = recipe.autoencoder_training = steps
    recipe.denoiser_training = {**steps, "reconstruction_gate": 0, "ema_decay": 0.9}
    return recipe


def _ladir_recipe(folder: Path, seed: int):
    recipe = ladir_recipes.tiny_recipe(folder / "run", seed=seed)
    for section in ("language_model_training", "vae_training", "reasoner_training", "rollout_training"):
        getattr(recipe, section)["save_steps"] = 1
    return recipe


def _llada_recipe(folder: Path, seed: int):
    return llada_recipes.tiny_recipe(folder / "run", seed=seed)


def _d1_recipe(folder: Path, seed: int):
    lora = {"r": 2, "target_modules": ["q_proj"]}
    recipe = d1_recipes.tiny_recipe(folder / "run", seed=seed, lora=lora)
    for section in (recipe.base["model_training"], recipe.sft["model_training"], recipe.rl["training"]):
        section |= {"save_strategy": "steps", "save_steps": 1}
    return recipe


RECIPES = {
    "latent reasoning": (
        train_recipe,
        _ldlm_recipe,
        LatentReasoningPipeline,
        {"autoencoder": ("model", TextLatentAutoencoder), "denoiser": ("model", LatentDiT)},
    ),
    "LaDiR": (
        train_ladir,
        _ladir_recipe,
        LaDiRPipeline,
        {
            "vae": ("model", ThoughtVAE),
            "reasoner": ("model", LaDiRForReasoning),
            "rollout": ("model", LaDiRForReasoning),
        },
    ),
    "masked diffusion": (
        train_masked_diffusion,
        _llada_recipe,
        MaskedDiffusionPipeline,
        {"model": ("model", LLaDAForMaskedDiffusion)},
    ),
    "d1": (
        train_d1,
        _d1_recipe,
        MaskedDiffusionPipeline,
        dict.fromkeys(("base/model", "sft/model", "rl"), ("model", LLaDAForMaskedDiffusion)),
    ),
}
