"""Configuration of the thought VAE: any causal LM as encoder and decoder, and the size of a block (paper, §3.1)."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..arguments import check_field_types, check_number
from ..loading import CompleteConfigMixin, config_of


STATISTICS = ("standard", "scalar")
NOISE_UNITS = ("absolute", "relative")


@strict
class ThoughtVAEConfig(CompleteConfigMixin, PreTrainedConfig):
    r"""Configuration of a [`ThoughtVAE`]; the defaults are the paper's.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*): configuration of the causal LM that encoder and decoder
            start from; that of a small Llama by default.
        decoder_config (`PreTrainedConfig` or `dict`, *optional*): of the decoder, where it is another LM with the same
            vocabulary; `text_config` by default.
        latents_per_block (`int`, *optional*, defaults to 4): latent vectors that a block of text becomes (`L_b`).
        latent_dim (`int`, *optional*, defaults to 512): size of each of them (`d_z`).
        kl_weight (`float`, *optional*, defaults to 1e-5): weight of the KL divergence (`beta`), which is summed over a
            block's latents, beside a cross-entropy that is the mean over a block's tokens.
        latent_noise (`float`, *optional*, defaults to 3.0): standard deviation of the noise added to the latents in
            training (`k`).
        latent_noise_unit (`str`, *optional*, defaults to `"absolute"`): `"absolute"`, the paper's, or `"relative"`:
            `k` is in units of the batch's own standard deviation. With the paper's, the encoder can outvote the noise
            by growing the latents.
        token_substitution (`float`, *optional*, defaults to 0.3): probability, per token the encoder reads, of a
            uniformly random one in its place (`p`). For arithmetic use 0 or little: a lost digit cannot be recovered.
        readout_weight (`float`, *optional*, defaults to 0.0): weight of the cross-entropy of a readout: a linear map from
            a block's latents to as many states as it has tokens to read, and the decoder's output layer on them, which it
            trains along where the decoder is not frozen. A decoder may work out for itself whatever follows from what it
            wrote before, as the result of an equation, and nothing else makes the latents hold that, which is where a
            reasoner reads it.
        readout_length (`int`, *optional*, defaults to 8): how many tokens are read out, the first of each block.
        decoder_reads_context (`bool`, *optional*, defaults to `False`): the decoder reads the question and the steps before
            a block as text, ahead of the block's latents (paper: the latents alone). Latents then need not hold what the
            question says, only which of the steps that it allows is taken; a decoder that can guess that from the context
            gives more back from shuffled latents, which the reasoner's gates are told by their arguments.
        freeze_decoder (`bool`, *optional*, defaults to `True`): keep the decoder's weights (paper); a decoder that is
            small cannot be prompted by latents, so train it along with the encoder.
        latent_statistics (`str`, *optional*, defaults to `"standard"`): `"standard"` (mean and standard deviation of
            every coordinate) or `"scalar"` (mean of every coordinate, one standard deviation for all).
        min_log_variance (`float`, *optional*, defaults to -12.0): floor of the posterior's log variance.
        max_log_variance (`float`, *optional*, defaults to 4.0): its ceiling.
        initial_log_variance (`float`, *optional*, defaults to -6.0): what the log variance starts at.

    Raises:
        ValueError: where sizes are not positive, a probability is none or an option is not among those listed.
    """

    model_type = "thought_vae"
    sub_configs = {"text_config": AutoConfig, "decoder_config": AutoConfig}

    text_config: dict | PreTrainedConfig | None = None
    decoder_config: dict | PreTrainedConfig | None = None
    latents_per_block: int = 4
    latent_dim: int = 512
    kl_weight: float | int = 1e-5
    latent_noise: float | int = 3.0
    latent_noise_unit: str = "absolute"
    token_substitution: float | int = 0.3
    readout_weight: float | int = 0.0
    readout_length: int = 8
    decoder_reads_context: bool = False
    freeze_decoder: bool = True
    latent_statistics: str = "standard"
    min_log_variance: float | int = -12.0
    max_log_variance: float | int = 4.0
    initial_log_variance: float | int = -6.0

    def __post_init__(self, **kwargs):
        """Check the fields and build the nested configurations."""
        check_field_types(self, PreTrainedConfig)
        self.text_config = nested_config(self.text_config)
        if isinstance(self.decoder_config, dict):
            self.decoder_config = config_of("decoder_config", self.decoder_config)
        kwargs |= special_tokens(self.text_config, kwargs)
        super().__post_init__(**kwargs)
        self.validate_architecture()  # as a ValueError; `strict` wraps what it raises itself

    @property
    def reader_config(self) -> PreTrainedConfig:
        """The configuration of the decoder, the LM that reads latents."""
        return self.text_config if self.decoder_config is None else self.decoder_config

    def validate_architecture(self):
        """Raise `ValueError` for sizes and options that no model can be built from."""
        super().validate_architecture()
        check_at_least(self, 1, "latents_per_block", "latent_dim", "readout_length")
        check_at_least(self, 0, "kl_weight", "latent_noise", "readout_weight")
        if not 0 <= self.token_substitution <= 1:
            raise ValueError(f"`token_substitution` has to lie in [0, 1], but is {self.token_substitution}.")
        options = {"latent_noise_unit": NOISE_UNITS, "latent_statistics": STATISTICS}
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` has to be one of {allowed}, but is {getattr(self, name)!r}.")
        if not self.min_log_variance <= self.initial_log_variance <= self.max_log_variance:
            raise ValueError(
                "`initial_log_variance` has to lie between `min_log_variance` and `max_log_variance`, but they are "
                f"{self.initial_log_variance}, {self.min_log_variance} and {self.max_log_variance}."
            )
        if self.reader_config.vocab_size != self.text_config.vocab_size:
            raise ValueError(
                f"`decoder_config` has a vocabulary of {self.reader_config.vocab_size} tokens, but `text_config` one "
                f"of {self.text_config.vocab_size}: they have to share one tokenizer."
            )


def nested_config(config: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    """Return the configuration of a causal LM: as given, from a dictionary, or of a small Llama."""
    if config is None:
        sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
        return AutoConfig.for_model("llama", **sizes)
    return config_of("text_config", config) if isinstance(config, dict) else config


def special_tokens(text_config: PreTrainedConfig, given: dict) -> dict[str, int | None]:
    """Return the special tokens of an LM that `given` does not name; the end of text pads where nothing else does."""
    fields = text_config.to_dict()  # not every LM has every one
    end = fields.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end  # Llama 3.1 has several
    pad = fields.get("pad_token_id")
    found = {
        "bos_token_id": fields.get("bos_token_id"),
        "eos_token_id": end,
        "pad_token_id": end if pad is None else pad,
    }
    return {name: value for name, value in found.items() if given.get(name) is None}


def check_at_least(config: PreTrainedConfig, least: float, *names: str) -> None:
    """Raise `ValueError` for the first of the named fields that is below `least`."""
    for name in names:
        check_number(name, getattr(config, name), least)
