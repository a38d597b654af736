"""The sequence-to-sequence baseline: the same kind of LM, trained to write the target given the prompt.

The paper's baseline answers 0 to 1.3 % of its problems, below chance on one task, which speaks of a fault in decoding.
This one is trained on the same rows for the same number of steps and decoded greedily; with the chain before the answer
(`answer_position="last"` of the task) it is chain-of-thought.
"""

from __future__ import annotations

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..training import ReproducibleTrainer, ReproducibleTrainingArguments


class BaselineTrainer(ReproducibleTrainer):
    """Trains an encoder-decoder LM on the rows of a data set with the columns `prompt` and `target`."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: ReproducibleTrainingArguments,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): an encoder-decoder LM with a head.
            args ([`ReproducibleTrainingArguments`]): how to train.
            train_dataset (`Dataset`): with the columns `prompt` and `target` (strings).
            processing_class (`PreTrainedTokenizerBase`): its tokenizer.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.
        """

        def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            encoded = processing_class(rows["prompt"])
            return {**encoded, "labels": processing_class(rows["target"])["input_ids"]}

        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset.map(tokenize, batched=True, remove_columns=train_dataset.column_names),
            processing_class=processing_class,
            data_collator=DataCollatorForSeq2Seq(processing_class),
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of the target, in nats per token."""
        output = model(**inputs)
        return (output.loss, output) if return_outputs else output.loss


@torch.no_grad()
def write_greedily(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    batch_size: int = 256,
    max_new_tokens: int = 64,
) -> list[str]:
    """Return what the baseline writes for each prompt, without beams and without a ban on repetition."""
    model.eval()
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], padding=True, return_tensors="pt").to(model.device)
        texts += tokenizer.batch_decode(model.generate(**batch, generation_config=config), skip_special_tokens=True)
    return texts
