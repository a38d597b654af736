"""Arguments of diffu-GRPO, under the names of TRL's `GRPOConfig` where they mean the same; by default d1's released values."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..arguments import MOST_GUIDANCE, MOST_TEMPERATURE, check_integer, check_number, check_option
from ..schedulers import REMASKING
from ..training import ReproducibleTrainingArguments
from .estimators import MASK_DRAWS
from .losses import BASELINES, LEVELS, LOSS_TYPES, SCALINGS, check_epsilon


ESTIMATORS = ("one_step", "elbo", "trajectory")
RANGES = {  # least and most, both allowed
    "prompt_mask_probability": (0.0, 1.0),
    "beta": (0.0, float("inf")),
    "temperature": (0.0, MOST_TEMPERATURE),
    "guidance_scale": (-MOST_GUIDANCE, MOST_GUIDANCE),
    "negative_weight": (0.0, float("inf")),
}
COUNTS = ("num_iterations", "max_completion_length", "block_length", "num_inference_steps", "n_mc")
OPTIONAL_COUNTS = ("max_prompt_length", "sampling_batch_size", "logits_chunk_size")


@dataclass
class DiffuGRPOConfig(ReproducibleTrainingArguments):
    """Arguments of [`DiffuGRPOTrainer`], beside those of `TrainingArguments`.

    Args:
        num_generations (`int`, *optional*, defaults to 6): completions of each prompt, a group.
        num_iterations (`int`, *optional*, defaults to 12): updates on the same completions, d1's μ.
        steps_per_generation (`int`, *optional*): micro-batches whose completions are written at once, a multiple of
            `gradient_accumulation_steps`, which it is by default. `generation_batch_size`, the completions of all processes
            that are written at once, is this times a micro-batch.
        max_prompt_length (`int`, *optional*): prompts of more tokens are cut on their left; by default they may have any length
            that the model has room for.
        use_chat_template (`bool`, *optional*, defaults to `True`): make each prompt that is a text a user message where the
            tokenizer has a chat template; TRL takes texts as they are.
        max_completion_length (`int`, *optional*, defaults to 256): tokens of a completion; always so many are written, and
            what counts is those up to the first end of text.
        block_length (`int`, *optional*, defaults to 32): length of the blocks that are filled from left to right.
        num_inference_steps (`int`, *optional*, defaults to 128): denoising steps, over all blocks.
        temperature (`float`, *optional*, defaults to 0.9): of the samples. Log-probabilities are always those at 1.
        guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance; 1 is none.
        remasking (`str`, *optional*, defaults to `"low_confidence"`): as [`MaskedDiffusionScheduler`] takes it.
        generation_kwargs (`dict`, *optional*): further arguments of [`MaskedDiffusionPipeline`], such as `{"cache": "dual"}`.
        sampling_batch_size (`int`, *optional*): completions written side by side; by default all that a process has.
        prompt_mask_probability (`float`, *optional*, defaults to 0.15): of a mask for each token of a prompt, wherever
            log-probabilities are estimated.
        random_masking (`bool`, *optional*, defaults to `True`): draw these masks anew in each inner iteration; otherwise once.
        logprob_estimator (`str`, *optional*, defaults to `"one_step"`): d1's; `"elbo"`, the evidence lower bound; or
            `"trajectory"`, each token as it was committed.
        n_mc (`int`, *optional*, defaults to 4): draws of the bound, or steps of the trajectory, for each completion, each one more
            row to a forward pass. With fewer steps than there are, the tokens of the others add nothing to a gradient.
        elbo_draws (`str`, *optional*, defaults to `"stratified"`): or `"antithetic"` or `"independent"`, see
            [`draw_completion_masking`].
        exclude_mask_token (`bool`, *optional*, defaults to `False`): give the mask token probability zero, as sampling does.
        beta (`float`, *optional*, defaults to 0.04): weight of the divergence from the reference; 0 for none, and no
            reference.
        epsilon (`float`, *optional*, defaults to 0.5): how far a ratio may be below 1, and above.
        epsilon_high (`float`, *optional*): how far above, where it is not as far as below.
        importance_sampling_level (`str`, *optional*): ratios and divergences of each `"token"`, or of a `"sequence"`'s mean; by
            default the latter for `"elbo"` only, whose terms mean nothing one by one.
        scale_rewards (`str`, *optional*, defaults to `"none"`): divide advantages by nothing, by the standard deviation of the
            `"group"` or of the `"batch"`.
        negative_weight (`float`, *optional*, defaults to 1.0): of advantages below zero; 0 learns only from completions that are
            better than their group.
        advantage_baseline (`str`, *optional*, defaults to `"group"`): subtract the mean reward of the group, or `"none"`: the
            advantage is the reward itself.
        reward_weights (`list[float]`, *optional*): of the reward functions; all 1 by default.
        loss_type (`str`, *optional*, defaults to `"dapo"`): mean over the tokens of an update, or of a micro-batch (`"bnpo"`,
            d1's code), or over sequences of their means (`"grpo"`, the paper), or by the greatest length (`"dr_grpo"`).
        logits_chunk_size (`int`, *optional*): tokens whose logits exist at a time; by default as many as make 2**24 logits.
        shuffle_dataset (`bool`, *optional*, defaults to `True`): take the prompts in an order of each epoch's own.
        learning_rate (`float`, *optional*, defaults to 3e-6): of adapters, as d1 trains.
        lr_scheduler_type (`str`, *optional*, defaults to `"constant"`): as in `TrainingArguments`.
        adam_beta2 (`float`, *optional*, defaults to 0.99): as in `TrainingArguments`.
        weight_decay (`float`, *optional*, defaults to 0.1): as in `TrainingArguments`.
        max_grad_norm (`float`, *optional*, defaults to 0.2): as in `TrainingArguments`.

    Raises:
        ValueError: for an argument out of range, or batches that are no whole groups.
    """

    num_generations: int = field(default=6, metadata={"help": "Completions of each prompt."})
    num_iterations: int = field(default=12, metadata={"help": "Updates on the same completions."})
    steps_per_generation: int | None = field(default=None, metadata={"help": "Micro-batches written at once."})
    max_prompt_length: int | None = field(default=None, metadata={"help": "Cut longer prompts on their left."})
    use_chat_template: bool = field(default=True, metadata={"help": "Make prompts user messages."})
    max_completion_length: int = field(default=256, metadata={"help": "Tokens of a completion."})
    block_length: int = field(default=32, metadata={"help": "Blocks are filled from left to right."})
    num_inference_steps: int = field(default=128, metadata={"help": "Denoising steps over all blocks."})
    temperature: float = field(default=0.9, metadata={"help": "Of the samples."})
    guidance_scale: float = field(default=1.0, metadata={"help": "Of classifier-free guidance; 1 is none."})
    remasking: str = field(default="low_confidence", metadata={"help": "Which tokens are committed."})
    generation_kwargs: dict | str | None = field(default=None, metadata={"help": "More for the pipeline."})
    sampling_batch_size: int | None = field(default=None, metadata={"help": "Completions written side by side."})
    prompt_mask_probability: float = field(default=0.15, metadata={"help": "Of a mask in the prompt."})
    random_masking: bool = field(default=True, metadata={"help": "New masks in each inner iteration."})
    logprob_estimator: str = field(default="one_step", metadata={"help": "one_step (d1) or elbo."})
    n_mc: int = field(default=4, metadata={"help": "Draws of the evidence lower bound."})
    elbo_draws: str = field(default="stratified", metadata={"help": "stratified, antithetic or independent."})
    exclude_mask_token: bool = field(default=False, metadata={"help": "Give the mask probability zero."})
    beta: float = field(default=0.04, metadata={"help": "Weight of the divergence from the reference."})
    epsilon: float = field(default=0.5, metadata={"help": "How far a ratio may be from 1."})
    epsilon_high: float | None = field(default=None, metadata={"help": "How far above 1."})
    importance_sampling_level: str | None = field(default=None, metadata={"help": "token or sequence."})
    scale_rewards: str = field(default="none", metadata={"help": "none (d1), group or batch."})
    negative_weight: float = field(default=1.0, metadata={"help": "Of advantages below zero."})
    advantage_baseline: str = field(default="group", metadata={"help": "Subtract the group's mean, or none."})
    reward_weights: list[float] | None = field(default=None, metadata={"help": "Of the reward functions."})
    loss_type: str = field(default="dapo", metadata={"help": "dapo, bnpo (d1's code), grpo (paper) or dr_grpo."})
    logits_chunk_size: int | None = field(default=None, metadata={"help": "Tokens whose logits exist at a time."})
    shuffle_dataset: bool = field(default=True, metadata={"help": "Take the prompts in a drawn order."})
    learning_rate: float = field(default=3e-6, metadata={"help": "Of AdamW."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "As in TrainingArguments."})
    adam_beta2: float = field(default=0.99, metadata={"help": "As in TrainingArguments."})
    weight_decay: float = field(default=0.1, metadata={"help": "As in TrainingArguments."})
    max_grad_norm: float = field(default=0.2, metadata={"help": "As in TrainingArguments."})

    _VALID_DICT_FIELDS = [*ReproducibleTrainingArguments._VALID_DICT_FIELDS, "generation_kwargs"]

    def __post_init__(self):
        """Check the arguments and fill in those that follow from others."""
        super().__post_init__()
        options = {
            "advantage_baseline": BASELINES,
            "scale_rewards": SCALINGS,
            "loss_type": LOSS_TYPES,
            "elbo_draws": MASK_DRAWS,
        }
        for name, allowed in {**options, "logprob_estimator": ESTIMATORS}.items():
            check_option(name, getattr(self, name), allowed)
        check_option("remasking", self.remasking, REMASKING)
        for name in (*COUNTS, *(name for name in OPTIONAL_COUNTS if getattr(self, name) is not None)):
            check_integer(name, getattr(self, name))
        for name, bounds in RANGES.items():
            check_number(name, getattr(self, name), *bounds)
        for weight in self.reward_weights or []:
            check_number("reward_weights", weight)
        if self.logprob_estimator == "elbo" and self.elbo_draws == "antithetic" and self.n_mc % 2:
            raise ValueError(f"`n_mc` has to be even for antithetic draws, but is {self.n_mc}.")
        if self.epsilon_high is None:
            self.epsilon_high = self.epsilon
        for name in ("epsilon", "epsilon_high"):
            check_epsilon(name, getattr(self, name))
        if self.importance_sampling_level is None:
            self.importance_sampling_level = "sequence" if self.logprob_estimator == "elbo" else "token"
        check_option("importance_sampling_level", self.importance_sampling_level, LEVELS)
        self._check_batches()

    @property
    def generation_batch_size(self) -> int:
        """Completions that all processes together write at once."""
        return self.per_device_train_batch_size * self.world_size * self.steps_per_generation

    def _check_batches(self) -> None:
        if self.auto_find_batch_size:
            raise ValueError(
                "`auto_find_batch_size` would cut groups apart; lower `per_device_train_batch_size` instead."
            )
        if self.n_gpu > 1:
            raise ValueError(
                f"One process cannot train on {self.n_gpu} GPUs; start one for each with `accelerate launch`, or set "
                "`CUDA_VISIBLE_DEVICES`."
            )
        if self.steps_per_generation is None:
            self.steps_per_generation = self.gradient_accumulation_steps
        check_integer("steps_per_generation", self.steps_per_generation)
        if self.steps_per_generation % self.gradient_accumulation_steps:
            raise ValueError(
                f"`steps_per_generation` {self.steps_per_generation} has to be a multiple of `gradient_accumulation_steps` "
                f"{self.gradient_accumulation_steps}, so that an update sees completions of one generation."
            )
        if self.num_generations < 2:
            raise ValueError(f"`num_generations` has to be at least 2, a group, but is {self.num_generations}.")
        if self.generation_batch_size % self.num_generations:
            raise ValueError(
                f"`num_generations` {self.num_generations} does not divide the {self.generation_batch_size} completions that "
                "`per_device_train_batch_size`, the processes and `steps_per_generation` make; change one of them."
            )
