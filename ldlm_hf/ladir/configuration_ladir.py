"""Configuration of the reasoner: a causal LM, the shape of a block and the weights of the losses (paper, §3.2-3.3)."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from ..arguments import check_field_types
from ..loading import CompleteConfigMixin
from .configuration_thought_vae import check_at_least, nested_config, special_tokens
from .losses import PREDICTION_TYPES


@strict
class LaDiRConfig(CompleteConfigMixin, PreTrainedConfig):
    r"""Configuration of a [`LaDiRForReasoning`]; the defaults are the paper's.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*): configuration of the causal LM; that of a small Llama
            by default.
        latents_per_block (`int`, *optional*, defaults to 4): latent vectors of a block (`L_b`); the VAE's.
        latent_dim (`int`, *optional*, defaults to 512): size of each of them (`d_z`); the VAE's.
        prediction_type (`str`, *optional*, defaults to `"flow"`): what the network predicts of
            `z_t = (1 - t) z_0 + t eps`: `"flow"`, the velocity `u = eps - z_0` (paper); `"sample"`, `z_0`;
            `"epsilon"`, `eps`; or `"v_prediction"`, `(1 - t) eps - t z_0`.
        time_embedding_dim (`int`, *optional*, defaults to 256): width of the sinusoid that the timestep token is made
            of.
        time_scale (`float`, *optional*, defaults to 1000.0): what `t` in [0, 1] is multiplied by before the sinusoid,
            whose features would otherwise hardly vary; the scheduler's `num_train_timesteps`.
        flow_weight (`float`, *optional*, defaults to 5.0): weight of the flow matching loss (eq. 5).
        answer_weight (`float`, *optional*, defaults to 1.0): weight of the answer's cross-entropy.
        stop_weight (`float`, *optional*, defaults to 1.0): weight of the cross-entropy of going on or answering.

    Raises:
        ValueError: where sizes are not positive, weights are negative or the prediction type is unknown.
    """

    model_type = "ladir"
    sub_configs = {"text_config": AutoConfig}

    text_config: dict | PreTrainedConfig | None = None
    latents_per_block: int = 4
    latent_dim: int = 512
    prediction_type: str = "flow"
    time_embedding_dim: int = 256
    time_scale: float | int = 1000.0
    flow_weight: float | int = 5.0
    answer_weight: float | int = 1.0
    stop_weight: float | int = 1.0

    def __post_init__(self, **kwargs):
        """Check the fields and build the nested configuration."""
        check_field_types(self, PreTrainedConfig)
        self.text_config = nested_config(self.text_config)
        kwargs |= special_tokens(self.text_config, kwargs)
        super().__post_init__(**kwargs)
        self.validate_architecture()  # as a ValueError; `strict` wraps what it raises itself

    def validate_architecture(self):
        """Raise `ValueError` for sizes and options that no model can be built from."""
        super().validate_architecture()
        check_at_least(self, 1, "latents_per_block", "latent_dim", "time_scale")
        check_at_least(self, 2, "time_embedding_dim")
        check_at_least(self, 0, "flow_weight", "answer_weight", "stop_weight")
        if self.time_embedding_dim % 2:
            raise ValueError(f"`time_embedding_dim` has to be even, but is {self.time_embedding_dim}.")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"`prediction_type` has to be one of {PREDICTION_TYPES}, but is {self.prediction_type!r}."
            )
