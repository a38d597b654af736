"""What the pipeline of masked diffusion returns."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass(frozen=True)
class UnmaskingStep:
    """How the generated part stood after one step.

    Attributes:
        step (`int`): number of the step, from 0.
        sequences (`Tensor` of shape `(batch, gen_length)`): token ids, the mask token where nothing is committed yet; int64.
        committed (`Tensor` of shape `(batch, gen_length)`): which tokens this step wrote; bool.
    """

    step: int
    sequences: Tensor
    committed: Tensor


@dataclass
class MaskedDiffusionPipelineOutput(BaseOutput):
    """What [`MaskedDiffusionPipeline`] returns.

    Attributes:
        sequences (`Tensor` of shape `(batch, gen_length)`): the generated token ids, without the prompt; int64.
        texts (`list[str]`, *optional*): what they read as, up to the first end-of-text token; `None` without a tokenizer.
        nfe (`Tensor` of shape `(batch,)`): forward passes that each row took part in; two a step with guidance; int64.
        tokens_per_forward (`Tensor` of shape `(batch,)`): `gen_length / nfe`; float32.
        num_forwards (`int`): forward passes of the whole batch.
        answers (`list[str | None]`, *optional*): the answer in each text as the pipeline's task reads it.
        trajectory (`list[UnmaskingStep]`, *optional*): for `"trajectory"`, how the tokens stood after each step.
    """

    sequences: Tensor
    texts: list[str] | None
    nfe: Tensor
    tokens_per_forward: Tensor
    num_forwards: int
    answers: list[str | None] | None = None
    trajectory: list[UnmaskingStep] | None = None
