"""Configurations: fields of any kind, and whether a model can be made of what is accepted."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import lru_cache

import torch
from hypothesis import strategies as st
from transformers import PreTrainedConfig

import ldlm_hf
from tests.ladir.tiny_ladir import tiny_lm_config
from tests.tiny import tiny_bart_config

from .entry_points import EntryPoint
from .strategies import mostly, numbers


TINY_LM, TINY_BART = tiny_lm_config().to_dict(), tiny_bart_config().to_dict()
WIDE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 12}
NESTED = {"latents_per_block": 2, "latent_dim": 4, "text_config": TINY_LM}
FITTING: dict[str, dict[str, object]] = {  # by name: the fields of a tiny one
    "LLaDAConfig": {**WIDE, "mask_token_id": 4, "max_position_embeddings": 16},
    "LaDiRConfig": {**NESTED, "time_embedding_dim": 8},
    "ThoughtVAEConfig": NESTED,
    "TextLatentAutoencoderConfig": {
        "latent_length": 2,
        "latent_dim": 4,
        "decoder_length": 3,
        "num_layers": 1,
        "num_attention_heads": 2,
        "seq2seq_config": TINY_BART,
    },
    "ExactDenoiserConfig": {"num_questions": 9, "num_steps": 1, "max_filler": 1, "gen_length": 6},
}
MODELS = {
    "LLaDAConfig": "LLaDAModel",
    "LaDiRConfig": "LaDiRForReasoning",
    "ThoughtVAEConfig": "ThoughtVAE",
    "TextLatentAutoencoderConfig": "TextLatentAutoencoder",
    "ExactDenoiserConfig": "ExactDenoiser",
}
VALUES = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(-2, 9),
        numbers(0, 1),
        st.sampled_from(["", "x", "flow", "sample", "scalar", "relative", "block_causal"]),
    ),
    *(
        st.lists(st.integers(-3, 3), max_size=2),
        st.just({}),
        st.just({"model_type": "x"}),
        st.just({"model_type": "llama", "hidden_size": "x"}),
    ),
)


@lru_cache(maxsize=len(FITTING))
def own_fields(name: str) -> list[str]:
    """Return the fields that a configuration of this package adds to those of transformers, with its sizes."""
    own = {field.name for field in fields(getattr(ldlm_hf, name))} - {field.name for field in fields(PreTrainedConfig)}
    return sorted(own & {*getattr(ldlm_hf, name).__annotations__})


@st.composite
def configurations(draw) -> dict:
    """Return the name of a configuration, and its fields, perhaps with one that is spoiled."""
    name = draw(st.sampled_from(sorted(FITTING)))
    field, value = draw(st.sampled_from(own_fields(name))), draw(VALUES)
    return {"name": name, "values": draw(mostly(st.just({**FITTING[name], field: value}), st.just(FITTING[name])))}


def configuration(name: str, values: dict):
    """Return a configuration."""
    return getattr(ldlm_hf, name)(**values)


def makes_a_model(found, arguments: dict) -> None:
    """Of what is accepted a model can be made, and no number in it is NaN or infinite."""
    assert all(math.isfinite(value) for value in vars(found).values() if isinstance(value, float))
    with torch.device("meta"):
        getattr(ldlm_hf, MODELS[arguments["name"]])(found)


ENTRIES = [
    EntryPoint(
        "configurations",
        configuration,
        configurations(),
        makes_a_model,
        spoiled=(),
        also=["hidden size", *sorted({field.name for name in FITTING for field in fields(getattr(ldlm_hf, name))})],
        covers=(*FITTING, *MODELS.values()),
        share=2,
    )
]
