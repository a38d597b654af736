"""Training with weights sharded by FSDP, in the processes of `train_under_launcher.py`, for `test_launchers.py`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn

from tests.ladir.tiny_ladir import Stop
from tests.llada.tiny_training import make_trainer as masked_trainer
from tests.training.accelerate_configurations import environment
from tests.training.train_under_launcher import PLAIN, QUIET, makers


TRAINED = ("masked diffusion", "masked diffusion, d1's mean", "language model", "reasoner")
REFUSED = ("denoiser", "thought VAE", "rollout", "autoencoder", "infilling", "baseline", "diffu-GRPO")


def shard(mixed_precision: str = "no") -> dict:
    """Make the trainers that follow shard their models as `fsdp.yaml` says; return what their arguments have to hold."""
    os.environ.update(environment("fsdp.yaml") | {"ACCELERATE_MIXED_PRECISION": mixed_precision})
    AcceleratorState._reset_state()
    # Accelerate shards between GPUs only; torch does so between processes on CPUs as well.
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return {"accelerator_config": {"use_configured_state": True}}


def train_sharded(folder: Path) -> dict[str, Tensor]:
    """Return the weights that every trainer ends with, gathered, and how it refuses what cannot be sharded."""
    plan = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, **shard()}
    make, found = makers(folder, plan), {}
    for name in TRAINED:
        torch.manual_seed(0)
        trainer = make[name]([])
        trainer.train()
        trainer.save_final(folder / "final" / name)
        weights = trainer.accelerator.get_state_dict(trainer.model)
        own = sum(weight.to_local().numel() for weight in trainer.model.parameters())
        found[f"sharded {name}/share"] = torch.tensor(own / sum(map(torch.numel, trainer.model.parameters())))
        found |= {f"sharded {name}/weight/{key}": weight for key, weight in weights.items()}
    found |= resumed_sharded(folder, plan)
    refusals = {name: refusal(lambda name=name: make[name]([])) for name in REFUSED}
    refusals["ema_decay"] = refusal(lambda: masked_trainer(folder / "refused", ema_decay=0.9, **QUIET, **plan))
    if PartialState().is_main_process:
        (folder / "refusals").write_text("\n".join(f"{name}: {text}" for name, text in refusals.items()))
    return {**found, **times_in_bfloat16(folder)}


def resumed_sharded(folder: Path, plan: dict) -> dict[str, Tensor]:
    """Return the weights of a sharded run that was killed and resumed, and of one that was not."""
    plan = {
        **plan,
        **PLAIN,
        "optim": "adamw_torch",
        **QUIET,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 4,
    }
    straight = masked_trainer(folder / "sharded straight", **plan)
    straight.train()
    with suppress(KeyboardInterrupt):
        masked_trainer(folder / "sharded killed", callbacks=[Stop(3)], **plan).train()
    resumed = masked_trainer(folder / "sharded killed", **plan)
    resumed.train(resume_from_checkpoint=True)
    found = {}
    for name, trainer in (("straight", straight), ("resumed", resumed)):
        weights = trainer.accelerator.get_state_dict(trainer.model)
        found |= {f"sharded resume/{name}/{key}": weight for key, weight in weights.items()}
    return found


def times_in_bfloat16(folder: Path) -> dict[str, Tensor]:
    """Return the times, in thousandths, that a reasoner is given in mixed precision."""
    plan = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, **shard("bf16")}
    trainer = makers(folder, plan)["reasoner"]([])
    seen = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0].detach().clone())

    trainer.model.time_features.register_forward_pre_hook(note)
    trainer.train()
    return {"sharded times": torch.cat(seen)}


def refusal(make) -> str:
    """Return what a trainer says when it cannot be made."""
    try:
        make()
    except ValueError as error:
        return str(error)
    return ""
