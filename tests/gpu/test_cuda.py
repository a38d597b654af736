"""What only a CUDA device can show: the same results as on a CPU, in bfloat16 without harm, and compiled."""

import pytest
import torch

from tests.llada.tiny_llada import tiny_masked_pipeline
from tests.tiny import LATENT_DIM, LATENT_LENGTH, tiny_denoiser, tiny_pipeline


pytestmark = pytest.mark.gpu
ARGUMENTS = {"prompt": ["1+2+3", "9+8+7+6"], "num_inference_steps": 5, "output_type": "latent"}


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (0, 1)]  # on the CPU, so that both devices draw the same


def test_a_pipeline_gives_the_same_latents_on_cuda():
    expected = tiny_pipeline()(**ARGUMENTS, generator=generators()).latents
    actual = tiny_pipeline().to("cuda")(**ARGUMENTS, generator=generators()).latents
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_bfloat16_on_cuda_is_finite_and_keeps_float32_latents():
    output = tiny_pipeline().to("cuda", torch.bfloat16)(**{**ARGUMENTS, "output_type": "text"}, generator=generators())
    assert output.latents.dtype == torch.float32
    assert output.latents.isfinite().all()


def test_a_compiled_denoiser_equals_the_plain_one():
    model = tiny_denoiser().cuda()
    inputs = (torch.randn(4, LATENT_LENGTH, LATENT_DIM, device="cuda"), torch.arange(4, device="cuda"))
    expected = model(*inputs).sample
    torch.testing.assert_close(torch.compile(model)(*inputs).sample, expected, atol=1e-3, rtol=1e-3)


def test_offloading_to_the_cpu_works():
    pipeline = tiny_pipeline()
    pipeline.enable_model_cpu_offload()
    assert pipeline(**ARGUMENTS, generator=generators()).latents.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_masked_pipeline_writes_on_cuda(dtype, cache):
    pipeline = tiny_masked_pipeline().to("cuda", dtype)
    output = pipeline(["1+2+3", "3+5+2+4"], gen_length=8, block_length=4, cache=cache, threshold=0.9)
    assert output.sequences.device.type == "cuda"
    assert not (output.sequences == pipeline.language_model.mask_token_id).any()
    seeds = [torch.Generator("cuda").manual_seed(i) for i in range(2)]
    drawn = pipeline(["1+2+3", "3+5+2+4"], gen_length=8, block_length=4, temperature=0.9, generator=seeds)
    assert len(drawn.texts) == 2
