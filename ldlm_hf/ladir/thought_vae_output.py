"""What the thought VAE returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class ThoughtVAEOutput(ModelOutput):
    """What `ThoughtVAE.forward` returns.

    Attributes:
        loss (`Tensor` of shape `()`): `reconstruction_loss + readout_weight * readout_loss + kl_weight * kl`.
        reconstruction_loss (`Tensor` of shape `()`): cross-entropy in nats per token, the mean over blocks.
        kl (`Tensor` of shape `()`): KL divergence from the standard normal in nats, the mean over blocks.
        logits (`Tensor` of shape `(batch, length + 1, vocabulary)`): scores of each token and of the end after the
            last.
        latents (`Tensor` of shape `(batch, latents_per_block, latent_dim)`): what was decoded, noise included; not
            standardised, float32.
        readout_loss (`Tensor` of shape `()`, *optional*): cross-entropy of the readout in nats per token, the mean over blocks.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    kl: Tensor | None = None
    logits: Tensor | None = None
    latents: Tensor | None = None
    readout_loss: Tensor | None = None
