"""Configuration of LLaDA: a Llama's, read from and written as the `config.json` that is published with the weights.

The published file has names of its own for the sizes, and switches for architectures that no LLaDA has. The names become a
Llama's here, the switches are checked, and both are written back, so that a saved folder has the published layout.
"""

from __future__ import annotations

from dataclasses import fields

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, PreTrainedConfig

from ..arguments import check_field_types, check_integer, check_number
from ..loading import CompleteConfigMixin


PUBLISHED_NAMES = {  # name in a published config.json: name in transformers
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "embedding_size": "vocab_size",
    "activation_type": "hidden_act",
    "weight_tying": "tie_word_embeddings",
    "init_std": "initializer_range",
}
PUBLISHED_SWITCHES = {  # what a Llama block does, as the published code calls it: the value that is written, and equal ones
    "block_type": ("llama",),
    "block_group_size": (1,),  # else the tensors have other names
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "bias_for_layer_norm": (False, None),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "include_bias": (False,),
    "include_qkv_bias": (False, None),
    "multi_query_attention": (None, False),
    "rope": (True,),
    "rope_full_precision": (True,),
    "alibi": (False,),
    "scale_logits": (False,),
    "embedding_dropout": (0.0,),
    "residual_dropout": (0.0,),
}
ABSENT = ("num_experts", "qk_layernorm")  # LLaDA-MoE calls itself `llada` too
ACTIVATIONS = ("silu", "gelu", "relu")  # the published "swiglu" halves its input, which is another network
ATTENTION_PATTERNS = ("bidirectional", "block_causal")
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    "max_position_embeddings",
)
ROPE_THETA = 500000.0


@strict
class LLaDAConfig(CompleteConfigMixin, LlamaConfig):
    r"""Configuration of a [`LLaDAForMaskedDiffusion`]; by default that of LLaDA-8B, without its end-of-sequence token.

    Sizes go by their names in `LlamaConfig` (`hidden_size`, `num_hidden_layers`, …) or in the published `config.json`
    (`d_model`, `n_layers`, …), both as arguments and as attributes. `save_pretrained` writes the published names.

    Args:
        mask_token_id (`int`, *optional*, defaults to 126336): id of the mask token; the tokenizer does not know it.
        attention_pattern (`str`, *optional*, defaults to `"bidirectional"`): what the model was trained with:
            `"bidirectional"`, or `"block_causal"` where no block sees later ones. The model itself never masks blocks; the
            pipeline reads this and passes the mask.
        is_causal (`bool`, *optional*, defaults to `False`): cannot be `True`; other libraries read it.
        kwargs: fields of `LlamaConfig`, or keys of a published `config.json`. With neither `rope_theta` nor
            `rope_parameters` the base of the rotary embedding is 500,000.

    Raises:
        ValueError: for a published switch that a Llama does not have, for an option that is not among those listed, and
            for a mask token that is not in the vocabulary or also has another meaning.
    """

    model_type = "llada"
    attribute_map = PUBLISHED_NAMES
    _other_model_hint = (
        " A causal LM becomes a masked diffusion model by `from_causal_lm(AutoModelForCausalLM.from_pretrained({name}), "
        "tokenizer)` and fine-tuning; a masked LM such as BERT is used as it is."
    )

    vocab_size: int = 126464
    hidden_size: int = 4096
    intermediate_size: int = 12288
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    use_cache: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    mask_token_id: int = 126336
    attention_pattern: str = "bidirectional"
    is_causal: bool = False

    def __post_init__(self, **kwargs):
        """Take the published names over before anything is derived from them, then check what they say."""
        _check_switches(kwargs)
        if kwargs.get("mlp_hidden_size") is None and {"d_model", "mlp_ratio"} <= kwargs.keys():
            kwargs["mlp_hidden_size"] = kwargs["mlp_ratio"] * kwargs["d_model"]
        defaults = {field.name: field.default for field in fields(self)}
        for published, name in PUBLISHED_NAMES.items():
            value, own = kwargs.pop(published, None), getattr(self, name)
            if value is None:
                continue
            rows_are_padded = published == "embedding_size" and value > own
            if own not in (value, defaults[name]) and not rows_are_padded:
                raise ValueError(f"`{published}` is {value!r}, but `{name}`, which means the same, is {own!r}.")
            setattr(self, name, value)
        check_field_types(self, PreTrainedConfig)
        for name in SIZES:
            check_integer(name, getattr(self, name))
        check_number("rms_norm_eps", self.rms_norm_eps, 0)
        if self.rope_parameters is None and kwargs.get("rope_scaling") is None:
            self.rope_parameters = {"rope_type": "default", "rope_theta": kwargs.pop("rope_theta", ROPE_THETA)}
        super().__post_init__(**kwargs)
        self.validate_architecture()  # as a ValueError; `strict` wraps what it raises itself

    def validate_architecture(self):
        """Raise `ValueError` for what no LLaDA can be built from."""
        super().validate_architecture()
        if self.is_causal:
            raise ValueError("`is_causal` is True, but a LLaDA sees both sides; use LlamaConfig for a causal LM.")
        if self.attention_bias or self.mlp_bias:
            raise ValueError("`attention_bias` and `mlp_bias` have to be False: the published layout has no biases.")
        options = {"hidden_act": ACTIVATIONS, "attention_pattern": ATTENTION_PATTERNS}
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` has to be one of {allowed}, but is {getattr(self, name)!r}.")
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise ValueError(
                f"`mask_token_id` has to be in the vocabulary of {self.vocab_size} tokens, but is {self.mask_token_id}."
            )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = getattr(self, name)
            if self.mask_token_id in (ids if isinstance(ids, list) else [ids]):
                raise ValueError(f"`mask_token_id` ({self.mask_token_id}) is the `{name}` too; give the mask its own.")

    def to_diff_dict(self) -> dict:
        """Return what `config.json` holds: the published names and switches, and a Llama's where there is none."""
        values = super().to_diff_dict()
        for published, name in PUBLISHED_NAMES.items():
            values.pop(name, None)
            values[published] = getattr(self, name)
        values["vocab_size"] = self.vocab_size
        if values["head_dim"] == self.hidden_size // self.num_attention_heads:
            del values["head_dim"]
        if set(self.rope_parameters) == {"rope_type", "rope_theta"} and self.rope_parameters["rope_type"] == "default":
            values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
        return {**{name: allowed[0] for name, allowed in PUBLISHED_SWITCHES.items()}, **values}


def _check_switches(values: dict) -> None:
    """Raise `ValueError` for a key of a published configuration that asks for another architecture."""
    for name, allowed in PUBLISHED_SWITCHES.items():
        if name in values and values[name] not in allowed:
            raise ValueError(
                f"`{name}` has to be {allowed[0]!r}, the one way LLaDA is built, but is {values[name]!r}."
            )
    for name in ABSENT:
        if values.get(name):
            raise ValueError(
                f"`{name}` is {values[name]!r}: LLaDA-MoE has another architecture, which is not supported."
            )
