"""Stage 1: train the autoencoder to give texts back, on prompts and targets alike (paper, §3.1).

Each text's latents get Gaussian noise of its own strength, uniform up to the configuration's `latent_noise`, so that the
decoder also reads latents that are a little off, as those of a diffusion model are. After the last step the latent
statistics are fitted; stage 2 refuses an autoencoder without them.

Where the decoder reads the prompt too (§3.3), a target comes with its prompt and a prompt with the empty text. With
`encoder_noise`, the states that become latents are noised likewise, each text by its own strength, but in training only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_integer
from ..noise import rand_rows, randn_rows
from ..training import (
    ReproducibleTrainer,
    ReproducibleTrainingArguments,
    check_not_streamed,
    column_names,
    map_rows,
    spread_rows,
)
from .modeling_text_latent_autoencoder import TextLatentAutoencoder
from .reconstruction import reconstruction_accuracy


TEXT_COLUMNS = ("prompt", "target")
READ_PROMPT = "prompt_"  # what the tokens of the prompt that the decoder reads are called, before input_ids


@dataclass
class AutoencoderTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`AutoencoderTrainer`], beside those of `TrainingArguments`.

    Args:
        statistics_size (`int`, *optional*, defaults to 20000): most texts that the latent statistics are fitted to.
        reconstruction_size (`int`, *optional*, defaults to 512): most held-out targets that `evaluate` reconstructs.
    """

    statistics_size: int = field(default=20_000, metadata={"help": "Most texts for the latent statistics."})
    reconstruction_size: int = field(default=512, metadata={"help": "Most held-out targets to reconstruct."})

    def __post_init__(self):
        """Check the arguments."""
        super().__post_init__()
        check_integer("statistics_size", self.statistics_size)
        check_integer("reconstruction_size", self.reconstruction_size)


class AutoencoderTrainer(ReproducibleTrainer):
    """Trains a [`TextLatentAutoencoder`] on every text of a data set with the columns `prompt` and `target`."""

    why_not_sharded = "its statistics, and each evaluation, run parts of it alone"

    def __init__(
        self,
        model: TextLatentAutoencoder,
        args: AutoencoderTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model ([`TextLatentAutoencoder`]): the model; only what is not frozen is trained.
            args ([`AutoencoderTrainingArguments`]): how to train.
            train_dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target` (strings).
            processing_class (`PreTrainedTokenizerBase`): the tokenizer.
            eval_dataset (`Dataset`, *optional*): held-out problems with the same columns.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: if a data set lacks a column, a text is longer than the tokenizer allows or `eval_dataset` is streamed.
        """
        check_not_streamed("the same rows of it are reconstructed again and again", eval_dataset=eval_dataset)
        self.heldout: dict[str, list[str]] | None = None
        tokenizing = (processing_class, model.config.decoder_reads_prompt)
        with args.main_process_first(desc="tokenization"):
            train_dataset = tokenize_texts(train_dataset, *tokenizing)
            if eval_dataset is not None:
                tokenized = tokenize_texts(eval_dataset, *tokenizing)
                self.heldout = eval_dataset[: args.reconstruction_size]
                eval_dataset = tokenized
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=TextCollator(processing_class),
            **kwargs,
        )

    def train(self, *args, **kwargs):
        """Train, then fit the latent statistics."""
        output = super().train(*args, **kwargs)
        self.fit_latent_statistics()
        return output

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the cross-entropy of the reconstruction under latent noise, in nats per token."""
        generators = self.generators(len(inputs["input_ids"]))
        noise = {"latent_noise": self._latent_noise(generators)}
        if self.model.training:
            noise["encoder_noise"] = self._encoder_noise(generators, inputs["attention_mask"])
        output = model(**inputs, **noise)
        loss = output.loss * self.share_of_update(inputs, num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return how many tokens are to be written."""
        return inputs["attention_mask"].sum()

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate; adds the share of held-out targets that are reconstructed exactly, without noise."""
        metrics = super().evaluate(*args, **kwargs)
        if self.heldout is not None and self.heldout["target"]:
            texts, prompts = self.heldout["target"], self.heldout["prompt"]
            model = self.accelerator.unwrap_model(self.model)
            exact = reconstruction_accuracy(model, self.processing_class, texts, prompts=prompts)
            metrics["eval_exact_reconstruction"] = exact
            self.log({"eval_exact_reconstruction": exact})
        return metrics

    @torch.no_grad()
    def fit_latent_statistics(self) -> None:
        """Fit the latent statistics to evenly spread training texts, or the first of a stream, in full precision."""
        model = self.accelerator.unwrap_model(self.model).eval()
        texts = spread_rows(self.train_dataset, self.args.statistics_size)
        texts = texts.select_columns(["input_ids", "attention_mask"])  # the latents know nothing of the prompt
        latents = []
        for start in range(0, len(texts), self.args.per_device_eval_batch_size):
            rows = texts[start : start + self.args.per_device_eval_batch_size]
            batch = self.processing_class.pad(rows, return_tensors="pt").to(model.device)
            latents.append(model.encode(batch["input_ids"], batch["attention_mask"]).cpu())
        model.set_latent_statistics(torch.cat(latents))

    def _latent_noise(self, generators: list[torch.Generator]) -> Tensor | None:
        config = self.accelerator.unwrap_model(self.model).config
        if config.latent_noise == 0:
            return None
        strength = config.latent_noise * rand_rows(generators)  # (batch,)
        noise = randn_rows((config.latent_length, config.latent_dim), generators)  # (batch, length, dim)
        return (strength[:, None, None] * noise).to(self.args.device)

    def _encoder_noise(self, generators: list[torch.Generator], attention_mask: Tensor) -> Tensor | None:
        config = self.accelerator.unwrap_model(self.model).config
        if config.encoder_noise == 0:
            return None
        strength = config.encoder_noise * rand_rows(generators)  # (batch,)
        state = (len(config.encoder_layers), config.seq2seq_config.hidden_size)
        noise = torch.zeros(*attention_mask.shape, *state)  # (batch, length, layers, width)
        for row, kept in enumerate(
            attention_mask.bool().cpu()
        ):  # as much as the text is long: padding changes nothing
            noise[row, kept] = randn_rows((int(kept.sum()), *state), generators[row : row + 1])[0]
        return (strength[:, None, None, None] * noise).to(self.args.device)


@dataclass
class TextCollator:
    """Pads texts, and the prompts that the decoder reads where the rows have them, each to its own longest."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Return `(batch, length)` int64 tensors by name."""
        names = ("input_ids", "attention_mask")
        batch = self.tokenizer.pad([{name: row[name] for name in names} for row in rows], return_tensors="pt")
        if READ_PROMPT + names[0] not in rows[0]:
            return dict(batch)
        prompts = [{name: row[READ_PROMPT + name] for name in names} for row in rows]
        padded = self.tokenizer.pad(prompts, return_tensors="pt")
        return {**batch, **{READ_PROMPT + name: padded[name] for name in names}}


def tokenize_texts(
    dataset: Dataset | IterableDataset, tokenizer: PreTrainedTokenizerBase, with_prompts: bool = False
) -> Dataset | IterableDataset:
    """Return every prompt and every target of `dataset` as one row of `input_ids` and `attention_mask`.

    Args:
        dataset (`Dataset` or `IterableDataset`): with the columns `prompt` and `target` (strings).
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        with_prompts (`bool`, *optional*, defaults to `False`): add `prompt_input_ids` and `prompt_attention_mask`, what the
            decoder reads beside the latents: its prompt for a target, the empty text for a prompt.

    Raises:
        ValueError: if a column is missing or a text is longer than the tokenizer's `model_max_length`.
    """
    known = column_names(dataset)
    missing = [column for column in TEXT_COLUMNS if column not in known]
    if missing:
        raise ValueError(f"The data set has to have the columns {TEXT_COLUMNS}, but lacks {missing}.")

    def tokenize(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer([*rows["prompt"], *rows["target"]], truncation=False)
        longest = max(map(len, encoded["input_ids"]))
        if longest > tokenizer.model_max_length:
            raise ValueError(f"A text has {longest} tokens, but `model_max_length` is {tokenizer.model_max_length}.")
        columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if with_prompts:
            read = tokenizer([*[""] * len(rows["prompt"]), *rows["prompt"]])  # "" is `<s></s>`: nothing to read
            columns |= {READ_PROMPT + name: read[name] for name in tuple(columns)}
        return columns

    return map_rows(dataset, tokenize, "Tokenizing")
