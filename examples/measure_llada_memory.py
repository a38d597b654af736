"""Peak memory of a fine-tuning step over a large vocabulary: the trainer's loss against all logits at once.

    python examples/measure_llada_memory.py

Each way runs in a process of its own. Counted are the bytes of tensors that live at once, beyond those of the weights, and
the growth of the process: a step is a forward and a backward pass into gradients that are there already, as they are
when gradients are accumulated. `run_llada_benchmark.py` does the same and writes it down.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ldlm_hf import LLaDAConfig, LLaDAForMaskedDiffusion, MaskedLanguageModel
from ldlm_hf.llada.losses import masked_cross_entropy, masked_diffusion_loss, rows_per_chunk
from ldlm_hf.noise import mask_tokens


WAYS = ("chunked", "all_logits", "all_positions")  # this package; LLaDA's published recipe; d1's published code
SIZES = {"vocab_size": 126464, "length": 1024, "hidden_size": 256, "num_layers": 2, "batch_size": 1}
PROBABILITY = 0.5  # of a mask, its mean in training


def main(arguments: list[str] | None = None) -> None:
    """Measure one way and print it as JSON, or all ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    parser.add_argument("--probability", type=float, default=PROBABILITY, help="of a mask")
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args(arguments)
    sizes = {name: getattr(args, name) for name in SIZES}
    if args.way is not None:
        torch.set_num_threads(1)
        print(json.dumps(measure_step(args.way, sizes, args.probability)))
        return
    print_memory(compare_ways(sizes, args.probability))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once, of those made inside it.

    Attributes:
        live (`int`): bytes now.
        peak (`int`): most bytes so far.
    """

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and count what it made."""
        given = {value.untyped_storage()._cdata for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage(), given)
        return result

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in given:  # counted, or a view of what was there before
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def make_step(way: str, sizes: dict[str, int], probability: float) -> Callable[[], Tensor]:
    """Return what takes the forward and backward pass of a step of random tokens, all of them a response."""
    if way not in WAYS:
        raise ValueError(f"`way` has to be one of {WAYS}, but is {way!r}.")
    mask, width = sizes["vocab_size"] - 1, sizes["hidden_size"]
    model = LLaDAForMaskedDiffusion(
        LLaDAConfig(
            vocab_size=sizes["vocab_size"],
            mask_token_id=mask,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=sizes["num_layers"],
            num_attention_heads=max(1, width // 64),
            max_position_embeddings=sizes["length"],
        )
    )
    language_model = MaskedLanguageModel(model)
    generator = torch.Generator().manual_seed(0)
    shape = (sizes["batch_size"], sizes["length"])
    input_ids = torch.randint(mask, shape, generator=generator)
    p = torch.full(shape[:1], probability)
    noised, is_masked = mask_tokens(input_ids, p, [generator] * shape[0], mask)
    chunk_size = rows_per_chunk(sizes["vocab_size"])

    def losses() -> Tensor:
        if way == "chunked":
            states = language_model.hidden_states(noised)[is_masked]
            return masked_cross_entropy(states, language_model.head, input_ids[is_masked], chunk_size)
        logits = model(noised).logits
        if way == "all_logits":
            return cross_entropy(logits[is_masked], input_ids[is_masked], reduction="none")
        return cross_entropy(logits.flatten(0, 1), input_ids.flatten(), reduction="none").view(shape)[is_masked]

    def step() -> Tensor:
        token_losses = torch.zeros(shape).masked_scatter(is_masked, losses())
        loss = masked_diffusion_loss(token_losses, p, torch.full(shape[:1], sizes["length"]))
        loss.backward()
        return loss.detach()

    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return step


def measure_step(way: str, sizes: dict[str, int], probability: float = PROBABILITY) -> dict:
    """Return the peak of a step in this process, which has to be fresh for the growth of the process to mean anything."""
    step = make_step(way, sizes, probability)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with LiveBytes() as count:
        loss = step()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes on Linux
    return {"way": way, "peak_bytes": count.peak, "process_growth_bytes": 1024 * growth, "loss": float(loss)}


def compare_ways(sizes: dict[str, int], probability: float = PROBABILITY) -> dict:
    """Measure each way in a fresh process."""
    options = [f"--{name}={value}" for name, value in sizes.items()] + [f"--probability={probability}"]
    rows = []
    for way in WAYS:
        command = [sys.executable, str(Path(__file__)), f"--way={way}", *options]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"Measuring {way!r} failed:\n{found.stderr}")
        rows.append(json.loads(found.stdout.splitlines()[-1]))
    for row in rows:
        row["share_of_all_logits"] = row["peak_bytes"] / rows[1]["peak_bytes"]
        row["growth_share_of_all_logits"] = row["process_growth_bytes"] / max(1, rows[1]["process_growth_bytes"])
    return {**sizes, "mask_probability": probability, "ways": rows}


def print_memory(results: dict) -> None:
    """Print a Markdown table."""
    print("| step | live tensors, MB | process growth, MB | share of all logits | the same, of the process |")
    print("|---|---|---|---|---|")
    for row in results["ways"]:
        print(
            f"| {row['way']} | {row['peak_bytes'] / 1e6:.0f} | {row['process_growth_bytes'] / 1e6:.0f} | "
            f"{row['share_of_all_logits']:.2f} | {row['growth_share_of_all_logits']:.2f} |"
        )


if __name__ == "__main__":
    main()
