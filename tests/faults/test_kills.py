"""A few kills of the campaign: trainings, saves, caches, evaluations, a recipe, and that a fault would be found."""

from pathlib import Path

import pytest
import torch

from tests.faults import jobs, recipe_jobs
from tests.faults.forks import Moment
from tests.faults.jobs import Job, digest, read_text
from tests.faults.kills import every_operation, kill
from tests.faults.report import Case


pytestmark = pytest.mark.skipif(torch.cuda.is_initialized(), reason="a GPU in use cannot be forked")


def faults(cases: list[Case]) -> list[str]:
    """Return what failed, of several kills."""
    assert cases
    return [case.detail for case in cases if not case.passed]


@pytest.mark.parametrize(("name", "count"), [("DenoiserTrainer", 1), ("DiffuGRPOTrainer", 3)])
def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bits(tmp_path, name, count):
    assert faults(kill(jobs.training_job(name), None, count, tmp_path)) == []


def test_a_pipeline_that_is_saved_over_another_is_one_or_the_other_or_none(tmp_path):
    job = jobs.saving_job("MaskedDiffusionPipeline")
    moments = [*every_operation(job, tmp_path, step=9), Moment(size=20_000)]
    assert faults(kill(job, moments, len(moments), tmp_path)) == []


@pytest.mark.parametrize(
    "job", [jobs.cache_job("cache_thoughts"), jobs.evaluation_job("MaskedDiffusionPipeline"), jobs.results_job()]
)
def test_what_is_written_row_by_row_goes_on_after_a_kill(tmp_path, job):
    assert faults(kill(job, [Moment(operation=3), Moment(size=2_000)], 2, tmp_path)) == []


def test_a_recipe_that_is_begun_anew_and_killed_never_takes_up_what_another_left(tmp_path):
    job = recipe_jobs.recipe_job("masked diffusion", over_another=True)
    assert faults(kill(job, [Moment(operation=9)], 1, tmp_path)) == []


def test_a_save_that_is_not_whole_is_found(tmp_path):
    def write(folder: Path, number: int) -> None:
        for part in ("first", "second"):
            (folder / part).write_text(str(number))

    def loadable(folder: Path) -> dict[str, str]:
        return {"both": digest(read_text(folder / "first"), read_text(folder / "second"))}

    job = Job("writing", lambda folder, _: write(folder, 1), loadable, lambda folder: write(folder, 0))
    moments = list(every_operation(job, tmp_path))
    assert faults(kill(job, moments, len(moments), tmp_path)) == [
        "at change 2 of a file: loaded half-written: ['both']"
    ]


def test_work_that_goes_on_wrongly_is_found(tmp_path):
    def add(folder: Path, attempt: int) -> None:
        with (folder / "sum").open("a") as file:  # forgets that it has been here
            file.write("1")
        (folder / "done").touch()

    job = Job("adding", add, lambda folder: read_text(folder / "sum") if (folder / "done").exists() else {})
    assert faults(kill(job, [Moment(operation=2)], 1, tmp_path)) == [
        "at change 2 of a file; then other results: ['sum']"
    ]
