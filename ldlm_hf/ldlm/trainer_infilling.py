"""Stage 0, where no pretrained LM is at hand: pretrain a BART by text infilling (Lewis et al. 2019, §2.2), then freeze it.

Spans of Poisson length (mean 3) that cover 30 % of a text are each replaced by one mask token, an empty span inserting
one, and the decoder writes the whole text. Rows are corrupted anew at each step, by generators of (seed, step, row).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from ..training import ReproducibleTrainer, ReproducibleTrainingArguments
from .trainer_autoencoder import tokenize_texts


@dataclass
class InfillingTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`InfillingTrainer`], beside those of `TrainingArguments`.

    Args:
        mask_ratio (`float`, *optional*, defaults to 0.3): share of the tokens that is masked.
        mean_span (`float`, *optional*, defaults to 3.0): mean length of a masked span.
    """

    mask_ratio: float = field(default=0.3, metadata={"help": "Share of the tokens that is masked."})
    mean_span: float = field(default=3.0, metadata={"help": "Mean length of a masked span."})


class InfillingTrainer(ReproducibleTrainer):
    """Pretrains an encoder-decoder LM on every text of a data set with the columns `prompt` and `target`."""

    why_not_sharded = "encoder, decoder and output share their embeddings"

    def __init__(
        self,
        model: PreTrainedModel,
        args: InfillingTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): an encoder-decoder LM with a head.
            args ([`InfillingTrainingArguments`]): how to train.
            train_dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target` (strings).
            processing_class (`PreTrainedTokenizerBase`): its tokenizer, with a mask token.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if the tokenizer has no mask token.
        """
        if processing_class.mask_token_id is None:
            raise ValueError("`processing_class` has no mask token, which text infilling needs.")
        super().__init__(
            model=model,
            args=args,
            train_dataset=tokenize_texts(train_dataset, processing_class),
            processing_class=processing_class,
            data_collator=DataCollatorWithPadding(processing_class),
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of the whole text given the corrupted one, in nats per token."""
        input_ids, attention_mask = inputs["input_ids"].cpu(), inputs["attention_mask"].cpu()
        rows = [row[mask == 1] for row, mask in zip(input_ids, attention_mask, strict=True)]
        tokenizer = self.processing_class
        settings = (tokenizer.mask_token_id, self.args.mask_ratio, self.args.mean_span, tokenizer.model_max_length)
        corrupted = [
            {"input_ids": mask_spans(row, *settings, generator)}
            for row, generator in zip(rows, self.generators(len(rows)), strict=True)
        ]
        batch = self.processing_class.pad(corrupted, return_tensors="pt").to(self.args.device)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
        loss = output.loss * self.share_of_update(inputs, num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return how many tokens are to be written."""
        return inputs["attention_mask"].sum()


def mask_spans(
    input_ids: Tensor,
    mask_token_id: int,
    ratio: float,
    mean_span: float,
    max_length: int,
    generator: torch.Generator,
) -> list[int]:
    """Return one corrupted text: spans replaced by one mask each, the first and the last token left alone.

    Args:
        input_ids (`Tensor` of shape `(length,)`): a text with its two special tokens, int64.
        mask_token_id (`int`): id of the mask.
        ratio (`float`): share of the inner tokens to cover.
        mean_span (`float`): mean of the Poisson distribution of span lengths.
        max_length (`int`): most tokens that the text may grow to by masks for empty spans.
        generator (`torch.Generator`): source of the spans.
    """
    inner = input_ids[1:-1].tolist()
    budget = round(ratio * len(inner))
    while budget > 0 and inner:
        length = int(torch.poisson(torch.tensor(mean_span), generator=generator))
        shortest = 0 if len(inner) + 2 < max_length else 1
        length = min(max(length, shortest), budget, len(inner))
        start = int(torch.randint(len(inner) - length + 1, (1,), generator=generator))
        inner[start : start + length] = [mask_token_id]
        budget -= max(length, 1)
    return [input_ids[0].item(), *inner, input_ids[-1].item()]
