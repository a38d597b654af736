"""A recipe of this room: a model, new, ready or converted from a causal LM → masked diffusion training → pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ..arguments import check_field_types, check_option, naming
from ..checkpoints import saved_whole
from ..loading import load_complete, load_tokenizer
from ..schedulers import MaskedDiffusionScheduler
from ..tasks import Task, get_task
from ..tokenization import build_tokenizer
from ..training import last_complete_checkpoint, load_problems, read_section, run_stage
from .configuration_llada import LLaDAConfig
from .conversion import from_causal_lm
from .modeling_llada import LLaDAForMaskedDiffusion
from .pipeline_masked_diffusion import MaskedDiffusionPipeline
from .trainer_masked_diffusion import MaskedDiffusionTrainer, MaskedDiffusionTrainingArguments


STAGE = "model"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class MaskedDiffusionRecipe:
    """All that a training of a masked diffusion language model depends on.

    Args:
        output_dir (`str`): where checkpoints and the pipeline go.
        task (`str`, *optional*): name of the task, as [`get_task`] takes it; without one `dataset` is needed.
        task_arguments (`dict`, *optional*): further arguments of the task, such as `num_blanks: 8`.
        dataset (`str`, *optional*): Hub id or JSONL file of rows as [`MaskedDiffusionCollator`] takes them, in place of the
            task's own.
        train_size (`int`, *optional*): how many training problems of the task; by default every distinct one.
        seed (`int`, *optional*, defaults to 0): of every weight, order and noise.
        pretrained (`str`, *optional*): Hub id or folder of a model to go on from: a LLaDA, a masked LM, or a causal LM, which
            is converted; without one a LLaDA is trained from scratch.
        dtype (`str`, *optional*, defaults to `"float32"`): of the weights of `pretrained`, or `"bfloat16"`, where only adapters are
            trained.
        tokenizer (`dict`, *optional*): arguments of [`build_tokenizer`], for a model trained from scratch.
        model (`dict`, *optional*): fields of [`LLaDAConfig`], for a model trained from scratch.
        model_training (`dict`, *optional*): fields of [`MaskedDiffusionTrainingArguments`].
        lora (`dict`, *optional*): fields of PEFT's `LoraConfig`; train adapters only, which are merged in the end.
        scheduler (`dict`, *optional*): arguments of [`MaskedDiffusionScheduler`].
        gen_length (`int`, *optional*): how many tokens the pipeline generates where a call does not say.
        report_to (`str`, *optional*, defaults to `"none"`): any tracker of the Trainer.

    Raises:
        ValueError: if there is neither task nor data set, the task or `dtype` is unknown, or all weights would be trained in
            bfloat16.
    """

    output_dir: str
    task: str | None = None
    task_arguments: dict = field(default_factory=dict)
    dataset: str | None = None
    train_size: int | None = None
    seed: int = 0
    pretrained: str | None = None
    dtype: str = "float32"
    tokenizer: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    model_training: dict = field(default_factory=dict)
    lora: dict = field(default_factory=dict)
    scheduler: dict = field(default_factory=dict)
    gen_length: int | None = None
    report_to: str = "none"

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if self.task is None and self.dataset is None:
            raise ValueError("A recipe needs a `task` or a `dataset`.")
        check_option("dtype", self.dtype, tuple(DTYPES))
        if self.dtype != "float32" and not self.lora:
            raise ValueError(
                f"`dtype` {self.dtype!r} is for training adapters; give `lora`, or train in float32 with `bf16: true`."
            )
        with naming("task_arguments"):
            self.make_task()
        with naming("scheduler"):
            MaskedDiffusionScheduler(**self.scheduler)

    def make_task(self) -> Task | None:
        """Return the recipe's task, if it has one."""
        return None if self.task is None else get_task(self.task, **self.task_arguments)

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage, or of the pipeline."""
        return Path(self.output_dir) / stage


def train_masked_diffusion(
    recipe: MaskedDiffusionRecipe, resume: bool = False
) -> tuple[MaskedDiffusionPipeline, dict[str, dict]]:
    """Train the model; return the pipeline, also saved in `output_dir/pipeline`, and a record of the training.

    With `resume`, a finished training is read back and a broken-off one goes on from its newest complete checkpoint.
    """
    kept = ("output_dir", "report_to", "scheduler", "gen_length")
    settings = {name: value for name, value in asdict(recipe).items() if name not in kept}
    folder = recipe.folder(STAGE)
    record = run_stage(folder, settings, lambda: _train(recipe, folder, resume), resume)
    tokenizer = load_tokenizer(folder / STAGE)
    pipeline = make_pipeline(recipe, load_model(folder / STAGE), tokenizer)
    pipeline.save_pretrained(recipe.folder("pipeline"))
    return pipeline, {STAGE: record}


def make_pipeline(
    recipe: MaskedDiffusionRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> MaskedDiffusionPipeline:
    """Return the pipeline of a recipe around a model."""
    scheduler = MaskedDiffusionScheduler(**recipe.scheduler)
    about = {"task": recipe.task, "task_arguments": recipe.task_arguments or None, "gen_length": recipe.gen_length}
    return MaskedDiffusionPipeline(model, scheduler, tokenizer, **about)


def load_model(source: str | Path, dtype: torch.dtype | None = torch.float32, **kwargs) -> PreTrainedModel:
    """Return the model in a folder or on the Hub, by the auto class that knows it: complete or not at all.

    Args:
        source (`str` or `Path`): folder or Hub id.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): of the weights; `None` keeps that of the file.
        kwargs: further arguments of `from_pretrained`, such as `quantization_config`.

    Raises:
        OSError: if files or weights are missing, broken or pickled.
        ValueError: if the model is nothing without code of the repository.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    is_masked_lm = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    auto_class = AutoModelForMaskedLM if is_masked_lm else AutoModelForCausalLM
    return load_complete(auto_class, source, dtype=dtype or "auto", **kwargs)


def _train(recipe: MaskedDiffusionRecipe, folder: Path, resume: bool) -> dict:
    train, validation = load_problems(recipe.make_task(), recipe.dataset, recipe.train_size, recipe.seed)
    set_seed(recipe.seed)
    model, tokenizer = _make_model(recipe, train)
    if recipe.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**recipe.lora))
    defaults = {"output_dir": str(folder), "seed": recipe.seed, "report_to": recipe.report_to}
    args = read_section(MaskedDiffusionTrainingArguments, recipe.model_training, **defaults)
    trainer = MaskedDiffusionTrainer(model, args, train, tokenizer, validation)
    output = trainer.train(resume_from_checkpoint=resume and last_complete_checkpoint(folder) is not None)
    if recipe.lora:
        with saved_whole(folder / STAGE) as place:
            model.merge_and_unload().save_pretrained(place)
            tokenizer.save_pretrained(place)
    else:
        trainer.save_final(folder / STAGE)
    return {
        "steps": trainer.state.global_step,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "train_loss": output.training_loss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "log": trainer.state.log_history,
    }


def _make_model(recipe: MaskedDiffusionRecipe, train: Dataset) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if recipe.pretrained is not None:
        tokenizer = load_tokenizer(recipe.pretrained)
        model = load_model(recipe.pretrained, DTYPES[recipe.dtype])
        is_masked_lm = model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        is_causal = not is_masked_lm and getattr(model.config, "is_causal", True)  # most configurations do not say
        return (from_causal_lm(model, tokenizer) if is_causal else model), tokenizer
    task = recipe.make_task()
    texts = [text for name in ("prompt", "target", "text") if name in train.column_names for text in train[name]]
    tokenizer = build_tokenizer(texts, () if task is None else task.words(), **recipe.tokenizer)
    special = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "mask_token_id": tokenizer.mask_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LLaDAForMaskedDiffusion(LLaDAConfig(**{**special, **recipe.model})), tokenizer
