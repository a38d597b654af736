"""1,000 mixed requests to one pipeline: what is held afterwards is what was held before.

Three measures, each after a garbage collection: tensors that Python can reach, all objects it tracks, and the process's resident
memory as Linux counts it (`/proc/self/statm`) once the allocator has given back what is free (`malloc_trim`). The first two see a
single object that a call leaves behind; the third sees what libraries hold outside Python, but it is counted in pages and the
allocator keeps some of them, hence its bound.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ldlm_hf.evaluation import write_results
from ldlm_hf.pipeline import ReasoningPipeline
from tests.faults.report import Case, make_parser, write_report
from tests.faults.threads import answer, make_pipelines, make_requests


WARM_UP = 60  # calls until every kind of request was there several times and all that is made once is made
MOST_OBJECTS = (
    50  # of threads and caches of libraries, whatever the number of calls; a call that leaves one has 1,000 more
)
MOST_BYTES = (
    1 << 20
)  # 1 KiB a call for 1,000 calls, which is less than the smallest tensor with its Python object takes twice


@dataclass(frozen=True)
class Held:
    """What a process holds, or how much more of it than before.

    Attributes:
        tensors (`int`): tensors that the garbage collector knows.
        objects (`int`): all objects that it knows.
        bytes (`int`): resident memory.
    """

    tensors: int
    objects: int
    bytes: int

    def since(self, before: Held) -> Held:
        """Return how much more is held than was before."""
        return Held(self.tensors - before.tensors, self.objects - before.objects, self.bytes - before.bytes)

    @property
    def is_flat(self) -> bool:
        """Whether a growth is none."""
        return self.tensors <= 0 and self.objects <= MOST_OBJECTS and self.bytes <= MOST_BYTES


def held() -> Held:
    """Return what this process holds."""
    for _ in range(2):  # what a finalizer frees is found the second time
        gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    objects = gc.get_objects()
    tensors = sum(issubclass(type(each), torch.Tensor) for each in objects)
    return Held(tensors, len(objects), resident_bytes())


def resident_bytes() -> int:
    """Return the resident memory of this process; where there is no `/proc`, the most that it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def growth(call: Callable[[int], object], warm_up: int, count: int) -> Held:
    """Return how much more is held after `count` further calls than after the first `warm_up`.

    Args:
        call (`Callable[[int], object]`): takes the number of the call; what it returns is dropped.
        warm_up (`int`): calls that may leave something behind.
        count (`int`): calls that may not.
    """
    for number in range(warm_up):
        call(number)
    before = held()
    for number in range(warm_up, warm_up + count):
        call(number)
    return held().since(before)


def growth_of_pipeline(name: str, pipeline: ReasoningPipeline, warm_up: int, count: int, seed: int = 0) -> Held:
    """Return the growth over `count` mixed requests to the pipeline of a name."""
    requests = make_requests(name, warm_up + count, seed)
    return growth(lambda number: answer(pipeline, requests[number]), warm_up, count)


def main() -> int:
    """Run the campaign."""
    parser = make_parser("memory", __doc__.splitlines()[0], 1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    pipelines = make_pipelines().items()
    found = {name: growth_of_pipeline(name, pipeline, WARM_UP, args.count, args.seed) for name, pipeline in pipelines}
    cases = [Case(f"{name}: {args.count:,} calls", grown.is_flat, f"grew by {grown}") for name, grown in found.items()]
    status = write_report(parser, args.output, __doc__.splitlines()[0], cases, time.monotonic() - started)
    results = json.loads(args.output.read_text())
    bounds = {"warm_up_calls": WARM_UP, "most_tensors": 0, "most_objects": MOST_OBJECTS, "most_bytes": MOST_BYTES}
    growths = {name: asdict(grown) for name, grown in found.items()}
    write_results(args.output, {**results, "bounds": bounds, "growth": growths})
    return status


if __name__ == "__main__":
    sys.exit(main())
