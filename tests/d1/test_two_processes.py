"""Two processes do what one does: the same completions, the same updates."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.d1.tiny_d1 import distance, policy


ROOT = Path(__file__).parents[2]


def run(folder: Path, num_processes: int, batch_size: int) -> tuple[list, list[dict]]:
    """Train in processes of their own; return the weights and the log."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    script = ["-m", "tests.d1.train_few_updates", str(folder), str(batch_size)]
    start = [*launcher, *script] if num_processes > 1 else script
    done = subprocess.run([sys.executable, *start], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads((folder / "state.json").read_text())["log_history"]
    return list(load_file(folder / "weights.safetensors").values()), [entry for entry in log if "reward" in entry]


def test_two_processes_train_as_one(tmp_path):
    alone, own_log = run(tmp_path / "one", 1, 8)
    shared, shared_log = run(tmp_path / "two", 2, 4)
    start = [value for _, value in sorted(policy().state_dict().items())]
    assert distance(start, alone) > 1e-3
    assert distance(alone, shared) < 2e-5
    for one, other in zip(own_log, shared_log, strict=True):
        for name in ("reward", "reward_std", "completions/mean_length", "kl", "loss"):
            assert one[name] == pytest.approx(other[name], abs=1e-5), name
