"""Which checkpoint of a run can be resumed: the newest that was written to its end."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME


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


def _step_of(path: Path) -> re.Match | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name)
