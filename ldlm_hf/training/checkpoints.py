"""Which checkpoint of a run can be resumed, the newest that was written to its end, and its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import is_peft_available


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest `checkpoint-N` under `output_dir` that was saved completely, or `None`.

    The Trainer writes `trainer_state.json` last, so a checkpoint without a readable one was interrupted.
    """
    folder = Path(output_dir)
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _step_of(path))]
    for _, path in sorted(found, reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return path
    return None


def has_adapters(model: nn.Module) -> bool:
    """Return whether PEFT wraps the model, so that its adapters are all that is trained and saved."""
    if not is_peft_available():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Put what `save_pretrained` wrote to `folder` into the model: its weights, or its adapters where PEFT wraps it.

    Raises:
        OSError: if weights of the model are missing there.
    """
    if has_adapters(model):
        _load_adapters(model, Path(folder))
    else:
        model.load_state_dict(type(model).from_pretrained(folder).state_dict())


def _load_adapters(model: nn.Module, folder: Path) -> None:
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    for name in model.peft_config:
        own_folder = folder if name == "default" else folder / name  # as `save_pretrained` has it
        if not (own_folder / SAFETENSORS_WEIGHTS_NAME).is_file():  # PEFT would read a pickle, or ask the Hub
            raise OSError(f"{own_folder} has no {SAFETENSORS_WEIGHTS_NAME}: no adapter {name!r} was saved there.")
        weights = load_peft_weights(str(own_folder), device="cpu")
        missing = sorted(get_peft_model_state_dict(model, adapter_name=name).keys() - weights.keys())
        if missing:
            raise OSError(f"{own_folder} lacks {len(missing)} weights of the adapter {name!r}, such as {missing[:3]}.")
        set_peft_model_state_dict(model, weights, adapter_name=name)


def _step_of(path: Path) -> re.Match | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name)
