"""A recipe of this room, stage by stage: LM (pretrained here or taken ready) → autoencoder → denoiser → pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from diffusers import DDPMScheduler
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerBase, set_seed

from .. import training
from ..arguments import check_field_types, naming
from ..checkpoints import saved_whole
from ..loading import load_tokenizer
from ..tasks import Task, get_task
from ..tokenization import build_tokenizer, fit_texts
from ..training import ReproducibleTrainer, discard_stages, read_section, run_stage
from .modeling_text_latent_autoencoder import TextLatentAutoencoder
from .pipeline_latent_reasoning import LatentReasoningPipeline
from .reconstruction import reconstruction_accuracy
from .supported_schedulers import check_scheduler
from .trainer_autoencoder import AutoencoderTrainer, AutoencoderTrainingArguments
from .trainer_denoiser import DenoiserTrainer, DenoiserTrainingArguments
from .trainer_infilling import InfillingTrainer, InfillingTrainingArguments
from .transformer_latent_dit import LatentDiT


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SCHEDULER = {  # the paper's diffusion (§3.2); the stock defaults clip samples and never start at T
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
    "variance_type": "fixed_small",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}

AUTOENCODER_SECTIONS = ("autoencoder", "autoencoder_training")  # of a recipe, that decide the result of the stage
DENOISER_SECTIONS = (*AUTOENCODER_SECTIONS, "denoiser", "denoiser_training", "denoiser_task_arguments", "scheduler")


@dataclass
class LatentReasoningRecipe:
    """All that a training of a latent reasoner depends on.

    Args:
        output_dir (`str`): where stages, checkpoints and the pipeline go.
        task (`str`, *optional*): name of the task, as [`get_task`] takes it; without one `dataset` is needed.
        task_arguments (`dict`, *optional*): further arguments of the task, such as `first_place: tens`.
        denoiser_task_arguments (`dict`, *optional*): what differs from `task_arguments` in the problems that the denoiser
            trains on, such as more of them than the other stages need.
        dataset (`str`, *optional*): Hub id or JSONL file of problems with the columns `prompt`, `target` and `answer`, in
            place of the task's own; a Hub data set has to have the splits `train` and `validation`, of a file every
            twentieth row is held out.
        seed (`int`, *optional*, defaults to 0): of every weight, order and noise.
        pretrained_seq2seq (`str`, *optional*): Hub id or folder of a ready LM; without one a BART is pretrained.
        tokenizer (`dict`, *optional*): arguments of [`build_tokenizer`]; of a ready LM's tokenizer, its `model_max_length`.
        seq2seq (`dict`, *optional*): fields of the `BartConfig`.
        seq2seq_training (`dict`, *optional*): fields of [`InfillingTrainingArguments`].
        autoencoder (`dict`, *optional*): fields of [`TextLatentAutoencoderConfig`].
        autoencoder_training (`dict`, *optional*): fields of [`AutoencoderTrainingArguments`].
        denoiser (`dict`, *optional*): arguments of [`LatentDiT`].
        denoiser_training (`dict`, *optional*): fields of [`DenoiserTrainingArguments`].
        scheduler (`dict`, *optional*): what differs from the paper's `DDPMScheduler`.
        stored_dtype (`str`, *optional*, defaults to `"float32"`): in which the pipeline's denoiser is stored; `"float16"`
            halves its file. It loads in float32 in any case, unless told otherwise.
        report_to (`str`, *optional*, defaults to `"none"`): any tracker of the Trainer, for all stages.

    Raises:
        ValueError: if there is neither task nor data set, or the task is unknown.
    """

    output_dir: str
    task: str | None = None
    task_arguments: dict = field(default_factory=dict)
    denoiser_task_arguments: dict = field(default_factory=dict)
    dataset: str | None = None
    seed: int = 0
    pretrained_seq2seq: str | None = None
    tokenizer: dict = field(default_factory=dict)
    seq2seq: dict = field(default_factory=dict)
    seq2seq_training: dict = field(default_factory=dict)
    autoencoder: dict = field(default_factory=dict)
    autoencoder_training: dict = field(default_factory=dict)
    denoiser: dict = field(default_factory=dict)
    denoiser_training: dict = field(default_factory=dict)
    scheduler: dict = field(default_factory=dict)
    stored_dtype: str = "float32"
    report_to: str = "none"

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if self.stored_dtype not in DTYPES:
            raise ValueError(f"`stored_dtype` has to be one of {sorted(DTYPES)}, but is {self.stored_dtype!r}.")
        if self.task is None and self.dataset is None:
            raise ValueError("A recipe needs a `task` or a `dataset`.")
        if self.task is not None:
            with naming("task_arguments"):
                self.make_task()
            with naming("denoiser_task_arguments"):
                self.make_task(**self.denoiser_task_arguments)
        if self.denoiser_task_arguments and (self.task is None or self.dataset is not None):
            raise ValueError("`denoiser_task_arguments` change the problems of a `task`; leave `dataset` out.")
        check_scheduler(make_scheduler(self.scheduler), bool(self.denoiser.get("learned_variance")))

    def make_task(self, **changes) -> Task | None:
        """Return the recipe's task, with `changes` to its arguments; `None` if it has none."""
        return None if self.task is None else get_task(self.task, **{**self.task_arguments, **changes})

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return Path(self.output_dir) / stage

    def settings(self, *sections: str) -> dict:
        """Return the sections that decide the result of a stage, to be compared when it is resumed."""
        always = (
            "task",
            "task_arguments",
            "dataset",
            "seed",
            "pretrained_seq2seq",
            "tokenizer",
            "seq2seq",
            "seq2seq_training",
        )
        values = asdict(self)
        return {name: values[name] for name in (*always, *sections)}

    def training_arguments(self, section_class: type, stage: str, values: dict):
        """Return the training arguments of a stage, with its folder and the recipe's seed."""
        defaults = {"output_dir": str(self.folder(stage)), "seed": self.seed, "report_to": self.report_to}
        return read_section(section_class, values, **defaults)


def train_recipe(recipe: LatentReasoningRecipe, resume: bool = False) -> tuple[LatentReasoningPipeline, dict]:
    """Train all stages; return the pipeline, also saved in `output_dir/pipeline`, and a record of each stage.

    With `resume`, finished stages are read back and a broken-off one goes on from its newest complete checkpoint.
    """
    if not resume:
        discard_stages(*map(recipe.folder, ("seq2seq", "autoencoder", "denoiser")))
    train, heldout = load_problems(recipe)
    records = {
        "seq2seq": run_stage(
            recipe.folder("seq2seq"), recipe.settings(), lambda: train_seq2seq(recipe, train, resume), resume
        ),
        "autoencoder": run_stage(
            recipe.folder("autoencoder"),
            recipe.settings(*AUTOENCODER_SECTIONS),
            lambda: train_autoencoder(recipe, train, heldout, resume),
            resume,
        ),
        "denoiser": run_stage(
            recipe.folder("denoiser"),
            recipe.settings(*DENOISER_SECTIONS),
            lambda: train_denoiser(recipe, *load_problems(recipe, recipe.denoiser_task_arguments), resume),
            resume,
        ),
    }
    pipeline = LatentReasoningPipeline(
        autoencoder=TextLatentAutoencoder.from_pretrained(recipe.folder("autoencoder") / "model"),
        denoiser=LatentDiT.from_pretrained(recipe.folder("denoiser") / "model"),
        scheduler=make_scheduler(recipe.scheduler),
        tokenizer=load_tokenizer(recipe.folder("seq2seq") / "model"),
        task=recipe.task,
        task_arguments=recipe.task_arguments or None,
    )
    if recipe.stored_dtype != "float32":
        pipeline.denoiser.to(DTYPES[recipe.stored_dtype])
    pipeline.save_pretrained(recipe.folder("pipeline"))
    pipeline.denoiser.float()  # rounded, as it will be when it is loaded
    return pipeline, records


def load_problems(recipe: LatentReasoningRecipe, changes: dict | None = None) -> tuple[Dataset, Dataset]:
    """Return the training and the validation problems of a recipe, with `changes` to the arguments of its task."""
    return training.load_problems(recipe.make_task(**(changes or {})), recipe.dataset, seed=recipe.seed)


def train_seq2seq(recipe: LatentReasoningRecipe, train: Dataset, resume: bool) -> dict:
    """Stage 0: save an encoder-decoder LM and its tokenizer, pretrained by text infilling unless a ready one is named."""
    folder = recipe.folder("seq2seq") / "model"
    if recipe.pretrained_seq2seq is not None:
        tokenizer = load_tokenizer(recipe.pretrained_seq2seq)
        tokenizer.model_max_length = recipe.tokenizer.get("model_max_length", tokenizer.model_max_length)
        with saved_whole(folder) as place:
            tokenizer.save_pretrained(place)
        return {"pretrained": recipe.pretrained_seq2seq}
    words = recipe.make_task().words() if recipe.task is not None else ()
    tokenizer = build_tokenizer([*train["prompt"], *train["target"]], words, **recipe.tokenizer)
    set_seed(recipe.seed)
    model = BartForConditionalGeneration(small_bart_config(tokenizer, recipe.seq2seq))
    args = recipe.training_arguments(InfillingTrainingArguments, "seq2seq", recipe.seq2seq_training)
    trainer = InfillingTrainer(model, args, fit_problems(recipe.make_task(), train, tokenizer), tokenizer)
    return _train(trainer, folder, resume)


def small_bart_config(tokenizer: PreTrainedTokenizerBase, fields: dict) -> BartConfig:
    """Return the configuration of a BART for `tokenizer`, with `fields` over the defaults; no forced tokens."""
    known = BartConfig().to_dict()
    unknown = sorted(set(fields) - set(known))
    if unknown:  # which BartConfig would keep, and nothing read
        raise ValueError(f"`seq2seq` has the fields {unknown}, which are none of BartConfig.")
    special = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    return BartConfig(**{**special, "forced_eos_token_id": None, **fields})


def bart_of_size(tokenizer: PreTrainedTokenizerBase, num_parameters: int, num_layers: int = 3) -> BartConfig:
    """Return the BART with `num_layers` layers in each half whose size is nearest `num_parameters`, for baselines."""
    best: tuple[int, BartConfig] | None = None
    for width in range(32, 2049, 32):
        heads = {"encoder_attention_heads": width // 32, "decoder_attention_heads": width // 32}
        layers = {"encoder_layers": num_layers, "decoder_layers": num_layers}
        sizes = {"d_model": width, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width, "dropout": 0.0}
        config = small_bart_config(tokenizer, {**sizes, **layers, **heads})
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in BartForConditionalGeneration(config).parameters())
        if best is None or abs(size - num_parameters) < best[0]:
            best = (abs(size - num_parameters), config)
        if size > num_parameters:
            break
    return best[1]


def train_autoencoder(recipe: LatentReasoningRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 1: save the autoencoder, and record how well it gives held-out targets back."""
    source = recipe.pretrained_seq2seq or str(recipe.folder("seq2seq") / "model")
    tokenizer = load_tokenizer(recipe.folder("seq2seq") / "model")
    train, heldout = (fit_problems(recipe.make_task(), problems, tokenizer) for problems in (train, heldout))
    set_seed(recipe.seed)
    model = TextLatentAutoencoder.from_seq2seq(source, **recipe.autoencoder)
    args = recipe.training_arguments(AutoencoderTrainingArguments, "autoencoder", recipe.autoencoder_training)
    trainer = AutoencoderTrainer(model, args, train, tokenizer, eval_dataset=heldout)
    record = _train(trainer, recipe.folder("autoencoder") / "model", resume)
    exact = reconstruction_accuracy(model, tokenizer, heldout["target"], prompts=heldout["prompt"])
    return {**record, "exact_reconstruction": exact, "num_texts": len(heldout)}


def train_denoiser(recipe: LatentReasoningRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 2: save the denoiser with its averaged weights."""
    autoencoder = TextLatentAutoencoder.from_pretrained(recipe.folder("autoencoder") / "model")
    tokenizer = load_tokenizer(recipe.folder("seq2seq") / "model")
    train, heldout = (fit_problems(recipe.make_task(), problems, tokenizer) for problems in (train, heldout))
    scheduler = make_scheduler(recipe.scheduler)
    sizes = {
        "latent_length": autoencoder.config.latent_length,
        "latent_dim": autoencoder.config.latent_dim,
        "num_train_timesteps": scheduler.config.num_train_timesteps,
    }
    set_seed(recipe.seed)
    model = LatentDiT(**{**sizes, **recipe.denoiser})
    values = {"latent_cache_dir": str(recipe.folder("latents")), **recipe.denoiser_training}
    args = recipe.training_arguments(DenoiserTrainingArguments, "denoiser", values)
    trainer = DenoiserTrainer(model, args, autoencoder, scheduler, train, tokenizer, eval_dataset=heldout)
    return _train(trainer, recipe.folder("denoiser") / "model", resume)


def make_scheduler(changes: dict) -> DDPMScheduler:
    """Return the paper's noise scheduler with `changes` to its arguments."""
    return DDPMScheduler(**{**SCHEDULER, **changes})


def fit_problems(task: Task | None, problems: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Cut what is too long, where the task says so; everywhere else the trainers refuse it."""
    if task is None or not task.truncates:
        return problems
    columns = ("prompt", "target")
    return problems.map(lambda rows: {name: fit_texts(rows[name], tokenizer) for name in columns}, batched=True)


def _train(trainer: ReproducibleTrainer, folder: Path, resume: bool) -> dict:
    output = trainer.train(resume_from_checkpoint=resume)
    trainer.save_final(folder)
    return {
        "steps": trainer.state.global_step,
        "batch_size": trainer.args.train_batch_size
        * trainer.args.gradient_accumulation_steps
        * trainer.args.world_size,
        "train_loss": output.training_loss,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "threads": torch.get_num_threads(),
        "log": trainer.state.log_history,
    }
