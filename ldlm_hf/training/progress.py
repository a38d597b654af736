"""Losses by timestep, whose last buckets, where noise is high, are where an answer is decided, and losses by their parts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..arguments import check_integer, check_shapes


class TimestepBuckets:
    """Running means of a per-sample value in equal ranges of the timestep."""

    def __init__(self, num_timesteps: int, num_buckets: int = 8):
        """Divide the timesteps `0 … num_timesteps - 1` into `num_buckets` ranges."""
        check_integer("num_timesteps", num_timesteps)
        check_integer("num_buckets", num_buckets)
        self.edges = [round(i * num_timesteps / num_buckets) for i in range(num_buckets + 1)]
        self.totals, self.counts = torch.zeros(num_buckets), torch.zeros(num_buckets)

    def add(self, timesteps: Tensor, values: Tensor) -> None:
        """Add `values` of shape `(batch,)` at `timesteps` of shape `(batch,)`."""
        check_shapes(timesteps=(timesteps, "batch"), values=(values, "batch"))
        bucket = torch.bucketize(timesteps.detach().cpu(), torch.tensor(self.edges[1:-1]), right=True)
        self.totals.index_add_(0, bucket, values.detach().float().cpu())
        self.counts.index_add_(0, bucket, torch.ones(len(bucket)))

    def pop(self, name: str) -> dict[str, float]:
        """Return `{name}/t{first}-{last}` means of the buckets that saw a value, and start anew."""
        means = {
            f"{name}/t{first}-{last - 1}": (total / count).item()
            for (first, last), total, count in zip(pairwise(self.edges), self.totals, self.counts, strict=True)
            if count > 0
        }
        self.totals.zero_(), self.counts.zero_()
        return means


class LossParts:
    """Means of the parts of a loss since the last report, of which each row counts the same.

    Args:
        names (`tuple[str, ...]`): fields of a model's output, `()` tensors; those that are `None` are left out.
    """

    def __init__(self, names: tuple[str, ...]):
        """Start with none."""
        self.names = names
        self._totals, self._count = {}, 0

    def add(self, output: ModelOutput, count: int) -> None:
        """Add the parts of a model's output for `count` rows."""
        for name in self.names:
            part = getattr(output, name)
            if part is not None:
                total = self._totals.get(name, 0.0)
                self._totals[name] = total + count * part.detach().float()  # read when reported, not now
        self._count += count

    def pop(self, prefix: str = "") -> dict[str, float]:
        """Return the means by name, after a prefix, and start anew; nothing if there were no outputs."""
        means = {prefix + name: total.item() / self._count for name, total in self._totals.items()}
        self._totals, self._count = {}, 0
        return means
