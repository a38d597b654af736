"""A few saves without room, and what an error says then."""

import errno

import pytest
import torch

from ldlm_hf.checkpoints import saved_whole, write_whole
from ldlm_hf.ldlm.latent_cache import cache_latents
from tests.faults import jobs
from tests.faults.forks import run_forked
from tests.faults.full_disk import fill, unclear
from tests.faults.jobs import Job, read_text
from tests.tiny import tiny_autoencoder, tiny_problems, tiny_tokenizer


pytestmark = pytest.mark.skipif(torch.cuda.is_initialized(), reason="a GPU in use cannot be forked")


@pytest.mark.parametrize(
    ("job", "count"),
    [
        (jobs.training_job("MaskedDiffusionTrainer"), 2),
        (jobs.saving_job("MaskedDiffusionPipeline"), 2),
        (jobs.cache_job("cache_latents"), 1),
        (jobs.results_job(), 2),
    ],
)
def test_a_save_without_room_says_so_and_leaves_what_was_there(tmp_path, job, count):
    cases = fill(job, count, tmp_path)
    assert len(cases) == count
    assert [case.detail for case in cases if not case.passed] == []


def test_the_error_names_the_file_and_says_how_much_room_there_is(tmp_path):
    path = tmp_path / "results.json"
    write_whole(path, "old")

    def fail() -> tuple:
        with pytest.raises(OSError, match=r"MiB left for: '.*results\.json'") as error:
            write_whole(path, "new" * 1000)
        return error.value.errno, error.value.filename

    ending = run_forked(fail, tmp_path, largest=1000)
    assert (ending.error, ending.result) == ("", [errno.EFBIG, str(path)])
    assert {each.name for each in tmp_path.iterdir()} == {"results.json"}
    assert path.read_text() == "old"


def test_a_tokenizer_without_room_is_no_bare_exception(tmp_path):
    def fail() -> tuple:
        with pytest.raises(OSError, match="os error") as error, saved_whole(tmp_path / "saved") as place:
            tiny_tokenizer().backend_tokenizer.save(str(place / "tokenizer.json"))
        return error.value.errno, error.value.filename

    ending = run_forked(fail, tmp_path, largest=1000)
    assert (ending.error, ending.result) == ("", [errno.EFBIG, str(tmp_path / "saved")])
    assert not (tmp_path / "saved").exists()


def test_a_cache_that_fails_only_as_its_file_is_closed_says_why(tmp_path):
    def fail() -> tuple:
        with pytest.raises(OSError, match=r"MiB left for: '.*\.arrow'") as error:  # four rows are written all at once
            cache_latents(tiny_problems(size=4), tiny_autoencoder(), tiny_tokenizer(), tmp_path / "cache")
        return error.value.errno, str(error.value.__cause__.__cause__)

    ending = run_forked(fail, tmp_path, largest=1000)
    assert (ending.error, ending.result) == ("", [errno.EFBIG, "I/O operation on closed file"])
    assert not (tmp_path / "cache").exists()


def test_a_save_that_loses_what_was_there_is_found(tmp_path):
    def write(folder, number):
        (folder / "text").write_text(str(number) * 500)

    job = Job("kill -9 writing", lambda folder, _: write(folder, 1), lambda folder: read_text(folder / "text"))
    job = Job(job.kind, job.run, job.loadable, lambda folder: write(folder, 0))
    (case,) = fill(job, 1, tmp_path)
    assert "no OSError with a path" in case.detail
    assert "loaded half-written" in case.detail and "lost: ['text']" in case.detail


def test_an_error_that_names_nothing_is_found(tmp_path):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "no OSError with a path" in unclear(run_forked(fail, tmp_path), tmp_path)
