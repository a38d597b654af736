"""Which checkpoint of a run can be resumed, the newest that was written to its end; how that is known, and its weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import is_peft_available, logging

from ..checkpoints import sync, write_whole


logger = logging.get_logger(__name__)
SIZES_NAME = "file_sizes.json"


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest `checkpoint-N` under `output_dir` that can be resumed from, or `None`; warn of those passed over."""
    folder = Path(output_dir)
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _step_of(path))]
    for _, path in sorted(found, reverse=True):
        fault = fault_of_checkpoint(path)
        if fault is None:
            return path
        logger.warning(f"{path} is passed over: {fault}.")
    return None


def fault_of_checkpoint(folder: str | Path) -> str | None:
    """Return why a checkpoint cannot be resumed from, or `None` if it is complete.

    The Trainer writes `trainer_state.json` last, so a checkpoint without a readable one was interrupted. All other files have to
    be as long as [`seal_checkpoint`] found them; it is no fault if a checkpoint was never sealed, as older ones were not.
    """
    folder = Path(folder)
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text())
        sizes = json.loads((folder / SIZES_NAME).read_text()) if (folder / SIZES_NAME).exists() else {}
    except (OSError, ValueError) as error:
        return f"it was not saved to its end ({error})"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"it lacks {name}"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
    return None


def seal_checkpoint(folder: str | Path) -> None:
    """Note how long each file of a checkpoint is, when all of them are on the disk for good.

    Without this, a loss of power could leave a checkpoint with all of its files, the newest of them empty.
    """
    folder = Path(folder)
    sync(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_whole(folder / SIZES_NAME, json.dumps(sizes, indent=2) + "\n")


def discard_checkpoint(folder: str | Path) -> None:
    """Remove a checkpoint, what says that it is complete first."""
    (Path(folder) / TRAINER_STATE_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


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
