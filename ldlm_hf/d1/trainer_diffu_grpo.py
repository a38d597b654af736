"""diffu-GRPO: reinforce a masked diffusion language model by group-relative policy optimization (d1, §4 and Alg. 1).

A generation of completions is written by the semi-autoregressive sampler and scored. Then come μ inner iterations of updates on
it, each with other tokens of the prompts masked, the same ones for policy, old policy and reference.

What differs from the published code: every mask is a tensor that belongs to its row, made from `(seed, generation, row)`, where
there global seeds are reset and half of the masks are never used; dropout is off wherever log-probabilities are taken, so that
the first ratio is exactly 1; prompts of different lengths are padded out of sight; old log-probabilities are only computed
where they differ from the policy's own and their ratio counts; and a run goes on exactly where it was broken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from ..llada.masked_language_model import MaskedLanguageModel
from ..llada.trainer_masked_diffusion import call_inside
from ..noise import row_generators
from ..training import ReproducibleTrainer
from .configuration_diffu_grpo import DiffuGRPOConfig
from .estimators import (
    draw_completion_masking,
    draw_prompt_masking,
    draw_trajectory_steps,
    elbo_log_probs,
    one_step_log_probs,
    trajectory_log_probs,
)
from .losses import aggregate, clipped_loss, group_advantages, is_clipped, k3_divergence, log_ratio
from .reporting import RunningMeans, completion_figures, reward_figures
from .rollouts import RolloutPlan, Rollouts
from .sampling import CompletionSampler, evaluating
from .scoring import Example, RewardFunction, RewardScorer


if TYPE_CHECKING:
    from peft import PeftConfig

SAMPLING_STREAM, MASKING_STREAM = 0x5A3B1E, 0x3A5C  # keep what is drawn for completions and for masks apart


class DiffuGRPOTrainer(ReproducibleTrainer):
    """Reinforces a masked diffusion language model with rewards; with PEFT adapters only these are trained and saved.

    The reference is the model as it is given: of one with adapters, the model without them, so merge earlier ones first.
    """

    why_not_sharded = "each process samples from it"

    def __init__(
        self,
        model: PreTrainedModel,
        reward_funcs: RewardFunction | Sequence[RewardFunction],
        args: DiffuGRPOConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        peft_config: PeftConfig | None = None,
        mask_token_id: int | None = None,
        **kwargs,
    ):
        """Make the trainer.

        Args:
            model (`PreTrainedModel`): a [`LLaDAForMaskedDiffusion`], or any other that [`MaskedLanguageModel`] takes.
            reward_funcs (`RewardFunction` or a sequence of them): `f(prompts, completions, **columns) -> list[float]`, as in TRL;
                `None` in the list stands for no judgement.
            args ([`DiffuGRPOConfig`]): how to train.
            train_dataset (`Dataset`): rows with a `prompt`, a text or a conversation; reward functions get the other columns.
            processing_class (`PreTrainedTokenizerBase`): the tokenizer.
            eval_dataset (`Dataset`, *optional*): held-out rows; each prompt is answered once in an evaluation.
            peft_config (`PeftConfig`, *optional*): train new adapters.
            mask_token_id (`int`, *optional*): by default that of the model's configuration, or of the tokenizer.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: for arguments that do not fit one another, a model that cannot fill in masks, or rows without prompts.
        """
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        if mask_token_id is None:
            mask_token_id = processing_class.mask_token_id
        self.language_model = MaskedLanguageModel(model, mask_token_id)
        base = self.language_model.model
        _check(base, args, train_dataset, eval_dataset)
        if getattr(base.config, "mask_token_id", None) is None:
            base.config.mask_token_id = self.language_model.mask_token_id  # so that what is saved names its mask
        self.scorer = RewardScorer(reward_funcs, args.reward_weights)
        self.sampler = CompletionSampler(base, processing_class, args)
        self.has_adapters = base is not model
        if self.has_adapters and model.active_peft_config.is_prompt_learning:
            raise ValueError("`model` has learned prompts, which this trainer would pass by; use LoRA or the like.")
        self.reference: MaskedLanguageModel | None = None
        if args.beta > 0 and not self.has_adapters:
            copy = deepcopy(model).eval().requires_grad_(False)
            self.reference = MaskedLanguageModel(copy, self.language_model.mask_token_id)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=list,
            **kwargs,
        )
        if self.reference is not None:
            self.reference_model = self.accelerator.prepare_model(self.reference.wrapped, evaluation_mode=True)
        self.plan = RolloutPlan(
            num_prompts=len(train_dataset),
            num_generations=args.num_generations,
            batch_size=args.per_device_train_batch_size,
            num_processes=args.world_size,
            accumulation=args.gradient_accumulation_steps,
            steps_per_generation=args.steps_per_generation,
            num_iterations=args.num_iterations,
            seed=args.seed,
            shuffle=args.shuffle_dataset,
        )
        self.means = {"train": RunningMeans(), "eval": RunningMeans()}
        self.rollouts: Rollouts | None = None
        self._generation = -1

    def get_train_dataloader(self) -> DataLoader:
        """Return what counts the micro-batches of an epoch: which prompts they hold follows from the number of the update."""
        return DataLoader(range(self.plan.steps_per_epoch), batch_size=1, collate_fn=lambda steps: {"step": steps[0]})

    def compute_loss(self, model, inputs: Rollouts, return_outputs=False, num_items_in_batch=None):
        """Return the clipped loss and the weighted divergence of a micro-batch."""
        args = self.args
        _, iteration, part = self.plan.locate(self.state.global_step)
        normalizer = int(inputs.tokens_of_slices[part : part + args.gradient_accumulation_steps].sum())
        normalizer /= args.gradient_accumulation_steps * args.world_size

        # 1. the policy; without a divergence, rows without advantage have no gradient
        rows = torch.arange(len(inputs.advantages), device=inputs.advantages.device)
        if args.beta == 0:
            rows = _or_first(inputs.advantages.nonzero().squeeze(1))
        batch = inputs.select(rows)
        _switch_dropout_off(model)  # until the next step: the backward pass may run the model again
        log_probs = self._log_probs(model, self.language_model, batch, iteration)  # (rows, length)

        # 2. the old policy: the policy itself in the first update, and where the ratio does not count
        old = log_probs.detach()
        if batch.old_log_probs is not None and (iteration, part) != (0, 0):
            old = torch.where(batch.advantages[:, None] == 0, old, batch.old_log_probs[:, iteration])

        # 3. the losses of the tokens
        mask, level = batch.completion_mask, args.importance_sampling_level
        ratios = log_ratio(log_probs, old, mask, level)
        clipping = (ratios, batch.advantages, args.epsilon, args.epsilon_high)
        losses = clipped_loss(*clipping).expand_as(log_probs)
        means, count = self.means["train"], float(mask.sum())
        if args.beta > 0:
            divergence = k3_divergence(log_ratio(batch.reference_log_probs[:, iteration], log_probs, mask, level))
            losses = losses + args.beta * divergence
            means.add("kl", (divergence.detach() * mask).sum(), count)
        low, high = (part.expand_as(mask) & mask for part in is_clipped(*clipping))
        for name, clipped in (("low", low), ("high", high), ("region", low | high)):
            means.add(f"clip_ratio/{name}_mean", clipped.sum(), count)

        # 4. of all rows of the micro-batch, those left out above having none
        token_losses = losses.new_zeros(inputs.completion_mask.shape).index_copy(0, rows, losses)
        loss = aggregate(token_losses, inputs.completion_mask, args.loss_type, normalizer, args.max_completion_length)
        return (loss, {"log_probs": log_probs}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Answer the prompts of an evaluation batch once and score the answers; there is no loss."""
        prompt_ids, attention_mask = self.sampler.encode([example["prompt"] for example in inputs])
        completion_ids, _ = self._write(prompt_ids, attention_mask, self.generators(len(inputs)))
        self._evaluation_batch += 1
        figures = self._score("eval", inputs, completion_ids)
        self._report("eval", *self.accelerator.gather_for_metrics(figures))
        return None, None, None

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """Evaluate; the figures are rewards and lengths."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        figures = self.means["eval"].pop(gather_object)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in figures.items()})
        return output

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log, with rewards, lengths, divergence and clipping beside the loss."""
        super().log({**logs, **self.means["train"].pop(gather_object)} if "loss" in logs else logs, *args, **kwargs)

    def _prepare_inputs(self, inputs) -> Rollouts | list[Example]:
        """Return the current micro-batch; at the first of a generation, write and score its completions."""
        if not self.model.training:
            return inputs
        generation, iteration, part = self.plan.locate(self.state.global_step)
        if self._generation != generation:
            if (iteration, part, self._micro_batch) != (0, 0, 0):
                raise RuntimeError("The completions of this update are lost; resume with `ignore_data_skip=False`.")
            self.rollouts, self._generation = self._make_rollouts(generation), generation
        places = self.plan.micro_batch(generation, self.args.process_index, part + self._micro_batch)
        return self.rollouts.select(torch.tensor(places, device=self.rollouts.prompt_ids.device))

    def train(self, *args, **kwargs):
        """Train, as [`ReproducibleTrainer`] does."""
        self.rollouts, self._generation = None, -1
        return super().train(*args, **kwargs)

    def _make_rollouts(self, generation: int) -> Rollouts:
        """Write and score the completions of a generation, and estimate what the inner iterations compare with."""
        args, plan = self.args, self.plan
        rows = plan.rows(generation, args.process_index)
        prompts = plan.prompts(generation)
        examples = [self.train_dataset[prompts[row]] for row in rows]
        prompt_ids, attention_mask = self.sampler.encode([example["prompt"] for example in examples])
        generators = _generators(args.seed ^ SAMPLING_STREAM, generation, rows)
        completion_ids, commit_steps = self._write(prompt_ids, attention_mask, generators)
        figures = self._score("train", examples, completion_ids)
        order = [row for process in range(args.world_size) for row in plan.rows(generation, process)]
        rewards, lengths, ended = (
            self.accelerator.gather(figure)[torch.tensor(order).argsort()] for figure in figures
        )
        self._report("train", rewards, lengths, ended)
        totals = self.scorer.total(rewards)
        rules = (args.num_generations, args.scale_rewards, args.negative_weight, args.advantage_baseline)
        advantages = group_advantages(totals, *rules)
        groups = totals.view(-1, args.num_generations)
        is_constant = groups.amax(dim=1) == groups.amin(dim=1)
        self.means["train"].add("frac_reward_zero_std", is_constant.sum(), len(is_constant))

        generators = _generators(args.seed ^ MASKING_STREAM, generation, rows)
        repeats = args.num_iterations if args.random_masking else 1
        masking = draw_prompt_masking(attention_mask, args.prompt_mask_probability, repeats, generators)
        completion_mask = self.sampler.mask(completion_ids)
        rollouts = Rollouts(
            prompt_ids=prompt_ids,
            attention_mask=attention_mask,
            completion_ids=completion_ids,
            completion_mask=completion_mask,
            advantages=advantages[rows],
            prompt_masking=masking.expand(-1, args.num_iterations, -1),
            tokens_of_slices=self._count_tokens(generation, lengths),
            **self._draw_canvases(completion_mask, commit_steps, generators),
        )
        return self._with_estimates(rollouts.to(completion_ids.device), generation)

    def _draw_canvases(
        self, completion_mask: Tensor, commit_steps: Tensor, generators: list[torch.Generator]
    ) -> dict[str, Tensor]:
        """Return, for each inner iteration, on which canvases an estimator that needs several looks at the completions."""
        args, iterations = self.args, range(self.args.num_iterations)
        if args.logprob_estimator == "elbo":
            given = (completion_mask, args.n_mc, generators, args.elbo_draws)
            return {"completion_masking": torch.stack([draw_completion_masking(*given) for _ in iterations], dim=1)}
        if args.logprob_estimator == "trajectory":
            given = (commit_steps, completion_mask, args.n_mc, generators)
            masking, scored = zip(*[draw_trajectory_steps(*given) for _ in iterations], strict=True)
            return {"completion_masking": torch.stack(masking, dim=1), "completion_scored": torch.stack(scored, dim=1)}
        return {}

    def _with_estimates(self, rollouts: Rollouts, generation: int) -> Rollouts:
        """Add log-probabilities under the old policy, where they will be needed, and under the reference."""
        args, model = self.args, self.model_wrapped
        module = self.accelerator.unwrap_model(model)
        shape = (*rollouts.prompt_masking.shape[:2], rollouts.completion_ids.shape[1])
        old = rollouts.advantages.new_zeros(shape) if self.plan.updates_per_generation > 1 else None
        reference = rollouts.advantages.new_zeros(shape) if args.beta > 0 else None
        steps = [(iteration, part) for iteration in range(shape[1]) for part in range(args.steps_per_generation)]
        for iteration, part in steps:
            # The rows of one micro-batch at a time, as in training: other shapes would round otherwise.
            places = self.plan.micro_batch(generation, args.process_index, part)
            rows = torch.tensor(places, device=rollouts.advantages.device)
            if old is not None and (iteration > 0 or part >= args.gradient_accumulation_steps):
                counting = rows[_or_first(rollouts.advantages[rows].nonzero().squeeze(1))]
                with torch.no_grad(), evaluating(module):
                    batch = rollouts.select(counting)
                    old[counting, iteration] = self._log_probs(model, self.language_model, batch, iteration)
            if reference is not None:
                reference[rows, iteration] = self._reference_log_probs(rollouts.select(rows), iteration)
        return replace(rollouts, old_log_probs=old, reference_log_probs=reference)

    @torch.no_grad()
    def _reference_log_probs(self, batch: Rollouts, iteration: int) -> Tensor:
        if self.reference is not None:
            return self._log_probs(self.reference_model, self.reference, batch, iteration)
        module = self.accelerator.unwrap_model(self.model_wrapped)
        with evaluating(module), module.disable_adapter():
            return self._log_probs(self.model_wrapped, self.language_model, batch, iteration)

    def _log_probs(
        self, model: nn.Module, language_model: MaskedLanguageModel, batch: Rollouts, iteration: int
    ) -> Tensor:
        """Return the `(rows, length)` log-probabilities of the completions, with the masks of an inner iteration."""
        options = {"chunk_size": self.args.logits_chunk_size}
        if self.args.exclude_mask_token:
            options["excluded_token_id"] = language_model.mask_token_id
        given = [batch.prompt_ids, batch.attention_mask, batch.prompt_masking[:, iteration]]
        given += [batch.completion_ids, batch.completion_mask]
        estimate = one_step_log_probs
        if self.args.logprob_estimator == "elbo":
            estimate = elbo_log_probs
            given.append(batch.completion_masking[:, iteration])
        elif self.args.logprob_estimator == "trajectory":
            estimate = trajectory_log_probs
            given += [batch.completion_masking[:, iteration], batch.completion_scored[:, iteration]]
        with self.accelerator.autocast():
            function = partial(estimate, language_model, **options)
            return call_inside(model, self.accelerator.unwrap_model(model), function, *given)

    def _write(
        self, prompt_ids: Tensor, attention_mask: Tensor, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            return self.sampler.write(prompt_ids, attention_mask, generators)

    def _score(self, mode: str, examples: list[Example], completion_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rewards `(rows, functions)`, the lengths and whether the texts end, both `(rows,)`, of this process."""
        mask = self.sampler.mask(completion_ids)
        lengths = mask.sum(dim=1)
        tokens = [row[:length] for row, length in zip(completion_ids.tolist(), lengths.tolist(), strict=True)]
        texts = self.sampler.texts(completion_ids)
        rewards = self.scorer(examples, texts, tokens, self.state, self.means[mode].add)
        ends = completion_ids.new_tensor(self.sampler.end_token_ids)
        return rewards.to(completion_ids.device), lengths, torch.isin(completion_ids, ends).any(dim=1)

    def _report(self, mode: str, rewards: Tensor, lengths: Tensor, is_ended: Tensor) -> None:
        figures = reward_figures(self.scorer.names, rewards, self.scorer.total(rewards))
        for name, value in {**figures, **completion_figures(lengths, is_ended)}.items():
            self.means[mode].add(name, value * len(rewards), len(rewards))

    def _count_tokens(self, generation: int, lengths: Tensor) -> Tensor:
        """Return how many tokens count in each slice of a generation, of all processes; `(slices,)`."""
        slices = [self.plan.slices(generation, process) for process in range(self.args.world_size)]
        return torch.stack([lengths[sum(parts, [])].sum() for parts in zip(*slices, strict=True)])

    def _save_rng_state(self, output_dir: str) -> None:
        generation, *_ = self.plan.locate(self.state.global_step)
        if self._generation == generation:  # it is not finished
            self.rollouts.save(self._rollouts_file(output_dir), generation)
        super()._save_rng_state(output_dir)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        generation, *within = self.plan.locate(self.state.global_step)
        if checkpoint is not None and any(within):
            rollouts = Rollouts.load(self._rollouts_file(checkpoint), generation)
            self.rollouts, self._generation = rollouts.to(self.accelerator.device), generation

    def _rollouts_file(self, folder: str) -> Path:
        return Path(folder) / f"rollouts-{self.args.process_index}.safetensors"


def _generators(seed: int, generation: int, rows: list[int]) -> list[torch.Generator]:
    """Return a generator for each row of a generation."""
    return [row_generators(seed, generation, row, 1)[0] for row in rows]


def _or_first(rows: Tensor) -> Tensor:
    """Return the rows, or the first if there is none: every process has to run the model equally often."""
    return rows if len(rows) else rows.new_zeros(1)


def _switch_dropout_off(model: nn.Module) -> None:
    """Put all modules into eval mode but those that are to forget their activations, which need to know that they train."""
    for module in model.modules():
        module.training = isinstance(module, GradientCheckpointingLayer)
    model.training = True


def _check(
    model: PreTrainedModel, args: DiffuGRPOConfig, train_dataset: Dataset, eval_dataset: Dataset | None
) -> None:
    if getattr(model.config, "attention_pattern", "") == "block_causal":
        raise ValueError("`model` is block-causal, but log-probabilities are estimated from the whole text.")
    for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
        if dataset is None and name == "eval_dataset":
            continue
        if not isinstance(dataset, Dataset):
            raise ValueError(f"`{name}` has to be a `datasets.Dataset`, but is a {type(dataset).__name__}.")
        if "prompt" not in dataset.column_names or len(dataset) == 0:
            raise ValueError(
                f"`{name}` has to hold at least one row with a `prompt`, but has {len(dataset)} with {dataset.column_names}."
            )
