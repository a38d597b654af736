"""Stage 2: train the denoiser on cached latents (paper, §3.2, §5.1, §5.2; the loss in `losses.py`).

What differs from the paper, which is silent about it: self-conditioning, an average of the weights and gates. The trainer
refuses an autoencoder that cannot give held-out texts back, because no denoiser can make up for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset
from diffusers import DDPMScheduler
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_integer, check_number, check_option
from ..noise import add_noise, rand_rows, randn_rows
from ..training import (
    ReproducibleTrainer,
    ReproducibleTrainingArguments,
    TimestepBuckets,
    cache_folder,
    check_moments,
    check_not_streamed,
)
from .latent_cache import LATENT_COLUMNS, cache_latents, latent_moments
from .losses import (
    LARGEST,
    LOSS_WEIGHTINGS,
    loss_weights,
    predicted_x0,
    prediction_target,
    squared_error,
    variance_loss,
    variance_tables,
)
from .modeling_text_latent_autoencoder import MIN_LATENT_STD, TextLatentAutoencoder
from .reconstruction import reconstruction_accuracy
from .transformer_latent_dit import LatentDiT


LEAST_POWER = 1e-3  # of uniform numbers, that timesteps are drawn by


@dataclass
class DenoiserTrainingArguments(ReproducibleTrainingArguments):
    """Arguments of [`DenoiserTrainer`], beside those of `TrainingArguments`.

    Args:
        loss_weighting (`str`, *optional*, defaults to `"none"`): weight of the x0 error by timestep: `"none"`, `"min_snr"`
            (the paper's), `"snr"` or `"v"`.
        snr_gamma (`float`, *optional*, defaults to 5.0): ceiling of `"min_snr"`.
        snr_floor (`float`, *optional*, defaults to 0.0): floor of `"min_snr"`.
        timestep_power (`float`, *optional*, defaults to 1.0): draw timesteps as `T u^(1 / power)` with `u` uniform; above 1
            the noisy ones, where the answer is decided, come up more often.
        variance_weight (`float`, *optional*, defaults to 0.001): weight of the variance term, multiplied by `T / 1000`; used
            by denoisers with a learned variance only.
        condition_dropout (`float`, *optional*, defaults to 0.1): probability, per sample, of the null condition.
        self_conditioning_probability (`float`, *optional*, defaults to 0.5): probability, per sample, that a
            self-conditioned denoiser is given its own estimate.
        reconstruction_gate (`float`, *optional*, defaults to 0.99): least share of held-out targets that the autoencoder
            has to give back exactly; 0 switches the gate off.
        reconstruction_size (`int`, *optional*, defaults to 512): most held-out targets to measure it on.
        latent_cache_dir (`str`, *optional*): where to keep the cached latents for later runs; by default in memory, or in
            the run's own folder where several processes share them.
        dataset_num_proc (`int`, *optional*): processes that compute the latents, on the CPU; one by default.
    """

    loss_weighting: str = field(default="none", metadata={"help": "none, min_snr, snr or v."})
    snr_gamma: float = field(default=5.0, metadata={"help": "Ceiling of min_snr."})
    snr_floor: float = field(default=0.0, metadata={"help": "Floor of min_snr."})
    timestep_power: float = field(default=1.0, metadata={"help": "Above 1 draws noisy timesteps more often."})
    variance_weight: float = field(default=1e-3, metadata={"help": "Weight of the variance term."})
    condition_dropout: float = field(default=0.1, metadata={"help": "Probability of the null condition."})
    self_conditioning_probability: float = field(default=0.5, metadata={"help": "Probability of an own estimate."})
    reconstruction_gate: float = field(default=0.99, metadata={"help": "Least exact reconstruction."})
    reconstruction_size: int = field(default=512, metadata={"help": "Most held-out targets to reconstruct."})
    latent_cache_dir: str | None = field(default=None, metadata={"help": "Folder of the cached latents."})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that compute the latents."})

    def __post_init__(self):
        """Check the arguments."""
        super().__post_init__()
        check_option("loss_weighting", self.loss_weighting, LOSS_WEIGHTINGS)
        check_integer("reconstruction_size", self.reconstruction_size)
        for name in ("condition_dropout", "self_conditioning_probability", "reconstruction_gate"):
            check_number(name, getattr(self, name), 0, 1)
        check_number("variance_weight", self.variance_weight, 0)
        check_number("snr_gamma", self.snr_gamma, 0, LARGEST)
        check_number("snr_floor", self.snr_floor, 0, self.snr_gamma)
        check_number("timestep_power", self.timestep_power, LEAST_POWER)


class DenoiserTrainer(ReproducibleTrainer):
    """Trains a [`LatentDiT`] to denoise the latents of targets, given those of prompts."""

    why_not_sharded = "it is small, and saved as diffusers does"

    def __init__(
        self,
        model: LatentDiT,
        args: DenoiserTrainingArguments,
        autoencoder: TextLatentAutoencoder,
        noise_scheduler: DDPMScheduler,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | None = None,
        **kwargs,
    ):
        """Check the autoencoder and encode the data sets with it, once.

        Args:
            model ([`LatentDiT`]): the denoiser.
            args ([`DenoiserTrainingArguments`]): how to train.
            autoencoder ([`TextLatentAutoencoder`]): trained, with fitted statistics; it is not kept.
            noise_scheduler (`DDPMScheduler`): its betas and `prediction_type` define the diffusion.
            train_dataset (`Dataset`): with the columns `prompt` and `target` (strings).
            processing_class (`PreTrainedTokenizerBase`): the tokenizer of the autoencoder.
            eval_dataset (`Dataset`, *optional*): held-out problems with the same columns; the gate needs them.
            kwargs: further arguments of `transformers.Trainer`, such as `callbacks`.

        Raises:
            ValueError: for a streamed data set, if the autoencoder's statistics were not fitted or do not fit, if its latents
                do not depend on the text or it misses the gate, or if the sizes of denoiser, autoencoder and scheduler do not
                agree.
        """
        given = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        check_not_streamed("all of its rows are encoded once, before the training", **given)
        _check_sizes(model, autoencoder, noise_scheduler)
        _check_collapse(autoencoder)
        self.reconstruction = _check_reconstruction(args, autoencoder, processing_class, eval_dataset)
        encoder = (autoencoder.to(args.device), processing_class)
        cache = {"cache_dir": cache_folder(args, args.latent_cache_dir), "num_proc": args.dataset_num_proc}
        train_dataset = cache_latents(train_dataset, *encoder, **cache)
        eval_dataset = None if eval_dataset is None else cache_latents(eval_dataset, *encoder, **cache)
        check_moments(*latent_moments(train_dataset), mean_within=0.05, std_within=(0.9, 1.1))
        super().__init__(
            model=model,
            args=args,
            train_dataset=LatentDataset(train_dataset),
            eval_dataset=None if eval_dataset is None else LatentDataset(eval_dataset),
            processing_class=None,
            data_collator=_identity,
            **kwargs,
        )
        self.noise_scheduler = noise_scheduler
        self.alpha_bar = noise_scheduler.alphas_cumprod.float().to(args.device)  # (T,)
        self.tables = variance_tables(noise_scheduler.betas)
        self.buckets = TimestepBuckets(len(self.alpha_bar))
        self.evaluation_buckets = TimestepBuckets(len(self.alpha_bar))
        self.shape = (model.config.latent_length, model.config.latent_dim)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the weighted squared error of x0, plus the variance term where the variance is learned."""
        prediction_type, device = self.noise_scheduler.config.prediction_type, self.args.device
        x0 = inputs["target_latents"].view(-1, *self.shape)  # (batch, length, dim)
        condition = inputs["prompt_latents"].view(-1, *self.shape)

        # 1. everything random, row by row
        generators = self.generators(len(x0))
        position = rand_rows(generators) ** (1 / self.args.timestep_power)
        timesteps = (position * len(self.alpha_bar)).long().clamp(max=len(self.alpha_bar) - 1).to(device)  # (batch,)
        dropout = self.args.condition_dropout if self.model.training else 0.0
        condition_dropped = (rand_rows(generators) < dropout).to(device)
        estimate_given = (rand_rows(generators) < self.args.self_conditioning_probability).to(device)
        noise = randn_rows(self.shape, generators).to(device)

        # 2. the noised latents
        alpha_bar = self.alpha_bar[timesteps]
        xt = add_noise(x0, noise, alpha_bar)

        # 3. the denoiser, given its own first estimate in some rows
        estimate = self._first_estimate(model, xt, timesteps, condition, condition_dropped, estimate_given)
        output = model(
            xt,
            timesteps,
            condition,
            condition_dropped=condition_dropped,
            previous_estimate=estimate,
            estimate_dropped=None if estimate is None else ~estimate_given,
        )

        # 4. the weighted error, the variance term, and x0's plain error for the log
        weighting = (self.args.loss_weighting, self.args.snr_gamma, self.args.snr_floor)
        weights = loss_weights(alpha_bar, prediction_type, *weighting)
        target = prediction_target(x0, noise, alpha_bar, prediction_type)
        loss = (weights * squared_error(output.sample, target)).mean()
        x0_hat = predicted_x0(output.sample.detach().float(), xt, alpha_bar, prediction_type)
        if output.variance is not None:
            kl = variance_loss(x0, x0_hat, xt, output.variance, timesteps, self.tables).mean()
            loss = loss + self.args.variance_weight * len(self.alpha_bar) / 1000 * kl
        buckets = self.buckets if self.model.training else self.evaluation_buckets
        kept = ~condition_dropped  # without its prompt the answer cannot be known, so those rows say nothing
        buckets.add(timesteps[kept], squared_error(x0_hat, x0)[kept])
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Log, with x0's mean squared error in eight ranges of the timestep beside the loss."""
        if "loss" in logs:
            logs = {**logs, **self.buckets.pop("x0_mse")}
        elif "eval_loss" in logs:
            logs = {**logs, **self.evaluation_buckets.pop("eval_x0_mse")}
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def _first_estimate(self, model, xt, timesteps, condition, condition_dropped, given) -> Tensor | None:
        if not self.accelerator.unwrap_model(self.model).config.self_conditioning:
            return None
        rows = given.nonzero().squeeze(1)  # only these rows need the extra forward pass
        if not len(rows):
            rows = rows.new_zeros(1)  # which every process has to make, or they would wait for one another
        output = model(xt[rows], timesteps[rows], condition[rows], condition_dropped=condition_dropped[rows])
        prediction_type = self.noise_scheduler.config.prediction_type
        x0_hat = predicted_x0(output.sample.float(), xt[rows], self.alpha_bar[timesteps[rows]], prediction_type)
        return torch.zeros_like(xt).index_copy_(0, rows, x0_hat)


class LatentDataset(torch.utils.data.Dataset):
    """Cached latents, fetched a batch at a time."""

    def __init__(self, latents: Dataset):
        """Wrap what [`cache_latents`] returns."""
        self.latents = latents

    def __len__(self) -> int:
        """Return the number of problems."""
        return len(self.latents)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return a batch: `(len(indices), latent_length * latent_dim)` float32 for each column."""
        rows = self.latents[indices]
        return {column: rows[column] for column in LATENT_COLUMNS}


def _identity(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def _check_sizes(model: LatentDiT, autoencoder: TextLatentAutoencoder, noise_scheduler: DDPMScheduler) -> None:
    pairs = {
        "latent_length": (model.config.latent_length, autoencoder.config.latent_length),
        "latent_dim": (model.config.latent_dim, autoencoder.config.latent_dim),
        "num_train_timesteps": (model.config.num_train_timesteps, noise_scheduler.config.num_train_timesteps),
    }
    for name, (own, other) in pairs.items():
        if own != other:
            raise ValueError(f"`{name}` of the denoiser is {own}, but the autoencoder or scheduler has {other}.")


def _check_reconstruction(args, autoencoder, tokenizer, eval_dataset) -> float | None:
    if not autoencoder.has_latent_statistics:
        return None  # `cache_latents` says so, with what to do
    if args.reconstruction_gate == 0:
        return None
    if eval_dataset is None:
        raise ValueError(
            "`eval_dataset` is needed for the reconstruction gate; `reconstruction_gate=0` switches it off."
        )
    texts, prompts = (eval_dataset[column][: args.reconstruction_size] for column in ("target", "prompt"))
    autoencoder = autoencoder.to(args.device)
    exact = reconstruction_accuracy(autoencoder, tokenizer, texts, seed=args.seed, prompts=prompts)
    if exact < args.reconstruction_gate:
        raise ValueError(
            f"The autoencoder gives back {exact:.1%} of {len(texts)} held-out targets exactly, which is below "
            f"`reconstruction_gate` {args.reconstruction_gate:.1%}. Train it longer, give it more latents or "
            "`encoder_layers=[0, -1]`; a denoiser cannot be better than its autoencoder."
        )
    return exact


def _check_collapse(autoencoder: TextLatentAutoencoder) -> None:
    constant = (autoencoder.latent_std <= MIN_LATENT_STD).float().mean().item()
    if constant > 0.5:
        raise ValueError(
            f"{constant:.0%} of the autoencoder's latents are the same for all texts: it has learned nothing of what they "
            "say. Train it longer, or with another learning rate."
        )
