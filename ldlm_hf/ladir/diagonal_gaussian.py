"""The posterior of a block's latents: a normal distribution of independent coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..arguments import check_shapes


@dataclass(frozen=True)
class DiagonalGaussian:
    """A normal distribution of independent coordinates.

    Attributes:
        mean (`Tensor` of shape `(batch, …)`): its means, float32.
        log_variance (`Tensor` of the same shape): logarithms of its variances, float32.
    """

    mean: Tensor
    log_variance: Tensor

    def __post_init__(self):
        """Check that the tensors are alike."""
        check_shapes(mean=(self.mean, "float: batch …"), log_variance=(self.log_variance, "float: batch …"))

    @property
    def std(self) -> Tensor:
        """Standard deviations."""
        return (0.5 * self.log_variance).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """Return the sample that standard normal `noise` of the mean's shape stands for."""
        check_shapes(mean=(self.mean, "…"), noise=(noise, "…"))
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """Return `KL(self || N(0, I))` in nats of each row, summed over its coordinates: `(batch,)`."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).flatten(1).sum(1)
