"""The LaDiR room's real classes at a size that runs in milliseconds."""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from datasets import Dataset
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from ldlm_hf.ladir.block_splitter import BlockSplitter
from ldlm_hf.ladir.configuration_thought_vae import ThoughtVAEConfig
from ldlm_hf.ladir.diagonal_gaussian import DiagonalGaussian
from ldlm_hf.ladir.modeling_ladir import LaDiRForReasoning
from ldlm_hf.ladir.modeling_thought_vae import ThoughtVAE
from ldlm_hf.ladir.pipeline_ladir import LaDiRPipeline
from ldlm_hf.ladir.reconstruction import pad_right
from ldlm_hf.ladir.trainer_ladir import LaDiRTrainer, LaDiRTrainingArguments
from ldlm_hf.ladir.trainer_thought_vae import ThoughtVAETrainer, ThoughtVAETrainingArguments, tokenized_blocks
from ldlm_hf.tokenization import build_tokenizer


LATENTS, DIM = 2, 8
FAMILIES = ("llama", "gpt2", "qwen2", "qwen3")
QUIET = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 2, "disable_tqdm": True}
SPLITTER = BlockSplitter("equation", answer_prefix="=>")


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of digits and signs."""
    return build_tokenizer([], [*map(str, range(10)), *"+-*/(),=>"], "digit", model_max_length=64)


def sums(size: int = 16, seed: int = 0) -> Dataset:
    """Return chains of one to three sums: `3,4,2` is answered by `3+4=7,7+2=9 =>9`."""
    generator, rows = random.Random(seed), []
    for i in range(size):
        terms = [generator.randrange(10) for _ in range(2 + i % 3)]
        total, steps = terms[0], []
        for term in terms[1:]:
            steps.append(f"{total}+{term}={(total + term) % 10}")
            total = (total + term) % 10
        rows.append((",".join(map(str, terms)), f"{','.join(steps)} =>{total}", str(total)))
    return Dataset.from_dict(
        dict(zip(("prompt", "target", "answer"), map(list, zip(*rows, strict=True)), strict=True))
    )


def tiny_lm_config(family: str = "llama", **fields):
    """Return the configuration of a causal LM, 32 wide with two layers."""
    tokens = {"vocab_size": len(tokenizer()), "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
    if family == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return AutoConfig.for_model(family, **{**tokens, **sizes, **dropout, **fields})
    grouped = {"num_key_value_heads": 2, "intermediate_size": 64}
    grouped |= {"head_dim": 8} if family == "qwen3" else {}  # which it does not take from its width
    return AutoConfig.for_model(family, **{**tokens, **sizes, **grouped, **fields})


def tiny_lm(family: str = "llama", seed: int = 0, **fields) -> PreTrainedModel:
    """Return a random causal LM whose positions differ, as those of a trained one do."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_lm_config(family, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


def tiny_vae(family: str = "llama", seed: int = 0, fitted: bool = True, **fields) -> ThoughtVAE:
    """Return a random VAE, with latent statistics fitted to a few blocks."""
    values = {"latents_per_block": LATENTS, "latent_dim": DIM, "latent_noise": 0.0, "token_substitution": 0.0}
    lm = tiny_lm(family, seed)
    vae = ThoughtVAE.from_causal_lm(lm, **{**values, **fields}).eval()
    with torch.no_grad():
        for linear in (vae.to_mean, vae.from_latent):
            linear.weight.mul_(20.0)
        if fitted:
            rows = tokenized_blocks(sums(), tokenizer(), SPLITTER)["input_ids"]
            posterior = vae.posterior(**pad_right(list(rows)))
            vae.set_latent_statistics(DiagonalGaussian(posterior.mean, posterior.log_variance))
    return vae


def tiny_vae_config(**fields) -> ThoughtVAEConfig:
    """Return the configuration of that VAE."""
    return ThoughtVAEConfig(text_config=tiny_lm_config(), latents_per_block=LATENTS, latent_dim=DIM, **fields)


def tiny_reasoner(family: str = "llama", seed: int = 0, randomized: bool = True, **fields) -> LaDiRForReasoning:
    """Return a reasoner around a random LM; randomized, so that it does not predict zero as a fresh one does."""
    values = {"latents_per_block": LATENTS, "latent_dim": DIM, "time_embedding_dim": 16}
    model = LaDiRForReasoning.from_causal_lm(tiny_lm(family, seed), **{**values, **fields}).eval()
    if randomized:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in (model.latent_in, model.latent_out, model.stop_head, model.markers):
                module.weight.copy_(0.3 * torch.randn(module.weight.shape, generator=generator))
            model.null_condition.copy_(torch.randn(model.null_condition.shape, generator=generator))
            model.time_embedding.linear_1.weight.mul_(10)
            model.time_embedding.linear_2.weight.mul_(10)
    return model


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return seeded noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny_batch(copies: int = 2) -> dict[str, torch.Tensor]:
    """Return three problems with questions, blocks and answers of different lengths."""
    generator = torch.Generator().manual_seed(0)
    questions = [[0, 5, 6, 7], [0, 8], [0, 9, 10, 11, 5, 6]]
    answers = [[6, 7, 2], [9, 10, 5, 8, 2], [5, 2]]
    counts = torch.tensor([2, 3, 1])
    question, answer = pad_right(questions, pad=1), pad_right(answers, pad=1)
    return {
        "question_ids": question["input_ids"],
        "question_mask": question["attention_mask"].bool(),
        "block_latents": torch.randn(3, 3, LATENTS, DIM, generator=generator),
        "block_mask": torch.arange(3) < counts[:, None],
        "answer_ids": answer["input_ids"],
        "answer_mask": answer["attention_mask"].bool(),
        "times": torch.rand(3, 3, copies, generator=generator),
        "noise": torch.randn(3, 3, copies, LATENTS, DIM, generator=generator),
    }


def tiny_pipeline(family: str = "llama", **components) -> LaDiRPipeline:
    """Return a pipeline of random parts, without a progress bar."""
    parts = {
        "model": components.get("model") or tiny_reasoner(family),
        "vae": components.get("vae") or tiny_vae(family),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "tokenizer": tokenizer(),
    }
    pipeline = LaDiRPipeline(**parts, task=components.get("task"), task_arguments=components.get("task_arguments"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def vae_trainer(folder, model=None, max_steps=8, size=16, callbacks=(), **settings) -> ThoughtVAETrainer:
    """Return a trainer of a few steps."""
    arguments = {**QUIET, "save_steps": 3, "max_steps": max_steps, **settings}
    fields = {"freeze_decoder": False, "latent_noise": 0.1, "token_substitution": 0.1}
    return ThoughtVAETrainer(
        model=model or tiny_vae(fitted=False, **fields),
        args=ThoughtVAETrainingArguments(output_dir=str(folder), use_cpu=True, **arguments),
        train_dataset=sums(size),
        processing_class=tokenizer(),
        splitter=SPLITTER,
        eval_dataset=sums(8, seed=1),
        callbacks=list(callbacks),
    )


class Stop(TrainerCallback):
    """Kills the run after a step, as an interrupt would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def reasoner_trainer(folder, model=None, vae=None, max_steps=8, size=16, callbacks=(), **settings) -> LaDiRTrainer:
    """Return a trainer of a few steps; stage 1 by default."""
    quiet = {**QUIET, "save_steps": 3, "max_steps": max_steps, "reconstruction_gate": 0.0}
    return LaDiRTrainer(
        model=model or tiny_reasoner(randomized=False),
        args=LaDiRTrainingArguments(output_dir=str(folder), use_cpu=True, **{**quiet, **settings}),
        vae=vae or tiny_vae(),
        train_dataset=sums(size),
        processing_class=tokenizer(),
        splitter=SPLITTER,
        eval_dataset=sums(8, seed=1),
        callbacks=list(callbacks),
    )
