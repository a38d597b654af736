"""d1: reinforcement of masked diffusion language models by diffu-GRPO."""

from .configuration_diffu_grpo import DiffuGRPOConfig
from .estimators import (
    draw_completion_masking,
    draw_prompt_masking,
    draw_trajectory_steps,
    elbo_log_probs,
    one_step_log_probs,
    trajectory_log_probs,
)
from .losses import group_advantages
from .trainer_diffu_grpo import DiffuGRPOTrainer


__all__ = [
    "DiffuGRPOConfig",
    "DiffuGRPOTrainer",
    "draw_completion_masking",
    "draw_prompt_masking",
    "draw_trajectory_steps",
    "elbo_log_probs",
    "group_advantages",
    "one_step_log_probs",
    "trajectory_log_probs",
]
