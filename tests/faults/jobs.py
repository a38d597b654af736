"""What is interrupted: trainings, saves, caches and evaluations at tiny size, and what of them can be loaded.

Each job works in a folder and goes on from what it finds there. `loadable` returns a digest of everything that loads at the
time, by name; after an interruption each has to be one that a whole run has written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ldlm_hf import (
    HexPipeline,
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
from ldlm_hf.evaluation import write_results
from ldlm_hf.ladir.thought_cache import cache_thoughts
from ldlm_hf.ldlm.latent_cache import cache_latents
from ldlm_hf.result_log import ResultLog, read_results
from ldlm_hf.sharded_evaluation import evaluate_sharded
from ldlm_hf.training import ReproducibleTrainer, last_complete_checkpoint
from tests.d1.tiny_d1 import make_trainer as grpo_trainer
from tests.hex.tiny_hex import tiny_hex_pipeline
from tests.ladir import tiny_ladir
from tests.ldlm.test_trainers import autoencoder_trainer, denoiser_trainer
from tests.llada.tiny_llada import tiny_masked_pipeline
from tests.llada.tiny_training import make_trainer as masked_trainer
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline, tiny_problems, tiny_tokenizer


STEPS = {"max_steps": 4, "save_steps": 1, "save_strategy": "steps", "ema_decay": 0.9}
ABSENT = (OSError, ValueError)  # how a loader says that something is not there, or not whole


@dataclass(frozen=True)
class Job:
    """Something that is interrupted.

    Args:
        kind (`str`): what it is, for the table.
        run (`Callable[[Path, int], None]`): works in a folder; the number says how often it was started before.
        loadable (`Callable[[Path], dict[str, str]]`): the digest of everything in a folder that loads, by name.
        prepare (`Callable[[Path], None]`): makes what is there before.
        known (`Callable[[Path], dict[str, str]]`, *optional*): the same as `loadable` of all that a whole run left on its way.
    """

    kind: str
    run: Callable[[Path, int], None]
    loadable: Callable[[Path], dict[str, str]]
    prepare: Callable[[Path], None] = lambda folder: None
    known: Callable[[Path], dict[str, str]] | None = None


def digest(*values: object) -> str:
    """Return a digest of models, tensors, pipelines, data sets and what JSON can say; equal only if all bits are."""
    found = hashlib.sha256()
    for value in values:
        for part in _parts(value):
            found.update(part)
    return found.hexdigest()[:16]


def training_job(name: str) -> Job:
    """Return the job of a trainer: four steps with a checkpoint after each, then the final save."""
    make, model_class, settings = TRAINERS[name]

    def run(folder: Path, attempt: int) -> None:
        rotated = {"save_total_limit": 1} if (folder / "rotated").exists() else {}
        trainer: ReproducibleTrainer = make(folder / "run", **{**STEPS, **settings, **rotated})
        trainer.train(resume_from_checkpoint=True)
        trainer.save_final(folder / "final")

    def loadable(folder: Path) -> dict[str, str]:
        checkpoint = last_complete_checkpoint(folder / "run")
        found = {} if checkpoint is None else {checkpoint.name: digest_checkpoint(checkpoint, model_class)}
        return found | load_all(
            {"final": (model_class, folder / "final"), "tokenizer": (AutoTokenizer, folder / "final")}
        )

    def known(folder: Path) -> dict[str, str]:
        checkpoints = (folder / "run").glob("checkpoint-*")
        return {path.name: digest_checkpoint(path, model_class) for path in checkpoints}

    return Job(f"kill -9 while {name} trains, saves and resumes", run, loadable, known=known)


def digest_checkpoint(folder: Path, model_class: type) -> str:
    """Return the digest of all in a checkpoint that decides how the training goes on."""
    states = [torch.load(folder / name, weights_only=True) for name in ("optimizer.pt", "scheduler.pt")]
    rollouts = [load_file(path) for path in sorted(folder.glob("rollouts-*.safetensors"))]
    models = [model_class.from_pretrained(place) for place in (folder, folder / "ema")]
    return digest(*models, *states, *rollouts)


def saving_job(name: str) -> Job:
    """Return the job of saving a pipeline over an older one, whose parts have the same shapes but mean something else."""
    pipeline_class, parts = PIPELINES[name]

    def loadable(folder: Path) -> dict[str, str]:
        place = folder / "pipeline"
        components = {part: (part_class, place / part) for part, part_class in parts.items()}
        return load_all({"pipeline": (pipeline_class, place), **components})

    return Job(
        f"kill -9 while {name} is saved over an older one",
        lambda folder, attempt: make_pipeline(name, 1).save_pretrained(folder / "pipeline"),
        loadable,
        lambda folder: make_pipeline(name, 0).save_pretrained(folder / "pipeline"),
    )


@lru_cache(maxsize=8)
def make_pipeline(name: str, number: int):
    """Return one of two pipelines of a kind, whose parts have the same shapes but other weights and configurations."""
    if name == "LatentReasoningPipeline":
        heads = {"num_attention_heads": 2 + 2 * number}
        autoencoder, denoiser = tiny_autoencoder(number, **heads), tiny_denoiser(number, **heads)
        return tiny_pipeline(autoencoder=autoencoder, denoiser=denoiser)
    if name == "LaDiRPipeline":
        vae = tiny_ladir.tiny_vae(seed=number, token_substitution=0.1 * number)
        return tiny_ladir.tiny_pipeline(model=tiny_ladir.tiny_reasoner(seed=number, stop_weight=1.0 + number), vae=vae)
    fields = {"seed": number, "num_attention_heads": 2 + 2 * number}
    return tiny_masked_pipeline(**fields) if name == "MaskedDiffusionPipeline" else tiny_hex_pipeline(**fields)[0]


def final_save_job() -> Job:
    """Return the job of saving what a training came to over an older result."""

    def save(folder: Path, number: int) -> None:
        model = tiny_denoiser(number, num_attention_heads=2 + 2 * number)
        trainer = denoiser_trainer(folder / "run", model=model, ema_decay=0.9, size=8)
        trainer.save_final(folder / "final")

    return Job(
        "kill -9 while save_final saves over an older result",
        lambda folder, attempt: save(folder, 1),
        lambda folder: load_all(
            {"final": (LatentDiT, folder / "final"), "tokenizer": (AutoTokenizer, folder / "final")}
        ),
        lambda folder: save(folder, 0),
    )


def cache_job(name: str) -> Job:
    """Return the job of caching what a frozen model makes of a data set."""

    def run(folder: Path, attempt: int) -> None:
        if name == "cache_latents":
            cached = cache_latents(
                tiny_problems(size=40), make_latents()[0], tiny_tokenizer(), folder / "cache", batch_size=4
            )
        else:
            vae, config = make_thoughts()
            settings = (tiny_ladir.tokenizer(), tiny_ladir.SPLITTER, config)
            cached = cache_thoughts(tiny_ladir.sums(40), vae, *settings, folder / "cache", batch_size=4)
        write_whole(folder / "rows", digest(cached))  # what a training would have read

    def loadable(folder: Path) -> dict[str, str]:
        files = [path for path in (folder / "cache").glob("*.arrow") if path.is_file()]
        found = {path.name: digest(Dataset.from_file(str(path))) for path in files}
        return found | read_text(folder / "rows")

    return Job(f"kill -9 while {name} fills its cache", run, loadable)


@lru_cache(maxsize=1)
def make_latents() -> tuple[TextLatentAutoencoder]:
    """Return a frozen autoencoder."""
    return (tiny_autoencoder(),)


@lru_cache(maxsize=1)
def make_thoughts() -> tuple:
    """Return a frozen VAE, and the configuration of the reasoner that is to read its latents."""
    return tiny_ladir.tiny_vae(), tiny_ladir.tiny_reasoner().config


def evaluation_job(name: str) -> Job:
    """Return the job of evaluating a pipeline and writing what was found."""

    def run(folder: Path, attempt: int) -> None:
        pipeline, problems = make_pipeline(name, 0), tiny_problems("test", 12)
        settings = {"batch_size": 2, "show_progress": False, **SAMPLING[name]}
        evaluation = evaluate_sharded(pipeline, problems, folder / "records", **settings)
        write_results(folder / "results.json", {"records": [asdict(record) for record in evaluation.records]})

    def loadable(folder: Path) -> dict[str, str]:
        path = folder / "results.json"
        found = {"results": digest(json.loads(path.read_text()))} if path.is_file() else {}
        for records in (folder / "records").glob("*.jsonl"):
            for line in records.read_bytes().split(b"\n")[1:-1]:  # whole lines, after the settings
                record = json.loads(line)
                found[f"row {record['row']}"] = digest({key: record[key] for key in record if key != "seconds"})
        return found

    return Job(f"kill -9 while {name} is evaluated", run, loadable)


def results_job() -> Job:
    """Return the job of writing results, one after the other and then together, over older ones."""
    settings = {"seed": 0}

    def write(folder: Path, number: int) -> None:
        log = ResultLog(folder / "log.jsonl", settings)
        for i in range(len(log), 12 * (1 + number)):
            log.append({"number": i, "text": "x" * 300})
        write_results(folder / "results.json", {"results": list(log)})

    def loadable(folder: Path) -> dict[str, str]:
        path = folder / "results.json"
        rows = enumerate(read_results(folder / "log.jsonl", settings))
        found = {"results": digest(json.loads(path.read_text()))} if path.is_file() else {}
        return found | {f"row {i}": digest(row) for i, row in rows}

    return Job(
        "kill -9 while results are written",
        lambda folder, _: write(folder, 1),
        loadable,
        lambda folder: write(folder, 0),
    )


def read_text(path: Path) -> dict[str, str]:
    """Return what a file says, by its name; nothing where there is none."""
    return {path.name: path.read_text()} if path.is_file() else {}


def load_all(places: Mapping[str, tuple[type, Path]]) -> dict[str, str]:
    """Return the digests of all that loads."""
    found = {}
    for name, (loader, place) in places.items():
        try:
            found[name] = digest(loader.from_pretrained(str(place)))
        except ABSENT:
            continue
    return found


def _parts(value: object):
    if isinstance(value, torch.Tensor):
        yield repr((str(value.dtype), tuple(value.shape))).encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Dataset):
        yield json.dumps(value.with_format(None)[:], sort_keys=True).encode()
    elif isinstance(value, Mapping):
        for key in value:
            yield repr(key).encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, torch.nn.Module):
        yield _configuration(value.config)
        yield from _parts(dict(sorted(value.state_dict().items())))
    elif "components" in dir(value):  # a pipeline
        for component in value.components.values():
            yield from _parts(component)
    elif "backend_tokenizer" in dir(value):
        rules = json.loads(value.backend_tokenizer.to_str())
        known = {"padding": None, "truncation": None}  # traces of the last call
        yield json.dumps({**rules, **known, "length": value.model_max_length}, sort_keys=True).encode()
    elif "config" in dir(value):  # a scheduler
        yield _configuration(value.config)
    else:
        yield repr(value).encode()


def _configuration(config: object) -> bytes:
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    own = {key: value for key, value in values.items() if key not in ("_name_or_path", "_diffusers_version")}
    return json.dumps(own, sort_keys=True, default=repr).encode()


TRAINERS = {
    "AutoencoderTrainer": (autoencoder_trainer, TextLatentAutoencoder, {}),
    "DenoiserTrainer": (denoiser_trainer, LatentDiT, {"size": 40}),
    "ThoughtVAETrainer": (tiny_ladir.vae_trainer, ThoughtVAE, {}),
    "LaDiRTrainer": (tiny_ladir.reasoner_trainer, LaDiRForReasoning, {}),
    "MaskedDiffusionTrainer": (masked_trainer, LLaDAForMaskedDiffusion, {}),
    "DiffuGRPOTrainer": (grpo_trainer, LLaDAForMaskedDiffusion, {"num_iterations": 3}),
}
SAMPLING = {  # what pipelines are evaluated with
    "LatentReasoningPipeline": {"num_inference_steps": 2, "max_new_tokens": 6},
    "LaDiRPipeline": {"num_inference_steps": 2, "max_blocks": 2, "max_new_tokens": 3},
    "MaskedDiffusionPipeline": {"num_inference_steps": 4, "gen_length": 8, "block_length": 4},
    "HexPipeline": {"gen_length": 4, "block_lengths": [2, 4], "num_seeds": 2},
}
MASKED = {"model": LLaDAForMaskedDiffusion, "tokenizer": AutoTokenizer}
PIPELINES = {
    "LatentReasoningPipeline": (
        LatentReasoningPipeline,
        {"autoencoder": TextLatentAutoencoder, "denoiser": LatentDiT, "tokenizer": AutoTokenizer},
    ),
    "LaDiRPipeline": (LaDiRPipeline, {"model": LaDiRForReasoning, "vae": ThoughtVAE, "tokenizer": AutoTokenizer}),
    "MaskedDiffusionPipeline": (MaskedDiffusionPipeline, MASKED),
    "HexPipeline": (HexPipeline, MASKED),
}
