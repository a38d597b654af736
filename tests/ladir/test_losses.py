"""Flow matching and the other losses, against closed forms and diffusers' scheduler."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.nn.functional import cross_entropy

from ldlm_hf.ladir.losses import (
    PREDICTION_TYPES,
    add_flow_noise,
    answer_loss,
    flow_loss,
    flow_target,
    mean_of_kept,
    predicted_velocity,
    predicted_x0,
    stop_loss,
)
from tests.ladir.tiny_ladir import DIM, LATENTS, randn


Z0, NOISE = randn(5, LATENTS, DIM), randn(5, LATENTS, DIM, seed=1)
TIMES = torch.tensor([0.01, 0.3, 0.5, 0.8, 0.99])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_prediction_of_any_kind_gives_the_velocity_and_the_clean_latents(prediction_type):
    zt = add_flow_noise(Z0, NOISE, TIMES)
    target = flow_target(Z0, NOISE, TIMES, prediction_type)
    velocity = predicted_velocity(target, zt, TIMES, prediction_type)
    torch.testing.assert_close(velocity, NOISE - Z0, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(predicted_x0(velocity, zt, TIMES), Z0, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_velocity_is_finite_at_both_ends_of_time(prediction_type):
    for t in (0.0, 1.0):
        velocity = predicted_velocity(Z0, NOISE, torch.tensor(t), prediction_type)
        assert velocity.isfinite().all()


def test_noise_and_velocity_go_the_way_of_the_stock_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    noised = scheduler.scale_noise(Z0, scheduler.timesteps[1:2], NOISE)
    torch.testing.assert_close(noised, add_flow_noise(Z0, NOISE, torch.full((5,), 0.75)))
    zt = NOISE
    for t in scheduler.timesteps:  # with the true velocity, the path ends in the clean latents
        zt = scheduler.step(flow_target(Z0, NOISE, t / 1000, "flow"), t, zt).prev_sample
    torch.testing.assert_close(zt, Z0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize(("steps", "error", "tolerance"), [(400, 0.0, 0.03), (10, 0.05, 0.6)])
def test_the_velocity_of_a_gaussian_moves_noise_to_it(kind, steps, error, tolerance):
    # For data of mean m and deviation s the best prediction is known, and its path ends in m + s eps. A network's is off.
    mean, deviation, zt = 0.5, 0.9, NOISE
    for step in range(steps):
        t = torch.tensor(1 - step / steps)
        variance = ((1 - t) * deviation) ** 2 + t**2
        noise = t * (zt - (1 - t) * mean) / variance
        z0 = mean + (1 - t) * deviation**2 * (zt - (1 - t) * mean) / variance
        prediction = flow_target(z0, noise + error, t, kind)
        zt = zt - predicted_velocity(prediction, zt, t, kind) / steps
    assert (zt - (mean + deviation * NOISE)).abs().max() < tolerance


def test_blocks_that_are_not_there_count_for_nothing():
    prediction, target = randn(2, 3, 4, LATENTS, DIM), randn(2, 3, 4, LATENTS, DIM, seed=2)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = [(prediction[0, :2] - target[0, :2]).square().mean(), (prediction[1, 0] - target[1, 0]).square().mean()]
    torch.testing.assert_close(flow_loss(prediction, target, mask), torch.stack(expected))


def test_the_answer_counts_its_tokens_and_the_stop_its_blocks():
    logits, labels = randn(2, 4, 7), torch.tensor([[3, 1, -100, -100], [0, 6, 2, 5]])
    expected = torch.stack([cross_entropy(logits[0, :2], labels[0, :2]), cross_entropy(logits[1], labels[1])])
    torch.testing.assert_close(answer_loss(logits, labels), expected)
    stops, mask = randn(2, 3, 2), torch.tensor([[True, True, False], [True, True, True]])
    expected = [cross_entropy(stops[0, :2], torch.tensor([0, 1])), cross_entropy(stops[1], torch.tensor([0, 0, 1]))]
    torch.testing.assert_close(stop_loss(stops, mask), torch.stack(expected))


def test_dropped_rows_do_not_count():
    losses = torch.tensor([1.0, 5.0, 3.0])
    assert mean_of_kept(losses, None) == 3.0
    assert mean_of_kept(losses, torch.tensor([False, True, False])) == 2.0
    assert mean_of_kept(losses, torch.tensor([True, True, True])) == 0.0


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(ValueError, match="prediction_type"):
        flow_target(Z0, NOISE, TIMES, "score")
    with pytest.raises(ValueError, match="prediction_type"):
        predicted_velocity(Z0, NOISE, TIMES, "score")
