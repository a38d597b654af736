"""Schedulers that diffusers lacks."""

from .scheduling_masked_diffusion import REMASKING, MaskedDiffusionScheduler, MaskedDiffusionSchedulerOutput


__all__ = ["REMASKING", "MaskedDiffusionScheduler", "MaskedDiffusionSchedulerOutput"]
