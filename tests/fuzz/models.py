"""Models of latents at tiny size: their forward passes on tensors of all shapes, and what they encode, decode and fit."""

from __future__ import annotations

from functools import lru_cache

import torch
from hypothesis import strategies as st

from ldlm_hf import (
    LaDiROutput,
    LatentDiT,
)
from ldlm_hf.ladir.diagonal_gaussian import DiagonalGaussian
from ldlm_hf.ladir.modeling_ladir import FLOW_CONTEXTS
from ldlm_hf.ldlm.transformer_latent_dit import CONDITIONINGS
from tests.ladir.tiny_ladir import DIM, LATENTS, tiny_batch, tiny_reasoner, tiny_vae
from tests.tiny import LATENT_DIM, LATENT_LENGTH, tiny_autoencoder, tiny_denoiser

from .entry_points import EntryPoint
from .strategies import (
    floats,
    integers,
    is_finite,
    masks,
    numbers,
    tensors,
    varied,
)


@lru_cache(maxsize=8)
def made(make, **arguments):
    """Return a tiny model, made once."""
    return make(**arguments)


def changed(fitting: dict[str, st.SearchStrategy], **other: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Return tensors that fit, or one that is of any shape."""
    return varied(fitting, {**{name: tensors() for name in fitting}, **other})


def finite(found: object, arguments: dict) -> None:
    """All tensors of an output are finite, unless what went in was huge or not finite itself."""
    given = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    if all(bool((value.double().abs() < 1e6).all()) for value in given):
        outputs = [found] if isinstance(found, torch.Tensor) else found.values()
        assert all(is_finite(value) for value in outputs if isinstance(value, torch.Tensor))


def token_ids(found: torch.Tensor, arguments: dict) -> None:
    """What is written is token ids."""
    assert found.dtype == torch.int64 and bool((found >= 0).all())
    assert len(found) == len(arguments["latents"])


def denoise(conditioning, learned_variance, self_conditioning, **inputs):
    """Run a denoiser."""
    options = {
        "conditioning": conditioning,
        "learned_variance": learned_variance,
        "self_conditioning": self_conditioning,
    }
    return made(tiny_denoiser, **options)(**inputs)


def denoiser_of_sizes(**sizes) -> LatentDiT:
    """Return a denoiser of some sizes."""
    return LatentDiT(**sizes)


def shapes_are_as_said(found: LatentDiT, arguments: dict) -> None:
    """A denoiser that was made can be run."""
    latents = torch.zeros(1, arguments["latent_length"], arguments["latent_dim"])
    assert found(latents, torch.tensor(0)).sample.shape == latents.shape


def statistics(latents: torch.Tensor) -> torch.Tensor:
    """Fit the statistics of an autoencoder, and return what they scale by."""
    model = tiny_autoencoder(fitted=False)
    model.set_latent_statistics(latents)
    return model.latent_std


def vae_statistics(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Fit the statistics of a VAE, and return what they scale by."""
    model = tiny_vae(fitted=False)
    model.set_latent_statistics(DiagonalGaussian(mean, log_variance))
    return model.latent_std


def positive(found: torch.Tensor, arguments: dict) -> None:
    """Latents are divided by finite numbers above zero."""
    assert is_finite(found) and bool((found > 0).all())


def reason(**inputs) -> LaDiROutput:
    """Return the losses of a reasoner."""
    with torch.no_grad():
        return made(tiny_reasoner)(**inputs)


LATENT_SHAPE = (2, LATENT_LENGTH, LATENT_DIM)


LATENT = floats(LATENT_SHAPE, finite=True)


SEEN = st.sampled_from([[[1] * 5, [1] * 5], [[0, 1, 1, 1, 1], [1] * 5]]).map(torch.tensor)


DENOISER = {
    "conditioning": st.sampled_from(CONDITIONINGS),
    "learned_variance": st.booleans(),
    "self_conditioning": st.booleans(),
    "hidden_states": LATENT,
    "timestep": integers((), 0, 999) | integers((2,), 0, 999) | floats((2,), finite=True),
    "encoder_hidden_states": st.none() | LATENT,
    "condition_dropped": st.none() | masks((2,)),
    "previous_estimate": st.none() | LATENT,
    "estimate_dropped": st.none() | masks((2,)),
}


SIZES = {
    "latent_length": st.sampled_from([1, 2, 4]),
    "latent_dim": st.sampled_from([2, 8]),
    "hidden_size": st.sampled_from([8, 16]),
    "num_layers": st.sampled_from([1, 2]),
    "num_attention_heads": st.sampled_from([1, 2]),
    "diffusion_length": st.none() | st.sampled_from([2, 4]),
    "conditioning": st.sampled_from(CONDITIONINGS),
    "mlp_ratio": st.just(2),
    "dropout": st.just(0.0) | st.just(0.1),
    "num_train_timesteps": st.just(10),
}


OTHER_SIZES = {name: st.integers(-1, 9) for name in SIZES if name not in ("conditioning", "dropout")} | {
    "dropout": numbers(0, 1)
}


TEXTS = {"input_ids": integers((2, 5), 5, 30), "attention_mask": st.none() | SEEN}


AUTOENCODER = {
    **TEXTS,
    "labels": st.none() | integers((2, 4), 5, 30),
    "latent_noise": st.none() | LATENT,
    "encoder_noise": st.none() | floats((2, 5, 1, 32), finite=True),
    "prompt_input_ids": st.none(),
}


BLOCK = floats((2, LATENTS, DIM), finite=True)


BLOCK_TEXTS = {"input_ids": integers((2, 5), 5, 14), "attention_mask": st.none() | SEEN.map(lambda mask: mask.flip(1))}


VAE = {
    **BLOCK_TEXTS,
    "corrupted_ids": st.none() | integers((2, 5), 5, 14),
    "posterior_noise": st.none() | BLOCK,
    "latent_noise": st.none() | BLOCK,
}


READ_AHEAD = {"context_ids": integers((2, 3), 5, 14), "context_mask": st.none() | masks((2, 3)).map(torch.Tensor.long)}


REASONER = {name: st.just(tensor) for name, tensor in tiny_batch().items()} | {
    "condition_dropped": st.none() | masks((3,)),
    "rollout_noise": st.none() | floats((3, 3, LATENTS, DIM), finite=True),
    "rollout_steps": st.integers(1, 2),
    "rollout_flow_context": st.sampled_from(FLOW_CONTEXTS),
}


ENTRIES = [
    EntryPoint(
        "LatentDiT", denoiser_of_sizes, varied(SIZES, OTHER_SIZES), shapes_are_as_said, grows=tuple(SIZES), share=0.3
    ),
    EntryPoint(
        "LatentDiT.forward",
        denoise,
        changed(DENOISER),
        finite,
        spoiled=tuple(DENOISER)[3:],
        covers=("LatentDiTOutput",),
    ),
    EntryPoint(
        "TextLatentAutoencoder.forward",
        lambda **inputs: made(tiny_autoencoder)(**inputs),
        changed(AUTOENCODER),
        finite,
        covers=("TextLatentAutoencoder", "TextLatentAutoencoderOutput"),
        share=0.5,
    ),
    EntryPoint(
        "TextLatentAutoencoder.encode",
        lambda **inputs: made(tiny_autoencoder).encode(**inputs),
        changed(TEXTS),
        finite,
        share=0.5,
    ),
    EntryPoint(
        "TextLatentAutoencoder.decode",
        lambda **inputs: made(tiny_autoencoder).decode(**inputs),
        changed({"latents": LATENT}),
        token_ids,
        share=0.2,
    ),
    EntryPoint(
        "TextLatentAutoencoder.set_latent_statistics", statistics, changed({"latents": LATENT}), positive, share=0.3
    ),
    EntryPoint(
        "ThoughtVAE.forward",
        lambda **inputs: made(tiny_vae)(**inputs),
        changed(VAE),
        finite,
        covers=("ThoughtVAE", "ThoughtVAEOutput"),
        share=0.5,
    ),
    EntryPoint(
        "ThoughtVAE.forward in context",
        lambda **inputs: made(tiny_vae, decoder_reads_context=True)(**inputs),
        changed({**VAE, **READ_AHEAD}),
        finite,
        share=0.3,
    ),
    EntryPoint(
        "ThoughtVAE.encode",
        lambda **inputs: made(tiny_vae).encode(**inputs),
        changed({**BLOCK_TEXTS, "noise": st.none() | BLOCK}),
        finite,
        share=0.5,
    ),
    EntryPoint(
        "ThoughtVAE.decode",
        lambda **inputs: made(tiny_vae).decode(**inputs),
        changed({"latents": BLOCK, "max_new_tokens": st.integers(1, 5)}),
        token_ids,
        grows=("max_new_tokens",),
        share=0.3,
    ),
    EntryPoint(
        "ThoughtVAE.decode in context",
        lambda **inputs: made(tiny_vae, decoder_reads_context=True).decode(**inputs),
        changed({"latents": BLOCK, "max_new_tokens": st.integers(1, 5), **READ_AHEAD}),
        token_ids,
        grows=("max_new_tokens",),
        share=0.3,
    ),
    EntryPoint(
        "ThoughtVAE.set_latent_statistics",
        vae_statistics,
        changed({"mean": BLOCK, "log_variance": BLOCK}),
        positive,
        also=("posterior",),
        share=0.3,
    ),
    EntryPoint(
        "LaDiRForReasoning.forward",
        reason,
        changed(REASONER, rollout_steps=st.integers(-1, 1)),
        finite,
        grows=("rollout_steps",),
        covers=("LaDiRForReasoning", "LaDiROutput"),
        share=0.5,
    ),
]
