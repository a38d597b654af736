"""The denoiser: what the paper says of it, and what a saved one has to keep."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.utils._python_dispatch import TorchDispatchMode

from ldlm_hf import LatentDiT
from tests.tiny import LATENT_DIM, LATENT_LENGTH, tiny_denoiser


CONDITIONINGS = ["in_context", "cross_attention", "adaln_zero"]


def inputs(batch: int = 3):
    """Return noised latents, timesteps and a condition."""
    generator = torch.Generator().manual_seed(1)
    xt, condition = (torch.randn(batch, LATENT_LENGTH, LATENT_DIM, generator=generator) for _ in range(2))
    return xt, torch.arange(batch) * 300, condition


class RecordedDtypes(TorchDispatchMode):
    """Records the data types that attention is computed in."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(function):
            self.dtypes |= {argument.dtype for argument in args[:3]}
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_fresh_denoiser_predicts_zero_and_its_blocks_are_identities(conditioning):
    model = tiny_denoiser(randomized=False, conditioning=conditioning, learned_variance=True)
    xt, timesteps, condition = inputs()
    output = model(xt, timesteps, condition)
    assert output.sample.abs().max() == 0
    assert output.variance.abs().max() == 0
    hidden, context = torch.randn(3, 4, 32), torch.randn(3, 4, 32)
    assert torch.equal(model.blocks[0](hidden, torch.randn(3, 32), context), hidden)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("diffusion_length", [2, 4, 8])
def test_latents_of_any_diffusion_length_keep_their_shape(conditioning, diffusion_length):
    model = tiny_denoiser(conditioning=conditioning, diffusion_length=diffusion_length, learned_variance=True)
    xt, timesteps, condition = inputs()
    output = model(xt, timesteps, condition)
    assert output.sample.shape == output.variance.shape == xt.shape
    assert output.variance.abs().max() <= 1


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_batch_equals_its_singles(conditioning):
    model = tiny_denoiser(conditioning=conditioning, self_conditioning=True)
    xt, timesteps, condition = inputs()
    estimate = torch.randn_like(xt)
    batch = model(xt, timesteps, condition, previous_estimate=estimate).sample
    for i in range(len(xt)):
        row = slice(i, i + 1)
        single = model(xt[row], timesteps[row], condition[row], previous_estimate=estimate[row]).sample
        torch.testing.assert_close(batch[row], single)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_condition_matters_and_is_dropped_sample_by_sample(conditioning):
    model = tiny_denoiser(conditioning=conditioning)
    xt, timesteps, condition = inputs()
    given, without = model(xt, timesteps, condition).sample, model(xt, timesteps).sample
    assert not torch.allclose(given, without)
    mixed = model(xt, timesteps, condition, condition_dropped=torch.tensor([False, True, False])).sample
    torch.testing.assert_close(mixed, torch.stack([given[0], without[1], given[2]]))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_parameter_learns(conditioning):
    model = tiny_denoiser(conditioning=conditioning, learned_variance=True, self_conditioning=True)
    xt, timesteps, condition = inputs()
    dropped = torch.tensor([True, False, False])
    output = model(
        xt, timesteps, condition, condition_dropped=dropped, previous_estimate=xt, estimate_dropped=~dropped
    )
    (output.sample.square().sum() + output.variance.square().sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


def test_self_conditioning_reads_the_estimate_where_it_is_given():
    model = tiny_denoiser(self_conditioning=True)
    xt, timesteps, condition = inputs()
    without = model(xt, timesteps, condition).sample
    estimate_dropped = torch.tensor([True, False, True])
    mixed = model(xt, timesteps, condition, previous_estimate=xt, estimate_dropped=estimate_dropped).sample
    torch.testing.assert_close(mixed[estimate_dropped], without[estimate_dropped])
    assert not torch.allclose(mixed[1], without[1])


def test_timesteps_are_rescaled_to_a_thousand():
    model = tiny_denoiser()
    xt, _, condition = inputs(1)
    finer = tiny_denoiser(num_train_timesteps=4000)
    finer.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        model(xt, torch.tensor([250]), condition).sample, finer(xt, torch.tensor([1000]), condition).sample
    )


def test_the_input_is_projected_latent_by_latent():
    # 16 latents of 256 at 16, 32 and 64 tokens of 768: d_proj is 768, 1536 and 3072, not a map of all 4,096 values.
    for length, width in ((16, 768), (32, 1536), (64, 3072)):
        with torch.device("meta"):
            model = LatentDiT(num_layers=1, diffusion_length=length)
        assert model.proj_in.weight.shape == (width, 256)


def test_gradient_checkpointing_gives_the_same_gradients():
    xt, timesteps, condition = inputs()
    gradients = []
    for checkpointing in (False, True):
        model = tiny_denoiser()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.train()(xt, timesteps, condition).sample.square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_saving_and_loading_keeps_every_bit(tmp_path):
    model = tiny_denoiser(conditioning="cross_attention", self_conditioning=True)
    model.save_pretrained(tmp_path)
    loaded = LatentDiT.from_pretrained(tmp_path)
    assert loaded.config.conditioning == "cross_attention"
    assert loaded.config.self_conditioning is True
    assert loaded.config.hidden_size == 32
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize(
    "arguments",
    [
        {"conditioning": "concat"},
        {"num_attention_heads": 5},
        {"latent_length": 5, "diffusion_length": 3, "hidden_size": 32},
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match="conditioning|num_attention_heads|latent_length"):
        tiny_denoiser(**arguments)


def test_dict_equals_tuple():
    model = tiny_denoiser(learned_variance=True)
    output, pair = model(*inputs()), model(*inputs(), return_dict=False)
    assert torch.equal(output.sample, pair[0])
    assert torch.equal(output.variance, pair[1])


def test_bfloat16_stays_close_to_float32():
    model = tiny_denoiser()
    expected = model(*inputs()).sample
    actual = model.to(torch.bfloat16)(*inputs()).sample
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.1)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_attention_is_that_of_diffusers(conditioning):
    model = tiny_denoiser(conditioning=conditioning)
    own = model(*inputs()).sample
    model.set_attn_processor(AttnProcessor2_0())
    torch.testing.assert_close(own, model(*inputs()).sample)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_autocast_stays_close_to_float32_and_trains_float32_weights(conditioning):
    model = tiny_denoiser(conditioning=conditioning)
    expected = model(*inputs()).sample
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(*inputs()).sample
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.1)
    actual.float().square().mean().backward()
    assert {p.grad.dtype for p in model.blocks.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_is_computed_in_float32_on_a_cpu(dtype):
    model = tiny_denoiser().to(dtype)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32),
        RecordedDtypes() as recorded,
        torch.no_grad(),
    ):
        model(*inputs())
    assert recorded.dtypes == {torch.float32}


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_whole_network_is_one_graph_for_the_compiler(conditioning):
    model = tiny_denoiser(conditioning=conditioning, learned_variance=True, self_conditioning=True)
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # any graph break is an error
    with torch.no_grad():
        expected = model(*inputs()).sample
        torch.testing.assert_close(compiled(*inputs()).sample, expected)
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(*inputs()).sample
            torch.testing.assert_close(compiled(*inputs()).sample, expected)
