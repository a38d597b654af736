"""Exponential moving average of the weights, kept beside the model and saved as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers.training_utils import EMAModel
from torch import nn
from transformers import TrainerCallback

from .checkpoints import has_adapters, load_weights


EMA_FOLDER = "ema"


class EMACallback(TrainerCallback):
    """Updates the average after every optimizer step; `decay` warms up as `(1 + step) / (10 + step)`."""

    def __init__(self, model: nn.Module, decay: float):
        """Start the average at the weights of `model`; `decay` lies in `[0, 1)`."""
        if not 0 <= decay < 1:
            raise ValueError(f"`ema_decay` has to lie in [0, 1), but is {decay}.")
        self.model = model
        self.average = EMAModel(self._parameters(), decay=decay, foreach=True)

    def on_train_begin(self, args, state, control, **kwargs):
        """Move the average to where the model is."""
        self.average.to(next(self.model.parameters()).device)

    def on_step_end(self, args, state, control, **kwargs):
        """Take one step of the average."""
        self.average.step(self._parameters())

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Put the averaged weights into the model for the duration of a `with` block."""
        self.average.store(self._parameters())
        self.average.copy_to(self._parameters())
        try:
            yield self.model
        finally:
            self.average.restore(self._parameters())

    def save(self, folder: Path) -> None:
        """Save the averaged model under `folder/ema`, loadable by its class like any other."""
        with self.applied() as model:
            model.save_pretrained(folder / EMA_FOLDER)

    def load(self, folder: Path, step: int) -> None:
        """Take the average up again as it was at optimizer step `step`.

        Raises:
            OSError: if `folder` holds no averaged model.
        """
        if not (folder / EMA_FOLDER).is_dir():
            raise OSError(f"{folder} has no folder {EMA_FOLDER!r}: it was saved by a run without `ema_decay`.")
        device = self.average.shadow_params[0].device
        self.average.store(self._parameters())
        try:
            load_weights(self.model, folder / EMA_FOLDER)
            self.average.shadow_params = [parameter.detach().to(device, copy=True) for parameter in self._parameters()]
        finally:
            self.average.restore(self._parameters())
        self.average.optimization_step = step

    def _parameters(self) -> list[nn.Parameter]:
        """Return what is averaged: everything, but of a model with adapters only those, not the many weights beneath."""
        if not has_adapters(self.model):
            return list(self.model.parameters())
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
