"""A recipe of a baseline: what the same problems come to without diffusion, trained as carefully.

`sequence_to_sequence` writes the target given the prompt, answer first or (`task_arguments: {answer_position: last}`) as
chain-of-thought; `classifier` only chooses the answer. Both stop early by their loss on the validation problems.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartForConditionalGeneration,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ..arguments import check_field_types, naming
from ..loading import load_complete, load_tokenizer
from ..tasks import Task, get_task
from ..tokenization import build_tokenizer, fit_texts
from ..training import ReproducibleTrainer, ReproducibleTrainingArguments, read_section, run_stage
from .recipe import bart_of_size, fit_problems
from .trainer_baseline import BaselineTrainer, greedy_generation, write_greedily
from .trainer_classifier import ClassifierTrainer, answer_classes, classifier_of_size, classify


SYSTEMS = ("sequence_to_sequence", "classifier")


@dataclass
class BaselineRecipe:
    """All that a training of a baseline depends on.

    Args:
        output_dir (`str`): where checkpoints and the model go.
        task (`str`): name of the task, as [`get_task`] takes it.
        system (`str`, *optional*, defaults to `"sequence_to_sequence"`): or `"classifier"`.
        task_arguments (`dict`, *optional*): further arguments of the task, such as `answer_position: last`.
        seed (`int`, *optional*, defaults to 0): of every weight and order.
        pretrained_seq2seq (`str`, *optional*): Hub id or folder of an LM to fine-tune; without one a BART of
            `num_parameters` is trained from scratch.
        num_parameters (`int`, *optional*, defaults to 2,000,000): size of a model trained from scratch.
        num_layers (`int`, *optional*, defaults to 3): its layers, in each half.
        tokenizer (`dict`, *optional*): arguments of [`build_tokenizer`], for a model trained from scratch.
        baseline_training (`dict`, *optional*): fields of [`ReproducibleTrainingArguments`].
        early_stopping_patience (`int`, *optional*): evaluations without a better loss after which to stop; needs
            `eval_strategy`, `metric_for_best_model` and `load_best_model_at_end` in `baseline_training`.
        early_stopping_threshold (`float`, *optional*, defaults to 0.0): how much lower a loss has to be to count as better.
        report_to (`str`, *optional*, defaults to `"none"`): any tracker of the Trainer.

    Raises:
        ValueError: for an unknown `system` or `task`.
    """

    output_dir: str
    task: str
    system: str = "sequence_to_sequence"
    task_arguments: dict = field(default_factory=dict)
    seed: int = 0
    pretrained_seq2seq: str | None = None
    num_parameters: int = 2_000_000
    num_layers: int = 3
    tokenizer: dict = field(default_factory=dict)
    baseline_training: dict = field(default_factory=dict)
    early_stopping_patience: int | None = None
    early_stopping_threshold: float = 0.0
    report_to: str = "none"

    def __post_init__(self):
        """Check what can be checked before hours of training."""
        check_field_types(self)
        if self.system not in SYSTEMS:
            raise ValueError(f"`system` has to be one of {SYSTEMS}, but is {self.system!r}.")
        if self.system == "classifier" and self.pretrained_seq2seq is not None:
            raise ValueError(
                f"`pretrained_seq2seq` is {self.pretrained_seq2seq!r}, but the system 'classifier' is trained from scratch: "
                "leave it out, or take the system 'sequence_to_sequence'."
            )
        with naming("task_arguments"):
            self.make_task()

    def make_task(self) -> Task:
        """Return the recipe's task."""
        return get_task(self.task, **self.task_arguments)


def train_baseline(
    recipe: BaselineRecipe, resume: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict]:
    """Train the baseline; return the model, also saved in `output_dir/baseline/model`, its tokenizer and a record."""
    folder = Path(recipe.output_dir) / "baseline"
    settings = {name: value for name, value in vars(recipe).items() if name not in ("output_dir", "report_to")}
    record = run_stage(folder, settings, lambda: _train(recipe, folder, resume), resume)
    auto_class = (
        AutoModelForSeq2SeqLM if recipe.system == "sequence_to_sequence" else AutoModelForSequenceClassification
    )
    model = load_complete(auto_class, folder / "model")
    return model, load_tokenizer(folder / "model"), record


def write_answers(
    recipe: BaselineRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> list[str]:
    """Return what the baseline writes for each prompt; a classifier writes the bare answer."""
    if recipe.make_task().truncates:
        prompts = fit_texts(prompts, tokenizer)
    if recipe.system == "sequence_to_sequence":
        return write_greedily(model, tokenizer, prompts, max_new_tokens=tokenizer.model_max_length - 1)
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    return classify(model, tokenizer, prompts, labels)


def _train(recipe: BaselineRecipe, folder: Path, resume: bool) -> dict:
    task = recipe.make_task()
    train, validation = (task.to_dataset(split, seed=recipe.seed) for split in ("train", "validation"))
    defaults = {"output_dir": str(folder), "seed": recipe.seed, "report_to": recipe.report_to}
    args = read_section(ReproducibleTrainingArguments, recipe.baseline_training, **defaults)
    patience = recipe.early_stopping_patience
    callbacks = [] if patience is None else [EarlyStoppingCallback(patience, recipe.early_stopping_threshold)]
    model, tokenizer = _make_model(recipe, task, train)
    train, validation = (fit_problems(task, problems, tokenizer) for problems in (train, validation))
    trainer_class = BaselineTrainer if recipe.system == "sequence_to_sequence" else ClassifierTrainer
    trainer: ReproducibleTrainer = trainer_class(model, args, train, tokenizer, validation, callbacks=callbacks)
    output = trainer.train(resume_from_checkpoint=resume)
    trainer.save_final(folder / "model")
    best = trainer.state.best_model_checkpoint
    return {
        "steps": trainer.state.global_step,
        "best_step": None if best is None else int(best.rpartition("-")[2]),
        "batch_size": trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * args.world_size,
        "train_loss": output.training_loss,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "log": trainer.state.log_history,
    }


def _make_model(recipe: BaselineRecipe, task: Task, train: Dataset) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    set_seed(recipe.seed)
    if recipe.pretrained_seq2seq is not None and recipe.system == "sequence_to_sequence":
        model = load_complete(AutoModelForSeq2SeqLM, recipe.pretrained_seq2seq)
        tokenizer = load_tokenizer(recipe.pretrained_seq2seq)
        model.generation_config = greedy_generation(model, tokenizer)  # which is saved with the weights
        return model, tokenizer
    tokenizer = build_tokenizer([*train["prompt"], *train["target"]], task.words(), **recipe.tokenizer)
    if recipe.system == "sequence_to_sequence":
        return BartForConditionalGeneration(
            bart_of_size(tokenizer, recipe.num_parameters, recipe.num_layers)
        ), tokenizer
    config = classifier_of_size(tokenizer, answer_classes(train), recipe.num_parameters, recipe.num_layers)
    return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False), tokenizer
