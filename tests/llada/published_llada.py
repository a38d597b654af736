"""A checkpoint in the layout in which LLaDA is published, and an independent, plain reading of its forward pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import silu


PUBLISHED = {  # every key of the published config.json, at a tiny size
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModel": "modeling_llada.LLaDAModelLM",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
    },
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 32,
    "embedding_dropout": 0.0,
    "embedding_size": 48,
    "eos_token_id": 41,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": 47,
    "max_sequence_length": 64,
    "mlp_hidden_size": 56,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "pad_token_id": 41,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "transformers_version": "4.46.3",
    "use_cache": False,
    "vocab_size": 48,
    "weight_tying": False,
}
VARIANTS = {
    "LLaDA-8B": {},
    "iLLaDA": {"n_kv_heads": 2, "weight_tying": True, "mask_token_id": 5},
    "multi-query": {"n_kv_heads": 1, "rope_theta": 10000.0, "n_layers": 3},
    "padded vocabulary": {"vocab_size": 45, "embedding_size": 48, "mask_token_id": 44},
    "MLP by its ratio": {"mlp_hidden_size": None, "mlp_ratio": 2, "n_kv_heads": None},
}


def published_tensors(config: dict, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors, so large that every part of the network shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    width, rows = config["d_model"], config["embedding_size"]
    inner = config["mlp_hidden_size"] or config["mlp_ratio"] * width
    narrow = (config["n_kv_heads"] or config["n_heads"]) * (width // config["n_heads"])
    shapes = {"transformer.wte": (rows, width), "transformer.ln_f": (width,)}
    if not config["weight_tying"]:
        shapes["transformer.ff_out"] = (rows, width)
    for i in range(config["n_layers"]):
        block = f"transformer.blocks.{i}"
        shapes |= {f"{block}.attn_norm": (width,), f"{block}.ff_norm": (width,)}
        shapes |= {f"{block}.q_proj": (width, width), f"{block}.attn_out": (width, width)}
        shapes |= {f"{block}.k_proj": (narrow, width), f"{block}.v_proj": (narrow, width)}
        shapes |= {f"{block}.ff_proj": (inner, width), f"{block}.up_proj": (inner, width)}
        shapes |= {f"{block}.ff_out": (width, inner)}
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        tensors[f"model.{name}.weight"] = 1 + 0.3 * noise if len(shape) == 1 else 0.3 * noise
    return tensors


def write_published(folder: Path, shards: int = 1, seed: int = 0, dtype=torch.float32, **changes) -> tuple[dict, dict]:
    """Write a checkpoint as it is published; return its configuration and its tensors."""
    config = {**PUBLISHED, **changes}
    tensors = {name: tensor.to(dtype) for name, tensor in published_tensors(config, seed).items()}
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return config, tensors
    names = sorted(tensors)
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(weight_map.values())):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return config, tensors


def plain_logits(config: dict, tensors: dict[str, Tensor], input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the `(batch, length, rows)` logits that the published code computes; `mask` is `(batch, length)`."""
    heads, groups = config["n_heads"], config["n_kv_heads"] or config["n_heads"]
    dim, (batch, length) = config["d_model"] // heads, input_ids.shape
    angles = torch.arange(length)[:, None] / config["rope_theta"] ** (torch.arange(0, dim, 2) / dim)
    angles = torch.cat([angles, angles], dim=-1)  # (length, dim)

    def norm(x: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + config["rms_norm_eps"])
        return tensors[f"model.transformer.{name}.weight"] * (x.float() * scale).to(x.dtype)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tensors[f"model.transformer.{name}.weight"].T

    def split(x: Tensor, count: int) -> Tensor:
        return x.view(batch, length, count, dim).transpose(1, 2)

    def rotate(x: Tensor) -> Tensor:  # in float32 whatever the model's type ("rope_full_precision")
        first, second = x.float().chunk(2, dim=-1)
        return (x.float() * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()).to(x.dtype)

    hidden = tensors["model.transformer.wte.weight"][input_ids]
    for i in range(config["n_layers"]):
        normed = norm(hidden, f"blocks.{i}.attn_norm")
        query = rotate(split(linear(normed, f"blocks.{i}.q_proj"), heads))
        key = rotate(split(linear(normed, f"blocks.{i}.k_proj"), groups)).repeat_interleave(heads // groups, dim=1)
        value = split(linear(normed, f"blocks.{i}.v_proj"), groups).repeat_interleave(heads // groups, dim=1)
        scores = (query @ key.transpose(-1, -2)).float() / math.sqrt(dim)
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e30)
        seen = (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).reshape(batch, length, -1)
        hidden = hidden + linear(seen, f"blocks.{i}.attn_out")
        normed = norm(hidden, f"blocks.{i}.ff_norm")
        gated = silu(linear(normed, f"blocks.{i}.ff_proj")) * linear(normed, f"blocks.{i}.up_proj")
        hidden = hidden + linear(gated, f"blocks.{i}.ff_out")
    return linear(norm(hidden, "ln_f"), "wte" if config["weight_tying"] else "ff_out")
