"""What happens after a denoising step beside denoising: callbacks, the progress bar, and estimates that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from diffusers import DiffusionPipeline
from torch import Tensor
from tqdm.std import tqdm

from ..arguments import check_changes


@dataclass(frozen=True)
class Estimate:
    """What unfinished trajectories estimated a block to be at one step.

    Attributes:
        block (`int`): number of the block.
        timestep (`float`): of the scheduler.
        rows (`Tensor` of shape `(rows,)`): numbers of the trajectories, int64.
        latents (`Tensor` of shape `(rows, latents_per_block, latent_dim)`): the estimates, float32.
    """

    block: int
    timestep: float
    rows: Tensor
    latents: Tensor


@dataclass
class StepObserver:
    """Called after every step of every block.

    Args:
        pipeline (`DiffusionPipeline`): handed to the callback.
        callback (`Callable`, *optional*): as `callback_on_step_end` of a pipeline's call.
        tensor_inputs (`list[str]`): which tensors it gets.
        progress (`tqdm`): advanced by one.
        keeps_estimates (`bool`): whether `estimates` are kept.
    """

    pipeline: DiffusionPipeline
    callback: Callable[[DiffusionPipeline, int, int, dict], dict] | None
    tensor_inputs: list[str]
    progress: tqdm
    keeps_estimates: bool
    estimates: list[Estimate] = field(default_factory=list)
    num_steps: int = 0
    _place: tuple[int, Tensor] | None = None

    def begin(self, block: int, rows: Tensor) -> None:
        """Take note that the next steps are those of a block and the given `(rows,)` trajectories."""
        self._place = block, rows

    def __call__(self, timestep: Tensor, latents: Tensor, estimate: Tensor) -> Tensor:
        """Take note of a step.

        Args:
            timestep (`Tensor` of shape `()`): of the scheduler, before the step.
            latents (`Tensor` of shape `(rows, latents_per_block, latent_dim)`): after it.
            estimate (`Tensor` of the same shape): of the clean block, made in it.

        Returns:
            `Tensor` of the same shape: the latents, as the callback left them.
        """
        if self.callback is not None:
            tensors = {"latents": latents, "estimate": estimate}
            given = {name: tensors[name] for name in self.tensor_inputs}
            changed = self.callback(self.pipeline, self.num_steps, timestep, given)
            latents = check_changes(changed, {"latents": latents}).get("latents", latents)
        if self.keeps_estimates:
            block, rows = self._place
            self.estimates.append(Estimate(block, float(timestep), rows, estimate))
        self.num_steps += 1
        self.progress.update()
        return latents
