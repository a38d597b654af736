"""The reasoner: a causal LM that denoises blocks of latents, decides when to stop and answers (paper, §3.2-3.3).

A sequence is `Q ⟨BOT⟩ Z ⟨EOT⟩ … ⟨SOA⟩ y`; the block being denoised has a timestep token behind its ⟨BOT⟩, which is
gone once it is clean. Attention is causal, and bidirectional within a block. Three heads share the backbone: a
projection to what the latents' prediction is (zero at first, so that the initial velocity is zero), the LM's own for
the answer, and a binary one at ⟨EOT⟩ for going on or answering.

What differs from the paper, which is silent about it: one packed pass gives all losses (`packing.py`); markers have an
embedding table of their own, so that the vocabulary stays the LM's; latents are standardised; and the flow matching
loss of stage 2 can be conditioned on either the true or the generated blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from ..arguments import check_integer, check_option, check_shapes, check_token_ids, present
from ..loading import CompleteLoadingMixin, load_complete
from .configuration_ladir import LaDiRConfig
from .denoising import roll_out
from .losses import add_flow_noise, answer_loss, flow_loss, flow_target, mean_of_kept, stop_loss
from .modeling_thought_vae import check_fields
from .packing import ANSWER, BOT, CLEAN, EOT, NOISY, SOA, additive_mask, pack
from .prefix_cache import Prefix, PrefixCache


FLOW_CONTEXTS = ("oracle", "generated")


@dataclass
class LaDiROutput(ModelOutput):
    """What `LaDiRForReasoning.forward` returns.

    Attributes:
        loss (`Tensor` of shape `()`): the weighted sum of the other three (eq. 5).
        flow_loss (`Tensor` of shape `()`): mean squared error of the prediction (eq. 2).
        answer_loss (`Tensor` of shape `()`): cross-entropy of the answer in nats per token (eq. 3).
        stop_loss (`Tensor` of shape `()`): cross-entropy of going on or answering in nats (eq. 4).
        prediction (`Tensor` of shape `(batch, blocks, copies, latents_per_block, latent_dim)`): float32.
        answer_logits (`Tensor` of shape `(batch, answer_length, vocabulary)`): scores of each token of the answer.
        stop_logits (`Tensor` of shape `(batch, blocks, 2)`): scores of ⟨BOT⟩ and ⟨SOA⟩ after each block.
        generated_latents (`Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`, *optional*): of the
            rollout.
    """

    loss: Tensor | None = None
    flow_loss: Tensor | None = None
    answer_loss: Tensor | None = None
    stop_loss: Tensor | None = None
    prediction: Tensor | None = None
    answer_logits: Tensor | None = None
    stop_logits: Tensor | None = None
    generated_latents: Tensor | None = None


class LaDiRForReasoning(CompleteLoadingMixin, PreTrainedModel):
    """A causal LM that reasons in blocks of latents.

    Args:
        config ([`LaDiRConfig`]): sizes, and the configuration of the LM inside.
    """

    config: LaDiRConfig
    config_class = LaDiRConfig
    base_model_prefix = ""
    main_input_name = "question_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: LaDiRConfig):
        """Build the model with random weights; see [`~LaDiRForReasoning.from_causal_lm`] for a pretrained LM."""
        super().__init__(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        width = config.text_config.hidden_size
        self.markers = nn.Embedding(3, width)  # ⟨BOT⟩, ⟨EOT⟩, ⟨SOA⟩
        self.null_condition = nn.Parameter(torch.zeros(width))
        self.time_features = Timesteps(config.time_embedding_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(config.time_embedding_dim, width)
        self.latent_in = nn.Linear(config.latent_dim, width)
        self.latent_out = nn.Linear(width, config.latent_dim)
        self.stop_head = nn.Linear(width, 2)
        self.post_init()

    @classmethod
    def from_causal_lm(cls, model: PreTrainedModel | str, *, lm_kwargs: dict | None = None, **config_kwargs):
        """Build the reasoner around a pretrained causal LM; the heads and markers are new.

        Args:
            model (`PreTrainedModel` or `str`): a causal LM (Llama, Qwen, GPT-2, …), or its Hub id or folder.
            lm_kwargs (`dict`, *optional*): arguments for `AutoModelForCausalLM.from_pretrained`.
            config_kwargs: fields of [`LaDiRConfig`], such as `latents_per_block=4, latent_dim=512`.

        Raises:
            OSError: if the LM cannot be found or read.
            ValueError: if a field of the configuration is unknown or out of range.
        """
        check_fields(LaDiRConfig, config_kwargs)
        if isinstance(model, str):
            model = load_complete(AutoModelForCausalLM, model, **(lm_kwargs or {}))
        reasoner = cls(LaDiRConfig(text_config=model.config, **config_kwargs))
        reasoner.language_model.load_state_dict(model.state_dict())
        return reasoner

    def forward(
        self,
        question_ids: Tensor,
        question_mask: Tensor,
        block_latents: Tensor,
        block_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        times: Tensor,
        noise: Tensor,
        condition_dropped: Tensor | None = None,
        rollout_noise: Tensor | None = None,
        rollout_steps: int = 10,
        rollout_flow_context: str = "oracle",
        return_dict: bool = True,
    ) -> LaDiROutput | tuple[Tensor, ...]:
        """Return all losses of a batch (eq. 2-5), teacher-forced or on blocks that the model generates itself.

        Args:
            question_ids (`Tensor` of shape `(batch, question_length)`): tokens, int64.
            question_mask (`Tensor` of the same shape): bool, padded on the right.
            block_latents (`Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`): standardised latents of
                the true steps, float32.
            block_mask (`Tensor` of shape `(batch, blocks)`): bool, the first blocks of each row, at least one.
            answer_ids (`Tensor` of shape `(batch, answer_length)`): tokens and the end of text after them, int64.
            answer_mask (`Tensor` of the same shape): bool, padded on the right.
            times (`Tensor` of shape `(batch, blocks, copies)`): in [0, 1], of each noisy copy.
            noise (`Tensor` of shape `(batch, blocks, copies, latents_per_block, latent_dim)`): standard normal,
                float32.
            condition_dropped (`Tensor` of shape `(batch,)`, *optional*): bool, whose question is replaced by the
                learned null; their answers and stops do not count.
            rollout_noise (`Tensor` of shape `(batch, blocks, latents_per_block, latent_dim)`, *optional*): what the
                blocks are generated from (stage 2), with gradients through all steps; then answer and stops see those.
            rollout_steps (`int`, *optional*, defaults to 10): denoising steps of each of them.
            rollout_flow_context (`str`, *optional*, defaults to `"oracle"`): which blocks precede a noisy copy in
                stage 2: the true ones, or those `"generated"`.
            return_dict (`bool`, *optional*, defaults to `True`): return a [`LaDiROutput`] or a tuple.

        Returns:
            [`LaDiROutput`], or its fields as a tuple.

        Raises:
            ValueError: for shapes that disagree, or a rollout under the LM's own gradient checkpointing.
        """
        self._check_inputs(
            self.config.text_config.vocab_size,
            f"{self.config.latents_per_block} {self.config.latent_dim}",
            question_ids=question_ids,
            question_mask=question_mask,
            block_latents=block_latents,
            block_mask=block_mask,
            answer_ids=answer_ids,
            answer_mask=answer_mask,
            times=times,
            noise=noise,
            condition_dropped=condition_dropped,
            rollout_noise=rollout_noise,
        )
        generated = None
        if rollout_noise is not None:
            check_integer("rollout_steps", rollout_steps)
            self._check_rollout(rollout_flow_context)
            generated = roll_out(self, question_ids, question_mask, block_mask, rollout_noise.float(), rollout_steps)

        # 1. one packed pass, or two where flow matching and answer see different blocks
        question = self.embed_question(question_ids, question_mask, condition_dropped)
        inputs = (question, question_mask, block_mask, answer_ids, answer_mask)
        noised = add_flow_noise(block_latents[:, :, None], noise, times)  # (batch, blocks, copies, latents, dim)
        context = block_latents if generated is None else generated
        if generated is not None and rollout_flow_context == "oracle":
            prediction = self._packed_pass(*inputs, block_latents, noised, times)[0]
            _, answer_logits, stop_logits = self._packed_pass(*inputs, context, noised[:, :, :0], times[:, :, :0])
        else:
            prediction, answer_logits, stop_logits = self._packed_pass(*inputs, context, noised, times)

        # 2. the losses, every row alike
        target = flow_target(block_latents[:, :, None], noise, times, self.config.prediction_type)
        losses = {
            "flow_loss": flow_loss(prediction, target, block_mask).mean(),
            "answer_loss": mean_of_kept(
                answer_loss(answer_logits, answer_ids.masked_fill(~answer_mask.bool(), -100)), condition_dropped
            ),
            "stop_loss": mean_of_kept(stop_loss(stop_logits, block_mask.bool()), condition_dropped),
        }
        weights = (self.config.flow_weight, self.config.answer_weight, self.config.stop_weight)
        output = LaDiROutput(
            loss=sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True)),
            **losses,
            prediction=prediction,
            answer_logits=answer_logits,
            stop_logits=stop_logits,
            generated_latents=generated,
        )
        return output if return_dict else output.to_tuple()

    def embed_question(self, ids: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Return the `(batch, length, width)` embeddings of questions, those of dropped ones null but for ⟨bos⟩."""
        embeddings = self.language_model.get_input_embeddings()(ids)
        if dropped is None:
            return embeddings
        is_null = dropped[:, None] & mask.bool()
        if self.config.bos_token_id is not None:
            is_null = is_null & (ids != self.config.bos_token_id)
        return torch.where(is_null[..., None], self.null_condition.to(embeddings.dtype), embeddings)

    def embed_block(self, latents: Tensor, t: Tensor | None = None) -> Tensor:
        """Return the embeddings of blocks: `⟨BOT⟩ z ⟨EOT⟩`, or `⟨BOT⟩ t z_t ⟨EOT⟩` where a time is given.

        Args:
            latents (`Tensor` of shape `(…, latents_per_block, latent_dim)`): clean or noised.
            t (`Tensor` of shape `(…)`, *optional*): times in [0, 1].

        Returns:
            `Tensor` of shape `(…, latents_per_block + 2, width)`, or one more with a time.
        """
        states = self.latent_in(latents.to(self.latent_in.weight.dtype))
        bot, eot = (self.markers.weight[i].expand_as(states[..., :1, :]) for i in (BOT, EOT))
        if t is None:
            return torch.cat([bot, states, eot], dim=-2)
        features = self.time_features(
            t.float().flatten() * self.config.time_scale
        )  # float32, whatever the weights are
        token = self.time_embedding(features.to(states.dtype)).view(*t.shape, 1, states.shape[-1])
        return torch.cat([bot, token, states, eot], dim=-2)

    def embed_answer(self, ids: Tensor) -> Tensor:
        """Return the `(batch, length + 1, width)` embeddings of ⟨SOA⟩ and `(batch, length)` tokens."""
        tokens = self.language_model.get_input_embeddings()(ids)
        start = self.markers.weight[SOA].to(tokens.dtype).expand(len(tokens), 1, -1)
        return torch.cat([start, tokens], dim=1)

    def read(
        self, embeddings: Tensor, allowed: Tensor, position_ids: Tensor, prefix: Prefix | None = None
    ) -> tuple[Tensor, PrefixCache]:
        """Run the backbone on `(rows, queries, width)` embeddings behind a prefix.

        Args:
            embeddings (`Tensor` of shape `(rows, queries, width)`): what to read.
            allowed (`Tensor` of shape `(rows, queries, prefix + queries)`): bool, who attends to whom.
            position_ids (`Tensor` of shape `(rows, queries)`): positions.
            prefix ([`Prefix`], *optional*): what was read before.

        Returns:
            The hidden states `(rows, queries, width)`, and the cache, which has keys and values of prefix and queries.
        """
        cache = PrefixCache(prefix)
        states = self.language_model.base_model(
            inputs_embeds=embeddings,
            attention_mask=additive_mask(allowed, embeddings.dtype),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return states, cache

    def answer_logits(self, states: Tensor) -> Tensor:
        """Return the `(…, vocabulary)` scores of the next token."""
        return self.language_model.get_output_embeddings()(states)

    def _packed_pass(
        self, question, question_mask, block_mask, answer_ids, answer_mask, context, noised, times
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `(batch, blocks, copies, latents, dim)` prediction, answer and stop logits of one forward pass."""
        layout = pack(
            question_mask.bool(), block_mask.bool(), answer_mask[:, :-1].bool(), context.shape[2], times.shape[2]
        )
        parts = [
            question,
            self.embed_block(context).flatten(1, 2),
            self.embed_answer(answer_ids[:, :-1]),  # the last token predicts nothing
            self.embed_block(noised, times).flatten(1, 3),
        ]
        embeddings = torch.cat(parts, dim=1)
        states = self.language_model.base_model(
            inputs_embeds=embeddings,
            attention_mask=layout.attention_mask(embeddings.dtype),
            position_ids=layout.position_ids,
            use_cache=False,
        ).last_hidden_state
        sizes = [part.shape[1] for part in parts]
        by_kind = states.split(sizes, dim=1)
        clean = by_kind[CLEAN].unflatten(1, (context.shape[1], context.shape[2] + 2))
        noisy = by_kind[NOISY].unflatten(1, (*times.shape[1:], context.shape[2] + 3))
        prediction, stop_logits = self.latent_out(noisy[..., 2:-1, :]).float(), self.stop_head(clean[:, :, -1])
        return prediction, self.answer_logits(by_kind[ANSWER]), stop_logits

    def _check_inputs(self, vocab_size: int, block: str, **tensors: Tensor | None) -> None:
        """Raise `ValueError`, naming the tensor, unless all are as `forward` documents them."""
        forms = {
            "question_ids": "int64: batch question_length",
            "question_mask": "mask: batch question_length",
            "block_latents": f"float: batch blocks {block}",
            "block_mask": "mask: batch blocks",
            "answer_ids": "int64: batch answer_length",
            "answer_mask": "mask: batch answer_length",
            "times": "float: batch blocks copies",
            "noise": f"float: batch blocks copies {block}",
            "condition_dropped": "bool: batch",
            "rollout_noise": f"float: batch blocks {block}",
        }
        optional = present(
            **{name: (tensors.pop(name), forms[name]) for name in ("condition_dropped", "rollout_noise")}
        )
        check_shapes(**{name: (tensor, forms[name]) for name, tensor in tensors.items()}, **optional)
        for name in ("question_ids", "answer_ids"):
            check_token_ids(name, tensors[name], vocab_size)

    def _check_rollout(self, context: str) -> None:
        check_option("rollout_flow_context", context, FLOW_CONTEXTS)
        layers = (module for module in self.modules() if isinstance(module, GradientCheckpointingLayer))
        if self.training and any(layer.gradient_checkpointing for layer in layers):
            raise ValueError(
                "The LM's own gradient checkpointing drops keys and values, which a rollout needs; switch "
                "`gradient_checkpointing` off: the rollout checkpoints its steps itself."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.latent_out:
            init.zeros_(module.weight)  # the initial velocity is zero
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, LaDiRForReasoning):
            init.normal_(module.null_condition, std=0.02)
