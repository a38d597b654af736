"""Train the thought VAE on the blocks of a data set's targets (paper, §3.2.1).

The encoder reads blocks with some tokens replaced by random ones, the decoder reads latents with noise, and what it is
to write is the clean block. After the last step the latent statistics are fitted; the reasoner refuses a VAE without
them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_integer
from ..noise import randn_rows
from ..training import (
    LossParts,
    ReproducibleTrainer,
    ReproducibleTrainingArguments,
    check_not_streamed,
    map_rows,
    spread_rows,
)
from .block_splitter import BlockSplitter
from .diagonal_gaussian import DiagonalGaussian
from .modeling_thought_vae import ThoughtVAE
from .reconstruction import context_tokens, pad_right, reconstruction_report, token_ids


PARTS = ("reconstruction_loss", "kl", "readout_loss")


@dataclass
class ThoughtVAETrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`ThoughtVAETrainer`], beside those of `TrainingArguments`.

    Args:
        statistics_size (`int`, *optional*, defaults to 20000): most blocks that the latent statistics are fitted to.
        reconstruction_size (`int`, *optional*, defaults to 512): most held-out blocks that `evaluate` reconstructs.
    """

    statistics_size: int = field(default=20_000, metadata={"help": "Most blocks for the latent statistics."})
    reconstruction_size: int = field(default=512, metadata={"help": "Most held-out blocks to reconstruct."})

    def __post_init__(self):
        """Check the arguments."""
        super().__post_init__()
        check_integer("statistics_size", self.statistics_size)
        check_integer("reconstruction_size", self.reconstruction_size)


class ThoughtVAETrainer(ReproducibleTrainer):
    """Trains a [`ThoughtVAE`] on every block of a data set's targets."""

    why_not_sharded = "its statistics, and each evaluation, run parts of it alone"

    def __init__(
        self,
        model: ThoughtVAE,
        args: ThoughtVAETrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        splitter: BlockSplitter,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model ([`ThoughtVAE`]): the model; only what is not frozen is trained.
            args ([`ThoughtVAETrainingArguments`]): how to train.
            train_dataset (`Dataset` or `IterableDataset`): with the column `target`, `answer` where targets lack the
                splitter's prefix, and `prompt` where the model's decoder reads contexts.
            processing_class (`PreTrainedTokenizerBase`): the tokenizer.
            splitter ([`BlockSplitter`]): how targets become blocks.
            eval_dataset (`Dataset`, *optional*): held-out problems with the same columns.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if the data set lacks a column, the splitter finds no chain or answer in a target, or
                `eval_dataset` is streamed.
        """
        check_not_streamed("the same rows of it are reconstructed again and again", eval_dataset=eval_dataset)
        self.heldout, self.splitter = eval_dataset, splitter
        settings = (processing_class, splitter, model.config.decoder_reads_context)
        with args.main_process_first(desc="tokenization"):
            train_dataset = tokenized_blocks(train_dataset, *settings)
            if eval_dataset is not None:
                eval_dataset = tokenized_blocks(eval_dataset, *settings)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=collate_blocks,
            **kwargs,
        )
        self.parts, self.evaluation_parts = LossParts(PARTS), LossParts(PARTS)

    def train(self, *args, **kwargs):
        """Train, then fit the latent statistics."""
        output = super().train(*args, **kwargs)
        with self._averaged():
            self.fit_latent_statistics()
        return output

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return cross-entropy, that of the readout if there is one, and KL divergence, weighted, under noise and substitution."""
        config = self.accelerator.unwrap_model(self.model).config
        input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        generators = self.generators(len(input_ids))
        shape = (config.latents_per_block, config.latent_dim)
        noise = {"posterior_noise": randn_rows(shape, generators).to(self.args.device)}
        if config.latent_noise > 0:
            noise["latent_noise"] = randn_rows(shape, generators).to(self.args.device)
        if config.token_substitution > 0 and self.model.training:
            settings = (config.token_substitution, config.text_config.vocab_size, generators)
            noise["corrupted_ids"] = substitute_tokens(input_ids, attention_mask, *settings)
        context = {name: inputs.get(name) for name in ("context_ids", "context_mask")}
        output = model(input_ids, attention_mask, **noise, **context)
        (self.parts if self.model.training else self.evaluation_parts).add(output, len(input_ids))
        return (output.loss, output) if return_outputs else output.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log, with reconstruction, KL divergence and readout beside their weighted sum."""
        if "loss" in logs:
            logs = {**logs, **self.parts.pop()}
        elif "eval_loss" in logs:
            logs = {**logs, **self.evaluation_parts.pop("eval_")}
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate; adds the exact reconstruction of held-out blocks: plain, under noise and from shuffled latents."""
        metrics = super().evaluate(*args, **kwargs)
        if self.heldout is not None:
            model = self.accelerator.unwrap_model(self.model)
            settings = (self.processing_class, self.heldout, self.splitter, self.args.reconstruction_size)
            with self._averaged():
                self.fit_latent_statistics()  # noise is in units of what the latents are now
                report = heldout_report(model, *settings, seed=self.args.seed)
            report = {f"eval_{name}": value for name, value in report.items()}
            metrics.update(report)
            self.log(report)
        return metrics

    @torch.no_grad()
    def fit_latent_statistics(self) -> None:
        """Fit the latent statistics to evenly spread training blocks, or the first of a stream, in full precision."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        blocks = spread_rows(self.train_dataset, self.args.statistics_size)
        means, log_variances = [], []
        for start in range(0, len(blocks), self.args.per_device_eval_batch_size):
            rows = blocks[start : start + self.args.per_device_eval_batch_size]["input_ids"]
            batch = {name: tensor.to(model.device) for name, tensor in pad_right(rows).items()}
            posterior = model.posterior(**batch)
            means.append(posterior.mean.cpu()), log_variances.append(posterior.log_variance.cpu())
        model.set_latent_statistics(DiagonalGaussian(torch.cat(means), torch.cat(log_variances)))
        model.train(was_training)

    def _averaged(self) -> AbstractContextManager:
        """Put the averaged weights into the model, if there are any: they are what is saved in the end."""
        return nullcontext() if self.ema is None else self.ema.applied()


def substitute_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    probability: float,
    vocab_size: int,
    generators: list[torch.Generator],
) -> Tensor:
    """Return `(batch, length)` tokens of which each is replaced by a uniformly random one with the given probability.

    Args:
        input_ids (`Tensor` of shape `(batch, length)`): int64.
        attention_mask (`Tensor` of shape `(batch, length)`): 1 for tokens and 0 for padding on the right, which stays
            and for which nothing is drawn.
        probability (`float`): of a replacement, which may by chance be the same token.
        vocab_size (`int`): how many tokens there are.
        generators (`list[torch.Generator]`): one for each row.
    """
    result = input_ids.clone()
    for row, (generator, length) in enumerate(zip(generators, attention_mask.sum(1).tolist(), strict=True)):
        is_replaced = torch.rand(length, generator=generator) < probability
        drawn = torch.randint(vocab_size, (length,), generator=generator)
        kept = input_ids[row, :length]
        result[row, :length] = torch.where(is_replaced.to(kept.device), drawn.to(kept.device), kept)
    return result


def blocks_of(dataset: Dataset, splitter: BlockSplitter) -> list[str]:
    """Return every block of every target of `dataset`, in order.

    Raises:
        ValueError: if the column `target` is missing, or the splitter finds no chain or answer in one.
    """
    return [block for blocks, _ in split_targets(dataset, splitter) for block in blocks]


def split_targets(dataset: Dataset, splitter: BlockSplitter) -> list[tuple[list[str], str]]:
    """Return the blocks and the answer's text of every row of `dataset`.

    Raises:
        ValueError: if the column `target` is missing, or the splitter finds no chain or answer in one.
    """
    if "target" not in dataset.column_names:
        raise ValueError(f"The data set has to have the column 'target', but has {dataset.column_names}.")
    answers = dataset["answer"] if "answer" in dataset.column_names else [None] * len(dataset)
    return [splitter.split_target(*row) for row in zip(dataset["target"], answers, strict=True)]


def contexts_of(dataset: Dataset, splitter: BlockSplitter) -> list[tuple[str, ...]]:
    """Return what stands before every block of every target of `dataset`, in order: the question and the steps so far.

    Raises:
        ValueError: if a column is missing, or the splitter finds no chain or answer in a target.
    """
    if "prompt" not in dataset.column_names:
        raise ValueError(
            f"The data set has to have the column 'prompt', which the decoder reads, but has {dataset.column_names}."
        )
    rows = zip(dataset["prompt"], split_targets(dataset, splitter), strict=True)
    return [(prompt, *blocks[:number]) for prompt, (blocks, _) in rows for number in range(len(blocks))]


def heldout_report(
    vae: ThoughtVAE,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    splitter: BlockSplitter,
    size: int,
    seed: int = 0,
) -> dict[str, float]:
    """Return the [`reconstruction_report`] of the first `size` blocks of `dataset`, in their contexts where they are read."""
    contexts = contexts_of(dataset, splitter)[:size] if vae.config.decoder_reads_context else None
    return reconstruction_report(vae, tokenizer, blocks_of(dataset, splitter)[:size], seed, contexts)


def tokenized_blocks(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    splitter: BlockSplitter,
    with_contexts: bool = False,
) -> Dataset | IterableDataset:
    """Return every block of `dataset` as a row of `input_ids`, without special tokens, and of `context_ids`, if wanted."""

    def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        problems = Dataset.from_dict(rows)
        tokens = {"input_ids": token_ids(tokenizer, blocks_of(problems, splitter))}
        if with_contexts:
            tokens["context_ids"] = context_tokens(tokenizer, contexts_of(problems, splitter))
        return tokens

    return map_rows(dataset, tokenize, "Tokenizing")


def collate_blocks(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Return `(batch, length)` int64 tensors `input_ids` and `attention_mask`, and `context_ids` and `context_mask` of such rows."""
    batch = pad_right([row["input_ids"] for row in rows])
    if "context_ids" in rows[0]:
        contexts = pad_right([row["context_ids"] for row in rows])
        batch |= {"context_ids": contexts["input_ids"], "context_mask": contexts["attention_mask"]}
    return batch
