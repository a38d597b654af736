"""A recipe of this room, stage by stage: LM (trained here or taken ready) → VAE → reasoner → rollout → pipeline."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, set_seed

from .. import training
from ..arguments import check_field_types, check_option, naming
from ..checkpoints import saved_whole
from ..loading import load_tokenizer
from ..tasks import Task, get_task
from ..tokenization import build_tokenizer
from ..training import ReproducibleTrainer, discard_stages, read_section, run_stage
from .block_splitter import BlockSplitter
from .configuration_thought_vae import ThoughtVAEConfig
from .modeling_ladir import LaDiRForReasoning
from .modeling_thought_vae import ThoughtVAE
from .pipeline_ladir import LaDiRPipeline
from .trainer_ladir import LaDiRTrainer, LaDiRTrainingArguments
from .trainer_language_model import LanguageModelTrainer, LanguageModelTrainingArguments
from .trainer_thought_vae import ThoughtVAETrainer, ThoughtVAETrainingArguments, blocks_of, heldout_report


REQUIRED_STAGES = ("language_model", "vae", "reasoner")
STAGES = (*REQUIRED_STAGES, "continued", "rollout")
HELD_OUT_EVERY = 200  # rows of a Hub data set that has no validation split


@dataclass
class LaDiRRecipe:
    """All that a training of a LaDiR depends on.

    Args:
        output_dir (`str`): where stages, checkpoints and the pipeline go.
        task (`str`, *optional*): name of the task, as [`get_task`] takes it; without one `dataset` is needed.
        task_arguments (`dict`, *optional*): further arguments of the task, such as `num_numbers: 3`.
        dataset (`str`, *optional*): Hub id or JSONL file of problems, in place of the task's own; held out is its
            split `validation`, or every so-many-eth row.
        dataset_columns (`dict`, *optional*): what its columns are called, such as `{prompt: query, target: response}`.
        skip_unsplit (`bool`, *optional*, defaults to `False`): leave out rows that the splitter finds no steps or
            answer in, rather than stop.
        train_size (`int`, *optional*): how many training problems of the task; by default every distinct one.
        seed (`int`, *optional*, defaults to 0): of every weight, order and noise.
        splitter (`dict`, *optional*): arguments of [`BlockSplitter`].
        pretrained_lm (`str`, *optional*): Hub id or folder of a ready causal LM; without one a small one is trained.
        tokenizer (`dict`, *optional*): arguments of [`build_tokenizer`], where the LM is trained here.
        language_model (`dict`, *optional*): fields of its configuration, `model_type: llama` by default.
        language_model_training (`dict`, *optional*): fields of [`LanguageModelTrainingArguments`].
        vae (`dict`, *optional*): fields of [`ThoughtVAEConfig`].
        vae_training (`dict`, *optional*): fields of [`ThoughtVAETrainingArguments`].
        reasoner (`dict`, *optional*): fields of [`LaDiRConfig`]; the shape of a block is the VAE's.
        reasoner_training (`dict`, *optional*): fields of [`LaDiRTrainingArguments`] for stage 1.
        continued_training (`dict`, *optional*): the same for more of stage 1, left out where this is empty: what the pipeline
            gets where there is no stage 2, and else what stage 2 can be compared with.
        rollout_training (`dict`, *optional*): the same for stage 2, which is left out where this is empty.
        sampling (`dict`, *optional*): arguments of the pipeline's call that the recipe is to be evaluated with.
        report_to (`str`, *optional*, defaults to `"none"`): any tracker of the Trainer, for all stages.

    Raises:
        ValueError: if there is neither task nor data set, or a name in `task`, `splitter` or `sampling` is unknown.
    """

    output_dir: str
    task: str | None = None
    task_arguments: dict = field(default_factory=dict)
    dataset: str | None = None
    dataset_columns: dict = field(default_factory=dict)
    skip_unsplit: bool = False
    train_size: int | None = None
    seed: int = 0
    splitter: dict = field(default_factory=dict)
    pretrained_lm: str | None = None
    tokenizer: dict = field(default_factory=dict)
    language_model: dict = field(default_factory=dict)
    language_model_training: dict = field(default_factory=dict)
    vae: dict = field(default_factory=dict)
    vae_training: dict = field(default_factory=dict)
    reasoner: dict = field(default_factory=dict)
    reasoner_training: dict = field(default_factory=dict)
    continued_training: dict = field(default_factory=dict)
    rollout_training: dict = field(default_factory=dict)
    sampling: dict = field(default_factory=dict)
    report_to: str = "none"

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if self.task is None and self.dataset is None:
            raise ValueError("A recipe needs a `task` or a `dataset`.")
        with naming("task_arguments"):
            self.make_task()
        with naming("splitter"):
            BlockSplitter(**self.splitter)
        unknown = set(self.sampling) - set(inspect.signature(LaDiRPipeline.__call__).parameters)
        if unknown:
            raise ValueError(f"`sampling` has {sorted(map(str, unknown))}, which the pipeline's call does not take.")

    def make_task(self) -> Task | None:
        """Return the recipe's task, if it has one."""
        return None if self.task is None else get_task(self.task, **self.task_arguments)

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return Path(self.output_dir) / stage

    def settings(self, *sections: str) -> dict:
        """Return the sections that decide the result of a stage, to be compared when it is resumed."""
        data = (
            "task",
            "task_arguments",
            "dataset",
            "dataset_columns",
            "skip_unsplit",
            "train_size",
            "seed",
            "splitter",
        )
        model = ("pretrained_lm", "tokenizer", "language_model", "language_model_training")
        values = asdict(self)
        return {name: values[name] for name in (*data, *model, *sections)}

    def training_arguments(self, section_class: type, stage: str, values: dict):
        """Return the training arguments of a stage, with its folder and the recipe's seed."""
        defaults = {"output_dir": str(self.folder(stage)), "seed": self.seed, "report_to": self.report_to}
        return read_section(section_class, values, **defaults)


def train_ladir(recipe: LaDiRRecipe, resume: bool = False) -> tuple[LaDiRPipeline, dict[str, dict]]:
    """Train all stages; return the pipeline, also saved in `output_dir/pipeline`, and a record of each stage.

    With `resume`, finished stages are read back and a broken-off one goes on from its newest complete checkpoint.
    """
    records = train_stages(recipe, resume)
    pipeline = make_pipeline(recipe, [stage for stage in STAGES if stage in records][-1])
    pipeline.save_pretrained(recipe.folder("pipeline"))
    return pipeline, records


def train_stages(recipe: LaDiRRecipe, resume: bool = False, last: str | None = None) -> dict[str, dict]:
    """Train the stages of a recipe, all of them or those that the `last` stands on; return a record of each.

    Raises:
        ValueError: for another `last` than one of `STAGES`.
    """
    if last is not None:
        check_option("last_stage", last, STAGES)
    if not resume:
        discard_stages(*map(recipe.folder, STAGES))
    train, heldout = load_problems(recipe)
    vae = ("vae", "vae_training")
    reasoner = (*vae, "reasoner", "reasoner_training")
    stages = {
        "language_model": ((), train_language_model),
        "vae": (vae, train_vae),
        "reasoner": (reasoner, train_reasoner),
        "continued": ((*reasoner, "continued_training"), train_further),
        "rollout": ((*reasoner, "rollout_training"), train_rollout),
    }
    records = {}
    for stage, (sections, run) in stages.items():
        if stage in REQUIRED_STAGES or (last in (None, stage) and getattr(recipe, sections[-1])):
            settings = recipe.settings(*sections)
            records[stage] = run_stage(
                recipe.folder(stage), settings, lambda run=run: run(recipe, train, heldout, resume), resume
            )
        if stage == last:
            break
    return records


def make_pipeline(recipe: LaDiRRecipe, stage: str) -> LaDiRPipeline:
    """Return the pipeline of the reasoner that a stage has saved: `"reasoner"`, `"continued"` or `"rollout"`."""
    return LaDiRPipeline(
        model=LaDiRForReasoning.from_pretrained(recipe.folder(stage) / "model"),
        vae=ThoughtVAE.from_pretrained(recipe.folder("vae") / "model"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        tokenizer=load_tokenizer(recipe.folder("language_model") / "model"),
        task=recipe.task,
        task_arguments=recipe.task_arguments or None,
        **{name: recipe.sampling[name] for name in ("max_blocks", "max_new_tokens") if name in recipe.sampling},
    )


def load_problems(recipe: LaDiRRecipe) -> tuple[Dataset, Dataset]:
    """Return the training and the validation problems of a recipe."""
    name = recipe.dataset
    if name is None or name.endswith((".json", ".jsonl")):
        splits = training.load_problems(recipe.make_task(), name, recipe.train_size, seed=recipe.seed)
    else:
        loaded = load_dataset(name)
        rows = loaded["train"]
        heldout = range(0, len(rows), HELD_OUT_EVERY)
        kept = [i for i in range(len(rows)) if i % HELD_OUT_EVERY]
        has_validation = "validation" in loaded
        splits = (rows, loaded["validation"]) if has_validation else (rows.select(kept), rows.select(heldout))
    columns = {own: name for name, own in recipe.dataset_columns.items()}
    train, validation = (split.rename_columns(columns) for split in splits)
    if recipe.skip_unsplit:
        train, validation = (split.filter(lambda row: _can_split(recipe, row)) for split in (train, validation))
    return train, validation


def train_language_model(recipe: LaDiRRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 0: save a causal LM trained on the problems as text, and its tokenizer; of a ready one the tokenizer."""
    folder, splitter = recipe.folder("language_model") / "model", BlockSplitter(**recipe.splitter)
    if recipe.pretrained_lm is not None:
        with saved_whole(folder) as place:
            load_tokenizer(recipe.pretrained_lm).save_pretrained(place)
        return {"pretrained": recipe.pretrained_lm}
    task = recipe.make_task()
    texts = [*train["prompt"], *train["target"], *blocks_of(train, splitter)]
    tokenizer = build_tokenizer(texts, () if task is None else task.words(), **recipe.tokenizer)
    special = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    set_seed(recipe.seed)
    config = AutoConfig.for_model(**{"model_type": "llama", **special, **recipe.language_model})
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    args = recipe.training_arguments(LanguageModelTrainingArguments, "language_model", recipe.language_model_training)
    return _train(LanguageModelTrainer(model, args, train, tokenizer, splitter, eval_dataset=heldout), folder, resume)


def train_vae(recipe: LaDiRRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 1 a: save the VAE, and record how well it gives held-out blocks back."""
    source, tokenizer, splitter = _start(recipe)
    set_seed(recipe.seed)
    vae = ThoughtVAE.from_causal_lm(source, **recipe.vae)
    args = recipe.training_arguments(ThoughtVAETrainingArguments, "vae", recipe.vae_training)
    trainer = ThoughtVAETrainer(vae, args, train, tokenizer, splitter, eval_dataset=heldout)
    record = _train(trainer, recipe.folder("vae") / "model", resume)
    saved = ThoughtVAE.from_pretrained(recipe.folder("vae") / "model").to(args.device)
    report = heldout_report(saved, tokenizer, heldout, splitter, args.reconstruction_size)
    return {**record, **report, "latent_std": saved.latent_std.mean().item()}


def train_reasoner(recipe: LaDiRRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 1: save the reasoner, taught on the true steps."""
    source = _start(recipe)[0]
    vae = ThoughtVAEConfig.from_pretrained(recipe.folder("vae") / "model")
    set_seed(recipe.seed)
    block = {"latents_per_block": vae.latents_per_block, "latent_dim": vae.latent_dim}
    model = LaDiRForReasoning.from_causal_lm(source, **{**block, **recipe.reasoner})
    return _train_reasoner(recipe, "reasoner", model, {**recipe.reasoner_training}, (train, heldout), resume)


def train_further(recipe: LaDiRRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """More of stage 1: save the reasoner of stage 1, taught further on the true steps."""
    return _continue_reasoner(recipe, "continued", {**recipe.continued_training}, (train, heldout), resume)


def train_rollout(recipe: LaDiRRecipe, train: Dataset, heldout: Dataset, resume: bool) -> dict:
    """Stage 2: save the reasoner of stage 1, taught further on steps that it generates itself."""
    values = {"stage": "rollout", **recipe.rollout_training}
    return _continue_reasoner(recipe, "rollout", values, (train, heldout), resume)


def _continue_reasoner(recipe: LaDiRRecipe, stage: str, values: dict, problems: tuple, resume: bool) -> dict:
    model = LaDiRForReasoning.from_pretrained(recipe.folder("reasoner") / "model")
    set_seed(recipe.seed)
    return _train_reasoner(recipe, stage, model, values, problems, resume)


def _train_reasoner(recipe: LaDiRRecipe, stage: str, model, values: dict, problems: tuple, resume: bool) -> dict:
    _, tokenizer, splitter = _start(recipe)
    values = {"latent_cache_dir": str(recipe.folder("thoughts")), **values}
    args = recipe.training_arguments(LaDiRTrainingArguments, stage, values)
    # The trainer encodes with the VAE and lets go of it; of 8B parameters nobody else may keep one.
    parts = (ThoughtVAE.from_pretrained(recipe.folder("vae") / "model"), problems[0], tokenizer, splitter)
    trainer = LaDiRTrainer(model, args, *parts, eval_dataset=problems[1])
    del parts
    return _train(trainer, recipe.folder(stage) / "model", resume)


def _start(recipe: LaDiRRecipe) -> tuple[str, PreTrainedTokenizerBase, BlockSplitter]:
    """Return where VAE and reasoner start from, the tokenizer and the splitter."""
    folder = recipe.folder("language_model") / "model"
    return recipe.pretrained_lm or str(folder), load_tokenizer(folder), BlockSplitter(**recipe.splitter)


def _can_split(recipe: LaDiRRecipe, row: dict) -> bool:
    try:
        BlockSplitter(**recipe.splitter).split_target(row["target"], row.get("answer"))
    except ValueError:
        return False
    return True


def _train(trainer: ReproducibleTrainer, folder: Path, resume: bool) -> dict:
    output = trainer.train(resume_from_checkpoint=resume)
    trainer.save_final(folder)
    size = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    return {
        "steps": trainer.state.global_step,
        "batch_size": size,
        "train_loss": output.training_loss,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "threads": torch.get_num_threads(),
        "log": trainer.state.log_history,
    }
