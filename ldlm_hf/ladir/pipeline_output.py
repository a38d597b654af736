"""What the pipeline of LaDiR returns."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass(frozen=True)
class ThoughtStep:
    """What a block was estimated to be at one denoising step, before it went on.

    Attributes:
        block (`int`): number of the block, from 0 on.
        timestep (`float`): how noisy the latents were that the estimate was made from, from the scheduler's T down.
        texts (`list[str | None]`): the estimate for each prompt, decoded by the VAE; `None` where its trajectory was
            finished.
        latents (`Tensor` of shape `(batch, latents_per_block, latent_dim)`): the estimate `z_t - t u`, float32; zero
            there.
    """

    block: int
    timestep: float
    texts: list[str | None]
    latents: Tensor


@dataclass
class LaDiRPipelineOutput(BaseOutput):
    """What [`LaDiRPipeline`] returns.

    Attributes:
        texts (`list[str]`, *optional*): the answer that the chosen trajectory of each prompt wrote; `None` for
            `"latent"`.
        answers (`list[str | None]`, *optional*): the answer in each text, `None` where it holds no valid one.
        latents (`Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`): the blocks of the chosen
            trajectories, float32, zero behind the last block of each; for `"latent"`, where nothing can be chosen,
            those of all `batch x num_trajectories`, the trajectories of a prompt one after the other.
        num_blocks (`Tensor` of shape `(batch,)`): how many blocks each has, int64; for all trajectories where
            `latents` is.
        thoughts (`list[list[str]]`, *optional*): the blocks of the chosen trajectories, decoded by the VAE; `None` for
            `"latent"`, or without a VAE.
        samples (`list[list[str]]`, *optional*): the texts of all trajectories of each prompt, of which `texts` are
            chosen.
        trajectory (`list[ThoughtStep]`, *optional*): for `"trajectory"`, the estimate of each block at each step.
    """

    texts: list[str] | None
    answers: list[str | None] | None
    latents: Tensor
    num_blocks: Tensor
    thoughts: list[list[str]] | None = None
    samples: list[list[str]] | None = None
    trajectory: list[ThoughtStep] | None = None
