"""Losses by timestep: the last buckets, where noise is high, are where the answer of a reasoning task is decided."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

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
