"""Any Hugging Face model that predicts each position from both sides, behind one call.

LLaDA, a converted Llama or Qwen, BERT and ModernBERT take different arguments, count positions differently and keep their
output layer in different places. Decoding, scoring and training need three things only: hidden states, the logits of some
positions of them, and keys and values that can be kept. The output layer is most of the work where the vocabulary is large, so it runs
on the wanted positions alone; so does all of a Llama's last layer but its keys and values.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ..arguments import check_integer, check_not_empty, check_shapes, check_token_ids, present, shown
from .fused_head import is_plain_linear
from .last_layer import can_skip_positions, gives_the_same, hidden_states_at, take_columns


HEADS = (  # where masked LMs and causal LMs keep what turns hidden states into logits, applied one after the other
    ("lm_head",),  # Llama and its kin, RoBERTa
    ("cls",),  # BERT
    ("head", "decoder"),  # ModernBERT
    ("generator_predictions", "generator_lm_head"),  # ELECTRA
    ("predictions",),  # ALBERT
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
)


class MaskedLanguageModel:
    """A model, its mask token, and its forward pass cut in two: backbone and output layer.

    Args:
        model (`PreTrainedModel`): a [`LLaDAForMaskedDiffusion`], what [`from_causal_lm`] returns, or a masked LM of
            transformers; also with PEFT adapters.
        mask_token_id (`int`, *optional*): id of the mask token; by default that of the model's configuration.

    Raises:
        ValueError: for a model that sees only what precedes a position, an encoder-decoder, or a missing mask token.
    """

    def __init__(self, model: PreTrainedModel, mask_token_id: int | None = None) -> None:
        """Find out what the model takes and where its output layer is."""
        if not isinstance(model, nn.Module):
            raise ValueError(f"`model` has to be a language model of transformers, but is {shown(model)}.")
        self.wrapped = model
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT wraps models
        check_sees_both_sides(self.model)
        self.mask_token_id = find_mask_token(self.model, mask_token_id)
        config = self.model.config.get_text_config()
        self.vocab_size: int = config.vocab_size
        self.max_length: int | None = getattr(config, "max_position_embeddings", None)
        self._backbone = self.model.base_model
        self._accepted = set(inspect.signature(self._backbone.forward).parameters)
        # RoBERTa starts to count behind its padding id; given positions would be wrong, left alone it finds them itself.
        embeddings = getattr(self._backbone, "embeddings", None)
        self._counts_positions = hasattr(embeddings, "create_position_ids_from_input_ids")
        if self._counts_positions and self.max_length is not None:
            self.max_length -= embeddings.padding_idx + 1
        self._head = _find_head(self.model)
        if self._head is not None and not self._head_is_whole():
            self._head = None
        self._can_skip_positions = self._head is not None and self._last_layer_is_known()

    @property
    def is_split(self) -> bool:
        """Whether backbone and output layer can be run apart."""
        return self._head is not None

    @property
    def linear_head(self) -> nn.Linear | None:
        """The output layer where it is one plain linear layer, as things are now: no adapter, no hook, nothing beside it."""
        if self._head is None or len(self._head) != 1 or not is_plain_linear(self._head[0]):
            return None
        return self._head[0]

    @property
    def supports_cache(self) -> bool:
        """Whether keys and values of earlier forward passes can be kept."""
        return "past_key_values" in self._accepted and getattr(self.model.config, "is_causal", None) is False

    @property
    def device(self) -> torch.device:
        """The device that token ids have to be on."""
        return self.model.get_input_embeddings().weight.device

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the `(batch, length, width)` hidden states that the output layer reads.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): int64.
            attention_mask (`Tensor` of shape `(batch, keys)` or `(batch, 1, length, keys)`, *optional*): ones and zeros,
                or an additive mask.
            position_ids (`Tensor` of shape `(batch, length)`, *optional*): by default counted from the first token that
                is attended to, so that padding on the left moves nothing.
            past_key_values (`Cache`, *optional*): keys and values of other positions.

        Raises:
            ValueError: for a model whose output layer was not found.
        """
        if self._head is None:
            raise ValueError(
                f"The output layer of {type(self.model).__name__} cannot be run apart from it; ask for logits instead."
            )
        return self._backbone(**self._arguments(input_ids, attention_mask, position_ids, past_key_values))[0]

    def head(self, hidden_states: Tensor) -> Tensor:
        """Return the `(…, vocab)` logits of `(…, width)` hidden states."""
        for module in self._head:
            hidden_states = module(hidden_states)
        return hidden_states

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the logits of some positions, or of all; the arguments are those of `hidden_states`, and which positions.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): int64.
            attention_mask (`Tensor` of shape `(batch, keys)` or `(batch, 1, length, keys)`, *optional*): as there.
            positions (`Tensor` of shape `(batch, count)`, *optional*): which columns; int64, all of them by default.
            position_ids (`Tensor` of shape `(batch, length)`, *optional*): as there; int64.
            past_key_values (`Cache`, *optional*): as there.

        Returns:
            `Tensor` of shape `(batch, count, vocab)` or `(batch, length, vocab)`, in the model's dtype.
        """
        if positions is not None:
            check_shapes(input_ids=(input_ids, "batch length"), positions=(positions, "int64: batch count"))
            check_token_ids("positions", positions, input_ids.shape[1])
        arguments = self._arguments(input_ids, attention_mask, position_ids, past_key_values)
        if self._head is None:
            logits = self.model(**arguments).logits
            return logits if positions is None else take_columns(logits, positions)
        if positions is None:
            return self.head(self._backbone(**arguments)[0])
        if self._can_skip_positions and positions.numel() and can_skip_positions(self._backbone):
            return self.head(hidden_states_at(self._backbone, positions, **arguments))
        return self.head(take_columns(self._backbone(**arguments)[0], positions))

    def _arguments(self, input_ids, attention_mask, position_ids, past_key_values) -> dict:
        check_shapes(
            input_ids=(input_ids, "int64: batch length"),
            **present(position_ids=(position_ids, "int64: rows length")),
        )
        check_not_empty("input_ids", input_ids)
        check_token_ids("input_ids", input_ids, self.vocab_size)
        if attention_mask is not None and (
            not isinstance(attention_mask, Tensor)
            or attention_mask.ndim not in (2, 4)
            or len(attention_mask) != len(input_ids)
        ):
            raise ValueError(
                f"`attention_mask` has to be (batch, keys) or (batch, 1, length, keys), but is {shown(attention_mask)}."
            )
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = positions_of(attention_mask)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "past_key_values": past_key_values}
        if not self._counts_positions:
            given["position_ids"] = position_ids
        arguments = {name: value for name, value in given.items() if value is not None and name in self._accepted}
        if "use_cache" in self._accepted:
            arguments["use_cache"] = past_key_values is not None
        return arguments

    @torch.no_grad()
    def _head_is_whole(self) -> bool:
        """Whether nothing else, such as a scale of the logits, lies between the backbone and the logits."""
        input_ids = torch.tensor([[self.mask_token_id, self.mask_token_id]], device=self.device)
        with _evaluating(self.model):
            expected = self.model(input_ids=input_ids).logits
            return torch.equal(self.head(self._backbone(input_ids=input_ids)[0]), expected)

    def _last_layer_is_known(self) -> bool:
        """Whether the last layer can be run on some positions and is then what it is in the model's own pass."""
        with _evaluating(self.model):
            return can_skip_positions(self._backbone) and gives_the_same(self._backbone)


def positions_of(attention_mask: Tensor) -> Tensor:
    """Return `(batch, length)` positions that count what a `(batch, length)` mask attends to; 0 before its first one."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def check_sees_both_sides(model: PreTrainedModel) -> None:
    """Raise `ValueError` unless each position of the model's output depends on what follows it."""
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"`model` is a {name}, not a language model of transformers.")
    config = model.config
    if config.is_encoder_decoder:
        raise ValueError(f"`model` is a {name}, an encoder-decoder; masked diffusion needs a masked or converted LM.")
    masked = {known.__name__ for known in type(model).__mro__} & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
    if getattr(config, "is_causal", None) is False or (masked and not getattr(config, "is_decoder", False)):
        return
    raise ValueError(
        f"`model` is a {name}, whose positions see only what precedes them, so that it cannot fill in masks; convert and "
        "fine-tune it first: `from_causal_lm(model, tokenizer)`."
    )


def find_mask_token(model: PreTrainedModel, mask_token_id: int | None) -> int:
    """Return the id of the mask token: the given one, or the one of the model's configuration.

    Raises:
        ValueError: if there is none, the two differ, or it is no token of the model.
    """
    if mask_token_id is not None:
        check_integer("mask_token_id", mask_token_id, least=0)
    own = getattr(model.config, "mask_token_id", None)
    if own is not None and mask_token_id is not None and own != mask_token_id:
        raise ValueError(f"`mask_token_id` is {mask_token_id}, but the model was trained with the mask token {own}.")
    found = own if mask_token_id is None else mask_token_id
    if found is None:
        raise ValueError(
            "There is no mask token: neither `model.config.mask_token_id` nor the tokenizer's `mask_token` is set; set "
            "the one that the model was trained with."
        )
    size = model.get_input_embeddings().num_embeddings
    if not 0 <= found < size:
        raise ValueError(f"`mask_token_id` has to lie in [0, {size}), the model's vocabulary, but is {found}.")
    return found


def _find_head(model: PreTrainedModel) -> list[nn.Module] | None:
    for names in HEADS:
        modules = [getattr(model, name, None) for name in names]
        if all(isinstance(module, nn.Module) for module in modules):
            return modules
    return None


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
