"""The classifier baseline: an encoder only, which chooses the answer among those of the training problems.

It writes no chain and no text, so it shows how much of a task is plain pattern recognition. Its classes are the distinct
answers of the training problems: a held-out answer that is no class cannot be given and counts as wrong.
"""

from __future__ import annotations

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from ..training import ReproducibleTrainer, ReproducibleTrainingArguments, check_not_streamed
from .trainer_baseline import require_columns


class ClassifierTrainer(ReproducibleTrainer):
    """Trains an encoder with a classification head on a data set with the columns `prompt` and `answer`."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: ReproducibleTrainingArguments,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): for sequence classification; `config.label2id` says which class is which answer,
                as [`classifier_of_size`] writes it.
            args ([`ReproducibleTrainingArguments`]): how to train; `load_best_model_at_end` needs an `eval_dataset`.
            train_dataset (`Dataset`): with the columns `prompt` and `answer` (strings).
            processing_class (`PreTrainedTokenizerBase`): its tokenizer.
            eval_dataset (`Dataset`, *optional*): validation problems with the same columns; `eval_loss` is the
                cross-entropy of their answers, in nats. Answers that are no class have an infinite one and are left out,
                so accuracy over all problems has to be taken from [`classify`], where they count as wrong.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if a data set is streamed or lacks a column, a training answer is no class, or no validation answer is one.
        """
        classes = model.config.label2id
        datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        check_not_streamed("all of its answers are compared with the classes first", **datasets)
        for name, dataset in datasets.items():
            if dataset is None:
                continue
            require_columns(name, dataset, "prompt", "answer")
            unknown = sorted(set(dataset["answer"]) - set(classes))
            if unknown and (name == "train_dataset" or not set(dataset["answer"]) & set(classes)):
                raise ValueError(
                    f"`{name}` has answers that are no class of the model, such as {unknown[:3]}: make the model with "
                    "`classifier_of_size` and the `answer_classes` of the training problems."
                )
            kept = [row for row, answer in enumerate(dataset["answer"]) if answer in classes]
            datasets[name] = _tokenize(dataset.select(kept), processing_class, classes)
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=DataCollatorWithPadding(processing_class),
            **datasets,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of the answer, in nats."""
        output = model(**inputs)
        return (output.loss, output) if return_outputs else output.loss


def answer_classes(dataset: Dataset) -> list[str]:
    """Return the distinct values of the column `answer`, sorted, as the classes of a classifier."""
    require_columns("dataset", dataset, "answer")
    return sorted(set(dataset["answer"]))


def classifier_of_size(
    tokenizer: PreTrainedTokenizerBase, labels: list[str], num_parameters: int, num_layers: int = 3
) -> RobertaConfig:
    """Return the RoBERTa with `num_layers` layers and a head for `labels` whose size is nearest `num_parameters`.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the prompts; the answer is read off its first token.
        labels (`list[str]`): the answer of each class, such as [`answer_classes`] lists them.
        num_parameters (`int`): wanted size, all weights counted.
        num_layers (`int`, *optional*, defaults to 3): layers of the encoder; its width is what is searched for.

    Raises:
        ValueError: if `labels` holds fewer than two answers or one twice, or a size is not positive.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"`labels` has to hold two or more distinct answers, but is {labels[:10]}.")
    if min(num_parameters, num_layers) < 1:
        raise ValueError(
            f"`num_parameters` and `num_layers` have to be at least 1, but are {num_parameters} and {num_layers}."
        )
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    fields = {
        "vocab_size": len(tokenizer),
        "type_vocab_size": 1,
        # RoBERTa counts positions from the padding token's id + 1
        "max_position_embeddings": tokenizer.model_max_length + tokenizer.pad_token_id + 1,
        "num_hidden_layers": num_layers,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    best: tuple[int, RobertaConfig] | None = None
    for width in range(32, 2049, 32):
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
        config = RobertaConfig(**special, **fields, **sizes)
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        size = sum(parameter.numel() for parameter in model.parameters())
        if best is None or abs(size - num_parameters) < best[0]:
            best = (abs(size - num_parameters), config)
        if size > num_parameters:
            break
    return best[1]


@torch.no_grad()
def classify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    labels: list[str],
    batch_size: int = 256,
) -> list[str]:
    """Return the answer that the classifier chooses for each prompt.

    Args:
        model (`PreTrainedModel`): for sequence classification.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        prompts (`list[str]`): the problems.
        labels (`list[str]`): the answer of each class; a right answer that is not among them is never given.
        batch_size (`int`, *optional*, defaults to 256): prompts at a time; has no influence on the result.

    Raises:
        ValueError: if there is not one label for each class of the model.
    """
    if len(labels) != model.config.num_labels:
        raise ValueError(f"`labels` has {len(labels)} answers, but the model has {model.config.num_labels} classes.")
    model.eval()
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], padding=True, return_tensors="pt").to(model.device)
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # (batch, classes)
        answers += [labels[index] for index in logits.argmax(-1).tolist()]
    return answers


def _tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, classes: dict[str, int]) -> Dataset:
    def tokenize(rows: dict[str, list[str]]) -> dict[str, list]:
        encoded = tokenizer(rows["prompt"])
        labels = [classes[answer] for answer in rows["answer"]]
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}

    return dataset.map(tokenize, batched=True, remove_columns=dataset.column_names)
