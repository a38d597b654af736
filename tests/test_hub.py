"""Sharing through a Hub: what is pushed comes back, and what goes wrong says so and leaves nothing behind that loads."""

from __future__ import annotations

import re

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ldlm_hf import (
    HexPipeline,
    LaDiRConfig,
    LaDiRForReasoning,
    LaDiRPipeline,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAForMaskedDiffusion,
    MaskedDiffusionPipeline,
    TextLatentAutoencoder,
    TextLatentAutoencoderConfig,
    ThoughtVAE,
    ThoughtVAEConfig,
)
from ldlm_hf.pipeline import ReasoningPipeline
from tests.fake_hub import Fault
from tests.faults.hub import noted_waits
from tests.hex.tiny_hex import tiny_hex_pipeline
from tests.ladir.tiny_ladir import tiny_pipeline as tiny_ladir_pipeline
from tests.ladir.tiny_ladir import tiny_reasoner, tiny_vae
from tests.llada.tiny_llada import tiny_llada, tiny_masked_pipeline
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline


NAME = "tester/tiny"
MAKERS = {
    LatentDiT: tiny_denoiser,
    TextLatentAutoencoder: tiny_autoencoder,
    LatentReasoningPipeline: tiny_pipeline,
    LLaDAForMaskedDiffusion: tiny_llada,
    MaskedDiffusionPipeline: tiny_masked_pipeline,
    HexPipeline: lambda: tiny_hex_pipeline()[0],
    ThoughtVAE: tiny_vae,
    LaDiRForReasoning: tiny_reasoner,
    LaDiRPipeline: tiny_ladir_pipeline,
}
CONFIGURATIONS = {
    LatentDiT: "config.json",
    TextLatentAutoencoder: "config.json",
    LatentReasoningPipeline: "model_index.json",
    LLaDAForMaskedDiffusion: "config.json",
    MaskedDiffusionPipeline: "model_index.json",
    HexPipeline: "model_index.json",
    ThoughtVAE: "config.json",
    LaDiRForReasoning: "config.json",
    LaDiRPipeline: "model_index.json",
}
WEIGHTS = {
    LatentDiT: "diffusion_pytorch_model.safetensors",
    TextLatentAutoencoder: "model.safetensors",
    LatentReasoningPipeline: "denoiser/diffusion_pytorch_model.safetensors",
    LLaDAForMaskedDiffusion: "model.safetensors",
    MaskedDiffusionPipeline: "model/model.safetensors",
    HexPipeline: "model/model.safetensors",
    ThoughtVAE: "model.safetensors",
    LaDiRForReasoning: "model.safetensors",
    LaDiRPipeline: "model/model.safetensors",
}


@pytest.fixture(autouse=True)
def short_waits():
    """Let the client of the Hub hardly sleep between tries, in whatever fails here."""
    with noted_waits() as waits:
        yield waits


every_class = pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)


def push(cls, **options):
    """Push a tiny model or pipeline and return it."""
    pushed = MAKERS[cls]()
    pushed.push_to_hub(NAME, **options)
    return pushed


def weights(thing) -> dict[str, torch.Tensor]:
    """Return every tensor of a model or pipeline."""
    if isinstance(thing, ReasoningPipeline):
        parts = {name: part for name, part in thing.components.items() if isinstance(part, torch.nn.Module)}
        return {f"{part}.{name}": value for part, model in parts.items() for name, value in weights(model).items()}
    return thing.state_dict()


def assert_equal(one, other) -> None:
    """Fail unless two models or pipelines are equal bit by bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception and those that it came from."""
    chain = [error]
    while (error := error.__cause__ or error.__context__) is not None:
        chain.append(error)
    return chain


def plan(hub, cls, *faults: dict) -> None:
    """Let the next downloads of the weights fail, one after the other."""
    hub.faults[:] = [Fault(re.escape(f"/{WEIGHTS[cls]}") + "$", **fault) for fault in faults]


@every_class
def test_what_is_pushed_comes_back_bit_by_bit(hub, tmp_path, cls):
    pushed = push(cls)
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))


def test_an_autoencoder_comes_back_through_the_auto_classes(hub, tmp_path):
    pushed = push(TextLatentAutoencoder)
    assert type(AutoConfig.from_pretrained(NAME, cache_dir=tmp_path)) is TextLatentAutoencoderConfig
    pulled = AutoModel.from_pretrained(NAME, cache_dir=tmp_path)
    assert type(pulled) is TextLatentAutoencoder
    assert_equal(pushed, pulled)


def test_a_llada_comes_back_through_the_auto_class_that_its_published_configuration_names(hub, tmp_path):
    pushed = push(LLaDAForMaskedDiffusion)
    pulled = AutoModelForCausalLM.from_pretrained(NAME, cache_dir=tmp_path)
    assert type(pulled) is LLaDAForMaskedDiffusion
    assert_equal(pushed, pulled)


@pytest.mark.parametrize(("cls", "config"), [(ThoughtVAE, ThoughtVAEConfig), (LaDiRForReasoning, LaDiRConfig)])
def test_the_models_of_ladir_come_back_through_the_auto_classes(hub, tmp_path, cls, config):
    pushed = push(cls)
    assert type(AutoConfig.from_pretrained(NAME, cache_dir=tmp_path)) is config
    pulled = AutoModel.from_pretrained(NAME, cache_dir=tmp_path)
    assert type(pulled) is cls
    assert_equal(pushed, pulled)


def test_a_pulled_pipeline_of_ladir_thinks_and_writes_as_the_pushed_one(hub, tmp_path):
    pushed = push(LaDiRPipeline)
    pulled = LaDiRPipeline.from_pretrained(NAME, cache_dir=tmp_path)
    pulled.set_progress_bar_config(disable=True)
    arguments = {"prompt": ["3,5=8", "4,4=0"], "num_inference_steps": 2, "num_trajectories": 3, "max_new_tokens": 8}
    outputs = [
        pipeline(**arguments, max_blocks=2, generator=[torch.Generator().manual_seed(i) for i in range(2)])
        for pipeline in (pushed, pulled)
    ]
    assert torch.equal(outputs[0].latents, outputs[1].latents)
    assert outputs[0].samples == outputs[1].samples
    assert outputs[0].thoughts == outputs[1].thoughts
    files = hub.repositories[NAME].files
    for name in ("LaDiRForReasoning", "ThoughtVAE"):
        assert f'"ldlm_hf",\n    "{name}"'.encode() in files["model_index.json"]
    assert f'LaDiRPipeline.from_pretrained("{NAME}")' in files["README.md"].decode()


def test_a_pulled_masked_pipeline_writes_as_the_pushed_one(hub, tmp_path):
    pushed = push(MaskedDiffusionPipeline)
    pulled = MaskedDiffusionPipeline.from_pretrained(NAME, cache_dir=tmp_path)
    pulled.set_progress_bar_config(disable=True)
    outputs = [pipeline(["3+5+2", "1+2+3+4"], gen_length=8, block_length=4) for pipeline in (pushed, pulled)]
    assert torch.equal(outputs[0].sequences, outputs[1].sequences)
    files = hub.repositories[NAME].files
    assert b'"ldlm_hf",\n    "MaskedDiffusionScheduler"' in files["model_index.json"]
    assert f'MaskedDiffusionPipeline.from_pretrained("{NAME}")' in files["README.md"].decode()


def test_a_pulled_pipeline_answers_as_the_pushed_one(hub, tmp_path):
    pushed = push(LatentReasoningPipeline)
    pulled = LatentReasoningPipeline.from_pretrained(NAME, cache_dir=tmp_path)
    pulled.set_progress_bar_config(disable=True)
    arguments = {"prompt": ["3+5+2", "1+2+3+4"], "num_inference_steps": 2, "max_new_tokens": 8}
    outputs = [
        pipeline(**arguments, generator=[torch.Generator().manual_seed(i) for i in range(2)])
        for pipeline in (pushed, pulled)
    ]
    assert torch.equal(outputs[0].latents, outputs[1].latents)
    assert outputs[0].texts == outputs[1].texts


def test_a_pipeline_names_its_parts_by_the_library_and_comes_with_a_card(hub):
    push(LatentReasoningPipeline)
    files = hub.repositories[NAME].files
    assert b'"ldlm_hf",\n    "LatentDiT"' in files["model_index.json"]
    assert b'"ldlm_hf",\n    "TextLatentAutoencoder"' in files["model_index.json"]
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "ldlm_hf"
    assert f'LatentReasoningPipeline.from_pretrained("{NAME}")' in card.text
    assert not [path for path in files if path.endswith((".bin", ".pt", ".pkl", ".ckpt"))]


@every_class
def test_a_private_repository_opens_with_its_token_only(hub, tmp_path, cls):
    pushed = push(cls, private=True)
    assert hub.repositories[NAME].private
    for token, cause in (("hf_wrong", HfHubHTTPError), (False, RepositoryNotFoundError)):
        with pytest.raises(OSError, match=NAME) as caught:
            cls.from_pretrained(NAME, cache_dir=tmp_path / str(token), token=token)
        assert cause in map(type, causes(caught.value))
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))


@every_class
def test_a_wrong_token_cannot_push(hub, cls):
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        push(cls, token="hf_wrong")
    assert NAME not in hub.repositories


@every_class
def test_a_repository_or_revision_that_does_not_exist_is_named(hub, tmp_path, cls):
    with pytest.raises(OSError, match="tester/missing"):
        cls.from_pretrained("tester/missing", cache_dir=tmp_path)
    push(cls)
    with pytest.raises(OSError) as caught:
        cls.from_pretrained(NAME, revision="gone", cache_dir=tmp_path)
    assert any("gone" in str(cause) for cause in causes(caught.value))


@every_class
def test_a_repository_without_its_weights_is_refused(hub, tmp_path, cls):
    pushed = push(cls)
    files = hub.repositories[NAME].files
    content = files.pop(WEIGHTS[cls])
    with pytest.raises(OSError, match=WEIGHTS[cls].split("/")[-1]):
        cls.from_pretrained(NAME, cache_dir=tmp_path)
    files[WEIGHTS[cls]] = content
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))


@every_class
def test_a_repository_without_its_configuration_is_refused(hub, tmp_path, cls):
    push(cls)
    del hub.repositories[NAME].files[CONFIGURATIONS[cls]]
    with pytest.raises(OSError, match=CONFIGURATIONS[cls]):
        cls.from_pretrained(NAME, cache_dir=tmp_path)


@every_class
def test_truncated_weights_in_a_repository_are_refused(hub, tmp_path, cls):
    push(cls)
    files = hub.repositories[NAME].files
    files[WEIGHTS[cls]] = files[WEIGHTS[cls]][:-100]
    with pytest.raises(OSError, match="weights"):
        cls.from_pretrained(NAME, cache_dir=tmp_path)


@every_class
def test_a_connection_that_breaks_once_is_taken_up_again(hub, tmp_path, short_waits, cls):
    pushed = push(cls)
    plan(hub, cls, {"kind": "cut"})
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))
    assert hub.faults[0].times == 0
    assert max(short_waits) >= 1  # seconds that it would have waited before it tried again


@every_class
@pytest.mark.parametrize(
    "faults",
    [[{"kind": "short"}], [{"status": 500}], [{"kind": "cut"}, {"status": 500}]],
    ids=["shorter than announced", "a server error", "cut in the middle, then a server error"],
)
def test_a_download_that_fails_leaves_nothing_that_loads(hub, tmp_path, cls, faults):
    pushed = push(cls)
    plan(hub, cls, *faults)
    with pytest.raises(OSError):
        cls.from_pretrained(NAME, cache_dir=tmp_path)
    assert [fault.times for fault in hub.faults] == [0] * len(faults)
    with pytest.raises(OSError):
        cls.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path))
    assert_equal(pushed, cls.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True))


@every_class
def test_a_push_that_fails_leaves_no_repository_that_loads(hub, tmp_path, cls):
    hub.faults[:] = [Fault("/commit/", 500, times=99, method="POST")]
    with pytest.raises(HfHubHTTPError, match="500"):
        push(cls)
    hub.faults.clear()
    with pytest.raises(OSError):
        cls.from_pretrained(NAME, cache_dir=tmp_path)
