"""A Hub that fails while something is pulled or pushed: it works in the end or says why, and nothing broken is kept.

* Errors are met by a bounded number of tries; how long the client would wait in between is noted, not waited.
* What is pulled is one commit or nothing. After a failure the cache holds nothing that loads as something else, and as soon as
  the Hub is well again, it gives what is there.
* After a push that failed the repository holds all of the old or all of the new.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# The loopback Hub first: the libraries read where it is when they are imported.
from tests.conftest import HUB, pytest_unconfigure


# isort: split
import torch

from ldlm_hf import (
    HexPipeline,
    LaDiRPipeline,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAForMaskedDiffusion,
    MaskedDiffusionPipeline,
)
from tests.fake_hub import Fault, Repository
from tests.faults.malicious_repositories import weights
from tests.faults.report import Case, make_parser, write_report
from tests.ladir.tiny_ladir import tiny_pipeline as tiny_ladir_pipeline
from tests.ladir.tiny_ladir import tiny_reasoner
from tests.llada.tiny_llada import tiny_llada, tiny_masked_pipeline
from tests.tiny import tiny_denoiser, tiny_pipeline


NAME = "tester/tiny"
MOST_REQUESTS, MOST_WAITS = 200, 120  # of one call; seconds that the client waits before it tries again
ALWAYS = 10**9
STATUSES = (429, 500, 502, 503, 504)
MAKERS: dict[type, Callable[[int], object]] = {  # of the older and the newer version, which differ in their weights
    LatentReasoningPipeline: lambda seed: tiny_pipeline(denoiser=tiny_denoiser(seed)),
    MaskedDiffusionPipeline: lambda seed: tiny_masked_pipeline(seed=seed),
    HexPipeline: lambda seed: HexPipeline.from_pipe(tiny_masked_pipeline(seed=seed)),
    LaDiRPipeline: lambda seed: tiny_ladir_pipeline(model=tiny_reasoner(seed=seed)),
    LatentDiT: tiny_denoiser,
    LLaDAForMaskedDiffusion: tiny_llada,
}


@dataclass(frozen=True)
class Trouble:
    """What goes wrong at the Hub: the same for all cases of a kind, and the faults that are planned."""

    kind: str
    detail: str
    faults: tuple[dict, ...]
    moves: bool = False  # whether the newer version is committed in between
    headers: dict = field(default_factory=dict)


def pull_troubles() -> Iterator[Trouble]:
    """Return everything that can go wrong while a repository is pulled."""
    large, small = r"/resolve/.*\.safetensors$", r"/resolve/.*config\.json$|/resolve/.*model_index\.json$"
    places = {
        "the list of commits": ("GET", r"^/api/models/tester/tiny(/revision/[^/]+)?$"),
        "the list of files": ("GET", "/tree/"),
        "the size of weights": ("HEAD", large),
        "the size of a configuration": ("HEAD", small),
        "weights": ("GET", large),
        "a configuration": ("GET", small),
    }
    for place, (method, pattern) in places.items():
        fault = {"method": method, "pattern": pattern}
        for status in STATUSES:
            waits = {"headers": {"Retry-After": "3"}} if status in (429, 503) else {}
            for times, how_often in ((1, "once"), (ALWAYS, "always")):
                planned = ({**fault, **waits, "status": status, "times": times},)
                yield Trouble(f"pull: {status}", f"{status} for {place}, {how_often}", planned)
        for kind in ("drop", "cut", "stall", "lost"):
            for times, how_often in ((1, "once"), (ALWAYS, "always")):
                if kind == "stall" and times == ALWAYS and (place.startswith("the") or method == "HEAD"):
                    continue  # the client asks for minutes
                yield Trouble(
                    f"pull: {kind}", f"{kind} of {place}, {how_often}", ({**fault, "kind": kind, "times": times},)
                )
        for status in (401, 403):
            for skip in (0, 1):
                planned = ({"method": "", "pattern": pattern, "status": status, "times": ALWAYS, "skip": skip},)
                yield Trouble("pull: token revoked", f"{status} for {place} after {skip} requests", planned)
    for place in ("weights", "a configuration"):
        fault = dict(zip(("method", "pattern"), places[place], strict=True))
        for kind in ("short", "corrupt"):
            for times, how_often in ((1, "once"), (2, "twice"), (ALWAYS, "always")):
                planned = ({**fault, "kind": kind, "times": times},)
                yield Trouble(f"pull: {kind} file", f"{kind} of {place}, {how_often}", planned)
        mixed = ({**fault, "kind": "cut"}, {**fault, "status": 500}, {**fault, "kind": "corrupt"})
        yield Trouble("pull: one after the other", f"cut, 500, corrupt of {place}", mixed)
    for skip in range(12):
        planned = ({"method": "", "pattern": "/(api|resolve)/|/resolve/", "kind": "none", "skip": skip},)
        yield Trouble("pull: commit moves", f"after {skip} requests", planned, moves=True)


def push_troubles() -> Iterator[Trouble]:
    """Return everything that can go wrong while something is pushed."""
    places = {
        "making the repository": ("POST", "/repos/create"),
        "asking how": ("POST", "/preupload/"),
        "announcing weights": ("POST", "/objects/batch"),
        "sending weights": ("PUT", "/storage/"),
        "the commit": ("POST", "/commit/"),
    }
    for place, (method, pattern) in places.items():
        fault = {"method": method, "pattern": pattern}
        for status in STATUSES:
            waits = {"headers": {"Retry-After": "3"}} if status in (429, 503) else {}
            for times, how_often in ((1, "once"), (ALWAYS, "always")):
                planned = ({**fault, **waits, "status": status, "times": times},)
                yield Trouble(f"push: {status}", f"{status} at {place}, {how_often}", planned)
        for kind in ("drop", "cut", "lost", "stall"):
            for times, how_often in ((1, "once"), (ALWAYS, "always")):
                if kind == "stall" and times == ALWAYS:
                    continue
                yield Trouble(
                    f"push: {kind}", f"{kind} at {place}, {how_often}", ({**fault, "kind": kind, "times": times},)
                )
        for status in (401, 403):
            yield Trouble(
                "push: token revoked", f"{status} at {place}", ({**fault, "status": status, "times": ALWAYS},)
            )
    for status in (401, 403):
        for skip in range(8):
            planned = ({"method": "", "pattern": "", "status": status, "times": ALWAYS, "skip": skip},)
            yield Trouble("push: token revoked", f"{status} after {skip} requests", planned)


class Shelf:
    """Two versions of what is pulled and pushed: their weights, and their files at the Hub."""

    def __init__(self) -> None:
        """Start empty."""
        self._files: dict[tuple[type, int], dict[str, bytes]] = {}
        self.weights: dict[tuple[type, int], dict[str, torch.Tensor]] = {}

    def thing(self, cls: type, version: int) -> object:
        """Return a model or pipeline."""
        return MAKERS[cls](version)

    def files(self, cls: type, version: int) -> dict[str, bytes]:
        """Return what a push without any trouble makes of it."""
        if (cls, version) not in self._files:
            HUB.clear()
            thing = self.thing(cls, version)
            thing.push_to_hub(NAME)
            self._files[cls, version] = dict(HUB.repositories[NAME].files)
            self.weights[cls, version] = weights(thing)
        return dict(self._files[cls, version])

    def version_of(self, cls: type, loaded: object) -> int | None:
        """Return which version it is that was loaded, none if it is a mixture."""
        found = weights(loaded)
        for version in (0, 1):
            expected = self.weights[cls, version]
            if expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in found):
                return version
        return None


def try_pull(shelf: Shelf, cls: type, trouble: Trouble, cache: Path, cached: bool = False) -> Case:
    """Pull while something goes wrong, then from the cache alone, then again when nothing does.

    Args:
        shelf (`Shelf`): the versions.
        cls (`type`): what is pulled; version 0 is at the Hub.
        trouble (`Trouble`): what goes wrong.
        cache (`Path`): an empty folder.
        cached (`bool`, *optional*, defaults to `False`): whether it was pulled before.
    """
    old, new = shelf.files(cls, 0), shelf.files(cls, 1)
    _put(old)
    if cached:
        cls.from_pretrained(NAME, cache_dir=cache)
    move = (lambda: _put(new)) if trouble.moves else None
    wrong, loaded, error = _with_trouble(trouble, move, lambda: cls.from_pretrained(NAME, cache_dir=cache))
    allowed = (0, 1) if trouble.moves else (0,)
    if error is None and shelf.version_of(cls, loaded) not in allowed:
        wrong.append("a mixture was loaded")
    if error is not None:
        wrong += _unclear(error)
    try:
        offline = cls.from_pretrained(NAME, cache_dir=cache, local_files_only=True)
    except OSError:
        if error is None:
            wrong.append("it was loaded, but is not in the cache")
    else:
        if shelf.version_of(cls, offline) not in allowed:
            wrong.append("something else is in the cache")
    try:
        healthy = cls.from_pretrained(NAME, cache_dir=cache)
        if shelf.version_of(cls, healthy) != (1 if trouble.moves and HUB.repositories[NAME].files == new else 0):
            wrong.append("what the healthy Hub has was not loaded")
    except Exception as later:
        wrong.append(f"the healthy Hub gives {type(later).__name__}: {later}")
    detail = f"{cls.__name__}{', pulled before' if cached else ''}: {trouble.detail}: {'; '.join(wrong)}"
    return Case(trouble.kind, not wrong, detail.removesuffix(": "))


def try_push(shelf: Shelf, cls: type, trouble: Trouble, cache: Path, over: bool = True) -> Case:
    """Push while something goes wrong, look at what is there, and push again when nothing does.

    Args:
        shelf (`Shelf`): the versions.
        cls (`type`): what is pushed, in version 1.
        trouble (`Trouble`): what goes wrong.
        cache (`Path`): an empty folder.
        over (`bool`, *optional*, defaults to `True`): whether version 0 is there already.
    """
    old, new = shelf.files(cls, 0), shelf.files(cls, 1)
    thing = shelf.thing(cls, 1)
    HUB.clear()
    if over:
        _put(old)
    wrong, _, error = _with_trouble(trouble, None, lambda: thing.push_to_hub(NAME))
    there = HUB.repositories[NAME].files if NAME in HUB.repositories else {}
    if there not in ((old if over else {}), {**old, **new} if over else new):
        wrong.append(f"the repository is a mixture: {sorted(name for name in there if there[name] != new.get(name))}")
    if error is None and any(there.get(name) != content for name, content in new.items()):
        wrong.append("the push did not say that it failed")
    if error is not None:
        wrong += _unclear(error)
    try:
        thing.push_to_hub(NAME)
        if shelf.version_of(cls, cls.from_pretrained(NAME, cache_dir=cache)) != 1:
            wrong.append("what was pushed to the healthy Hub does not come back")
    except Exception as later:
        wrong.append(f"the healthy Hub gives {type(later).__name__}: {later}")
    detail = f"{cls.__name__}{' over an older one' if over else ''}: {trouble.detail}: {'; '.join(wrong)}"
    return Case(trouble.kind, not wrong, detail.removesuffix(": "))


def run(
    root: Path, count: int, seed: int = 0, classes: tuple[type, ...] = tuple(MAKERS), stalls: bool = True
) -> list[Case]:
    """Try `count` troubles drawn from all, each with something else that is pulled or pushed; stalls take seconds."""
    shelf, generator = Shelf(), random.Random(seed)
    plans = [(try_pull, trouble, cached) for trouble in pull_troubles() for cached in (False, True)]
    plans += [(try_push, trouble, over) for trouble in push_troubles() for over in (False, True)]
    plans = [plan for plan in plans if stalls or not plan[1].kind.endswith("stall")]
    cases = []
    for i, (attempt, trouble, flag) in enumerate(generator.sample(plans, min(count, len(plans)))):
        cache = root / str(i)
        cases.append(attempt(shelf, classes[i % len(classes)], trouble, cache, flag))
        shutil.rmtree(cache, ignore_errors=True)
    HUB.clear()
    return cases


@contextmanager
def noted_waits() -> Iterator[list[float]]:
    """Note how long the client would sleep between tries, which no setting of it can change, and sleep less."""
    waits, sleep = [], time.sleep

    def note(seconds: float) -> None:
        waits.append(seconds)
        sleep(min(seconds, 0.01))

    time.sleep = note
    try:
        yield waits
    finally:
        time.sleep = sleep


def _with_trouble(
    trouble: Trouble, action: Callable | None, call: Callable[[], object]
) -> tuple[list[str], object, Exception | None]:
    """Return what was wrong with the number of tries, what the call returned, and what it raised."""
    HUB.faults[:] = [Fault(**fault, action=action) for fault in trouble.faults]
    everything = Fault("", method="", kind="none", times=0, skip=ALWAYS)  # counts requests
    HUB.faults.insert(0, everything)
    everything.times = ALWAYS
    loaded, error = None, None
    with noted_waits() as waits:
        try:
            loaded = call()
        except Exception as caught:
            error = caught
    count = ALWAYS - everything.skip
    HUB.faults.clear()
    HUB.released.set()
    HUB.released.clear()
    wrong = [f"{count} requests"] if count > MOST_REQUESTS else []
    wrong += [f"{sum(waits)} seconds of waiting"] if sum(waits) > MOST_WAITS else []
    return wrong, loaded, error


def _unclear(error: Exception) -> list[str]:
    """Return what is wrong with an error: its kind, or that it does not say what was to be had."""
    if not isinstance(error, OSError):
        return [f"{type(error).__name__} instead of an OSError: {error}"]
    return [] if NAME in str(error) or HUB.endpoint in str(error) else [f"the error does not say where: {error}"]


def _put(files: dict[str, bytes]) -> None:
    """Commit files to the repository, by nobody."""
    HUB.repositories.setdefault(NAME, Repository()).files = dict(files)


def main() -> int:
    """Run the campaign and write its report."""
    parser = make_parser("hub", __doc__.splitlines()[0], count=400)  # out of all troubles
    parser.add_argument("--classes", nargs="*", help="names of models and pipelines; all by default")
    args = parser.parse_args()
    classes = tuple(cls for cls in MAKERS if args.classes is None or cls.__name__ in args.classes)
    start = time.perf_counter()
    fault = (
        "The Hub fails in the middle of a pull or push; it works in the end or says why, and nothing broken is kept."
    )
    try:
        with tempfile.TemporaryDirectory() as root:
            cases = run(Path(root), args.count, args.seed, classes)
    finally:
        pytest_unconfigure()
    return write_report(parser, args.output, fault, cases, time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
