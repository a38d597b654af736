"""Repulsion between the trajectories of one question (paper, §3.4), and what tames its formula.

`F(z_i) = sum_j 2 (1 - d_ij^2 / sigma^2) exp(-d_ij^2 / sigma^2) (z_i - z_j)`, `sigma` the median distance, is the
gradient of `sum_{i<j} d_ij^2 exp(-d_ij^2 / sigma^2)`, so it is *added to the latents* (subtracted from the velocity it
would attract). Its optimum is at `d = sigma`: pairs that are further apart than the median attract each other, and in
high dimensions, where all noise is equally far apart, it does little before modes form. With two trajectories the only
distance is the median, and the force is zero, hence at least three.

What differs from the paper: the sum over the other trajectories grows with their number, so a mean is offered; and the
force of a step can be scaled by its length, so that more steps do not repel more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import check_field_types, check_integer, check_number, check_option, check_shapes, checked


NORMALIZATIONS = ("sum", "mean")
STEP_UNITS = ("one", "dt")
FEWEST = 3  # trajectories that can repel each other
MOST_SCALE = 1e6  # of what is added in every step
MOST_BANDWIDTH = 1e18  # what can be squared in float32


@dataclass(frozen=True)
class RepulsionGuidance:
    """How strongly trajectories of the same question repel each other.

    Args:
        scale (`float`, *optional*, defaults to 0.0): `gamma_max`; the force is scaled by `gamma_max t`, most at the
            start. The paper's best are 0.3 to 0.5, with 100 trajectories and 50 steps; 0 is none, below 0 attracts.
        normalization (`str`, *optional*, defaults to `"sum"`): over the other trajectories: `"sum"` (paper) or
            `"mean"`.
        step_unit (`str`, *optional*, defaults to `"one"`): the force of a step counts once (paper), or times the
            length of the step (`"dt"`).

    Raises:
        ValueError: for an unknown option, or a scale that is no finite number.
    """

    scale: float = 0.0
    normalization: str = "sum"
    step_unit: str = "one"

    def __post_init__(self):
        """Check the options."""
        check_field_types(self)
        check_number("diversity_scale", self.scale, -MOST_SCALE, MOST_SCALE)
        check_option("diversity_normalization", self.normalization, NORMALIZATIONS)
        check_option("diversity_step_unit", self.step_unit, STEP_UNITS)

    def check_count(self, num_trajectories: int) -> None:
        """Raise `ValueError` if there is to be repulsion between fewer than three trajectories."""
        check_integer("num_trajectories", num_trajectories)
        if self.scale != 0 and num_trajectories < FEWEST:
            raise ValueError(
                f"`diversity_scale` is {self.scale}, but `num_trajectories` {num_trajectories}: two trajectories are "
                f"at the median distance, where the force is zero; use at least {FEWEST}."
            )

    @checked
    def push(self, latents: Tensor, questions: Tensor, t: float, step_length: float) -> Tensor:
        """Return what a step from time `t` adds to the latents, of their shape.

        Args:
            latents (`Tensor` of shape `(rows, latents_per_block, latent_dim)`): before the step, of all trajectories
                that are not finished; float32.
            questions (`Tensor` of shape `(rows,)`): number of the question of each; int64.
            t (`float`): time before the step, from 1 down.
            step_length (`float`): how far the step goes.
        """
        check_shapes(latents=(latents, "rows latents_per_block latent_dim"), questions=(questions, "int64: rows"))
        check_number("t", t, 0, 1)
        check_number("step_length", step_length, 0, 1)
        strength = self.scale * t * (step_length if self.step_unit == "dt" else 1.0)
        force = torch.zeros_like(latents)
        for question in questions.unique().tolist():
            rows = (questions == question).nonzero().squeeze(1)
            if len(rows) >= FEWEST:
                force[rows] = repulsion(latents[rows].flatten(1), self.normalization).to(force).view_as(force[rows])
        return strength * force


@checked
def repulsion(points: Tensor, normalization: str = "sum", bandwidth: float | None = None) -> Tensor:
    """Return the force on each of several points; two feel none, unless the bandwidth is given.

    Args:
        points (`Tensor` of shape `(count, dim)`): whole blocks, flattened; float32.
        normalization (`str`, *optional*, defaults to `"sum"`): over the other points: `"sum"` or `"mean"`.
        bandwidth (`float`, *optional*): `sigma`; the median distance of two points by default.

    Returns:
        `Tensor` of shape `(count, dim)`, float32.

    Raises:
        ValueError: for fewer points, an unknown `normalization`, or a `bandwidth` that is no number of at least 0.
    """
    check_option("normalization", normalization, NORMALIZATIONS)
    if check_shapes(points=(points, "float: count dim"))["count"] < 2:
        raise ValueError(f"`points` has to be two or more, but is {len(points)}.")
    if bandwidth is not None:
        check_number("bandwidth", bandwidth, 0, MOST_BANDWIDTH)
    points = points.float()
    differences = points[:, None] - points[None, :]  # (count, count, dim)
    squares = differences.square().sum(-1)
    if bandwidth is None:
        first, second = torch.triu_indices(len(points), len(points), offset=1, device=points.device)
        bandwidth = squares[first, second].sqrt().quantile(0.5)
    ratio = squares / max(float(bandwidth) ** 2, 1e-12)  # points that all coincide feel nothing
    force = (2 * (1 - ratio) * torch.exp(-ratio))[..., None] * differences
    return force.sum(1) if normalization == "sum" else force.sum(1) / (len(points) - 1)
