"""Train the reasoner (paper, §3.3): stage 1 on the true steps, stage 2 on steps that it generates itself.

Stage 1, teacher forcing: blocks before and the answer's context are the VAE's latents of the true steps. Stage 2,
rollout: all blocks are generated from noise in a few differentiable steps, so that the answer's loss shapes them,
while flow matching goes on towards the true ones. Both are one class with another `stage`, and each can be run and
checked alone.

What differs from the paper, which is silent about it: several noisy copies of each block in one packed pass;
posteriors are sampled anew each step; stage 2 does without guidance, has as many blocks as the true chain, and its
flow matching sees the true blocks before unless told otherwise; and a VAE that cannot give held-out blocks back is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_integer, check_number, check_option
from ..training import (
    LossParts,
    ReproducibleTrainer,
    ReproducibleTrainingArguments,
    TimestepBuckets,
    cache_folder,
    call_inside,
    check_moments,
    check_not_streamed,
)
from .block_splitter import BlockSplitter
from .losses import flow_target
from .modeling_ladir import FLOW_CONTEXTS, LaDiRForReasoning, LaDiROutput
from .modeling_thought_vae import ThoughtVAE
from .thought_cache import cache_thoughts, collate_thoughts, latent_moments
from .trainer_thought_vae import heldout_report


STAGES = ("teacher_forcing", "rollout")
TIMES = 1000  # times are logged in thousandths
LEAST_POWER = 1e-3  # of uniform numbers, that times are drawn by
MOST_NOISE = 1e6  # standard deviation of what blocks start from
PARTS = ("flow_loss", "answer_loss", "stop_loss")


@dataclass
class LaDiRTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`LaDiRTrainer`], beside those of `TrainingArguments`.

    Args:
        stage (`str`, *optional*, defaults to `"teacher_forcing"`): that (stage 1), or `"rollout"` (stage 2).
        num_noise_copies (`int`, *optional*, defaults to 1): noisy copies of each block in a step, each at its own
            time; they share question, clean blocks and answer, so that more cost little.
        condition_dropout (`float`, *optional*, defaults to 0.1): probability, per problem, of the null question.
        timestep_power (`float`, *optional*, defaults to 1.0): draw times as `u^(1 / power)` with `u` uniform; above 1
            the noisy ones, where a step is decided, come up more often.
        sample_posterior (`bool`, *optional*, defaults to `True`): draw latents from the VAE's posterior each step,
            rather than take its mean.
        rollout_steps (`int`, *optional*, defaults to 10): denoising steps of a block in stage 2.
        rollout_noise_scale (`float`, *optional*, defaults to 1.0): standard deviation of the noise that they start
            from.
        rollout_flow_context (`str`, *optional*, defaults to `"oracle"`): which blocks precede a noisy one in stage 2:
            the true ones, or those `"generated"`, which saves a pass.
        reconstruction_gate (`float`, *optional*, defaults to 0.95): least share of held-out blocks that the VAE has to
            give back exactly; 0 switches all three gates off.
        noisy_reconstruction_gate (`float`, *optional*, defaults to 0.0): least share under noise of a quarter of the
            latents' standard deviation, as sampled latents are never exact.
        shuffled_reconstruction_gate (`float`, *optional*, defaults to 0.05): largest share from the latents of another
            block; more means that the decoder guesses and does not read.
        reconstruction_size (`int`, *optional*, defaults to 512): most held-out blocks to measure it on.
        latent_cache_dir (`str`, *optional*): where to keep the posteriors for later runs; by default in memory, or in
            the run's own folder where several processes share them.
        dataset_num_proc (`int`, *optional*): processes that compute the posteriors, on the CPU; one by default.
    """

    stage: str = field(default="teacher_forcing", metadata={"help": "teacher_forcing or rollout."})
    num_noise_copies: int = field(default=1, metadata={"help": "Noisy copies of each block in a step."})
    condition_dropout: float = field(default=0.1, metadata={"help": "Probability of the null question."})
    timestep_power: float = field(default=1.0, metadata={"help": "Above 1 draws noisy times more often."})
    sample_posterior: bool = field(default=True, metadata={"help": "Sample the VAE's posterior each step."})
    rollout_steps: int = field(default=10, metadata={"help": "Denoising steps of a block in stage 2."})
    rollout_noise_scale: float = field(default=1.0, metadata={"help": "Noise that rollouts start from."})
    rollout_flow_context: str = field(default="oracle", metadata={"help": "oracle or generated."})
    reconstruction_gate: float = field(default=0.95, metadata={"help": "Least exact reconstruction."})
    noisy_reconstruction_gate: float = field(default=0.0, metadata={"help": "Least share under noise."})
    shuffled_reconstruction_gate: float = field(default=0.05, metadata={"help": "Largest share when shuffled."})
    reconstruction_size: int = field(default=512, metadata={"help": "Most held-out blocks to reconstruct."})
    latent_cache_dir: str | None = field(default=None, metadata={"help": "Folder of the cached posteriors."})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that compute the posteriors."})

    def __post_init__(self):
        """Check the arguments."""
        super().__post_init__()
        check_option("stage", self.stage, STAGES)
        check_option("rollout_flow_context", self.rollout_flow_context, FLOW_CONTEXTS)
        for name in ("num_noise_copies", "rollout_steps", "reconstruction_size"):
            check_integer(name, getattr(self, name))
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"`condition_dropout` has to lie in [0, 1), but is {self.condition_dropout}.")
        for name in ("reconstruction_gate", "noisy_reconstruction_gate", "shuffled_reconstruction_gate"):
            check_number(name, getattr(self, name), -1, 1)  # below 0 all pass, or none
        check_number("timestep_power", self.timestep_power, LEAST_POWER)
        check_number("rollout_noise_scale", self.rollout_noise_scale, 0, MOST_NOISE)


class LaDiRTrainer(ReproducibleTrainer):
    """Trains a [`LaDiRForReasoning`] on problems with worked steps."""

    def __init__(
        self,
        model: LaDiRForReasoning,
        args: LaDiRTrainingArguments,
        vae: ThoughtVAE,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        splitter: BlockSplitter,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Check the VAE and encode the data sets with it, once.

        Args:
            model ([`LaDiRForReasoning`]): the reasoner; for stage 2, one that went through stage 1.
            args ([`LaDiRTrainingArguments`]): how to train.
            vae ([`ThoughtVAE`]): trained, with fitted statistics; it is not kept.
            train_dataset (`Dataset`): with the columns `prompt` and `target`, and `answer` where targets lack the
                splitter's prefix.
            processing_class (`PreTrainedTokenizerBase`): the tokenizer of VAE and reasoner.
            splitter ([`BlockSplitter`]): how targets become blocks and answers; the VAE's.
            eval_dataset (`Dataset`, *optional*): held-out problems with the same columns; the gate needs them.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: for an argument out of range or a streamed data set; if the VAE's statistics were not fitted or do not fit, if it
                misses the gate, or if its blocks are not the reasoner's; or for a problem without steps.
        """
        given = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        check_not_streamed("all of its rows are encoded once, before the training", **given)
        _check_sizes(model, vae)
        vae = vae.to(args.device)
        self.reconstruction = _check_reconstruction(args, vae, processing_class, splitter, eval_dataset)
        settings = (vae, processing_class, splitter, model.config)
        cache = {"cache_dir": cache_folder(args, args.latent_cache_dir), "num_proc": args.dataset_num_proc}
        train_dataset = cache_thoughts(train_dataset, *settings, **cache)
        eval_dataset = None if eval_dataset is None else cache_thoughts(eval_dataset, *settings, **cache)
        check_moments(*latent_moments(train_dataset), mean_within=0.1, std_within=(0.8, 1.25))
        if args.stage == "rollout":
            self.why_not_sharded = (
                "with `stage` 'rollout' each process runs it as often as its longest chain has blocks"
            )
        self.block_shape = (model.config.latents_per_block, model.config.latent_dim)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=partial(collate_thoughts, block=self.block_shape),
            **kwargs,
        )
        self.statistics, self.evaluation_statistics = LossStatistics(), LossStatistics()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the weighted sum of flow matching, answer and stop losses (eq. 5)."""
        inputs = dict(inputs)
        means, stds, block_mask = inputs.pop("means"), inputs.pop("stds"), inputs["block_mask"]

        # 1. everything random, row by row
        noise = draw_noise(block_mask, self.block_shape, self.args, self.generators(len(means)))
        noise = {name: tensor.to(self.args.device) for name, tensor in noise.items()}
        posterior_noise, dropped = noise.pop("posterior_noise"), noise.pop("condition_dropped")
        latents = means + stds * posterior_noise if self.args.sample_posterior else means

        # 2. one pass over everything
        if self.args.stage == "rollout":
            noise["rollout_steps"] = self.args.rollout_steps
            noise["rollout_flow_context"] = self.args.rollout_flow_context
        else:
            del noise["rollout_noise"]
        dropped = dropped if self.model.training else torch.zeros_like(dropped)
        inputs = {"block_latents": latents, "condition_dropped": dropped, **inputs, **noise}
        # Given to the wrapper, FSDP would round noise and times to bfloat16.
        own = self.accelerator.unwrap_model(self.model)
        output = call_inside(model, own, partial(own.forward, **inputs)) if self.is_sharded else model(**inputs)

        # 3. plain means for the log
        prediction_type = self.accelerator.unwrap_model(self.model).config.prediction_type
        target = flow_target(latents[:, :, None], noise["noise"], noise["times"], prediction_type)
        errors = (output.prediction.detach() - target).square().mean((3, 4))  # (batch, blocks, copies)
        statistics = self.statistics if self.model.training else self.evaluation_statistics
        kept = (block_mask & ~dropped[:, None])[..., None].expand_as(errors)
        statistics.add(output, noise["times"][kept], errors[kept])
        if num_items_in_batch is None:
            return (output.loss, output) if return_outputs else output.loss

        # 4. answers and stops of as many problems as keep their question, which are not equally many everywhere
        config = self.accelerator.unwrap_model(self.model).config
        kept = config.answer_weight * output.answer_loss + config.stop_weight * output.stop_loss
        loss = config.flow_weight * output.flow_loss + (~dropped).sum() / num_items_in_batch * kept
        return (loss, output) if return_outputs else loss

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return how many problems keep their question: answers and stops of the others do not count."""
        if self.args.condition_dropout == 0:
            return None
        generators = self.generators(len(inputs["means"]))
        return sum(~_is_dropped(generator, self.args) for generator in generators)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log, with the three losses and the flow's squared error in eight ranges of the time beside their sum."""
        if "loss" in logs:
            logs = {**logs, **self.statistics.pop("")}
        elif "eval_loss" in logs:
            logs = {**logs, **self.evaluation_statistics.pop("eval_")}
        super().log(logs, *args, **kwargs)


class LossStatistics:
    """Means of the parts of the loss since the last report, and of the flow's squared error by time."""

    def __init__(self):
        """Start with none."""
        self.buckets = TimestepBuckets(TIMES)
        self.parts = LossParts(PARTS)

    def add(self, output: LaDiROutput, times: Tensor, errors: Tensor) -> None:
        """Add the parts of a model's output, and squared errors at times in [0, 1], both `(count,)`."""
        self.parts.add(output, len(output.prediction))
        self.buckets.add((times.cpu() * TIMES).long().clamp(max=TIMES - 1), errors)

    def pop(self, prefix: str) -> dict[str, float]:
        """Return the means by name, `…flow_mse/t0-124` being that of times below 0.125, and start anew."""
        return {**self.parts.pop(prefix), **self.buckets.pop(f"{prefix}flow_mse")}


def draw_noise(
    block_mask: Tensor, block: tuple[int, int], args: LaDiRTrainingArguments, generators: list[torch.Generator]
) -> dict[str, Tensor]:
    """Return all that is random in a step; what a row draws does not depend on how far it is padded.

    Args:
        block_mask (`Tensor` of shape `(batch, blocks)`): bool, the first blocks of each row.
        block (`tuple[int, int]`): latent vectors in a block, and their size.
        args ([`LaDiRTrainingArguments`]): how many copies, which times, how much dropout.
        generators (`list[torch.Generator]`): one CPU generator for each row.

    Returns:
        `condition_dropped` `(batch,)` bool; `times` `(batch, blocks, copies)` in [0, 1); `noise`
        `(batch, blocks, copies, *block)`, `posterior_noise` and `rollout_noise` `(batch, blocks, *block)`, float32.
    """
    (batch, blocks), copies = block_mask.shape, args.num_noise_copies
    dropped = torch.zeros(batch, dtype=torch.bool)
    times, noise = torch.zeros(batch, blocks, copies), torch.zeros(batch, blocks, copies, *block)
    posterior, rollout = torch.zeros(batch, blocks, *block), torch.zeros(batch, blocks, *block)
    for row, (generator, count) in enumerate(zip(generators, block_mask.sum(1).tolist(), strict=True)):
        dropped[row] = _is_dropped(generator, args)
        times[row, :count] = torch.rand(count, copies, generator=generator) ** (1 / args.timestep_power)
        noise[row, :count] = torch.randn(count, copies, *block, generator=generator)
        posterior[row, :count] = torch.randn(count, *block, generator=generator)
        rollout[row, :count] = args.rollout_noise_scale * torch.randn(count, *block, generator=generator)
    return {
        "condition_dropped": dropped,
        "times": times,
        "noise": noise,
        "posterior_noise": posterior,
        "rollout_noise": rollout,
    }


def _is_dropped(generator: torch.Generator, args: LaDiRTrainingArguments) -> Tensor:
    """Return whether a row loses its question, `()` bool: the first that its generator draws."""
    return torch.rand((), generator=generator) < args.condition_dropout


def _check_sizes(model: LaDiRForReasoning, vae: ThoughtVAE) -> None:
    for name in ("latents_per_block", "latent_dim"):
        own, other = getattr(model.config, name), getattr(vae.config, name)
        if own != other:
            raise ValueError(f"`{name}` of the reasoner is {own}, but that of the VAE is {other}.")


def _check_reconstruction(args, vae, tokenizer, splitter, eval_dataset) -> dict[str, float] | None:
    """Return the VAE's report on held-out blocks; raise `ValueError` if it misses a gate."""
    if args.reconstruction_gate == 0 or not vae.has_latent_statistics:
        return None  # without statistics `cache_thoughts` says what to do
    if eval_dataset is None:
        raise ValueError(
            "`eval_dataset` is needed for the reconstruction gate; `reconstruction_gate=0` switches it off."
        )
    report = heldout_report(vae, tokenizer, eval_dataset, splitter, args.reconstruction_size, seed=args.seed)
    about = "of held-out blocks exactly"
    least = {
        "reconstruction_gate": ("", report["exact_reconstruction"]),
        "noisy_reconstruction_gate": (" under noise", report["exact_reconstruction_noise_0.25"]),
    }
    for gate, (how, share) in least.items():
        if share < getattr(args, gate):
            raise ValueError(
                f"The VAE gives back {share:.1%} {about}{how}, which is below `{gate}` {getattr(args, gate):.1%}. "
                "Train it longer, with `freeze_decoder=False`, less `latent_noise` or `token_substitution`, or more "
                "latents; no reasoner can make up for what its blocks do not say."
            )
    guessed = report.get("shuffled_reconstruction", 0.0)
    if guessed > args.shuffled_reconstruction_gate:
        raise ValueError(
            f"The VAE gives back {guessed:.1%} {about} from the latents of other blocks, which is above "
            f"`shuffled_reconstruction_gate` {args.shuffled_reconstruction_gate:.1%}: its decoder does not read "
            "the latents."
        )
    return report
