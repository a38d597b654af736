"""Which schedulers of diffusers the pipeline samples with, and which it refuses because they cannot work on latents.

Measured with an exact denoiser of a mixture of 16 Gaussians of standard deviation 0.100 (`tests/ldlm/test_schedulers.py`);
what the samples of a mode have, with trailing timesteps:

| scheduler | 10 steps | 50 | 250 |
|---|---|---|---|
| DDPM, fixed_small | 0.047 | 0.079 | 0.094 |
| DDPM, learned_range, the best variance for these steps | 0.100 | 0.100 | 0.100 |
| DDPM, learned_range, the best variance for all T steps | 0.050 | 0.090 | 0.100 |
| DDIM, Euler | 0.051 | 0.087 | 0.097 |
| DPM-Solver++, UniPC | 0.051 | 0.093 | 0.100 |
| DEIS | 0.056 | 0.103 | 0.101 |

DDIM steps by `T // num_inference_steps`, so a number of steps that does not divide T makes its samples too wide (0.124 at
300), and so does `timestep_spacing="linspace"` at few steps.
"""

from __future__ import annotations

import inspect

import diffusers
from diffusers import DDPMParallelScheduler, DDPMScheduler, SchedulerMixin, UnCLIPScheduler


DOCUMENTED_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
)
# With a cosine schedule sigma starts at 2e4, where a second evaluation of the slope ruins the first steps. At 10 steps with the
# exact denoiser Heun has a standard deviation of 3.6 in place of 0.1 (and is a quarter off the modes' frequencies even at 50),
# KDPM2 with ancestral noise one of 0.22, KDPM2 misses modes if epsilon is predicted; neither KDPM2 reads a predicted x0.
SECOND_ORDER_SCHEDULERS = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
LEARNED_VARIANCE_SCHEDULERS = (DDPMScheduler, DDPMParallelScheduler, UnCLIPScheduler)


def check_scheduler(scheduler: SchedulerMixin, learned_variance: bool) -> None:
    """Raise `ValueError`, saying what to do, unless `scheduler` can sample latents.

    Args:
        scheduler (`SchedulerMixin`): of diffusers.
        learned_variance (`bool`): whether the denoiser predicts a variance.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name in SECOND_ORDER_SCHEDULERS or not hasattr(scheduler, "alphas_cumprod"):
        is_known = name in SECOND_ORDER_SCHEDULERS
        reason = "is of second order in sigma, which fails on latents" if is_known else "does not noise as DDPM does"
        raise ValueError(f"`scheduler` {name} {reason}; use one of {', '.join(DOCUMENTED_SCHEDULERS)}.")
    if config.get("clip_sample", False) or config.get("thresholding", False):
        raise ValueError(
            f"`scheduler` {name} clips samples, which latents do not survive; make it with "
            "`from_config(pipe.scheduler.config, clip_sample=False, thresholding=False)`."
        )
    if config.get("timestep_spacing") == "leading":
        raise ValueError(
            f"`scheduler` {name} has timestep_spacing 'leading', which starts from pure noise at a timestep below T "
            "(as low as T / 2), and so misses modes; make it with "
            "`from_config(pipe.scheduler.config, timestep_spacing='trailing')`."
        )
    if wants_variance(scheduler) and not learned_variance:
        raise ValueError(
            f"`scheduler` wants a learned variance (variance_type {config.variance_type!r}), but the denoiser has none; "
            'use `variance_type="fixed_small"`.'
        )
    is_learned = str(config.get("variance_type")).startswith("learned")
    reads_it = "variance_type" in inspect.signature(type(scheduler).__init__).parameters
    if is_learned and reads_it and not wants_variance(scheduler) and config.prediction_type == "epsilon":
        raise ValueError(
            f"`scheduler` {name} cuts an epsilon prediction in two where `variance_type` is learned; make it with "
            "`from_config(pipe.scheduler.config, variance_type=None)`."
        )


def wants_variance(scheduler: SchedulerMixin) -> bool:
    """Return whether `scheduler` reads a prediction and a variance, one after the other along the sequence."""
    # Other schedulers carry `variance_type` over by `from_config` but cannot read a doubled output.
    is_learned = str(scheduler.config.get("variance_type")).startswith("learned")
    return is_learned and isinstance(scheduler, LEARNED_VARIANCE_SCHEDULERS)


def takes_generator(scheduler: SchedulerMixin) -> bool:
    """Return whether the steps of `scheduler` draw noise."""
    return "generator" in inspect.signature(scheduler.step).parameters


def make_sampler(own: SchedulerMixin, name: str | None = None, variance_type: str | None = None) -> SchedulerMixin:
    """Return a scheduler that samples from what was trained with `own`.

    Args:
        own (`SchedulerMixin`): the scheduler of the training.
        name (`str`, *optional*): one of `DOCUMENTED_SCHEDULERS`; the class of `own` by default.
        variance_type (`str`, *optional*): such as `"fixed_small"`; that of `own` by default.

    Raises:
        ValueError: for another name.
    """
    if name is not None and name not in DOCUMENTED_SCHEDULERS:
        raise ValueError(f"`scheduler` has to be one of {DOCUMENTED_SCHEDULERS}, but is {name!r}.")
    scheduler_class = type(own) if name is None else getattr(diffusers, name)
    changes = {} if variance_type is None else {"variance_type": variance_type}
    return scheduler_class.from_config({**own.config, **changes})
