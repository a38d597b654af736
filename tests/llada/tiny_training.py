"""A small masked diffusion model, what it is trained on, and its trainer."""

from __future__ import annotations

import random

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from ldlm_hf import LLaDAConfig, LLaDAForMaskedDiffusion
from ldlm_hf.llada.trainer_masked_diffusion import MaskedDiffusionTrainer, MaskedDiffusionTrainingArguments
from ldlm_hf.tokenization import build_tokenizer


EOS, MASK = 2, 4
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of digits."""
    return build_tokenizer([], map(str, range(10)), "digit")


def reversals(size: int = 64, seed: int = 0) -> Dataset:
    """Return digits, and the same in reverse order."""
    generator = random.Random(seed)
    rows = [[str(generator.randrange(4)) for _ in range(4)] for _ in range(size)]
    return Dataset.from_dict(
        {"prompt": [" ".join(row) for row in rows], "target": [" ".join(row[::-1]) for row in rows]}
    )


def texts(size: int = 64) -> Dataset:
    """Return texts of different lengths."""
    generator = random.Random(0)
    return Dataset.from_dict(
        {"text": [" ".join(str(generator.randrange(10)) for _ in range(2 + i % 9)) for i in range(size)]}
    )


def small_llada(seed: int = 0, **fields) -> LLaDAForMaskedDiffusion:
    """Return a fresh model."""
    torch.manual_seed(seed)
    tokens = {"vocab_size": len(tokenizer()), "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": 1}
    return LLaDAForMaskedDiffusion(
        LLaDAConfig(**{**SIZES, **tokens, "bos_token_id": 0, "max_position_embeddings": 64, **fields})
    )


def make_trainer(
    folder,
    model: PreTrainedModel | None = None,
    dataset: Dataset | None = None,
    eval_dataset=None,
    callbacks=(),
    **settings,
) -> MaskedDiffusionTrainer:
    """Return a trainer of a few steps."""
    defaults = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": 8, "save_steps": 3}
    quiet = {"logging_steps": 4, "disable_tqdm": True, "use_cpu": True}
    return MaskedDiffusionTrainer(
        model=model or small_llada(),
        args=MaskedDiffusionTrainingArguments(output_dir=str(folder), **{**defaults, **quiet, **settings}),
        train_dataset=dataset or reversals(),
        processing_class=tokenizer(),
        eval_dataset=eval_dataset,
        callbacks=list(callbacks),
    )


def weights(trainer: MaskedDiffusionTrainer) -> list[torch.Tensor]:
    """Return all that was trained, and its average."""
    averaged = [] if trainer.ema is None else trainer.ema.average.shadow_params
    return [tensor.clone() for tensor in (*trainer.model.state_dict().values(), *averaged)]


def differ(trainer: MaskedDiffusionTrainer, other: MaskedDiffusionTrainer) -> list[int]:
    """Return which weights of two trainers are not equal."""
    pairs = zip(weights(trainer), weights(other), strict=True)
    return [index for index, pair in enumerate(pairs) if not torch.equal(*pair)]


class Stop(TrainerCallback):
    """Kills the run after a step, as an interrupt would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def losses_and_gradients(trainer: MaskedDiffusionTrainer) -> list[torch.Tensor]:
    """Return the loss of a batch and all gradients, by the trainer's own step."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    loss = trainer.training_step(trainer.model, batch)
    return [loss, *(parameter.grad for parameter in trainer.model.parameters() if parameter.requires_grad)]
