"""What the pipeline of latent reasoning returns."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass(frozen=True)
class DenoisingStep:
    """What a prompt's answer was estimated to be at one denoising step, before it went on.

    Attributes:
        timestep (`int`): how noisy the latents were that the estimate was made from, in `[0, T)`.
        texts (`list[str]`): the estimate for each prompt, written out.
        answers (`list[str | None]`): the answer in each text, `None` where it holds no valid one.
        latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): the estimate of x0, float32.
    """

    timestep: int
    texts: list[str]
    answers: list[str | None]
    latents: Tensor


@dataclass
class LatentReasoningPipelineOutput(BaseOutput):
    """What [`LatentReasoningPipeline`] returns.

    Attributes:
        texts (`list[str]`, *optional*): what was written for each prompt, answer and chain; `None` for `"latent"`.
        answers (`list[str | None]`, *optional*): the answer in each text, `None` where it holds no valid one.
        latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): the denoised latents, float32; for `"latent"`, where
            nothing can be chosen, those of all `batch x num_samples` samples, the samples of a prompt one after the other.
        tokens (`Tensor` of shape `(batch, length)`, *optional*): the written token ids, each row padded after its end;
            `None` for `"latent"`.
        samples (`list[list[str]]`, *optional*): all `num_samples` texts of each prompt, of which `texts` are the chosen ones.
        trajectory (`list[DenoisingStep]`, *optional*): for `"trajectory"`, the estimate of the chosen sample at each step.
    """

    texts: list[str] | None
    answers: list[str | None] | None
    latents: Tensor
    tokens: Tensor | None = None
    samples: list[list[str]] | None = None
    trajectory: list[DenoisingStep] | None = None


def keep_rows(
    output: LatentReasoningPipelineOutput, rows: list[int], num_samples: int, steps: list[DenoisingStep] | None
) -> LatentReasoningPipelineOutput:
    """Return what stands in the chosen rows, with the texts of all samples and the trajectory beside it."""
    samples = [output.texts[start : start + num_samples] for start in range(0, len(output.texts), num_samples)]
    return LatentReasoningPipelineOutput(
        texts=[output.texts[row] for row in rows],
        answers=[output.answers[row] for row in rows],
        latents=output.latents[rows],
        tokens=None if output.tokens is None else output.tokens[rows],
        samples=samples,
        trajectory=steps,
    )
