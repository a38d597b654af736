"""Text to a fixed number of latent vectors and back: `x ≈ D_lm(D_ae(E_ae(E_lm(x))))` (paper, §3.1).

`E_lm` and `D_lm` are the halves of any encoder-decoder LM. `E_lm` is frozen and stays in eval mode in every stage; so is
the shared embedding, without which `E_lm` would not be frozen. `E_ae` and `D_ae` are cross-attention-only blocks whose
first queries are learned. What differs from the paper, which is silent about it: the latents are bounded vector by vector
and standardised by statistics fitted over training latents, since the diffusion schedule assumes unit variance, and the
decoder can be trained with noise on the latents, since diffusion samples are never exactly on the manifold.

Two improvements that the paper names and leaves out (§3.3) are options: the LM decoder may also attend to the prompt
(`decoder_reads_prompt`), and the states that become latents may be noised in training (`encoder_noise`).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from ..arguments import LogitsWatch, check_any_label, check_shapes, check_token_ids, present
from ..loading import CompleteLoadingMixin, load_complete
from ..masks import padding_mask
from .configuration_text_latent_autoencoder import TextLatentAutoencoderConfig
from .cross_attention import CrossAttentionStack


MIN_LATENT_STD = 1e-4  # latents that vary less are taken to be the same for all texts, and not scaled up


@dataclass
class TextLatentAutoencoderOutput(ModelOutput):
    """What `TextLatentAutoencoder.forward` returns.

    Attributes:
        loss (`Tensor` of shape `()`, *optional*): mean cross-entropy per target token, in nats, where labels were given.
        logits (`Tensor` of shape `(batch, target_length, vocabulary)`): scores of the next token.
        latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): standardised latents, float32, before noise.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    latents: Tensor | None = None


class TextLatentAutoencoder(CompleteLoadingMixin, PreTrainedModel):
    """Autoencoder of texts over a frozen LM encoder (paper, §3.1).

    Args:
        config ([`TextLatentAutoencoderConfig`]): sizes, and the configuration of the LM inside.
    """

    config: TextLatentAutoencoderConfig
    config_class = TextLatentAutoencoderConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["CrossAttentionBlock"]
    _keep_in_fp32_modules_strict = ["latent_mean", "latent_std"]

    def __init__(self, config: TextLatentAutoencoderConfig):
        """Build the model with random weights; see [`~TextLatentAutoencoder.from_seq2seq`] for a pretrained LM."""
        super().__init__(config)
        self.seq2seq = AutoModelForSeq2SeqLM.from_config(config.seq2seq_config, trust_remote_code=False)
        width = config.seq2seq_config.hidden_size
        num_states = len(config.encoder_layers) if config.encoder_layers_axis == "feature" else 1
        sizes = (config.num_layers, config.num_attention_heads)
        self.compressor = CrossAttentionStack(config.latent_length, width, width * num_states, *sizes)
        self.to_latent = nn.Linear(width, config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim, width)
        self.expander = CrossAttentionStack(config.decoder_length, width, width, *sizes)
        shape = (config.latent_length, config.latent_dim)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))
        self.register_buffer("latent_count", torch.zeros((), dtype=torch.long))  # latents that the statistics saw
        self.generation_config = _greedy_generation_config(config.seq2seq_config)
        self._freeze()
        self.post_init()

    @classmethod
    def from_seq2seq(cls, pretrained_model_name_or_path: str, *, seq2seq_kwargs: dict | None = None, **config_kwargs):
        """Build the autoencoder around a pretrained encoder-decoder LM; `E_ae` and `D_ae` are new.

        Args:
            pretrained_model_name_or_path (`str`): Hub id or folder of a BART, T5 or other encoder-decoder LM.
            seq2seq_kwargs (`dict`, *optional*): arguments for `AutoModelForSeq2SeqLM.from_pretrained`.
            config_kwargs: fields of [`TextLatentAutoencoderConfig`], such as `latent_length=16, latent_dim=256`.

        Raises:
            OSError: if the LM cannot be found or read.
            ValueError: if a field of the configuration is unknown or out of range.
        """
        unknown = set(config_kwargs) - set(TextLatentAutoencoderConfig.__dataclass_fields__)
        if unknown:
            raise ValueError(f"TextLatentAutoencoderConfig has no field {sorted(unknown)}.")
        seq2seq = load_complete(AutoModelForSeq2SeqLM, pretrained_model_name_or_path, **(seq2seq_kwargs or {}))
        model = cls(TextLatentAutoencoderConfig(seq2seq_config=seq2seq.config, **config_kwargs))
        model.seq2seq.load_state_dict(seq2seq.state_dict())
        return model

    def train(self, mode: bool = True) -> TextLatentAutoencoder:
        """Set the training mode of everything but the frozen encoder, which stays in eval mode."""
        super().train(mode)
        self.seq2seq.get_encoder().eval()
        return self

    @property
    def has_latent_statistics(self) -> bool:
        """Whether the latent statistics were fitted; stage 2 refuses an autoencoder without them."""
        return self.latent_count.item() > 0

    def encode(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, encoder_noise: Tensor | None = None
    ) -> Tensor:
        """Return the standardised latents of a batch of texts.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): token ids, int64.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 1 for tokens and 0 for padding.
            encoder_noise (`Tensor` of shape `(batch, length, len(encoder_layers), width)`, *optional*): noise for the
                states of the LM encoder, relative to the root mean square that the tokens of a text have in a layer.

        Returns:
            `Tensor` of shape `(batch, latent_length, latent_dim)`, float32.

        Raises:
            ValueError: for `encoder_noise` of another shape.
        """
        self._check_texts(input_ids, attention_mask)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self._encoder_states(input_ids, attention_mask, encoder_noise)  # (batch, keys, width x states)
        if self.config.encoder_layers_axis == "sequence":
            attention_mask = attention_mask.repeat(1, len(self.config.encoder_layers))
        compressed = self.to_latent(self.compressor(states, padding_mask(attention_mask, states.dtype)))
        latents = _bound(compressed.float(), self.config.latent_norm)
        return (latents - self.latent_mean.float()) / self.latent_std.float()

    def expand(self, latents: Tensor) -> Tensor:
        """Return the `(batch, decoder_length, width)` states that the LM decoder attends to (`D_ae`)."""
        check_shapes(latents=(latents, f"float: batch {self.config.latent_length} {self.config.latent_dim}"))
        raw = latents.float() * self.latent_std.float() + self.latent_mean.float()
        return self.expander(self.from_latent(raw.to(self.from_latent.weight.dtype)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        latent_noise: Tensor | None = None,
        encoder_noise: Tensor | None = None,
        prompt_input_ids: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> TextLatentAutoencoderOutput | tuple[Tensor, ...]:
        """Encode texts, add noise to their latents if any is given, and score the reconstruction (cross-entropy).

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): token ids, int64.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 1 for tokens and 0 for padding.
            labels (`Tensor` of shape `(batch, target_length)`, *optional*): tokens to reconstruct, -100 where padding;
                by default `input_ids` with -100 where `attention_mask` is 0.
            latent_noise (`Tensor` of shape `(batch, latent_length, latent_dim)`, *optional*): noise to add to the
                standardised latents before they are decoded.
            encoder_noise (`Tensor` of shape `(batch, length, len(encoder_layers), width)`, *optional*): noise for the
                states that become the latents; see [`~TextLatentAutoencoder.encode`].
            prompt_input_ids (`Tensor` of shape `(batch, prompt_length)`, *optional*): what else the decoder reads, int64;
                needed with `decoder_reads_prompt` and refused without it.
            prompt_attention_mask (`Tensor` of shape `(batch, prompt_length)`, *optional*): 1 for tokens and 0 for padding;
                a row of zeros reads the latents only.
            return_dict (`bool`, *optional*, defaults to `True`): return a [`TextLatentAutoencoderOutput`] or a tuple.

        Returns:
            [`TextLatentAutoencoderOutput`], or its fields as a tuple.

        Raises:
            ValueError: if the prompt is missing or not wanted, or for a prompt or noise of another shape.
        """
        self._check_texts(input_ids, attention_mask)
        shape = f"float: batch {self.config.latent_length} {self.config.latent_dim}"
        check_shapes(
            input_ids=(input_ids, "batch length"),
            **present(labels=(labels, "int64: batch target_length"), latent_noise=(latent_noise, shape)),
        )
        if labels is not None:
            check_token_ids("labels", labels.clamp_min(0), self.seq2seq.config.vocab_size)
        if labels is None:
            labels = input_ids if attention_mask is None else input_ids.masked_fill(attention_mask == 0, -100)
        check_any_label(labels)
        latents = self.encode(input_ids, attention_mask, encoder_noise)
        noised = latents if latent_noise is None else latents + latent_noise
        read = self._decoder_inputs(noised, prompt_input_ids, prompt_attention_mask)
        output = self.seq2seq(**read, labels=labels, use_cache=False)
        result = TextLatentAutoencoderOutput(loss=output.loss, logits=output.logits, latents=latents)
        return result if return_dict else result.to_tuple()

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        generation_config: GenerationConfig | None = None,
        prompt_input_ids: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        **generate_kwargs,
    ) -> Tensor:
        """Write out latents as token ids with the LM decoder, greedily unless told otherwise.

        Args:
            latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): standardised latents.
            generation_config (`GenerationConfig`, *optional*): how to generate; the model's own is greedy.
            prompt_input_ids (`Tensor` of shape `(batch, prompt_length)`, *optional*): what else the decoder reads, int64;
                needed with `decoder_reads_prompt` and refused without it.
            prompt_attention_mask (`Tensor` of shape `(batch, prompt_length)`, *optional*): 1 for tokens and 0 for padding.
            generate_kwargs: what to change in it, such as `max_new_tokens`.

        Returns:
            `Tensor` of shape `(batch, length)`, int64; every row ends at its end-of-sequence token, then padding.

        Raises:
            ValueError: if the prompt is missing or not wanted, or has another shape.
        """
        read = self._decoder_inputs(latents, prompt_input_ids, prompt_attention_mask)
        config = deepcopy(self.generation_config if generation_config is None else generation_config)
        config.update(**generate_kwargs)
        watch = LogitsWatch()
        tokens = self.seq2seq.generate(**read, generation_config=config, logits_processor=LogitsProcessorList([watch]))
        watch.check("latents", "the weights of the LM decoder may be NaN, or the latents are far off")
        return tokens

    @torch.no_grad()
    def set_latent_statistics(self, latents: Tensor) -> None:
        """Fit the latent statistics to standardised `latents` of shape `(count, latent_length, latent_dim)`.

        The latents are those that `encode` returns, so fitting twice refines rather than breaks the statistics.

        Raises:
            ValueError: for latents of another shape, fewer than two of them, or any that is not finite.
        """
        check_shapes(latents=(latents, f"float: texts {self.config.latent_length} {self.config.latent_dim}"))
        if len(latents) < 2:
            raise ValueError(f"`latents` has to hold those of 2 or more texts, but holds {len(latents)}.")
        raw = latents.float().to(self.latent_std.device) * self.latent_std.float() + self.latent_mean.float()
        if not raw.isfinite().all():
            raise ValueError("`latents` holds values that are not finite; the autoencoder diverged.")
        center, scale = raw.mean(0), raw.std(0)
        if self.config.latent_statistics == "robust":
            low, center, high = torch.stack(
                [column.quantile(raw.new_tensor([0.25, 0.5, 0.75])) for column in raw.flatten(1).T]
            ).T
            center, scale = center.view_as(raw[0]), 0.7413 * (high - low).view_as(raw[0])
        elif self.config.latent_statistics == "scalar":
            scale = (raw - center).square().mean().sqrt().expand_as(center)
        self.latent_mean.copy_(center)
        self.latent_std.copy_(scale.clamp_min(MIN_LATENT_STD))
        self.latent_count.fill_(len(latents))

    def _apply(self, fn, recurse: bool = True):
        # Latents stay float32 whatever the model is cast to, and so do the statistics that scale them.
        kept = {name: getattr(self, name) for name in ("latent_mean", "latent_std")}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            moved = getattr(self, name)
            if moved.dtype != value.dtype:
                setattr(self, name, value.to(moved.device))
        return self

    def _decoder_inputs(self, latents: Tensor, prompt_ids: Tensor | None, prompt_mask: Tensor | None) -> dict:
        states = self.expand(latents)  # (batch, decoder_length, width)
        if not self.config.decoder_reads_prompt:
            if prompt_ids is not None or prompt_mask is not None:
                raise ValueError(
                    "`prompt_input_ids` was given, but this decoder reads latents only: leave it out, or train an "
                    "autoencoder whose configuration has `decoder_reads_prompt=True`."
                )
            return {"encoder_outputs": BaseModelOutput(last_hidden_state=states)}
        if prompt_ids is None:
            raise ValueError(
                "`prompt_input_ids` is None, but this decoder reads the prompt (`decoder_reads_prompt`): give the tokens "
                "of each text's prompt, and those of the empty text where it has none."
            )
        if prompt_mask is None:
            prompt_mask = torch.ones_like(prompt_ids)
        if prompt_ids.shape != prompt_mask.shape or len(prompt_ids) != len(latents):
            raise ValueError(
                f"`prompt_input_ids` and `prompt_attention_mask` have to be ({len(latents)}, prompt_length) both, but are "
                f"{tuple(prompt_ids.shape)} and {tuple(prompt_mask.shape)}."
            )
        self._check_texts(prompt_ids, None, "prompt_input_ids")
        with torch.no_grad():
            prompt = self.seq2seq.get_encoder()(prompt_ids, attention_mask=prompt_mask).last_hidden_state
        # A row without any token may come out as NaN, which a weight of zero would not silence.
        prompt = prompt.masked_fill(prompt_mask[..., None] == 0, 0)
        mask = torch.cat([prompt_mask.new_ones(states.shape[:2]), prompt_mask], dim=1)
        return {
            "encoder_outputs": BaseModelOutput(last_hidden_state=torch.cat([states, prompt.to(states.dtype)], dim=1)),
            "attention_mask": mask,
        }

    def _encoder_states(self, input_ids: Tensor, attention_mask: Tensor, noise: Tensor | None = None) -> Tensor:
        layers, encoder = self.config.encoder_layers, self.seq2seq.get_encoder()
        with torch.no_grad():  # frozen in every stage
            output = encoder(input_ids, attention_mask=attention_mask, output_hidden_states=layers != [-1])
        states = [output.last_hidden_state if layer == -1 else output.hidden_states[layer] for layer in layers]
        if noise is not None:
            form = f"float: batch length {len(layers)} {states[0].shape[-1]}"
            check_shapes(input_ids=(input_ids, "batch length"), encoder_noise=(noise, form))
            states = [_add_relative_noise(*pair, attention_mask) for pair in zip(states, noise.unbind(2), strict=True)]
        return torch.cat(states, dim=-1 if self.config.encoder_layers_axis == "feature" else 1)

    def _check_texts(self, input_ids: Tensor, attention_mask: Tensor | None, name: str = "input_ids") -> None:
        masks = present(attention_mask=(attention_mask, "mask: batch length"))
        lengths = check_shapes(**{name: (input_ids, "int64: batch length")}, **masks)
        check_token_ids(name, input_ids, self.seq2seq.config.vocab_size)
        limit = self.seq2seq.config.to_dict().get("max_position_embeddings")  # T5 has none
        if limit is not None and lengths.get("length", 0) > limit:
            raise ValueError(f"`{name}` has {lengths['length']} tokens in a row, but the LM reads {limit}.")

    def _freeze(self) -> None:
        frozen = [self.seq2seq.get_encoder(), self.seq2seq.get_input_embeddings()]
        if not self.config.train_lm_decoder:
            frozen.append(self.seq2seq)
        for module in frozen:
            module.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            if module.weight is not None:
                init.ones_(module.weight)
                init.zeros_(module.bias)
        elif isinstance(module, CrossAttentionStack):
            init.normal_(module.queries)
        elif isinstance(module, TextLatentAutoencoder):
            init.zeros_(module.latent_mean)
            init.ones_(module.latent_std)
            init.zeros_(module.latent_count)


def _add_relative_noise(states: Tensor, noise: Tensor, attention_mask: Tensor) -> Tensor:
    """Return `(batch, length, width)` states plus noise, which is in units of each text's root mean square."""
    kept = attention_mask[..., None].to(torch.float32)  # (batch, length, 1)
    squares = (states.float().square() * kept).sum((1, 2), keepdim=True)
    scale = (squares / (kept.sum((1, 2), keepdim=True) * states.shape[-1]).clamp_min(1)).sqrt()  # (batch, 1, 1)
    return states + (scale * noise).to(states.dtype)


def _bound(latents: Tensor, latent_norm: str) -> Tensor:
    if latent_norm == "rms":
        return nn.functional.rms_norm(latents, latents.shape[-1:], eps=1e-6)
    return nn.functional.layer_norm(latents, latents.shape[-1:]) if latent_norm == "layer_norm" else latents


def _greedy_generation_config(config: PreTrainedConfig) -> GenerationConfig:
    # BART's own settings (4 beams, no_repeat_ngram_size=3) make most reasoning chains impossible to write.
    fields = config.to_dict()  # T5 has neither bos_token_id nor max_position_embeddings
    special = {name: fields.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(
        max_new_tokens=fields.get("max_position_embeddings", 512) - 1,
        decoder_start_token_id=fields.get("decoder_start_token_id", special["bos_token_id"]),
        **special,
    )
