"""LLaDA: a Llama that sees both sides of every position and fills in masks (Nie et al. 2025, §2).

There is no block code here. Attention, rotary embedding, RMSNorm and SwiGLU of the published model are a Llama's to the
last bit in float32, and `is_causal=False` lifts the causal mask; what differs is the names of the tensors, which are
translated on loading and back on saving. Time is not an input: the number of masks tells it.

What differs from the published code: in bfloat16 queries and keys are rotated in bfloat16, as in every Llama of
transformers, and there in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Cache, LlamaForCausalLM, LlamaModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..checkpoints import check_complete, complete_loading_kwargs
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


class LLaDAModel(LlamaModel):
    """LLaDA without its output layer: hidden states of every position, each from both sides.

    Args:
        config ([`LLaDAConfig`]): sizes.
    """

    config: LLaDAConfig
    config_class = LLaDAConfig
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: LLaDAConfig):
        """Build the model with random weights."""
        super().__init__(config)
        # A Llama's padding token is zero and never trained. LLaDA's is its end of sequence, which is learned like any other.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *args, output_loading_info: bool = False, **kwargs):
        """Load a checkpoint as `PreTrainedModel.from_pretrained` does, but only a LLaDA's, complete, from safetensors.

        Raises:
            OSError: if files or weights are missing, left over, truncated or of another shape.
            ValueError: if it is no LLaDA.
        """
        model, info = _load(cls, super().from_pretrained, pretrained_model_name_or_path, args, kwargs)
        return (model, info) if output_loading_info else model


class LLaDAForMaskedDiffusion(LlamaForCausalLM):
    """LLaDA: logits of every position, of which those at masks count.

    Args:
        config ([`LLaDAConfig`]): sizes, and the mask token.
    """

    config: LLaDAConfig
    config_class = LLaDAConfig

    def __init__(self, config: LLaDAConfig):
        """Build the model with random weights."""
        super(LlamaForCausalLM, self).__init__(config)  # not its own constructor, which would build a LlamaModel first
        self.model = LLaDAModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.loss_type = "ForMaskedLM"  # labels are not shifted
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *args, output_loading_info: bool = False, **kwargs):
        """Load a checkpoint as `PreTrainedModel.from_pretrained` does, but only a LLaDA's, complete, from safetensors.

        Raises:
            OSError: if files or weights are missing, left over, truncated or of another shape.
            ValueError: if it is no LLaDA; a causal LM becomes one by [`from_causal_lm`].
        """
        model, info = _load(cls, super().from_pretrained, pretrained_model_name_or_path, args, kwargs)
        return (model, info) if output_loading_info else model

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
            ValueError: for `labels` together with `logits_to_keep`.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("`logits_to_keep` leaves out logits that `labels` need; give one of the two.")
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


def _load(cls: type, from_pretrained: Callable, source: str, args: tuple, kwargs: dict) -> tuple:
    """Return what `from_pretrained` of transformers loads, and its report; raise `OSError` unless the two match."""
    try:
        model, info = from_pretrained(source, *args, **complete_loading_kwargs(kwargs))
    except torch.OutOfMemoryError:  # says itself what is wrong
        raise
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"{str(source)!r} has weights that could not be loaded: {error}") from error
    check_complete(cls.__name__, source, info)
    unexpected = sorted(info["unexpected_keys"])
    if unexpected:
        raise OSError(
            f"{str(source)!r} has {len(unexpected)} weights that no {cls.__name__} has, such as {unexpected[:3]}; its "
            "architecture is another one than its config.json says."
        )
    return model, info


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
