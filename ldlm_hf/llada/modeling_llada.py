"""LLaDA: a Llama that sees both sides of every position and fills in masks (Nie et al. 2025, §2).

There is no block code here. Attention, rotary embedding, RMSNorm and SwiGLU of the published model are a Llama's to the
last bit in float32, and `is_causal=False` lifts the causal mask; what differs is the names of the tensors, which are
translated on loading and back on saving. Time is not an input: the number of masks tells it.

What differs from the published code: in bfloat16 queries and keys are rotated in bfloat16, as in every Llama of
transformers, and there in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import Cache, LlamaForCausalLM, LlamaModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from ..arguments import check_any_label, check_integer, check_not_empty, check_shapes, check_token_ids, present
from ..loading import CompleteLoadingMixin
from .configuration_llada import LLaDAConfig


BLOCK_TENSORS = {  # name in a published checkpoint: name in transformers
    "attn_norm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_norm": "post_attention_layernorm",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}


class LLaDAModel(CompleteLoadingMixin, LlamaModel):
    """LLaDA without its output layer: hidden states of every position, each from both sides.

    Args:
        config ([`LLaDAConfig`]): sizes.
    """

    config: LLaDAConfig
    config_class = LLaDAConfig
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]
    _refuses_unknown_weights = True

    def __init__(self, config: LLaDAConfig):
        """Build the model with random weights."""
        super().__init__(config)
        # A Llama's padding token is zero and never trained. LLaDA's is its end of sequence, which is learned like any other.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states of every position.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`, *optional*): as for [`LLaDAForMaskedDiffusion`].
            attention_mask (`Tensor` of shape `(batch, keys)` or `(batch, 1, length, keys)`, *optional*): as there.
            position_ids (`Tensor` of shape `(batch, length)`, *optional*): as there.
            past_key_values (`Cache`, *optional*): as there.
            inputs_embeds (`Tensor` of shape `(batch, length, width)`, *optional*): as there.
            use_cache (`bool`, *optional*): as there.
            kwargs: other arguments of `LlamaModel.forward`.

        Returns:
            `BaseModelOutputWithPast`, whose `last_hidden_state` is `(batch, length, width)`.

        Raises:
            ValueError: for tensors that do not fit together, or token ids that are not in the vocabulary.
        """
        keys = "keys" if past_key_values is not None else "length"
        is_full = isinstance(attention_mask, Tensor) and attention_mask.ndim == 4
        check_shapes(
            **present(
                input_ids=(input_ids, "int64: batch length"),
                inputs_embeds=(inputs_embeds, f"float: batch length {self.config.hidden_size}"),
                attention_mask=(attention_mask, f"mask: batch 1 length {keys}" if is_full else f"mask: batch {keys}"),
                position_ids=(position_ids, "int64: rows length"),
            )
        )
        if input_ids is not None:
            check_not_empty("input_ids", input_ids)
            check_token_ids("input_ids", input_ids, self.config.vocab_size)
        elif inputs_embeds is not None:
            check_not_empty("inputs_embeds", inputs_embeds)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )


class LLaDAForMaskedDiffusion(CompleteLoadingMixin, LlamaForCausalLM):
    """LLaDA: logits of every position, of which those at masks count.

    Args:
        config ([`LLaDAConfig`]): sizes, and the mask token.
    """

    config: LLaDAConfig
    config_class = LLaDAConfig
    _refuses_unknown_weights = True

    def __init__(self, config: LLaDAConfig):
        """Build the model with random weights."""
        super(LlamaForCausalLM, self).__init__(config)  # not its own constructor, which would build a LlamaModel first
        self.model = LLaDAModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.loss_type = "ForMaskedLM"  # labels are not shifted
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """Score every token of the vocabulary at every position, given all other positions.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`, *optional*): token ids, masks among them; int64.
            attention_mask (`Tensor` of shape `(batch, keys)` or `(batch, 1, length, keys)`, *optional*): 1 for tokens and 0
                for padding, on either side; or an additive mask in the model's dtype.
            position_ids (`Tensor` of shape `(batch, length)`, *optional*): positions; from 0 on by default.
            past_key_values (`Cache`, *optional*): keys and values of positions that are not in `input_ids`.
            inputs_embeds (`Tensor` of shape `(batch, length, width)`, *optional*): instead of `input_ids`.
            labels (`Tensor` of shape `(batch, length)`, *optional*): the token at each position itself, not the next one,
                or -100 where none counts. Their mean cross-entropy is the loss, without diffusion's weights.
            use_cache (`bool`, *optional*): return keys and values.
            logits_to_keep (`int` or `Tensor` of shape `(count,)`, *optional*, defaults to 0): the last so many positions, or
                those with these indices; 0 for all.
            kwargs: other arguments of `LlamaForCausalLM.forward`.

        Returns:
            `CausalLMOutputWithPast`, whose `logits` are `(batch, length, vocab)`, or its fields as a tuple.

        Raises:
            ValueError: for `labels` together with `logits_to_keep`, and tensors that do not fit together.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("`logits_to_keep` leaves out logits that `labels` need; give one of the two.")
        if isinstance(logits_to_keep, Tensor):
            texts = (inputs_embeds, "batch length width") if input_ids is None else (input_ids, "batch length")
            length = check_shapes(input_ids=texts, logits_to_keep=(logits_to_keep, "int64: count")).get("length", 0)
            check_token_ids("logits_to_keep", logits_to_keep, length)
        else:
            check_integer("logits_to_keep", logits_to_keep, least=0)
        if labels is not None:
            texts = (inputs_embeds, "batch length width") if input_ids is None else (input_ids, "batch length")
            check_shapes(input_ids=texts, labels=(labels, "int64: batch length"))
            check_token_ids("labels", labels.clamp_min(0), self.vocab_size)
            check_any_label(labels)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> tuple[list[str], list[str]]:
        """Load tensors by a Llama's names or the published ones, in which checkpoints are saved."""
        # transformers' own Trainer resumes by this, and skips without an error what it does not know.
        named = {_llama_name(name): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(named, strict=strict, assign=assign)

    @classmethod
    def can_generate(cls) -> bool:
        """Return `False`: tokens are not written from left to right."""
        return False

    def generate(self, *args, **kwargs) -> None:
        """Raise `NotImplementedError`: the next token is not what this model predicts."""
        raise NotImplementedError(
            f"{type(self).__name__} fills in masks and does not write from left to right; use "
            "`MaskedDiffusionPipeline(model, scheduler, tokenizer)` to sample from it."
        )


def _weight_renamings() -> list[WeightRenaming]:
    # Patterns are read in both directions: groups have to be the same on both sides, and a lookbehind, which is dropped where
    # it is a target, keeps `norm` from being found in `input_layernorm`.
    renamings = [
        WeightRenaming(r"^model\.transformer\.ff_out\.", r"^lm_head\."),
        WeightRenaming(r"transformer\.wte\.", r"embed_tokens\."),
        WeightRenaming(r"transformer\.ln_f\.", r"(?<!\w)norm\."),
    ]
    for published, name in BLOCK_TENSORS.items():
        name = name.replace(".", r"\.")
        renamings.append(WeightRenaming(rf"transformer\.blocks\.(\d+)\.{published}\.", rf"layers\.(\d+)\.{name}\."))
    return renamings


def _llama_name(name: str) -> str:
    for renaming in _RENAMINGS:
        name, _ = renaming.rename_source_key(name)
    return name


_RENAMINGS = _weight_renamings()
register_checkpoint_conversion_mapping(LLaDAConfig.model_type, _weight_renamings(), overwrite=True)
