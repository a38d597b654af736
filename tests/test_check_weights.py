"""Weights in memory: one that is NaN or infinite is found wherever it is and however it came there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ldlm_hf.loading import MOST_SMALL_ELEMENTS, check_weights
from tests.llada.tiny_llada import tiny_llada


NAN = float("nan")


def by_an_optimizer(model: nn.Module) -> None:
    """Take a step along a gradient that is none."""
    model.lm_head.weight.grad = torch.full_like(model.lm_head.weight, NAN)
    torch.optim.SGD([model.lm_head.weight], lr=0.1).step()


def in_inference_mode(model: nn.Module) -> None:
    """Change one in place, where nothing is recorded."""
    with torch.inference_mode():
        model.lm_head.weight[1, 2] = NAN


def behind_its_back(model: nn.Module) -> None:
    """Change one in a way that torch does not count."""
    model.lm_head.weight.data[1, 2] = NAN


def by_another_parameter(model: nn.Module) -> None:
    """Replace a parameter, and free the one before first."""
    shape = model.lm_head.weight.shape
    del model.lm_head.weight
    model.lm_head.weight = nn.Parameter(torch.full(shape, NAN))


def by_a_buffer(model: nn.Module) -> None:
    """Add a buffer."""
    model.register_buffer("extra", torch.tensor([0.0, NAN]))


CHANGES = (by_an_optimizer, in_inference_mode, behind_its_back, by_another_parameter, by_a_buffer)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_spoils_weights_that_were_sound_is_found(change):
    model = tiny_llada()
    for _ in range(2):
        check_weights("model", model)
    change(model)
    for _ in range(2):  # what was refused is refused again
        with pytest.raises(ValueError, match="`model` has weights that are NaN or infinite"):
            check_weights("model", model)


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_small_and_large_tensors_of_any_dtype_are_looked_at(dtype, value):
    sizes = (1, 7, MOST_SMALL_ELEMENTS, MOST_SMALL_ELEMENTS + 1, 3 * MOST_SMALL_ELEMENTS)
    most = torch.finfo(dtype).max if dtype != torch.float64 else 3e38
    model = nn.ParameterList([nn.Parameter(torch.full((size,), most, dtype=dtype)) for size in sizes])
    model.append(nn.Parameter(torch.full((2, 3), -1e9)))  # of another dtype
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("nothing", torch.zeros(0))
    check_weights("model", model)
    for parameter in model:
        kept = parameter.detach().clone()
        parameter.data.view(-1)[-1] = value
        with pytest.raises(ValueError, match="`model` has weights"):
            check_weights("model", model)
        parameter.data.copy_(kept)
    check_weights("model", model)
