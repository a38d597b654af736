"""A few calls of each pipeline leave nothing behind; a call that does is found by one of the measures."""

import pytest
import torch

from tests.faults.memory import MOST_BYTES, Held, growth, growth_of_pipeline, resident_bytes
from tests.faults.threads import OPTIONS, make_pipelines


@pytest.fixture(scope="module")
def pipelines():
    return make_pipelines()


@pytest.mark.parametrize("name", OPTIONS)
def test_calls_leave_nothing_behind(pipelines, name):
    grown = growth_of_pipeline(name, pipelines[name], 30, 30)
    assert grown.is_flat, grown


def test_a_tensor_a_call_is_found():
    kept = []
    grown = growth(lambda number: kept.append(torch.zeros(1)), 5, 20)
    assert grown.tensors == 20 and not grown.is_flat


def test_an_object_a_call_is_found():
    kept = []
    grown = growth(lambda number: kept.append([kept]), 5, 200)
    assert grown.tensors == 0 and grown.objects >= 200 and not grown.is_flat


def test_memory_outside_of_python_objects_is_found():
    kept = []
    grown = growth(lambda number: kept.append(b"x" * (8 * MOST_BYTES)), 1, 8)
    assert grown.tensors == 0 and not grown.is_flat
    assert grown.bytes > 48 * MOST_BYTES  # of 64; the process may give some of its own back meanwhile


def test_what_a_call_frees_does_not_count():
    assert growth(lambda number: torch.zeros(1 << 20).sum(), 2, 20).is_flat


def test_growth_is_a_difference():
    assert Held(3, 20, 300).since(Held(1, 5, 100)) == Held(2, 15, 200)
    assert resident_bytes() > 50 << 20  # torch alone takes more
