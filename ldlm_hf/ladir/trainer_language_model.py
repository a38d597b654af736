"""Train a causal LM to write out steps and answers: what VAE and reasoner start from, and the autoregressive baseline.

The paper starts from an LLM; where none is at hand, a small one is trained on the same problems first. It sees each
problem as text, `question step step … answer ⟨eos⟩`, and is scored on what follows the question.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..training import ReproducibleTrainer, ReproducibleTrainingArguments, map_rows
from .block_splitter import BlockSplitter
from .losses import answer_loss
from .reconstruction import pad_right
from .trainer_thought_vae import split_targets


@dataclass
class LanguageModelTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`LanguageModelTrainer`], those of `TrainingArguments`."""


class LanguageModelTrainer(ReproducibleTrainer):
    """Trains a causal LM on problems with worked steps, all as text."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: LanguageModelTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        splitter: BlockSplitter,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): a causal LM.
            args ([`LanguageModelTrainingArguments`]): how to train.
            train_dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target`, and `answer` where targets lack the
                splitter's prefix.
            processing_class (`PreTrainedTokenizerBase`): the tokenizer.
            splitter ([`BlockSplitter`]): how targets become steps and answers.
            eval_dataset (`Dataset`, *optional*): held-out problems with the same columns.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if the splitter finds no steps or answer in a target.
        """
        with args.main_process_first(desc="tokenization"):
            train_dataset = written_problems(train_dataset, processing_class, splitter)
            if eval_dataset is not None:
                eval_dataset = written_problems(eval_dataset, processing_class, splitter)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=collate_written,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of what follows the question in nats per token, the mean over rows."""
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        loss = answer_loss(output.logits[:, :-1], inputs["labels"][:, 1:]).mean()
        return (loss, output) if return_outputs else loss


def written_problems(
    dataset: Dataset | IterableDataset, tokenizer: PreTrainedTokenizerBase, splitter: BlockSplitter
) -> Dataset | IterableDataset:
    """Return each problem as `input_ids`, ⟨bos⟩ and ⟨eos⟩ included, and how many of them are its question's.

    Args:
        dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target`, and `answer` where targets lack
            the splitter's prefix.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        splitter ([`BlockSplitter`]): how targets become steps and answers.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def write(problems: dict[str, list[str]]) -> dict[str, list]:
        texts = [
            " ".join([*blocks, answer]) for blocks, answer in split_targets(Dataset.from_dict(problems), splitter)
        ]
        questions = [[*start, *ids] for ids in tokenizer(problems["prompt"], add_special_tokens=False)["input_ids"]]
        targets = tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = [[*one, *other, tokenizer.eos_token_id] for one, other in zip(questions, targets, strict=True)]
        return {"input_ids": rows, "question_length": list(map(len, questions))}

    return map_rows(dataset, write, "Tokenizing")


def collate_written(rows: list[dict]) -> dict[str, Tensor]:
    """Return `(batch, length)` int64 `input_ids`, `attention_mask` and `labels`, -100 for questions and padding."""
    batch = pad_right([row["input_ids"] for row in rows])
    places = torch.arange(batch["input_ids"].shape[1])
    is_question = places < torch.tensor([row["question_length"] for row in rows])[:, None]
    ignored = is_question | (batch["attention_mask"] == 0)
    return {**batch, "labels": batch["input_ids"].masked_fill(ignored, -100)}
