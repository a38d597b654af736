"""A block of thought to a few latents and back: a variational autoencoder around a causal LM (paper, §3.1-3.2.1).

The encoder is the LM without its output layer; learned queries follow the block's tokens, and two linear heads read
mean and log variance off their last hidden states. The decoder is the LM again, frozen or trained along; the latents,
linearly projected, are its prefix, and it writes the block (eq. 1): `L = E[-log p(x|z)] + beta KL(q(z|x) || N(0, I))`.

What differs from the paper, which is silent about it: the diffusion sees latents standardised by fitted statistics,
since noise of a given strength means little before the scale of what it is added to; a block ends with an end-of-text
token that is part of the loss, whichever the tokenizer has, and padding is known by its mask; the log variance is
clamped; a readout of the block's tokens, linear in the latents, may join the loss (`readout_weight`), so that they
hold what the decoder could work out for itself; and the decoder may read what stands before the block
(`decoder_reads_context`), so that they need not hold what the question says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers import initialization as init

from ..arguments import LogitsWatch, check_integer, check_shapes, check_token_ids, present, shown
from ..loading import CompleteLoadingMixin, load_complete
from .configuration_thought_vae import ThoughtVAEConfig
from .diagonal_gaussian import DiagonalGaussian
from .thought_vae_output import ThoughtVAEOutput


class ThoughtVAE(CompleteLoadingMixin, PreTrainedModel):
    """Variational autoencoder of blocks of text around a causal LM.

    Args:
        config ([`ThoughtVAEConfig`]): sizes, and the configuration of the LM inside.
    """

    config: ThoughtVAEConfig
    config_class = ThoughtVAEConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ["latent_mean", "latent_std"]

    def __init__(self, config: ThoughtVAEConfig):
        """Build the model with random weights; see [`~ThoughtVAE.from_causal_lm`] for a pretrained LM."""
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.decoder = AutoModelForCausalLM.from_config(config.reader_config, trust_remote_code=False)
        width, shape = config.text_config.hidden_size, (config.latents_per_block, config.latent_dim)
        self.queries = nn.Parameter(torch.zeros(config.latents_per_block, width))
        self.to_mean = nn.Linear(width, config.latent_dim)
        self.to_log_variance = nn.Linear(width, config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim, config.reader_config.hidden_size)
        self.readout = None
        if config.readout_weight > 0:
            self.readout = nn.Linear(shape[0] * shape[1], config.readout_length * config.reader_config.hidden_size)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))
        self.register_buffer("latent_count", torch.zeros((), dtype=torch.long))  # blocks that the statistics saw
        if config.freeze_decoder:
            self.decoder.requires_grad_(False)
        self.post_init()

    @classmethod
    def from_causal_lm(cls, model: PreTrainedModel | str, *, lm_kwargs: dict | None = None, **config_kwargs):
        """Build the VAE around a pretrained causal LM, whose weights encoder and decoder start from.

        Args:
            model (`PreTrainedModel` or `str`): a causal LM (Llama, Qwen, GPT-2, …), or its Hub id or folder.
            lm_kwargs (`dict`, *optional*): arguments for `AutoModelForCausalLM.from_pretrained`.
            config_kwargs: fields of [`ThoughtVAEConfig`], such as `latents_per_block=4, latent_dim=512`.

        Raises:
            OSError: if the LM cannot be found or read.
            ValueError: if a field of the configuration is unknown or out of range.
        """
        check_fields(ThoughtVAEConfig, config_kwargs)
        if isinstance(model, str):
            model = load_complete(AutoModelForCausalLM, model, **(lm_kwargs or {}))
        vae = cls(ThoughtVAEConfig(text_config=model.config, **config_kwargs))
        vae.encoder.load_state_dict(model.base_model.state_dict())
        if vae.config.decoder_config is None:
            vae.decoder.load_state_dict(model.state_dict())
        return vae

    def train(self, mode: bool = True) -> ThoughtVAE:
        """Set the training mode of everything but a frozen decoder, which stays in eval mode."""
        super().train(mode)
        if self.config.freeze_decoder:
            self.decoder.eval()
        return self

    @property
    def has_latent_statistics(self) -> bool:
        """Whether the latent statistics were fitted; the reasoner refuses a VAE without them."""
        return self.latent_count.item() > 0

    @property
    def _block(self) -> str:
        return f"{self.config.latents_per_block} {self.config.latent_dim}"

    def _check_tokens(self, **tensors: Tensor | None) -> None:
        """Raise `ValueError` unless token ids and their mask are `(batch, length)` of the vocabulary."""
        kinds = {name: "mask" if name.endswith("_mask") else "int64" for name in tensors}
        check_shapes(**present(**{name: (tensor, f"{kinds[name]}: batch length") for name, tensor in tensors.items()}))
        for name, tensor in tensors.items():
            if kinds[name] == "int64" and tensor is not None:
                check_token_ids(name, tensor, self.config.text_config.vocab_size)

    def posterior(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> DiagonalGaussian:
        """Return `q(z|x)`, not standardised.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): the blocks' tokens, without special ones; int64.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 1 for tokens and 0 for padding on the
                right.

        Returns:
            [`DiagonalGaussian`] of shape `(batch, latents_per_block, latent_dim)`.
        """
        self._check_tokens(input_ids=input_ids, attention_mask=attention_mask)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        count = self.config.latents_per_block
        tokens = self.encoder.get_input_embeddings()(input_ids)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        mask = torch.cat([attention_mask, attention_mask.new_ones(len(tokens), count)], dim=1)
        states = self.encoder(
            inputs_embeds=torch.cat([tokens, queries], dim=1),  # (batch, length + latents, width)
            attention_mask=mask,
            position_ids=(mask.long().cumsum(1) - 1).clamp_min(
                0
            ),  # the queries follow the last token, not the padding
            use_cache=False,
        ).last_hidden_state[:, -count:]
        log_variance = self.to_log_variance(states).float() + self.config.initial_log_variance
        limits = (self.config.min_log_variance, self.config.max_log_variance)
        return DiagonalGaussian(self.to_mean(states).float(), log_variance.clamp(*limits))

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Return the standardised latents of blocks of text: those that the diffusion sees.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): tokens, int64.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 1 for tokens and 0 for padding.
            noise (`Tensor` of shape `(batch, latents_per_block, latent_dim)`, *optional*): standard normal, to sample
                the posterior; its mean by default.

        Returns:
            `Tensor` of shape `(batch, latents_per_block, latent_dim)`, float32.
        """
        posterior = self.posterior(input_ids, attention_mask)
        return self.standardize(posterior.mean if noise is None else posterior.sample(noise))

    def standardize(self, latents: Tensor) -> Tensor:
        """Return latents of shape `(…, latents_per_block, latent_dim)` with mean 0 and variance 1."""
        check_shapes(latents=(latents, f"float: … {self._block}"))
        return (latents - self.latent_mean) / self.latent_std

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        corrupted_ids: Tensor | None = None,
        posterior_noise: Tensor | None = None,
        latent_noise: Tensor | None = None,
        context_ids: Tensor | None = None,
        context_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> ThoughtVAEOutput | tuple[Tensor, ...]:
        """Encode blocks and score their reconstruction (eq. 1).

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): the blocks' tokens, without special ones; int64.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 1 for tokens and 0 for padding on the
                right.
            corrupted_ids (`Tensor` of shape `(batch, length)`, *optional*): what the encoder reads instead; int64.
            posterior_noise (`Tensor` of shape `(batch, latents_per_block, latent_dim)`, *optional*): standard normal,
                to sample the posterior; its mean is decoded by default.
            latent_noise (`Tensor` of shape `(batch, latents_per_block, latent_dim)`, *optional*): standard normal, for
                the configuration's `latent_noise`; none is added by default.
            context_ids (`Tensor` of shape `(batch, context)`, *optional*): with `decoder_reads_context`, and only then,
                the tokens that stand before each block, see [`tokenize_contexts`]; int64.
            context_mask (`Tensor` of shape `(batch, context)`, *optional*): 1 for those tokens and 0 for padding.
            return_dict (`bool`, *optional*, defaults to `True`): return a [`ThoughtVAEOutput`] or a tuple.

        Returns:
            [`ThoughtVAEOutput`], or its fields as a tuple.
        """
        self._check_tokens(input_ids=input_ids, attention_mask=attention_mask, corrupted_ids=corrupted_ids)
        noise = present(posterior_noise=(posterior_noise, self._block), latent_noise=(latent_noise, self._block))
        check_shapes(
            input_ids=(input_ids, "batch length"),
            **{name: (x, f"float: batch {form}") for name, (x, form) in noise.items()},
        )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        posterior = self.posterior(input_ids if corrupted_ids is None else corrupted_ids, attention_mask)
        latents = posterior.mean if posterior_noise is None else posterior.sample(posterior_noise)
        if latent_noise is not None:
            latents = latents + self._noise_scale(posterior) * latent_noise
        context = self._check_context(len(input_ids), context_ids, context_mask)
        logits = self._score(latents, input_ids, attention_mask, context)  # (batch, length + 1, vocab)
        losses = self._losses(logits, input_ids, attention_mask)
        reconstruction_loss, kl = losses.mean(), posterior.kl().mean()
        loss = reconstruction_loss + self.config.kl_weight * kl
        readout_loss = None
        if self.readout is not None:
            readout_loss = self._readout_losses(latents, input_ids, attention_mask).mean()
            loss = loss + self.config.readout_weight * readout_loss
        output = ThoughtVAEOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss,
            kl=kl,
            logits=logits,
            latents=latents,
            readout_loss=readout_loss,
        )
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        max_new_tokens: int = 128,
        context_ids: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Write out standardised latents as token ids, greedily.

        Args:
            latents (`Tensor` of shape `(batch, latents_per_block, latent_dim)`): standardised latents.
            max_new_tokens (`int`, *optional*, defaults to 128): most tokens to write.
            context_ids (`Tensor` of shape `(batch, context)`, *optional*): as those of `forward`.
            context_mask (`Tensor` of shape `(batch, context)`, *optional*): as that of `forward`.

        Returns:
            `Tensor` of shape `(batch, length)`, int64; every row ends at its end-of-text token, then padding.
        """
        check_shapes(latents=(latents, f"float: batch {self._block}"))
        check_integer("max_new_tokens", max_new_tokens)
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.config.eos_token_id,
            pad_token_id=self.config.pad_token_id,
        )
        context = self._check_context(len(latents), context_ids, context_mask)
        prefix, mask = self._prefix(latents.float() * self.latent_std + self.latent_mean, context)
        watch = LogitsWatch()
        arguments = {"generation_config": config, "logits_processor": LogitsProcessorList([watch])}
        tokens = self.decoder.generate(inputs_embeds=prefix, attention_mask=mask, **arguments)
        watch.check("latents", "the weights of the decoder may be NaN, or the latents are far off")
        return tokens

    @torch.no_grad()
    def set_latent_statistics(self, posterior: DiagonalGaussian) -> None:
        """Fit the latent statistics to many blocks' posteriors, so that samples of them have mean 0 and variance 1.

        Raises:
            ValueError: for posteriors of another shape, fewer than two, or any that is not finite.
        """
        if not isinstance(posterior, DiagonalGaussian):
            raise ValueError(f"`posterior` has to be a DiagonalGaussian, but is {shown(posterior)}.")
        mean = posterior.mean
        check_shapes(posterior=(mean, f"float: blocks {self._block}"))
        if len(mean) < 2:
            raise ValueError(f"`posterior` has to be that of 2 or more blocks, but is of {len(mean)}.")
        center = mean.mean(0)
        variance = mean.var(0) + posterior.log_variance.exp().mean(0)  # the law of total variance
        if not (center.isfinite().all() and variance.isfinite().all()):
            raise ValueError("`posterior` holds values that are not finite; the VAE diverged.")
        if self.config.latent_statistics == "scalar":
            variance = variance.mean().expand_as(center)
        self.latent_mean.copy_(center)
        self.latent_std.copy_(variance.sqrt().clamp_min(1e-4))
        self.latent_count.fill_(len(mean))

    def _apply(self, fn, recurse: bool = True):
        # Latents stay float32 whatever the model is cast to, and so do the statistics that scale them.
        kept = {name: getattr(self, name) for name in ("latent_mean", "latent_std")}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            moved = getattr(self, name)
            if moved.dtype != value.dtype:
                setattr(self, name, value.to(moved.device))
        return self

    def _noise_scale(self, posterior: DiagonalGaussian) -> Tensor | float:
        if self.config.latent_noise_unit == "absolute":
            return self.config.latent_noise
        return self.config.latent_noise * posterior.mean.detach().std()  # no gradient: growing shall not help

    def _check_context(
        self, batch: int, context_ids: Tensor | None, context_mask: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return context tokens and their mask, or `None` for a decoder that reads none.

        Raises:
            ValueError: if they are not there where the decoder reads them or there where it does not, do not fit the
                batch, or leave no position of the LM for a block.
        """
        if not self.config.decoder_reads_context:
            for name, tensor in (("context_ids", context_ids), ("context_mask", context_mask)):
                if tensor is not None:
                    raise ValueError(f"`{name}` is given, but the decoder was built without `decoder_reads_context`.")
            return None
        if context_ids is None:
            raise ValueError(
                "`context_ids` is missing: this decoder reads what stands before a block, and so needs it."
            )
        self._check_tokens(context_ids=context_ids, context_mask=context_mask)
        check_shapes(context_ids=(context_ids, f"{batch} context"))
        if context_mask is None:
            context_mask = torch.ones_like(context_ids)
        limit = self.config.reader_config.to_dict().get("max_position_embeddings")  # not every LM has one
        used = int(context_mask.sum(1).max()) + self.config.latents_per_block if context_mask.numel() else 0
        if limit is not None and used >= limit:
            raise ValueError(
                f"`context_ids` and latents take {used} of the {limit} positions of the LM; shorten them."
            )
        return context_ids, context_mask.long()

    def _prefix(self, latents: Tensor, context: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return the states of context and latents, `(batch, prefix, width)`, and their mask, which has holes for padding."""
        states = self.from_latent(latents.to(self.from_latent.weight.dtype))  # (batch, latents, width)
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        if context is None:
            return states, mask
        read = self.decoder.get_input_embeddings()(context[0])
        return torch.cat([read, states], dim=1), torch.cat([context[1], mask], dim=1)

    def _score(
        self, latents: Tensor, input_ids: Tensor, attention_mask: Tensor, context: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Return the `(batch, length + 1, vocab)` logits of each token, and of what follows the last."""
        prefix, mask = self._prefix(latents, context)
        tokens = self.decoder.get_input_embeddings()(input_ids)
        mask = torch.cat([mask, attention_mask.long()], dim=1)
        output = self.decoder(
            inputs_embeds=torch.cat([prefix, tokens], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),  # latents follow the last token, not the padding
            logits_to_keep=input_ids.shape[1] + 1,
            use_cache=False,
        )
        return output.logits

    def _losses(self, logits: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return each block's mean cross-entropy over its tokens and its end: `(batch,)`, float32."""
        lengths = attention_mask.sum(1)  # (batch,)
        labels = torch.cat([input_ids.masked_fill(attention_mask == 0, -100), input_ids[:, :1] * 0 - 100], dim=1)
        labels = labels.scatter(1, lengths[:, None], self.config.eos_token_id)  # behind the last token
        losses = nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
        return losses.sum(1) / (lengths + 1)

    def read_out(self, latents: Tensor) -> Tensor:
        """Return the `(batch, readout_length, vocabulary)` scores of a block's first tokens, linear in its latents.

        Args:
            latents (`Tensor` of shape `(batch, latents_per_block, latent_dim)`): not standardised.

        Raises:
            ValueError: if the configuration's `readout_weight` is 0: then there is no readout.
        """
        if self.readout is None:
            raise ValueError("`readout_weight` is 0: this VAE was built without a readout.")
        states = self.readout(latents.to(self.readout.weight.dtype).flatten(1))
        states = states.unflatten(1, (self.config.readout_length, self.config.reader_config.hidden_size))
        return self.decoder.get_output_embeddings()(states)

    def _readout_losses(self, latents: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return each block's mean cross-entropy over the tokens that are read out: `(batch,)`, float32."""
        length = min(self.config.readout_length, input_ids.shape[1])
        labels = input_ids.masked_fill(attention_mask == 0, -100)[:, :length]
        scores = self.read_out(latents)[:, :length].float().transpose(1, 2)
        losses = nn.functional.cross_entropy(scores, labels, reduction="none")
        return losses.sum(1) / (labels != -100).sum(1).clamp_min(1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ThoughtVAE):
            init.normal_(module.queries, std=0.02)
            init.zeros_(module.latent_mean)
            init.ones_(module.latent_std)
            init.zeros_(module.latent_count)


def check_fields(config_class: type, values: dict) -> None:
    """Raise `ValueError` for a keyword that is no field of a configuration, which would be kept without a word."""
    unknown = set(values) - set(config_class.__dataclass_fields__)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no field {sorted(unknown)}.")
