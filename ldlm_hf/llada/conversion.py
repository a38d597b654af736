"""Turn a causal language model into a masked diffusion model: same weights, no causal mask, one more token.

The converted model reads both sides, but was trained to predict the next token from the left one. It has to be fine-tuned
on masked tokens before it is of use ("adaptation", Gong et al. 2024); what it knows makes that short. Unlike there, nothing
is shifted here: the logits at a position predict the token at that position, as in LLaDA.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import shown
from .configuration_llada import ACTIVATIONS, LLaDAConfig
from .modeling_llada import LLaDAForMaskedDiffusion


PROBE_LENGTH, PROBE_PADDING = 8, 4


def from_causal_lm(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, mask_token: str = "<|mask|>"
) -> PreTrainedModel:
    """Lift the causal mask of a causal LM and give it a mask token; it has to be fine-tuned on masked tokens then.

    A Llama becomes a [`LLaDAForMaskedDiffusion`] around the same tensors, and `model` itself should not be used any more.
    Any other model stays what it is, with `is_causal=False` in its configuration, which transformers heeds and saves: its
    `generate` still writes from left to right, and its `labels` are still shifted by one, so use this package's pipeline
    and losses with it.

    Args:
        model (`PreTrainedModel`): a causal LM of transformers with full attention: Llama, SmolLM2, Qwen2, Qwen3, Mistral, …
        tokenizer (`PreTrainedTokenizerBase`, *optional*): its tokenizer, which is given the mask token if it has none.
            Without it the mask token is the configuration's, or a new row behind the vocabulary.
        mask_token (`str`, *optional*, defaults to `"<|mask|>"`): text of the mask token where the tokenizer has none; a token
            of that text that it already knows becomes the mask.

    Returns:
        `PreTrainedModel`, whose `config.mask_token_id` is set. The embedding of a new mask token is the mean of all others.

    Raises:
        ValueError: for a model that is no causal LM, attends to a window only, or whose code cannot see what follows; and for
            a mask token that has another meaning.
    """
    _check_is_causal_lm(model)
    _check_attends_to_all(model)
    if not isinstance(tokenizer, PreTrainedTokenizerBase | None):
        raise ValueError(f"`tokenizer` has to be a tokenizer of transformers, but is {shown(tokenizer)}.")
    if not isinstance(mask_token, str) or not mask_token:
        raise ValueError(f"`mask_token` has to be a text that is not empty, but is {shown(mask_token)}.")
    if tokenizer is not None:
        _check_mask_token(tokenizer, mask_token)
    _lift_causal_mask(model)
    mask_token_id = _add_mask_token(model, tokenizer, mask_token)
    model.config.mask_token_id = mask_token_id
    model.config.use_cache = False  # keys and values are out of date as soon as a mask is filled in
    if type(model) is LlamaForCausalLM and _fits_published_layout(model.config):
        return _as_llada(model)
    return model


def _check_is_causal_lm(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"`model` is a {name}, not a `PreTrainedModel`; merge adapters first (`merge_and_unload()`).")
    if isinstance(model, LLaDAForMaskedDiffusion):
        raise ValueError(f"`model` is a {name}, which is a masked diffusion model already; use it as it is.")
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ValueError(f"`model` is a {name}, not a causal LM; load it with `AutoModelForCausalLM`.")
    if model.config.to_dict().get("quantization_config") is not None:
        raise ValueError(f"`model` is a quantized {name}; convert it in full precision, and quantize the result.")


def _check_attends_to_all(model: PreTrainedModel) -> None:
    fields = model.config.to_dict()
    kinds = set(fields.get("layer_types") or ())
    window = None if kinds else fields.get("sliding_window")
    if kinds - {"full_attention"} or window is not None:
        wrong = f"`sliding_window` {window}" if window is not None else f"`layer_types` {sorted(kinds)}"
        raise ValueError(
            f"`model` is a {type(model).__name__} with {wrong}, so that a position sees its neighbourhood only, but a mask "
            "is filled in from the whole text. Where the checkpoint was trained with full attention, load it with "
            "`sliding_window=None`; else choose another."
        )


def _check_mask_token(tokenizer: PreTrainedTokenizerBase, mask_token: str) -> None:
    others = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "mask_token"}
    chosen = mask_token if tokenizer.mask_token is None else tokenizer.mask_token
    if chosen in others.values():
        raise ValueError(f"`mask_token` {chosen!r} means something else to the tokenizer: {others}. Choose another.")


def _lift_causal_mask(model: PreTrainedModel) -> None:
    """Set `is_causal=False`, and raise `ValueError` if the model's code takes no notice."""
    before = vars(model.config).get("is_causal")
    model.config.is_causal = False
    try:
        sees_both_sides, reason = _sees_both_sides(model), "its code masks what follows in its own way"
    except (AttributeError, RuntimeError, TypeError) as error:
        sees_both_sides, reason = False, f"its code fails: {error}"
    if sees_both_sides:
        return
    if before is None:
        del model.config.is_causal
    else:
        model.config.is_causal = before
    raise ValueError(
        f"`model` is a {type(model).__name__}, whose causal mask cannot be lifted by `config.is_causal = False`: {reason}. "
        "Llama, Qwen2, Qwen3 and Mistral can be converted."
    )


@torch.no_grad()
def _sees_both_sides(model: PreTrainedModel) -> bool:
    """Whether the first position depends on the last token, without a padding mask and with one.

    Transformers takes two ways: without padding it passes no mask at all and relies on a flag.
    """
    tokens = torch.arange(PROBE_LENGTH, device=model.device).repeat(2, 1)
    tokens[1, -1] += 1
    tokens %= model.get_input_embeddings().num_embeddings
    padded = torch.nn.functional.pad(tokens, (PROBE_PADDING, 0))
    attention_mask = torch.nn.functional.pad(torch.ones_like(tokens), (PROBE_PADDING, 0))
    training = model.training
    model.eval()
    try:
        first = model(input_ids=tokens).logits[:, 0]
        first_padded = model(input_ids=padded, attention_mask=attention_mask).logits[:, PROBE_PADDING]
    finally:
        model.train(training)
    return all(((one - other).abs().max() > 0).item() for one, other in (first, first_padded))


def _add_mask_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, mask_token: str) -> int:
    """Return the id of the mask token, which tokenizer and model have from now on."""
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer is None:
        known = vars(model.config).get("mask_token_id")
        used, is_new, mask_token_id = rows, known is None, rows if known is None else known
    else:
        used, is_new = min(rows, len(tokenizer)), False
        if tokenizer.mask_token is None:
            is_new = mask_token not in tokenizer.get_vocab()
            tokenizer.add_special_tokens({"mask_token": mask_token})
        mask_token_id = tokenizer.mask_token_id
    if mask_token_id >= rows:
        model.resize_token_embeddings(mask_token_id + 1, mean_resizing=False)
        _set_to_mean(model, slice(rows, None), used)
    elif is_new:  # a row that no token had: vocabularies are padded to a round number
        _set_to_mean(model, slice(mask_token_id, mask_token_id + 1), used)
    return mask_token_id


@torch.no_grad()
def _set_to_mean(model: PreTrainedModel, rows: slice, used: int) -> None:
    """Set rows of the input and output embeddings to the mean of the first `used` ones."""
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        mean = embeddings.weight[:used].mean(dim=0, dtype=torch.float32)
        embeddings.weight[rows] = mean.to(embeddings.weight.dtype)


def _fits_published_layout(config: LlamaConfig) -> bool:
    return not (config.attention_bias or config.mlp_bias) and config.hidden_act in ACTIVATIONS


def _as_llada(model: LlamaForCausalLM) -> LLaDAForMaskedDiffusion:
    """Return a LLaDA around the tensors of a Llama; none is copied."""
    values = model.config.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "auto_map"):
        values.pop(name, None)
    config = LLaDAConfig(**values)
    config._attn_implementation = model.config._attn_implementation
    with torch.device("meta"):
        converted = LLaDAForMaskedDiffusion(config)
    converted.load_state_dict(model.state_dict(keep_vars=True), assign=True)  # tied ones stay tied
    converted.model.rotary_emb = model.model.rotary_emb  # its frequencies are in no state dict
    return converted.train(model.training)
