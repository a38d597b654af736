"""Train a masked diffusion language model: pre-training, and fine-tuning on prompts and responses (LLaDA, §2.2 and 2.3).

Each row is masked with a probability of its own, uniform up to 1; a prompt is never masked, and the model, which sees no
time and no padding, predicts what was. d1's fine-tuning is the same with `loss_normalization="batch"` and
`pad_to_max_length=True`.

What differs from the published code: noise comes from `(seed, step, row)`, so that a run resumes exactly; the output layer
runs on masked positions alone; and evaluations draw their noise levels evenly, not at random, and never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import check_integer, check_number, check_option
from ..noise import mask_tokens, rand_rows, row_generators
from ..training import ReproducibleTrainer, ReproducibleTrainingArguments, TimestepBuckets, call_inside
from .collator import MaskedDiffusionCollator
from .losses import NORMALIZATIONS, masked_diffusion_loss, rows_per_chunk, score_tokens
from .masked_language_model import MaskedLanguageModel


LEAST_EPSILON = 1e-9  # its inverse is the weight of a token
LENGTH_STREAM = 0x1E46  # keeps the coin of a step apart from the noise of its rows
GOLDEN_RATIO = 0.6180339887498949  # multiples of it, modulo 1, spread evenly however many there are
TIMES = 1000  # times are logged in thousandths


@dataclass
class MaskedDiffusionTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`MaskedDiffusionTrainer`], beside those of `TrainingArguments`.

    Args:
        mask_epsilon (`float`, *optional*, defaults to 0.001): least probability of a mask, at time zero; it bounds the weight
            of a token.
        random_length_probability (`float`, *optional*, defaults to 0.01): probability, per step, that rows without prompts are
            cut to a length that is drawn uniformly.
        loss_normalization (`str`, *optional*, defaults to `"sample"`): divide each row's loss by its own length (LLaDA), or
            the batch's by the sum of the lengths (`"batch"`, d1).
        exclude_mask_token (`bool`, *optional*, defaults to `False`): give the mask token probability zero in the loss; LLaDA
            leaves it to the model never to predict it.
        logits_chunk_size (`int`, *optional*): masked positions whose logits exist at a time; by default as many as make
            2**24 logits. It changes memory and speed, not the result.
        max_length (`int`, *optional*): most tokens in a row; by default the model's.
        pad_to_max_length (`bool`, *optional*, defaults to `False`): pad to `max_length` (d1), not to the longest row (LLaDA).
        append_eos (`bool`, *optional*, defaults to `True`): end each response or text with an end-of-text token.
        truncation (`bool`, *optional*, defaults to `False`): cut rows that are too long, rather than refuse them.
        use_chat_template (`bool`, *optional*, defaults to `True`): make each `prompt` a user message where the tokenizer has
            a chat template.
    """

    mask_epsilon: float = field(default=1e-3, metadata={"help": "Least probability of a mask."})
    random_length_probability: float = field(default=0.01, metadata={"help": "Of a step with rows cut short."})
    loss_normalization: str = field(default="sample", metadata={"help": "sample (LLaDA) or batch (d1)."})
    exclude_mask_token: bool = field(default=False, metadata={"help": "Give the mask probability zero."})
    logits_chunk_size: int | None = field(default=None, metadata={"help": "Positions whose logits exist at a time."})
    max_length: int | None = field(default=None, metadata={"help": "Most tokens in a row."})
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every batch to max_length."})
    append_eos: bool = field(default=True, metadata={"help": "End responses with an end-of-text token."})
    truncation: bool = field(default=False, metadata={"help": "Cut rows that are too long."})
    use_chat_template: bool = field(default=True, metadata={"help": "Make prompts user messages."})

    def __post_init__(self):
        """Check the arguments."""
        super().__post_init__()
        check_option("loss_normalization", self.loss_normalization, NORMALIZATIONS)
        check_number("mask_epsilon", self.mask_epsilon, LEAST_EPSILON, 1)
        check_number("random_length_probability", self.random_length_probability, 0, 1)
        for name in ("logits_chunk_size", "max_length"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name))
        if self.n_gpu > 1:
            raise ValueError(
                f"One process cannot train on {self.n_gpu} GPUs; start one for each with `accelerate launch`, or set "
                "`CUDA_VISIBLE_DEVICES`."
            )


class MaskedDiffusionTrainer(ReproducibleTrainer):
    """Trains a model to fill in masks; also one with PEFT adapters, of which only the adapters are trained and saved."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: MaskedDiffusionTrainingArguments,
        train_dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        mask_token_id: int | None = None,
        **kwargs,
    ):
        """Tokenize the data sets and make the trainer.

        Args:
            model (`PreTrainedModel`): a [`LLaDAForMaskedDiffusion`], what [`from_causal_lm`] made, or a masked LM of
                transformers; its configuration is given the mask token if it names none.
            args ([`MaskedDiffusionTrainingArguments`]): how to train.
            train_dataset (`Dataset` or `IterableDataset`): rows as [`MaskedDiffusionCollator`] takes them, such as `prompt` and
                `target`; other columns are left out.
            processing_class (`PreTrainedTokenizerBase`): the tokenizer.
            eval_dataset (`Dataset`, *optional*): held-out rows of the same form.
            mask_token_id (`int`, *optional*): by default that of the model's configuration, or of the tokenizer.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: for an argument out of range, a model that cannot fill in masks, or a row that does not fit.
        """
        if mask_token_id is None:
            mask_token_id = processing_class.mask_token_id
        self.language_model = MaskedLanguageModel(model, mask_token_id)
        _check_model(model, self.language_model, args)
        config = self.language_model.model.config
        if getattr(config, "mask_token_id", None) is None:
            config.mask_token_id = self.language_model.mask_token_id  # so that what is saved names its mask
        collator = MaskedDiffusionCollator(
            processing_class,
            self.language_model.mask_token_id,
            args.max_length or self.language_model.max_length,
            args.pad_to_max_length,
            args.append_eos,
            args.truncation,
            args.use_chat_template,
        )
        with args.main_process_first(desc="tokenization"):
            train_dataset, eval_dataset = (_tokenize(dataset, collator) for dataset in (train_dataset, eval_dataset))
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )
        self.logits_chunk_size = args.logits_chunk_size or rows_per_chunk(self.language_model.vocab_size)
        self.statistics, self.evaluation_statistics = MaskedTokenStatistics(), MaskedTokenStatistics()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the weighted cross-entropy of the masked tokens, in nats per token that could have been masked."""
        # 1. the rows, perhaps cut short
        input_ids, prompt_lengths, lengths = (inputs[name] for name in ("input_ids", "prompt_lengths", "lengths"))
        if self.model.training:
            input_ids, lengths = self._cut(input_ids, prompt_lengths, lengths)
        is_response = torch.arange(input_ids.shape[1], device=input_ids.device) >= prompt_lengths[:, None]

        # 2. everything random, row by row
        generators = self.generators(len(input_ids))
        times = rand_rows(generators) if self.model.training else even_times(self.rows(len(input_ids)))
        probability = ((1 - self.args.mask_epsilon) * times + self.args.mask_epsilon).to(input_ids.device)  # (batch,)
        masking = (probability, generators, self.language_model.mask_token_id, is_response)
        noised, is_masked = mask_tokens(input_ids, *masking)  # (batch, length)

        # 3. the losses of the masked positions; of any one if there is none, so that every weight has a gradient
        is_scored = is_masked.clone()
        is_scored[0, 0] |= ~is_masked.any()
        positions = is_scored.flatten().nonzero().squeeze(1)
        with self.accelerator.autocast():
            losses, is_right = call_inside(
                model, self.accelerator.unwrap_model(model), self._score, noised, input_ids, positions
            )
        losses = losses * is_masked.flatten()[positions]
        token_losses = losses.new_zeros(input_ids.numel()).index_copy(0, positions, losses).view_as(input_ids)

        # 4. the loss, and plain means for the log
        settings = (probability, lengths - prompt_lengths, self.args.loss_normalization)
        loss = masked_diffusion_loss(token_losses, *settings) * self.share_of_update(inputs, num_items_in_batch)
        if bool(is_masked.any()):
            statistics = self.statistics if self.model.training else self.evaluation_statistics
            statistics.add(times[positions.cpu() // input_ids.shape[1]], losses, is_right)
        return (loss, {"token_losses": token_losses}) if return_outputs else loss

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return how many tokens could be masked, if the loss is their mean and not that of rows."""
        if self.args.loss_normalization == "sample":
            return None
        _, lengths = self._cut(*(inputs[name] for name in ("input_ids", "prompt_lengths", "lengths")))
        return (lengths - inputs["prompt_lengths"]).sum()

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """Evaluate; adds the plain cross-entropy and accuracy of masked tokens, overall and by time."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics.update(self.evaluation_statistics.pop(f"{metric_key_prefix}_"))
        return output

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log, with the plain cross-entropy and accuracy of masked tokens beside the loss."""
        super().log({**logs, **self.statistics.pop()} if "loss" in logs else logs, *args, **kwargs)

    def _cut(self, input_ids: Tensor, prompt_lengths: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cut pre-training rows to a random length in a few steps (LLaDA, §2.2): one coin for all rows of a step."""
        probability = self.args.random_length_probability
        if probability == 0 or bool(prompt_lengths.any()):
            return input_ids, lengths
        (generator,) = row_generators(self.args.seed ^ LENGTH_STREAM, self.state.global_step, 0, 1)
        coin, fraction = torch.rand(2, generator=generator).tolist()
        if coin >= probability:
            return input_ids, lengths
        length = 1 + int(fraction * input_ids.shape[1])
        return input_ids[:, :length], torch.full_like(lengths, length)

    def _score(self, noised: Tensor, input_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and correctness at `positions` of the flattened batch; runs inside the model's forward pass."""
        language_model = self.language_model
        if language_model.is_split:
            states = language_model.hidden_states(noised)  # (batch, length, width)
            linear = language_model.linear_head
            head = language_model.head if linear is None else linear
        else:
            states, head = language_model(noised), nn.Identity()  # (batch, length, vocab)
        excluded = language_model.mask_token_id if self.args.exclude_mask_token else None
        states, labels = states.flatten(0, 1).index_select(0, positions), input_ids.flatten()[positions]
        return score_tokens(states, head, labels, self.logits_chunk_size, excluded)


class MaskedTokenStatistics:
    """Means of the cross-entropy and the accuracy of masked tokens since the last report, overall and by time."""

    def __init__(self):
        """Start with none."""
        self._values = {
            name: (TimestepBuckets(TIMES, num_buckets=1), TimestepBuckets(TIMES))
            for name in ("masked_cross_entropy", "masked_accuracy")
        }

    def add(self, times: Tensor, losses: Tensor, is_right: Tensor) -> None:
        """Add masked tokens: their times in [0, 1], negative log-likelihoods and whether they were guessed; `(count,)` each."""
        thousandths = (times * TIMES).long().clamp(max=TIMES - 1)
        for buckets, values in zip(
            self._values.values(), (losses.detach().cpu(), is_right.cpu().float()), strict=True
        ):
            for bucket in buckets:
                bucket.add(thousandths, values)

    def pop(self, prefix: str = "") -> dict[str, float]:
        """Return the means by name, `…/t0-124` being those of the times below 0.125, and start anew."""
        means = {}
        for name, (overall, by_time) in self._values.items():
            for mean in overall.pop(name).values():
                means[prefix + name] = mean
            means.update(by_time.pop(prefix + name))
        return means


def even_times(rows: range) -> Tensor:
    """Return the `(len(rows),)` float32 times of rows of an evaluation, in (0, 1): every stretch of rows covers them evenly.

    d1's code spaces them from 0 to 1, where a single token weighs a thousand times as much as at 1.
    """
    return torch.tensor([(0.5 + row * GOLDEN_RATIO) % 1 for row in rows])


def _tokenize(dataset: Dataset | None, collator: MaskedDiffusionCollator) -> Dataset | None:
    """Tokenize a data set at once, so that a row that does not fit is found before the training; others as they come."""
    if not isinstance(dataset, Dataset):
        return dataset
    return dataset.map(collator.encode, remove_columns=dataset.column_names, desc="Tokenizing")


def _check_model(model, language_model: MaskedLanguageModel, args: MaskedDiffusionTrainingArguments) -> None:
    limit = language_model.max_length
    if args.max_length is not None and limit is not None and args.max_length > limit:
        raise ValueError(f"`max_length` is {args.max_length}, but the model has {limit} positions.")
    if model is not language_model.model and model.active_peft_config.is_prompt_learning:
        raise ValueError("`model` has learned prompts, which this trainer would pass by; use LoRA or the like.")
    if getattr(language_model.model.config, "attention_pattern", "") == "block_causal":
        raise ValueError(
            "`model` is block-causal, but this trainer shows it the whole text; with `attention_pattern='bidirectional'` in "
            "its configuration it becomes a bidirectional one."
        )
