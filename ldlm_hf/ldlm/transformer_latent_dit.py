"""The denoiser: a diffusion transformer over text latents, conditioned on the latents of the prompt (paper, §3.2, §4.3).

Each latent is projected to `hidden_size * diffusion_length / latent_length` features and the sequence is viewed as
`diffusion_length` tokens of `hidden_size`, as patch size is for images. The timestep enters every block by adaLN-Zero
(DiT, Peebles & Xie 2023); the prompt enters in one of the paper's three ways. Where the paper is silent: the null condition
of classifier-free guidance is one learned latent sequence, in latent space, so that it takes the same path as a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import Attention, AttentionMixin, FeedForward
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from ..arguments import check_integer, check_number, check_option, check_shapes, checked, present
from ..loading import CompleteLoadingMixin


CONDITIONINGS = ("in_context", "cross_attention", "adaln_zero")
TIME_SCALE = 1000  # timesteps are fed as if there were 1,000 of them, whatever T is


@dataclass
class LatentDiTOutput(BaseOutput):
    """What `LatentDiT.forward` returns.

    Attributes:
        sample (`Tensor` of shape `(batch, latent_length, latent_dim)`): the prediction (x0, v or epsilon).
        variance (`Tensor` of the same shape, *optional*): where in `[-1, 1]` the variance lies between the posterior's
            and beta (improved DDPM, eq. 15), for models with a learned variance.
    """

    sample: Tensor
    variance: Tensor | None = None


class LatentDiT(CompleteLoadingMixin, ModelMixin, ConfigMixin, AttentionMixin):
    """Diffusion transformer over text latents (paper, §3.2).

    Args:
        latent_length (`int`, *optional*, defaults to 16): latent vectors in a text.
        latent_dim (`int`, *optional*, defaults to 256): size of each of them.
        hidden_size (`int`, *optional*, defaults to 768): width of the transformer (`d_diffusion`).
        num_layers (`int`, *optional*, defaults to 12): number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 12): heads of each attention.
        diffusion_length (`int`, *optional*): tokens that the latents are viewed as (`l_diffusion`); `latent_length` by
            default. `hidden_size * diffusion_length` has to be a multiple of `latent_length`.
        conditioning (`str`, *optional*, defaults to `"in_context"`): `"in_context"` puts the prompt's tokens beside the
            noised ones, `"cross_attention"` adds an attention to them in every block, `"adaln_zero"` adds a projection of
            all of them to the timestep embedding.
        mlp_ratio (`int`, *optional*, defaults to 4): width of the feed-forward layers, in hidden sizes.
        dropout (`float`, *optional*, defaults to 0.0): dropout in the blocks.
        learned_variance (`bool`, *optional*, defaults to `False`): predict the variance too; in context from the prompt's
            half of the sequence, as the paper says, otherwise from doubled output channels, as DiT does.
        bound_variance (`bool`, *optional*, defaults to `True`): pass the variance through tanh. Unbounded, an x0-predictor
            drives it far outside `[-1, 1]` and ancestral sampling diverges.
        self_conditioning (`bool`, *optional*, defaults to `False`): read the previous estimate of x0 beside the noised
            latents.
        num_train_timesteps (`int`, *optional*, defaults to 1000): T; the timestep is fed as `t * 1000 / T`.

    Raises:
        ValueError: for an unknown `conditioning` or sizes that do not divide.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["LatentDiTBlock"]
    _repeated_blocks = ["LatentDiTBlock"]
    _keep_in_fp32_modules = ["time_embedding"]
    _skip_layerwise_casting_patterns = ["time_embedding", "norm"]

    @register_to_config
    @checked
    def __init__(
        self,
        latent_length: int = 16,
        latent_dim: int = 256,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_attention_heads: int = 12,
        diffusion_length: int | None = None,
        conditioning: str = "in_context",
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        learned_variance: bool = False,
        bound_variance: bool = True,
        self_conditioning: bool = False,
        num_train_timesteps: int = 1000,
    ):
        """Build the denoiser; it starts out predicting zero, whatever it is given."""
        super().__init__()
        length = latent_length if diffusion_length is None else diffusion_length
        check_option("conditioning", conditioning, CONDITIONINGS)
        sizes = {"latent_length": latent_length, "latent_dim": latent_dim, "diffusion_length": length}
        sizes |= {"hidden_size": hidden_size, "num_layers": num_layers, "num_attention_heads": num_attention_heads}
        sizes |= {"mlp_ratio": mlp_ratio, "num_train_timesteps": num_train_timesteps}
        for name, size in sizes.items():
            check_integer(name, size)
        check_number("dropout", dropout, 0, 1)
        if hidden_size * length % latent_length:
            raise ValueError(
                f"`hidden_size` x `diffusion_length` ({hidden_size} x {length}) has to be a multiple of `latent_length` "
                f"({latent_length})."
            )
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` ({num_attention_heads}) has to divide `hidden_size` ({hidden_size})."
            )
        width = hidden_size * length // latent_length  # d_proj, the features of one latent
        channels_out = latent_dim * (2 if learned_variance and conditioning != "in_context" else 1)

        self.proj_in = nn.Linear(latent_dim * (2 if self_conditioning else 1), width)
        self.proj_condition = nn.Linear(latent_dim, width)
        self.null_condition = nn.Parameter(torch.zeros(latent_length, latent_dim))
        if self_conditioning:
            self.null_estimate = nn.Parameter(torch.zeros(latent_length, latent_dim))
        self.position = nn.Parameter(torch.zeros(length, hidden_size))
        if conditioning == "adaln_zero":
            self.pool_condition = nn.Linear(length * hidden_size, hidden_size)
        else:
            self.condition_position = nn.Parameter(torch.zeros(length, hidden_size))

        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(256, hidden_size)
        sizes = (hidden_size, num_attention_heads, mlp_ratio, dropout)
        cross = conditioning == "cross_attention"
        self.blocks = nn.ModuleList([LatentDiTBlock(*sizes, cross_attention=cross) for _ in range(num_layers)])
        self.norm_out = AdaLayerNormContinuous(hidden_size, hidden_size, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(width, channels_out)
        if learned_variance and conditioning == "in_context":
            self.proj_variance = nn.Linear(width, latent_dim)
        self.gradient_checkpointing = False
        self._initialize()

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        condition_dropped: Tensor | None = None,
        previous_estimate: Tensor | None = None,
        estimate_dropped: Tensor | None = None,
        return_dict: bool = True,
    ) -> LatentDiTOutput | tuple[Tensor, ...]:
        """Predict the clean latents (or v, or the noise) from noised ones.

        Args:
            hidden_states (`Tensor` of shape `(batch, latent_length, latent_dim)`): noised latents.
            timestep (`Tensor` of shape `(batch,)` or `()`): timesteps in `[0, T)`.
            encoder_hidden_states (`Tensor` of shape `(batch, latent_length, latent_dim)`, *optional*): latents of the
                prompt; the learned null condition by default.
            condition_dropped (`Tensor` of shape `(batch,)`, *optional*): `True` where a sample gets the null condition.
            previous_estimate (`Tensor` of shape `(batch, latent_length, latent_dim)`, *optional*): an earlier estimate of
                x0, read by models with self-conditioning only; a learned one by default.
            estimate_dropped (`Tensor` of shape `(batch,)`, *optional*): `True` where a sample gets the learned estimate.
            return_dict (`bool`, *optional*, defaults to `True`): return a [`LatentDiTOutput`] or a tuple.

        Returns:
            [`LatentDiTOutput`], or its fields as a tuple.

        Raises:
            ValueError: for tensors of other shapes.
        """
        latents = f"float: batch {self.config.latent_length} {self.config.latent_dim}"
        check_shapes(
            hidden_states=(hidden_states, latents),
            timestep=(timestep, "" if isinstance(timestep, Tensor) and timestep.ndim == 0 else "batch"),
            **present(
                encoder_hidden_states=(encoder_hidden_states, latents),
                condition_dropped=(condition_dropped, "bool: batch"),
                previous_estimate=(previous_estimate, latents),
                estimate_dropped=(estimate_dropped, "bool: batch"),
            ),
        )
        batch, dtype = len(hidden_states), self.proj_in.weight.dtype
        hidden_states = hidden_states.to(dtype)
        condition = _replace(encoder_hidden_states, condition_dropped, self.null_condition, batch)
        if self.config.self_conditioning:
            estimate = _replace(previous_estimate, estimate_dropped, self.null_estimate, batch)
            hidden_states = torch.cat([hidden_states, estimate], dim=-1)

        hidden_states = self._view_tokens(self.proj_in(hidden_states)) + self.position  # (batch, length, hidden)
        condition = self._view_tokens(self.proj_condition(condition))  # (batch, length, hidden)
        embedding = self._embed_time(timestep, batch).to(dtype)  # (batch, hidden)
        context = None
        if self.config.conditioning == "adaln_zero":
            embedding = embedding + self.pool_condition(condition.flatten(1))
        else:
            condition = condition + self.condition_position
        if self.config.conditioning == "in_context":
            hidden_states = torch.cat([hidden_states, condition], dim=1)  # (batch, 2 x length, hidden)
        elif self.config.conditioning == "cross_attention":
            context = condition

        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states, embedding, context)
            else:
                hidden_states = block(hidden_states, embedding, context)

        hidden_states = self.norm_out(hidden_states, embedding)
        sample, variance = self._project_out(hidden_states)
        if variance is not None and self.config.bound_variance:
            variance = variance.tanh()
        output = LatentDiTOutput(sample=sample, variance=variance)
        return output if return_dict else output.to_tuple()

    def _embed_time(self, timestep: Tensor, batch: int) -> Tensor:
        timestep = timestep.float().expand(batch) * (TIME_SCALE / self.config.num_train_timesteps)
        return self.time_embedding(self.time_proj(timestep).to(self.time_embedding.linear_1.weight.dtype))

    def _view_tokens(self, latents: Tensor) -> Tensor:
        return latents.reshape(len(latents), -1, self.config.hidden_size)

    def _view_latents(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(len(tokens), self.config.latent_length, -1)

    def _project_out(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.config.conditioning != "in_context":
            sample = self.proj_out(self._view_latents(tokens))
            return tuple(sample.chunk(2, dim=-1)) if self.config.learned_variance else (sample, None)
        noised, prompt = tokens.chunk(2, dim=1)  # (batch, length, hidden) each
        variance = self.proj_variance(self._view_latents(prompt)) if self.config.learned_variance else None
        return self.proj_out(self._view_latents(noised)), variance

    def _initialize(self) -> None:
        """Initialise as DiT does: Xavier for matrices, zero for modulations and outputs, so that blocks start as identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (
            self.position,
            *([] if self.config.conditioning == "adaln_zero" else [self.condition_position]),
        ):
            nn.init.normal_(parameter, std=0.02)
        for linear in (self.time_embedding.linear_1, self.time_embedding.linear_2):
            nn.init.normal_(linear.weight, std=0.02)
        zeroed = [self.norm_out.linear, self.proj_out, *(block.norm1.linear for block in self.blocks)]
        if self.config.conditioning == "cross_attention":
            zeroed += [block.cross_attention.to_out[0] for block in self.blocks]
        if self.config.learned_variance and self.config.conditioning == "in_context":
            zeroed.append(self.proj_variance)
        for linear in zeroed:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


class LatentDiTBlock(nn.Module):
    """Self-attention, optional cross-attention (as in PixArt: not modulated, not gated) and feed-forward, with adaLN-Zero."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: int, dropout: float, cross_attention: bool):
        """Make a block of `hidden_size`."""
        super().__init__()
        sizes = {"heads": num_heads, "dim_head": hidden_size // num_heads, "bias": True, "dropout": dropout}
        sizes["processor"] = LatentAttnProcessor()
        self.norm1 = AdaLayerNormZero(hidden_size, None)
        self.attention = Attention(hidden_size, **sizes)
        self.cross_attention = Attention(hidden_size, hidden_size, **sizes) if cross_attention else None
        self.norm2 = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.feed_forward = FeedForward(
            hidden_size, mult=mlp_ratio, dropout=dropout, activation_fn="gelu-approximate", final_dropout=True
        )

    def forward(self, hidden_states: Tensor, embedding: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the new `(batch, length, hidden)` states; `embedding` is `(batch, hidden)`, `context` the prompt."""
        normed, gate_attention, shift, scale, gate_mlp = self.norm1(hidden_states, emb=embedding)
        hidden_states = hidden_states + gate_attention[:, None] * self.attention(normed)
        if self.cross_attention is not None:
            hidden_states = hidden_states + self.cross_attention(hidden_states, context)
        normed = self.norm2(hidden_states) * (1 + scale[:, None]) + shift[:, None]
        return hidden_states + gate_mlp[:, None] * self.feed_forward(normed)


class LatentAttnProcessor:
    """Attention among a few tokens: on a CPU in float32, where the kernel for bfloat16 takes two to five times as long."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return `(batch, length, hidden)` states, attended to `encoder_hidden_states` or to themselves."""
        hidden_states = _autocast_once(hidden_states)
        context = hidden_states if encoder_hidden_states is None else _autocast_once(encoder_hidden_states)
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        heads = [states.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for states in (query, key, value)]
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            with torch.autocast("cpu", enabled=False):  # it would cast back what is cast here
                heads = [states.float() for states in heads]
                attended = F.scaled_dot_product_attention(*heads, attn_mask=attention_mask).to(query.dtype)
        else:
            attended = F.scaled_dot_product_attention(*heads, attn_mask=attention_mask)
        attended = attended.transpose(1, 2).flatten(2)  # (batch, length, hidden)
        return attn.to_out[1](attn.to_out[0](attended))


def _autocast_once(states: Tensor) -> Tensor:
    """Cast what several layers read to autocast's dtype, which would otherwise be done for each of them."""
    device = states.device.type
    return states.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else states


def _replace(given: Tensor | None, dropped: Tensor | None, learned: Tensor, batch: int) -> Tensor:
    """Return `given` in the dtype of `learned`, with `learned` in the rows where it is `dropped`, or everywhere."""
    learned = learned.expand(batch, -1, -1)
    if given is None:
        return learned
    given = given.to(learned.dtype)
    return given if dropped is None else torch.where(dropped[:, None, None], learned, given)
