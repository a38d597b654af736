"""The sequence-to-sequence baseline: the same kind of LM, trained to write the target given the prompt.

The paper's baseline answers 0 to 1.3 % of its problems, below chance on one task, which speaks of a fault in decoding.
This one is trained on the same rows for the same number of steps and decoded greedily; with the chain before the answer
(`answer_position="last"` of the task) it is chain-of-thought. A baseline that overfits before the steps are over is none:
with held-out problems, `load_best_model_at_end` and `EarlyStoppingCallback` keep its best weights.
"""

from __future__ import annotations

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..training import ReproducibleTrainer, ReproducibleTrainingArguments, column_names, map_rows


class BaselineTrainer(ReproducibleTrainer):
    """Trains an encoder-decoder LM on the rows of a data set with the columns `prompt` and `target`."""

    why_not_sharded = "encoder, decoder and output share their embeddings"

    def __init__(
        self,
        model: PreTrainedModel,
        args: ReproducibleTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): an encoder-decoder LM with a head.
            args ([`ReproducibleTrainingArguments`]): how to train; `load_best_model_at_end` needs an `eval_dataset`.
            train_dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target` (strings).
            processing_class (`PreTrainedTokenizerBase`): its tokenizer.
            eval_dataset (`Dataset`, *optional*): validation problems with the same columns; `eval_loss` is the
                cross-entropy of their targets, in nats per token.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if a data set lacks a column.
        """

        def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            encoded = processing_class(rows["prompt"])
            return {**encoded, "labels": processing_class(rows["target"])["input_ids"]}

        datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        for name, dataset in datasets.items():
            if dataset is not None:
                require_columns(name, dataset, "prompt", "target")
                datasets[name] = map_rows(dataset, tokenize, "Tokenizing")
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=DataCollatorForSeq2Seq(processing_class),
            **datasets,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of the target, in nats per token."""
        output = model(**inputs)
        loss = output.loss * self.share_of_update(inputs, num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return how many tokens are to be written."""
        return (inputs["labels"] != -100).sum()


def require_columns(name: str, dataset: Dataset | IterableDataset, *columns: str) -> None:
    """Raise `ValueError`, naming the argument, unless `dataset` has all `columns`."""
    known = column_names(dataset)
    missing = [column for column in columns if column not in known]
    if missing:
        raise ValueError(f"`{name}` has to have the columns {columns}, but lacks {missing}; rename or add them.")


@torch.no_grad()
def write_greedily(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    batch_size: int = 256,
    max_new_tokens: int = 64,
) -> list[str]:
    """Return what the baseline writes for each prompt, without beams and without a ban on repetition.

    Whatever the model's own generation configuration holds: those of BART-base ask for four beams, forbid to repeat three
    tokens and force the first and the last one, and what a configuration leaves open is filled from the model's.
    """
    model.eval()
    own, model.generation_config = model.generation_config, greedy_generation(model, tokenizer)
    texts: list[str] = []
    try:
        for start in range(0, len(prompts), batch_size):
            batch = tokenizer(prompts[start : start + batch_size], padding=True, return_tensors="pt").to(model.device)
            tokens = model.generate(**batch, max_new_tokens=max_new_tokens)
            texts += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    finally:
        model.generation_config = own
    return texts


def greedy_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return the generation configuration that names the special tokens and asks for nothing else."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )
