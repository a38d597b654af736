"""What a denoiser costs: operations as counted by hand and by torch, and a model of time that finds what made it."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldlm_hf import LatentDiT
from ldlm_hf.ldlm.cost import CostModel, count_flops, fit_cost_model
from tests.tiny import LATENT_DIM, LATENT_LENGTH, tiny_denoiser


CONDITIONINGS = ["in_context", "cross_attention", "adaln_zero"]


def counted_by_torch(model: LatentDiT, batch: int, training: bool) -> int:
    """Return what torch counts in a forward pass, or a forward and a backward pass."""
    xt, condition, estimate = (torch.randn(batch, LATENT_LENGTH, LATENT_DIM) for _ in range(3))
    given = {"previous_estimate": estimate} if model.config.self_conditioning else {}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the one whose products it counts
        output = model(xt, torch.zeros(batch), condition, **given)
        if training:
            sum(field.float().square().sum() for field in output.to_tuple()).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("conditioning", "flops"),
    [
        # Twice: modulation 6 x 768², projections and feed-forward 12 x 32 x 768², scores and values 2 x 32² x 768.
        ("in_context", 2 * (3_538_944 + 226_492_416 + 1_572_864)),
        # Half the tokens; and for the prompt's 16: four projections 4 x 16 x 768², scores and values 2 x 16² x 768.
        ("cross_attention", 2 * (3_538_944 + 113_246_208 + 393_216 + 37_748_736 + 393_216)),
        ("adaln_zero", 2 * (3_538_944 + 113_246_208 + 393_216)),
    ],
)
def test_a_block_of_the_papers_size_is_counted_as_by_hand(conditioning, flops):
    with torch.device("meta"):
        one, two = (LatentDiT(num_layers=depth, conditioning=conditioning) for depth in (1, 2))
    assert count_flops(two, 1) - count_flops(one, 1) == flops
    assert count_flops(two, 128) - count_flops(one, 128) == 128 * flops
    assert count_flops(two, 1, training=True) - count_flops(one, 1, training=True) == 3 * flops


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"learned_variance": True, "self_conditioning": True, "diffusion_length": 8, "mlp_ratio": 2}],
    ids=["plain", "everything"],
)
def test_all_of_a_denoiser_is_counted_as_torch_counts_it(conditioning, arguments, training):
    model = tiny_denoiser(conditioning=conditioning, **arguments)
    assert count_flops(model, 3, training=training) == counted_by_torch(model, 3, training)


def test_a_fit_finds_the_rate_and_the_overhead_that_made_the_times():
    truth = CostModel(rate=9e10, seconds_per_layer=0.02)
    flops, layers = [1e9, 1e10, 1e10, 4e11], [1, 2, 6, 24]
    times = [truth.seconds(*work) for work in zip(flops, layers, strict=True)]
    model = fit_cost_model(flops, layers, times)
    assert model.rate == pytest.approx(9e10, rel=1e-6)
    assert model.seconds_per_layer == pytest.approx(0.02, rel=1e-6)
    assert model.seconds(1e10, 2, num_passes=5) == pytest.approx(5 * times[1], rel=1e-6)


def test_an_overhead_is_never_negative():
    model = fit_cost_model([1e9, 1e10, 1e11], [1, 1, 1], [0.009, 0.1, 1.1])
    assert model.seconds_per_layer == 0
    assert 9e10 < model.rate < 1.1e11


@pytest.mark.parametrize(
    ("flops", "layers", "seconds"),
    [([1e9], [1], [0.1]), ([1e9, 2e9], [1, 2], [0.1, 0.2]), ([1e9, 2e9], [1, 1], [0.1, 0.0])],
    ids=["one", "equal per layer", "no time"],
)
def test_times_that_say_nothing_are_refused(flops, layers, seconds):
    with pytest.raises(ValueError, match="flops|seconds"):
        fit_cost_model(flops, layers, seconds)
