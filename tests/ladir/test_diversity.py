"""Repulsion between trajectories: its sign and bandwidth, against finite differences of its energy."""

import pytest
import torch

from ldlm_hf.ladir.diversity import RepulsionGuidance, repulsion
from tests.ladir.tiny_ladir import DIM, LATENTS, randn


def energy(points: torch.Tensor, bandwidth: float) -> float:
    """Return the kernel energy by loops, in double precision."""
    total = 0.0
    for i in range(len(points)):
        for j in range(i):
            square = float((points[i] - points[j]).square().sum())
            total += square * torch.tensor(-square / bandwidth**2, dtype=torch.float64).exp().item()
    return total


def median_distance(points: torch.Tensor) -> float:
    distances = sorted(float((points[i] - points[j]).norm()) for i in range(len(points)) for j in range(i))
    middle = len(distances) // 2
    return distances[middle] if len(distances) % 2 else (distances[middle - 1] + distances[middle]) / 2


@pytest.mark.parametrize("count", [3, 4, 6])
def test_the_force_is_the_gradient_of_the_kernel_energy_at_the_median_bandwidth(count):
    points = randn(count, 5, seed=count).double()
    bandwidth, step = median_distance(points), 1e-4
    force = repulsion(points)
    for i in range(count):
        for k in range(5):
            shifted = [points.clone(), points.clone()]
            shifted[0][i, k] += step
            shifted[1][i, k] -= step
            slope = (energy(shifted[0], bandwidth) - energy(shifted[1], bandwidth)) / (2 * step)
            assert force[i, k].item() == pytest.approx(slope, abs=1e-6)


def test_near_points_are_pushed_apart_and_far_ones_together():
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]])
    force = repulsion(points, bandwidth=1.0)
    assert force[0, 0] < 0 < force[1, 0]  # added to the latents, it widens the near pair
    moved = points + 0.1 * force
    assert (moved[0] - moved[1]).norm() > (points[0] - points[1]).norm()
    assert repulsion(points[1:], bandwidth=2.0)[0, 0] > 0  # beyond the bandwidth it attracts


def test_a_mean_over_the_others_does_not_grow_with_their_number():
    points = randn(6, 8)
    torch.testing.assert_close(repulsion(points, "mean") * 5, repulsion(points, "sum"))


def test_the_forces_of_a_group_balance_and_equal_points_feel_none():
    assert repulsion(randn(7, 4)).sum(0).abs().max() < 1e-5
    assert repulsion(torch.ones(4, 3)).abs().max() == 0


def test_two_trajectories_at_the_median_distance_feel_nothing_and_are_refused():
    assert repulsion(randn(2, 4)).abs().max() < 1e-6
    guidance = RepulsionGuidance(0.5)
    assert guidance.push(randn(2, LATENTS, DIM), torch.zeros(2, dtype=torch.long), 1.0, 0.1).abs().max() == 0
    with pytest.raises(ValueError, match="diversity_scale"):
        guidance.check_count(2)
    guidance.check_count(3)
    RepulsionGuidance(0.0).check_count(1)


@pytest.mark.parametrize(("unit", "factor"), [("one", 1.0), ("dt", 0.05)])
def test_a_push_is_strongest_early_and_only_among_the_same_question(unit, factor):
    latents, questions = randn(7, LATENTS, DIM), torch.tensor([4, 9, 4, 9, 4, 9, 2])
    push = RepulsionGuidance(0.3, step_unit=unit).push(latents, questions, 0.8, 0.05)
    for question in (4, 9):
        rows = questions == question
        expected = 0.3 * 0.8 * factor * repulsion(latents[rows].flatten(1)).view(3, LATENTS, DIM)
        torch.testing.assert_close(push[rows], expected)
    assert push[questions == 2].abs().max() == 0


@pytest.mark.parametrize("arguments", [{"normalization": "median"}, {"step_unit": "step"}])
def test_unknown_options_are_refused(arguments):
    with pytest.raises(ValueError, match="diversity"):
        RepulsionGuidance(0.1, **arguments)
