"""Sharing through a Hub: push, pull, and what users get when it goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from transformers import AutoModel

import ldlm_hf
from ldlm_hf import LatentDiT, LatentReasoningPipeline, TextLatentAutoencoder
from tests.fake_hub import Fault
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline


NAME = "tester/tiny"
MAKERS = {LatentDiT: tiny_denoiser, TextLatentAutoencoder: tiny_autoencoder, LatentReasoningPipeline: tiny_pipeline}
WEIGHTS = {
    LatentDiT: r"/diffusion_pytorch_model\.safetensors$",
    TextLatentAutoencoder: r"/model\.safetensors$",
    LatentReasoningPipeline: r"/denoiser/diffusion_pytorch_model\.safetensors$",
}
every_class = pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)


def push(cls, **kwargs):
    """Push a tiny one and return it."""
    pushed = MAKERS[cls]()
    pushed.push_to_hub(NAME, **kwargs)
    return pushed


def weights(thing) -> dict[str, torch.Tensor]:
    """Return every tensor of a model or a pipeline."""
    if isinstance(thing, LatentReasoningPipeline):
        parts = {"autoencoder": thing.autoencoder, "denoiser": thing.denoiser}
        return {f"{part}.{name}": value for part, model in parts.items() for name, value in weights(model).items()}
    return thing.state_dict()


def assert_same_weights(one, other) -> None:
    """Fail unless two models or pipelines are equal bit by bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@every_class
def test_what_is_pushed_comes_back_bit_by_bit(hub, tmp_path, cls):
    pushed = push(cls)
    assert_same_weights(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))
