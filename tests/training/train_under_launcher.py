"""Every trainer for a few steps, by as many processes as start this, for `test_launchers.py`: FOLDER ROWS ACCUMULATION."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, Features, Value
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, TrainerCallback

from ldlm_hf import (
    AutoencoderTrainer,
    AutoencoderTrainingArguments,
    DenoiserTrainer,
    DenoiserTrainingArguments,
)
from ldlm_hf.ladir.trainer_language_model import LanguageModelTrainer, LanguageModelTrainingArguments
from ldlm_hf.ldlm.trainer_baseline import BaselineTrainer
from ldlm_hf.ldlm.trainer_classifier import ClassifierTrainer, answer_classes, classifier_of_size
from ldlm_hf.ldlm.trainer_infilling import InfillingTrainer, InfillingTrainingArguments
from ldlm_hf.training import ReproducibleTrainer, ReproducibleTrainingArguments, map_once
from tests.d1.tiny_d1 import make_trainer as grpo_trainer
from tests.d1.tiny_d1 import policy, prompts
from tests.ladir.tiny_ladir import SPLITTER, Stop, reasoner_trainer, sums, tiny_lm, tiny_vae, vae_trainer
from tests.ladir.tiny_ladir import tokenizer as digits
from tests.llada.tiny_training import make_trainer as masked_trainer
from tests.llada.tiny_training import reversals, texts
from tests.tiny import (
    tiny_autoencoder,
    tiny_bart,
    tiny_bart_config,
    tiny_denoiser,
    tiny_problems,
    tiny_scheduler,
    tiny_tokenizer,
)


STEPS = 2
PLAIN = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "seed": 3, "max_steps": STEPS}
QUIET = {"save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}


class FirstGradients(TrainerCallback):
    """Keeps the gradients of the first update, which all processes share by then."""

    def __init__(self):
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            named = model.named_parameters()
            self.gradients = {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


Makers = dict[str, Callable[[list[TrainerCallback]], ReproducibleTrainer]]


def makers(folder: Path, plan: dict) -> Makers:
    """Return how each trainer is made, given callbacks; no model has dropout, which draws from the generator of a process."""
    plan = {**PLAIN, **QUIET, **plan}
    return {**latent_diffusion(folder, plan), **blocks_of_thought(folder, plan), **masked_diffusion(folder, plan)}


def latent_diffusion(folder: Path, plan: dict) -> Makers:
    """Return those of `ldlm_hf.ldlm`."""

    def parts(name: str, kind: type = ReproducibleTrainingArguments, **settings) -> dict:
        args = kind(output_dir=str(folder / name), use_cpu=True, **plan, **settings)
        return {"args": args, "train_dataset": tiny_problems(size=24), "processing_class": tiny_tokenizer()}

    bart = {"dropout": 0.0, "init_std": 0.3}
    noisy = {"latent_noise": 0.3, "encoder_noise": 0.5, "decoder_reads_prompt": True}
    config = classifier_of_size(tiny_tokenizer(), answer_classes(tiny_problems(size=24)), 20_000, num_layers=1)
    return {
        "infilling": lambda calls: InfillingTrainer(
            tiny_bart(**bart), **parts("infilling", InfillingTrainingArguments), callbacks=calls
        ),
        "baseline": lambda calls: BaselineTrainer(tiny_bart(**bart), **parts("baseline"), callbacks=calls),
        "classifier": lambda calls: ClassifierTrainer(
            AutoModelForSequenceClassification.from_config(config), **parts("classifier"), callbacks=calls
        ),
        "autoencoder": lambda calls: AutoencoderTrainer(
            tiny_autoencoder(fitted=False, seq2seq_config=tiny_bart_config(**bart), **noisy),
            **parts("autoencoder", AutoencoderTrainingArguments),
            callbacks=calls,
        ),
        "denoiser": lambda calls: DenoiserTrainer(
            tiny_denoiser(self_conditioning=True, learned_variance=True),
            autoencoder=tiny_autoencoder(),
            noise_scheduler=tiny_scheduler(),
            **parts("denoiser", DenoiserTrainingArguments, reconstruction_gate=0),
            callbacks=calls,
        ),
    }


def blocks_of_thought(folder: Path, plan: dict) -> Makers:
    """Return those of `ldlm_hf.ladir`."""
    noisy = {"freeze_decoder": False, "latent_noise": 0.1, "token_substitution": 0.2}
    copies = {"num_noise_copies": 2, "condition_dropout": 0.3}
    rollout = {"stage": "rollout", "rollout_steps": 2}
    return {
        "language model": lambda calls: LanguageModelTrainer(
            tiny_lm(),
            LanguageModelTrainingArguments(output_dir=str(folder / "lm"), use_cpu=True, **plan),
            sums(24),
            digits(),
            SPLITTER,
            callbacks=calls,
        ),
        "thought VAE": lambda calls: vae_trainer(
            folder / "vae", tiny_vae(fitted=False, **noisy), size=24, callbacks=calls, **plan
        ),
        "reasoner": lambda calls: reasoner_trainer(folder / "reasoner", size=24, callbacks=calls, **copies, **plan),
        "rollout": lambda calls: reasoner_trainer(folder / "rollout", size=24, callbacks=calls, **rollout, **plan),
    }


def masked_diffusion(folder: Path, plan: dict) -> Makers:
    """Return those of `ldlm_hf.llada` and `ldlm_hf.d1`."""
    short, long = ({"pad_to_max_length": True, "max_length": length} for length in (16, 24))
    cut = {"random_length_probability": 0.7}
    stream = reversals(20).to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=5)
    whole = {"steps_per_generation": plan["gradient_accumulation_steps"]}
    return {
        "masked diffusion": lambda calls: masked_trainer(folder / "masked", callbacks=calls, **short, **plan),
        "masked diffusion, d1's mean": lambda calls: masked_trainer(
            folder / "d1", dataset=ragged_pairs(), callbacks=calls, loss_normalization="batch", **long, **plan
        ),
        "masked pre-training": lambda calls: masked_trainer(
            folder / "pretraining", dataset=texts(), callbacks=calls, **cut, **long, **plan
        ),
        "masked diffusion on a stream": lambda calls: masked_trainer(
            folder / "stream", dataset=stream, callbacks=calls, **short, **plan
        ),
        "diffu-GRPO": lambda calls: grpo_trainer(
            folder / "grpo", policy(), dataset=prompts(ragged=True), callbacks=calls, **whole, **plan
        ),
    }


def ragged_pairs() -> Dataset:
    """Return prompts and targets of different lengths."""
    rows = [("1 2 3"[: 1 + 2 * (i % 3)], " ".join(str((i + j) % 10) for j in range(1 + i % 7))) for i in range(24)]
    return Dataset.from_list([{"prompt": prompt, "target": target} for prompt, target in rows])


def train_all(folder: Path, rows: int, accumulation: int) -> Iterator[dict[str, Tensor]]:
    """Train one after another; yield the first gradients, the last weights and the losses of each by name."""
    plan = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}
    for name, make in makers(folder, plan).items():
        torch.manual_seed(0)
        gradients = FirstGradients()
        trainer = make([gradients])
        trainer.train()
        results = {f"{name}/gradient/{key}": tensor for key, tensor in gradients.gradients.items()}
        results |= {f"{name}/weight/{key}": tensor for key, tensor in trainer.model.state_dict().items()}
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        yield {**results, f"{name}/loss/logged": torch.tensor(losses)}


def resumed_and_straight(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a run that was killed and resumed, and of one that was not; both have dropout and an average."""
    plan = {"per_device_train_batch_size": 4, "ema_decay": 0.9, "save_steps": 2, **QUIET, "save_strategy": "steps"}

    def trainer(name: str, callbacks: Sequence[TrainerCallback] = ()) -> DenoiserTrainer:
        torch.manual_seed(0)
        return DenoiserTrainer(
            tiny_denoiser(dropout=0.2, self_conditioning=True),
            DenoiserTrainingArguments(
                str(folder / name), use_cpu=True, max_steps=5, learning_rate=1e-2, reconstruction_gate=0, **plan
            ),
            tiny_autoencoder(),
            tiny_scheduler(),
            tiny_problems(size=24),
            tiny_tokenizer(),
            callbacks=list(callbacks),
        )

    straight = trainer("straight")
    straight.train()
    with suppress(KeyboardInterrupt):
        trainer("killed", [Stop(3)]).train()
    torch.manual_seed(123)
    resumed = trainer("killed")
    resumed.train(resume_from_checkpoint=True)
    resumed.save_final(folder / "final")
    found = {}
    for name, trained in (("straight", straight), ("resumed", resumed)):
        weights = [*trained.model.state_dict().values(), *trained.ema.average.shadow_params]
        found |= {f"{name}/{number}": weight for number, weight in enumerate(weights)}
    return found


def encode_once(folder: Path) -> None:
    """Fill a cache, and note which process has run the frozen model."""
    model = tiny_autoencoder()

    def encode(rows: dict[str, list[str]]) -> dict[str, list[int]]:
        with (folder / "encoded_by").open("a") as file:
            file.write(f"{PartialState().process_index} ")
        return {"length": [*map(len, rows["prompt"])]}

    parts = (tiny_problems(size=6).select_columns(["prompt"]), encode, Features({"length": Value("int64")}))
    cached = map_once(*parts, model, tiny_tokenizer(), cache_dir=folder / "cache", batch_size=3)
    assert cached["length"][:] == [*map(len, tiny_problems(size=6)["prompt"])]


def main(folder: str, rows: str, accumulation: str) -> None:
    """Train everything and write the results down."""
    from tests.training.train_sharded import train_sharded  # which needs what is above

    found = {}
    for results in train_all(Path(folder), int(rows), int(accumulation)):
        found |= results
    for name, weight in resumed_and_straight(Path(folder)).items():
        found[f"resume/{name}"] = weight
    encode_once(Path(folder))
    found |= train_sharded(Path(folder))
    if PartialState().is_main_process:
        save_file({name: tensor.detach().clone() for name, tensor in found.items()}, f"{folder}/results.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
