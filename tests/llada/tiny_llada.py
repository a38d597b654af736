"""The LLaDA room's real classes at a size that runs in milliseconds."""

from __future__ import annotations

import torch

from ldlm_hf import LLaDAConfig, LLaDAForMaskedDiffusion, MaskedDiffusionPipeline, MaskedDiffusionScheduler
from tests.tiny import tiny_tokenizer


MASK, VOCABULARY = 4, 40


def tiny_llada(seed: int = 0, sharpness: float = 20.0, **fields) -> LLaDAForMaskedDiffusion:
    """Return a random model that writes different tokens at different places, depending on all that is visible."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    tokens = {"vocab_size": VOCABULARY, "mask_token_id": MASK, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
    positions = {"max_position_embeddings": 128, "rope_theta": 100.0}
    model = LLaDAForMaskedDiffusion(LLaDAConfig(**{**sizes, **tokens, **positions, **fields})).eval()
    with torch.no_grad():  # fresh weights are so small that every position would predict the same
        for name, parameter in model.named_parameters():
            if "lm_head" in name:
                parameter.mul_(30.0)
            elif "q_proj" in name or "k_proj" in name:
                parameter.mul_(sharpness)
            elif "layers" in name and parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


def tiny_masked_pipeline(task: str | None = "addition", **fields) -> MaskedDiffusionPipeline:
    """Return a pipeline around a random model."""
    tokenizer = tiny_tokenizer()
    model = tiny_llada(vocab_size=len(tokenizer), **fields)
    pipeline = MaskedDiffusionPipeline(model, MaskedDiffusionScheduler(block_length=4), tokenizer, task=task)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
