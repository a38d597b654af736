"""Losses that are no numbers stop a training: transformers' `logging_nan_inf_filter` would write the mean of others in their place."""

from __future__ import annotations

import math

import torch
from torch import Tensor


MOST_UNSEEN = 500  # losses that are not looked at yet


class LossWatch:
    """Looks at the loss of each step: at once on the CPU, and elsewhere when asked, so that no step waits for the device."""

    def __init__(self) -> None:
        """Start without any."""
        self._unseen: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Take a loss.

        Args:
            step (`int`): its number, from 1.
            loss (`Tensor` of shape `()`): of a micro-batch.

        Raises:
            ValueError: as `check`, if it is the time to look.
        """
        self._unseen.append((step, loss.detach()))
        if loss.device.type == "cpu" or len(self._unseen) >= MOST_UNSEEN:
            self.check()

    def check(self) -> None:
        """Raise `ValueError`, naming step and loss, if any loss since the last check was NaN or infinite."""
        losses, self._unseen = self._unseen, []
        values = torch.stack([loss.float() for _, loss in losses]).tolist() if losses else []
        for (step, _), value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"The loss of step {step} is {value}, so the training was stopped before it was logged or saved. Lower "
                    "`learning_rate` or `max_grad_norm`, use bf16 in place of fp16, or look for NaN in the data and weights; "
                    "`resume_from_checkpoint=True` goes on from the last checkpoint."
                )
