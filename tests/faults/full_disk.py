"""A disk that is full while something is saved, with room for more or less of it.

Where mounting is allowed, the disk is a small `tmpfs`; everywhere, a limit on the size of files stands in for one. What has to
hold: an `OSError` that names what could not be written; everything that was there before still loads as it was, to the last bit;
nothing half-written stays and takes up room; and with room again, the same work ends as if nothing had been.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.faults import jobs
from tests.faults.forks import Ending, run_forked
from tests.faults.jobs import Job
from tests.faults.kills import finish, get_ready, undisturbed, wrongly_loadable
from tests.faults.report import Case, make_parser, write_report


PAGE = 4096  # a tmpfs gives room in pages of the memory


def fill(job: Job, count: int, root: Path, seed: int = 0, on_disk: bool = False) -> list[Case]:
    """Let a job run out of room `count` times, each time at another byte.

    Args:
        job ([`Job`]): what is saved.
        count (`int`): how many times.
        root (`Path`): an empty folder.
        seed (`int`, *optional*, defaults to 0): of how much room there is.
        on_disk (`bool`, *optional*, defaults to `False`): run out of the room of a disk, rather than of that of a file.
    """
    generator, cases = Random(f"{job.kind}/{seed}"), []
    kind = f"{job.kind.removeprefix('kill -9 ')}: {'a full tmpfs' if on_disk else 'no room in a file'}"
    old, known, final, _ = undisturbed(job, root / "undisturbed")
    before, after = (_pages(folder) for folder in (old, root / "undisturbed"))
    largest = max(path.stat().st_size for path in (root / "undisturbed").rglob("*") if path.is_file())
    attempts = 0
    while len(cases) < count and attempts < 4 * count:
        attempts += 1
        pages = before + int((max(after - before, before) + 4) * generator.random())
        size = int(largest ** generator.uniform(0.3, 1))
        with _disk(root / "disk", pages) if on_disk else _folder(root / "disk") as (place, enlarge):
            shutil.copytree(old, place / "job")
            ending = run_forked(lambda place=place: job.run(place / "job", 0), place, largest=0 if on_disk else size)
            if ending.is_done:
                continue
            room = f"{pages * PAGE} bytes of disk" if on_disk else f"{size} bytes of a file"
            faults = [
                unclear(ending, place),
                wrongly_loadable(job, place / "job", known),
                lost(job, old, place / "job"),
                previous(job, ending, place / "job"),
                left(place / "job"),
            ]
            enlarge()
            fault = "; ".join(filter(None, [*faults, finish(job, place / "job", final)]))
            cases.append(Case(kind, not fault, f"{room}: {fault}"))
    shutil.rmtree(root / "undisturbed")
    shutil.rmtree(old)
    return cases


def unclear(ending: Ending, folder: Path) -> str:
    """Return what is wrong with how a process said that there was no room."""
    if ending.killed or not ending.error:
        return "it ended without an error"
    last = ending.error.strip().splitlines()[-1]
    return "" if last.startswith("OSError: ") and str(folder) in last else f"no OSError with a path, but {last[:300]}"


def lost(job: Job, old: Path, folder: Path) -> str:
    """Return what loaded before, and does so no longer or is something else, although nothing new took its place."""
    before, now = (run_forked(lambda place=place: job.loadable(place), place) for place in (old, folder))
    if before.error or now.error:
        return f"loading ended in {(before.error or now.error)[-300:]}"
    changed = sorted(name for name, value in before.result.items() if now.result.get(name) != value)
    return f"lost: {changed}" if changed else ""


def previous(job: Job, ending: Ending, folder: Path) -> str:
    """Return whether the checkpoint before the one that had no room is gone, although the training kept it."""
    step = re.search(r"checkpoint-(\d+)'", ending.error.strip().splitlines()[-1])
    if step is None or step[1] == "1":
        return ""
    name = f"checkpoint-{int(step[1]) - 1}"
    loadable = run_forked(lambda: job.loadable(folder), folder).result
    return "" if loadable and name in loadable else f"lost: {name}"


def left(folder: Path) -> str:
    """Return what is left half-written."""
    names = [path.relative_to(folder) for path in folder.rglob("*")]
    half = [str(name) for name in names if name.name.startswith((".", "tmp")) or name.suffix == ".part"]
    return f"left: {sorted(half)[:3]}" if half else ""


@contextmanager
def _folder(place: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    place.mkdir()
    try:
        yield place, lambda: None
    finally:
        shutil.rmtree(place)


@contextmanager
def _disk(place: Path, pages: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Give a small disk, and what makes it larger."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "none", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def _pages(folder: Path) -> int:
    """Return how many pages what is in a folder takes up."""
    return sum(-(-path.stat().st_size // PAGE) for path in folder.rglob("*") if path.is_file())


def can_mount() -> bool:
    """Return whether disks can be mounted here."""
    try:
        with tempfile.TemporaryDirectory() as folder, _disk(Path(folder) / "disk", 16):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def saving_jobs() -> list[Job]:
    """Return everything that saves: checkpoints and results of all trainers, pipelines, caches, results."""
    caches = [jobs.cache_job(name) for name in ("cache_latents", "cache_thoughts")]
    pipelines = [jobs.saving_job(name) for name in jobs.PIPELINES]
    trainings = [jobs.training_job(name) for name in jobs.TRAINERS]
    return [*trainings, jobs.final_save_job(), *pipelines, *caches, jobs.results_job()]


def main() -> int:
    """Run the campaign."""
    parser = make_parser("full_disk", __doc__.splitlines()[0], 12)
    parser.add_argument("--only", default="", help="jobs with this in their names")
    args = parser.parse_args()
    get_ready()
    started, cases = time.monotonic(), []
    ways = (False, True) if can_mount() else (False,)
    with tempfile.TemporaryDirectory() as folder:
        for job in saving_jobs():
            for on_disk in ways if args.only in job.kind else ():
                found = fill(job, args.count, Path(folder), args.seed, on_disk)
                print(
                    f"{len(found):>6} times, {sum(not case.passed for case in found)} failed: {job.kind}", flush=True
                )
                cases += found
    fault = "A disk without room while saving: an OSError with a path, what was there loads as it was, and the work goes on"
    return write_report(parser, args.output, fault, cases, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
