"""Configuration of the text autoencoder: any encoder-decoder LM plus the sizes of its latents (paper, §3.1)."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..arguments import check_field_types
from ..loading import CompleteConfigMixin, config_of


BART_BASE = {  # facebook/bart-base, the paper's LM; transformers' own default is bart-large
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}


@strict
class TextLatentAutoencoderConfig(CompleteConfigMixin, PreTrainedConfig):
    r"""Configuration of a [`TextLatentAutoencoder`].

    Args:
        seq2seq_config (`PreTrainedConfig` or `dict`, *optional*): configuration of the encoder-decoder LM (BART, T5, …); that
            of BART-base by default.
        latent_length (`int`, *optional*, defaults to 16): number of latent vectors a text becomes (`l_ae`).
        latent_dim (`int`, *optional*, defaults to 256): size of each of them (`d_ae`).
        decoder_length (`int`, *optional*, defaults to 32): vectors that the latents are expanded to for the LM decoder.
        num_layers (`int`, *optional*, defaults to 3): cross-attention blocks in the compressor and in the expander each.
        num_attention_heads (`int`, *optional*, defaults to 12): heads of those blocks.
        encoder_layers (`list[int]`, *optional*, defaults to `[-1]`): hidden states of the LM encoder to compress; 0 is the
            embedding, -1 the last layer. The paper's Table 6 uses `[0, -1]`.
        encoder_layers_axis (`str`, *optional*, defaults to `"feature"`): concatenate them along `"feature"` or `"sequence"`.
        latent_norm (`str`, *optional*, defaults to `"rms"`): what bounds each latent vector before the statistics: `"rms"`
            (root mean square 1), `"layer_norm"` (mean 0, variance 1; both without parameters) or `"none"`.
        latent_statistics (`str`, *optional*, defaults to `"standard"`): `"standard"` (mean and standard deviation of every
            coordinate), `"robust"` (median and 0.7413 x interquartile range) or `"scalar"` (mean of every coordinate, one
            standard deviation for all).
        latent_noise (`float`, *optional*, defaults to 0.0): largest standard deviation of the Gaussian noise added to the
            latents in training, relative to their root mean square; each text draws its own, uniform in `[0, latent_noise]`.
        encoder_noise (`float`, *optional*, defaults to 0.0): largest standard deviation of the Gaussian noise added to the
            states of the frozen encoder in training, relative to their root mean square; each text draws its own, uniform
            in `[0, encoder_noise]` (paper, §3.3; the paper itself uses none).
        train_lm_decoder (`bool`, *optional*, defaults to `True`): fine-tune the LM decoder (paper) or freeze it (LD4LG).
        decoder_reads_prompt (`bool`, *optional*, defaults to `False`): the LM decoder also attends to the frozen encoder's
            states of the prompt (paper, §3.3, where it is left off so that nothing but the diffusion can reason).

    Raises:
        ValueError: where sizes are not positive or an option is not among those listed.
    """

    model_type = "text_latent_autoencoder"
    sub_configs = {"seq2seq_config": AutoConfig}

    seq2seq_config: dict | PreTrainedConfig | None = None
    latent_length: int = 16
    latent_dim: int = 256
    decoder_length: int = 32
    num_layers: int = 3
    num_attention_heads: int = 12
    encoder_layers: list[int] | None = None
    encoder_layers_axis: str = "feature"
    latent_norm: str = "rms"
    latent_statistics: str = "standard"
    latent_noise: float | int = 0.0
    encoder_noise: float | int = 0.0
    train_lm_decoder: bool = True
    decoder_reads_prompt: bool = False

    def __post_init__(self, **kwargs):
        """Build the nested configuration and fill in the defaults that depend on it."""
        check_field_types(self, PreTrainedConfig)
        if self.seq2seq_config is None:
            self.seq2seq_config = AutoConfig.for_model("bart", **BART_BASE)
        elif isinstance(self.seq2seq_config, dict):
            self.seq2seq_config = config_of("seq2seq_config", self.seq2seq_config)
        if self.encoder_layers is None:
            self.encoder_layers = [-1]
        nested = self.seq2seq_config.to_dict()  # T5 has no bos_token_id
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, nested.get(name))
        kwargs.setdefault("is_encoder_decoder", True)
        super().__post_init__(**kwargs)
        self.validate_architecture()  # as a ValueError; `strict` wraps what it raises itself

    def validate_architecture(self):
        """Raise `ValueError` for sizes and options that no model can be built from."""
        super().validate_architecture()
        for name in ("latent_length", "latent_dim", "decoder_length", "num_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` has to be at least 1, but is {getattr(self, name)}.")
        width = self.seq2seq_config.hidden_size
        if width % self.num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` ({self.num_attention_heads}) has to divide the LM's width ({width})."
            )
        if not self.encoder_layers:
            raise ValueError("`encoder_layers` has to name at least one hidden state, such as [-1].")
        deepest = self.seq2seq_config.num_hidden_layers  # state 0 is the embedding
        for layer in self.encoder_layers:
            if not -deepest - 1 <= layer <= deepest:
                raise ValueError(
                    f"`encoder_layers` has to hold numbers from {-deepest - 1} to {deepest}, but holds {layer}."
                )
        options = {
            "encoder_layers_axis": ("feature", "sequence"),
            "latent_norm": ("rms", "layer_norm", "none"),
            "latent_statistics": ("standard", "robust", "scalar"),
        }
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` has to be one of {allowed}, but is {getattr(self, name)!r}.")
        for name in ("latent_noise", "encoder_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` has to be at least 0, but is {getattr(self, name)}.")
