"""A recipe of this room: a model, ready or trained here → supervised fine-tuning → diffu-GRPO → pipeline (d1, §3 and 4).

The first two stages are recipes of masked diffusion. Adapters are merged between the stages: the reference of the
reinforcement is the model without its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import BitsAndBytesConfig, PreTrainedModel, set_seed
from transformers.utils import logging

from ..arguments import check_field_types, check_number, check_option, naming, shown
from ..checkpoints import saved_whole, write_whole
from ..llada.pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..llada.recipe import DTYPES, STAGE, MaskedDiffusionRecipe, load_model, train_masked_diffusion
from ..loading import load_adapters, load_tokenizer
from ..schedulers import MaskedDiffusionScheduler
from ..tasks import TASKS, StyledTask, Task, get_task
from ..training import discard_stages, last_complete_checkpoint, read_section, run_stage
from .configuration_diffu_grpo import DiffuGRPOConfig
from .prompts import TEMPLATES, ask, demonstration_of_s1k
from .rewards import REWARD_MAKERS, REWARDS
from .scoring import RewardFunction
from .styles import style_reward
from .trainer_diffu_grpo import DiffuGRPOTrainer


logger = logging.get_logger(__name__)
# Their demonstrations are a data set of a stage, not its task.
STYLED = tuple(name for name, task in TASKS.items() if issubclass(task, StyledTask))
S1K = "simplescaling/s1K"
TASK_REWARDS = ("countdown", "task")  # these need the task


@dataclass
class ReinforcementRecipe:
    """The reinforcement of a recipe.

    Args:
        task (`str`, *optional*): name of the task that makes the problems, or says what a right answer to those of `dataset` is.
        task_arguments (`dict`, *optional*): further arguments of the task.
        dataset (`str`, *optional*): Hub id, with the name of a configuration behind a colon, or JSONL file of the problems, in
            place of the task's own.
        dataset_split (`str`, *optional*, defaults to `"train"`): which of its splits.
        columns (`dict`, *optional*): columns of the data set to be renamed, by their new names: `{problem: question}`.
        train_size (`int`, *optional*): how many problems; all by default.
        template (`str`, *optional*, defaults to `"plain"`): name of a template that makes prompts of problems.
        rewards (`dict`, *optional*): reward functions by name, each with its `weight` and the arguments of its maker.
        training (`dict`, *optional*): fields of [`DiffuGRPOConfig`].
        lora (`dict`, *optional*): fields of PEFT's `LoraConfig`; train adapters only.
        dtype (`str`, *optional*, defaults to `"float32"`): of the model without adapters, or `"bfloat16"`.
        load_in_4bit (`bool`, *optional*, defaults to `False`): train adapters on a model in 4 bits, where there are a GPU and
            bitsandbytes; else in `dtype`.

    Raises:
        ValueError: without task or data set, or rewards; for unknown names.
    """

    task: str | None = None
    task_arguments: dict = field(default_factory=dict)
    dataset: str | None = None
    dataset_split: str = "train"
    columns: dict = field(default_factory=dict)
    train_size: int | None = None
    template: str = "plain"
    rewards: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    lora: dict = field(default_factory=dict)
    dtype: str = "float32"
    load_in_4bit: bool = False

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if self.task is None and self.dataset is None:
            raise ValueError("`rl` needs a `task` or a `dataset`.")
        check_option("template", self.template, tuple(TEMPLATES))
        check_option("dtype", self.dtype, tuple(DTYPES))
        self.make_rewards()

    def make_task(self) -> Task | None:
        """Return the task, if there is one."""
        return None if self.task is None else get_task(self.task, **self.task_arguments)

    def make_rewards(self) -> tuple[list[RewardFunction], list[float]]:
        """Return the reward functions and their weights."""
        if not self.rewards:
            raise ValueError(f"`rewards` is empty; there are {[*REWARDS, *REWARD_MAKERS, 'style']}.")
        functions, weights = [], []
        for name, given in self.rewards.items():
            check_option("rewards", name, (*REWARDS, *REWARD_MAKERS, "style"))
            if not isinstance(given, dict | None):
                raise ValueError(f"`rewards.{name}` has to be a mapping of its arguments, but is {shown(given)}.")
            arguments = dict(given or {})
            weights.append(_weight(name, arguments.pop("weight", 1.0)))
            if name in REWARD_MAKERS:
                own = {"task": self.make_task()} if name in TASK_REWARDS else {}
                with naming(f"rewards.{name}"):
                    functions.append(REWARD_MAKERS[name](**own, **arguments))
                continue
            if arguments:
                raise ValueError(f"`rewards.{name}` takes a `weight` only, but was given {shown(list(arguments))}.")
            functions.append(style_reward if name == "style" else REWARDS[name])
        return functions, weights

    def problems(self, seed: int = 0) -> Dataset:
        """Return the training problems: `prompt`, as the policy reads it, `problem`, and whatever else rewards look at."""
        if self.dataset is None:
            rows = self.make_task().to_dataset("train", self.train_size, seed=seed).rename_column("prompt", "problem")
        else:
            is_file = self.dataset.endswith((".json", ".jsonl"))
            path, _, name = self.dataset.partition(":")
            source = {"path": path, "name": name or None}
            source = {"path": "json", "data_files": self.dataset} if is_file else source
            rows = load_dataset(**source, split="train" if is_file else self.dataset_split)
            rows = rows.rename_columns({old: new for new, old in self.columns.items()})
            rows = rows if self.train_size is None else rows.select(range(min(self.train_size, len(rows))))
        return rows.map(self._with_prompt)

    def _with_prompt(self, row: Mapping[str, object]) -> dict[str, str]:
        problem = row.get("problem")
        if problem is None:  # Countdown, as its data sets on the Hub have it
            problem = f"{','.join(map(str, row['nums']))}={row['target']}"
        return {"prompt": ask(self.template, problem), "problem": problem}


@dataclass
class D1Recipe:
    """All that a model of d1 depends on.

    Args:
        output_dir (`str`): where all stages and the pipeline go.
        seed (`int`, *optional*, defaults to 0): of every weight, order and noise.
        pretrained (`str`, *optional*): Hub id or folder of the model to start from.
        base (`dict`, *optional*): in place of that, fields of a [`MaskedDiffusionRecipe`] that trains one.
        sft (`dict`, *optional*): fields of a [`MaskedDiffusionRecipe`] for the fine-tuning; none is done by default. Its
            `dataset` may be `simplescaling/s1K`, as d1's is.
        rl (`dict`, *optional*): fields of a [`ReinforcementRecipe`]; none is done by default.
        merge_adapters (`bool`, *optional*, defaults to `True`): merge the adapters of the reinforcement into the model and save
            it and the pipeline; otherwise save the adapters only.
        scheduler (`dict`, *optional*): arguments of [`MaskedDiffusionScheduler`], for the pipeline.
        gen_length (`int`, *optional*): how many tokens the pipeline generates where a call does not say.
        report_to (`str`, *optional*, defaults to `"none"`): any tracker of the Trainer.

    Raises:
        ValueError: unless there is one of `pretrained` and `base`, and something to do.
    """

    output_dir: str
    seed: int = 0
    pretrained: str | None = None
    base: dict = field(default_factory=dict)
    sft: dict = field(default_factory=dict)
    rl: dict = field(default_factory=dict)
    merge_adapters: bool = True
    scheduler: dict = field(default_factory=dict)
    gen_length: int | None = None
    report_to: str = "none"

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if (self.pretrained is None) == (not self.base):
            raise ValueError("A recipe needs either `pretrained`, a model to start from, or `base`, how to train one.")
        if not (self.base or self.sft or self.rl):
            raise ValueError("A recipe needs a stage: `base`, `sft` or `rl`.")
        with naming("scheduler"):
            MaskedDiffusionScheduler(**self.scheduler)
        self.make_reinforcement()

    def make_reinforcement(self) -> ReinforcementRecipe | None:
        """Return the recipe of the reinforcement, if there is one."""
        return read_section(ReinforcementRecipe, self.rl) if self.rl else None

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage, or of the pipeline."""
        return Path(self.output_dir) / stage


def train_d1(recipe: D1Recipe, resume: bool = False) -> tuple[MaskedDiffusionPipeline, dict[str, dict]]:
    """Run all stages; return the pipeline, also saved in `output_dir/pipeline`, and a record of each.

    Args:
        recipe ([`D1Recipe`]): what to do.
        resume (`bool`, *optional*, defaults to `False`): read finished stages back, and go on with a broken-off one from its
            newest complete checkpoint.
    """
    if not resume:
        discard_stages(recipe.folder("base") / STAGE, recipe.folder("sft") / STAGE, recipe.folder("rl"))
    source, records = recipe.pretrained, {}
    for stage, section in (("base", recipe.base), ("sft", recipe.sft)):
        if section:
            fine_tuning = _supervised(recipe, stage, section, source)
            _, record = train_masked_diffusion(fine_tuning, resume)
            source, records[stage] = str(fine_tuning.folder(STAGE) / STAGE), record[STAGE]
    model, section = None, recipe.make_reinforcement()
    if section is not None:
        folder = recipe.folder("rl")
        settings = {"source": source, "seed": recipe.seed, "merge_adapters": recipe.merge_adapters, **asdict(section)}
        records["rl"] = run_stage(
            folder, settings, lambda: _reinforce(recipe, section, source, folder, resume), resume
        )
        is_kept_apart = bool(section.lora) and not recipe.merge_adapters
        model = _merged(source, folder / "adapters", section.dtype) if is_kept_apart else load_model(folder / STAGE)
    tokenizer = load_tokenizer(source)
    pipeline = MaskedDiffusionPipeline(
        load_model(source) if model is None else model,
        MaskedDiffusionScheduler(**recipe.scheduler),
        tokenizer,
        gen_length=recipe.gen_length,
        **_about(section),
    )
    if section is None or not section.lora or recipe.merge_adapters:
        pipeline.save_pretrained(recipe.folder("pipeline"))
    return pipeline, records


def _weight(name: str, value: float | str) -> float:
    """Return the weight of a reward; `1e-3` is a text in YAML."""
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`rewards.{name}.weight` has to be a number, but is {shown(value)}.") from error
    check_number(f"rewards.{name}.weight", weight)
    return weight


def _about(section: ReinforcementRecipe | None) -> dict:
    """Return what a pipeline is told of its task: one that it knows, and whose problems are its prompts."""
    if section is None or section.task not in TASKS or section.template != "plain":
        return {}
    return {"task": section.task, "task_arguments": section.task_arguments or None}


def _supervised(recipe: D1Recipe, stage: str, section: dict, source: str | None) -> MaskedDiffusionRecipe:
    """Return the recipe of a supervised stage, with rows that only this room knows written to a file."""
    values, own = dict(section), section.get("task") in STYLED
    if own or section.get("dataset") == S1K:
        path = recipe.folder(f"{stage}.jsonl")
        if own:
            task = get_task(values.pop("task"), **values.pop("task_arguments", {}))
            rows = task.to_dataset("train", values.pop("train_size", None), seed=recipe.seed)
        else:
            rows = map(demonstration_of_s1k, load_dataset(S1K, split="train"))
        _write_rows(path, rows)
        values["dataset"] = str(path)
    defaults = {"output_dir": str(recipe.folder(stage)), "seed": recipe.seed, "report_to": recipe.report_to}
    kept = {"scheduler": recipe.scheduler, "gen_length": recipe.gen_length}
    return read_section(MaskedDiffusionRecipe, {"pretrained": source, **kept, **values}, **defaults)


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    write_whole(path, "".join(json.dumps(dict(row)) + "\n" for row in rows))


def _reinforce(recipe: D1Recipe, section: ReinforcementRecipe, source: str, folder: Path, resume: bool) -> dict:
    functions, weights = section.make_rewards()
    defaults = {"output_dir": str(folder), "seed": recipe.seed, "report_to": recipe.report_to}
    args = read_section(DiffuGRPOConfig, {"reward_weights": weights, **section.training}, **defaults)
    tokenizer = load_tokenizer(source)
    set_seed(recipe.seed)
    model, adapters = _load_policy(source, section), None
    if section.lora:
        from peft import LoraConfig

        adapters = LoraConfig(**section.lora)
    rows = section.problems(recipe.seed)
    trainer = DiffuGRPOTrainer(model, functions, args, rows, tokenizer, peft_config=adapters)
    output = trainer.train(resume_from_checkpoint=resume and last_complete_checkpoint(folder) is not None)
    trainer.save_final(folder / ("adapters" if section.lora else STAGE))
    if section.lora and recipe.merge_adapters:
        with saved_whole(folder / STAGE) as place:
            _merged(source, folder / "adapters", section.dtype).save_pretrained(place)
            tokenizer.save_pretrained(place)
    updates = trainer.state.global_step
    return {
        "steps": updates,
        "completions": -(-updates // trainer.plan.updates_per_generation) * trainer.plan.num_rows,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "train_loss": output.training_loss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "log": trainer.state.log_history,
    }


def _load_policy(source: str, section: ReinforcementRecipe) -> PreTrainedModel:
    if not section.load_in_4bit:
        return load_model(source, DTYPES[section.dtype])
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        logger.warning(f"`load_in_4bit` needs a GPU and bitsandbytes; the model is loaded in {section.dtype}.")
        return load_model(source, DTYPES[section.dtype])
    settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **settings)
    return load_model(source, torch.bfloat16, quantization_config=quantization)


def _merged(source: str, adapters: Path, dtype: str) -> PreTrainedModel:
    """Return the model with adapters merged into it, in full precision even where they were trained on 4 bits."""
    return load_adapters(load_model(source, DTYPES[dtype]), adapters).merge_and_unload()
