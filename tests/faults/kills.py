"""`kill -9` at any moment of training, saving, caching, evaluating and whole recipes, and again while resuming.

Each job is started in a folder, killed, started again, perhaps killed again, until it is done. After each kill, everything that
loads has to be something that an undisturbed run has written, to the last bit; in the end, all of it.
"""

from __future__ import annotations

import os
import sys
import tempfile


if "HF_HOME" not in os.environ:
    HOME = tempfile.TemporaryDirectory(prefix="ldlm-hf-kills-")  # what `datasets` keeps is killed too
    os.environ["HF_HOME"] = HOME.name
for name in ("HF_HUB_OFFLINE", "DISABLE_SAFETENSORS_CONVERSION"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from random import Random  # noqa: E402

import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from ldlm_hf.tasks import StyledSudoku  # noqa: E402
from tests.faults import jobs, recipe_jobs  # noqa: E402
from tests.faults.forks import Ending, Moment, draw_moments, run_forked  # noqa: E402
from tests.faults.jobs import Job  # noqa: E402
from tests.faults.report import Case, make_parser, write_report  # noqa: E402
from tests.tiny import tiny_task  # noqa: E402


MOST_KILLS_OF_A_RUN = 6


def kill(job: Job, moments: Iterable[Moment] | None, count: int, root: Path, seed: int = 0) -> list[Case]:
    """Kill a job `count` times, at given moments or at random ones, and again while it goes on.

    Args:
        job ([`Job`]): what is killed.
        moments (`Iterable[Moment]`, *optional*): each of them is the only kill of a run; by default they are drawn, and runs
            are killed again and again.
        count (`int`): how many kills.
        root (`Path`): an empty folder.
        seed (`int`, *optional*, defaults to 0): of the moments.
    """
    generator = Random(f"{job.kind}/{seed}")
    folder = root / "work"  # the same for all runs: some configurations name the folder that weights came from
    old, known, final, whole = undisturbed(job, folder)
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    is_drawn = moments is None
    if is_drawn:
        moments = draw_moments(generator, whole.seconds, whole.operations, largest)
    cases, runs, moments = [], 0, iter(moments)
    while len(cases) < count and (is_drawn or runs < count):
        runs += 1
        shutil.copytree(old, folder)
        if generator.random() < 0.5:
            (folder / "rotated").touch()  # trainings then keep one checkpoint only
        most = generator.randint(1, MOST_KILLS_OF_A_RUN) if is_drawn else 1
        run = list(killed_run(job, folder, moments, most, known))
        fault = finish(job, folder, final) if run else ""  # else it was done before the moment came
        if fault and run[-1].passed:
            run[-1] = Case(job.kind, False, f"{'; '.join(case.detail for case in run)}; then {fault}")
        cases += run
        shutil.rmtree(folder)
    shutil.rmtree(old)
    return cases


def undisturbed(job: Job, folder: Path) -> tuple[Path, dict[str, set[str]], dict[str, str], Ending]:
    """Run a job to its end; return where its beginning is kept, all that it ever wrote, what it came to, and how it went."""
    folder.mkdir(parents=True)
    check(run_forked(lambda: job.prepare(folder), folder))
    before = check(run_forked(lambda: job.loadable(folder), folder))
    old = folder.with_name("old")
    shutil.copytree(folder, old)
    ending = run_forked(lambda: job.run(folder, 0), folder)
    check(ending)
    final = check(run_forked(lambda: job.loadable(folder), folder))
    known: dict[str, set[str]] = {}
    more = {} if job.known is None else check(run_forked(lambda: job.known(folder), folder))
    for found in (before, final, more):
        for name, value in found.items():
            known.setdefault(name, set()).add(value)
    return old, known, final, ending


def killed_run(
    job: Job, folder: Path, moments: Iterator[Moment], most: int, known: dict[str, set[str]]
) -> Iterator[Case]:
    """Start a job until it is done or was killed so often; yield a case for each kill."""
    for attempt in range(most):
        moment = next(moments, None)
        if moment is None:
            return
        ending = run_forked(lambda attempt=attempt: job.run(folder, attempt), folder, moment)
        if ending.error:
            yield Case(job.kind, False, f"{moment}: going on ended in {ending.error[-400:]}")
            return
        if not ending.killed:
            return
        fault = wrongly_loadable(job, folder, known)
        yield Case(job.kind, fault == "", f"{moment}{': ' * bool(fault)}{fault}")
        if fault:
            return


def wrongly_loadable(job: Job, folder: Path, known: dict[str, set[str]]) -> str:
    """Return what loads in a folder although no undisturbed run has written it, empty if nothing does."""
    ending = run_forked(lambda: job.loadable(folder), folder)
    if ending.error:
        return f"loading ended in {ending.error[-400:]}"
    wrong = sorted(name for name, value in ending.result.items() if value not in known.get(name, ()))
    return f"loaded half-written: {wrong}" if wrong else ""


def finish(job: Job, folder: Path, final: dict[str, str]) -> str:
    """Let a killed job go on to its end; return in what that differs from an undisturbed run, empty if in nothing."""
    ending = run_forked(lambda: job.run(folder, 1), folder)
    if ending.error:
        return f"going on ended in {ending.error[-400:]}"
    ending = run_forked(lambda: job.loadable(folder), folder)
    if ending.error:
        return f"loading the result ended in {ending.error[-400:]}"
    differing = sorted(name for name, value in final.items() if ending.result.get(name) != value)
    return f"other results: {differing}" if differing else ""


def every_operation(job: Job, root: Path, step: int = 1) -> Iterator[Moment]:
    """Return each (or each so-many-th) time that an undisturbed run of a job changes a file."""
    old, _, _, whole = undisturbed(job, root / "work")
    shutil.rmtree(root / "work")
    shutil.rmtree(old)
    return (Moment(operation=operation) for operation in range(1, whole.operations + 1, step))


def every_job(count: int) -> list[tuple[Job, int]]:
    """Return all jobs, and how often each is killed: `count` times, but less where it takes long or there are several alike."""
    recipes = [recipe_jobs.recipe_job(name, over) for name in recipe_jobs.RECIPES for over in (False, True)]
    evaluations = [jobs.evaluation_job(name) for name in jobs.PIPELINES]
    caches = [jobs.cache_job(name) for name in ("cache_latents", "cache_thoughts")]
    pipelines = [jobs.saving_job(name) for name in jobs.PIPELINES]
    trainings = [jobs.training_job(name) for name in jobs.TRAINERS]
    often = [(job, count) for job in (*trainings, jobs.final_save_job(), *pipelines, jobs.results_job(), *caches)]
    less = [(job, -(-2 * count // 5)) for job in evaluations]
    return [*often, *less, *((job, -(-count // 5)) for job in recipes)]


def check(ending: Ending) -> object:
    """Return what a process returned.

    Raises:
        RuntimeError: if it failed.
    """
    if not ending.is_done:
        raise RuntimeError(f"An undisturbed run failed: {ending.error or 'it was killed'}")
    return ending.result


def campaign(count: int, seed: int, root: Path, only: str = "") -> list[Case]:
    """Return the cases of all jobs: at random moments, and of some at every change of a file."""
    planned: list[tuple[Job, int | None]] = list(every_job(count))
    swept = [jobs.final_save_job(), jobs.saving_job("MaskedDiffusionPipeline")]
    planned += [(job, None) for job in (*swept, recipe_jobs.recipe_job("masked diffusion"))]
    cases = []
    for job, number in planned:
        if only not in job.kind:
            continue
        started = time.monotonic()
        if number is not None:
            found = kill(job, None, number, root, seed)
        else:
            moments = list(every_operation(job, root))
            found = kill(
                replace(job, kind=f"{job.kind}, at every change of a file"), moments, len(moments), root, seed
            )
        cases += found
        failed, seconds = sum(not case.passed for case in found), time.monotonic() - started
        print(f"{len(found):>6} kills, {failed} failed, {seconds:.0f} s: {found[0].kind}", flush=True)
    return cases


def get_ready() -> None:
    """Show no progress bars, keep to one thread, which forked processes can go on with, and list the problems for all of them.

    Listing them takes as long as all else in a training: kills at random seconds would fall where nothing is written.
    """
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for task in (tiny_task(), StyledSudoku()):
        for split in ("train", "test"):
            task.problem(split, 0)


def main() -> int:
    """Run the campaign."""
    parser = make_parser("kills", __doc__.splitlines()[0], 50)
    parser.add_argument("--only", default="", help="jobs with this in their names")
    args = parser.parse_args()
    get_ready()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cases = campaign(args.count, args.seed, Path(folder), args.only)
    fault = "kill -9 at any moment, and again while going on: it ends in the same bits, and nothing half-written loads"
    return write_report(parser, args.output, fault, cases, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
