"""Evaluation in several processes and after kills: the records are those of one process that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from ldlm_hf import MaskedDiffusionPipeline, MaskedDiffusionScheduler
from ldlm_hf.evaluation import evaluate_pipeline, load_pipeline
from ldlm_hf.result_log import only_writer
from ldlm_hf.sharded_evaluation import Evaluation, evaluate_sharded
from tests.ladir import tiny_ladir
from tests.llada.tiny_llada import tiny_llada, tiny_masked_pipeline
from tests.test_evaluation import LatentWriter
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline, tiny_problems, tiny_scheduler, tiny_tokenizer


NUM_PROBLEMS = 22
MASKED = {"gen_length": 8, "temperature": 1.0, "num_inference_steps": 4}
LATENT = {"num_inference_steps": 2}


class Mortal:
    """Makes a pipeline count its calls, and die in one of them."""

    calls, last_call = 0, None

    def __call__(self, *args, **kwargs):
        """Answer, unless this is the call after the last one."""
        if self.calls == self.last_call:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return super().__call__(*args, **kwargs)


class MortalLatent(Mortal, LatentWriter):
    """A pipeline that writes what its latents say."""


class MortalMasked(Mortal, MaskedDiffusionPipeline):
    """A pipeline that writes at random."""


def latent() -> tuple[MortalLatent, dict]:
    """Return a pipeline and how to call it."""
    return MortalLatent(
        tiny_autoencoder(), tiny_denoiser(), tiny_scheduler(), tiny_tokenizer(), task="addition"
    ), LATENT


def masked() -> tuple[MortalMasked, dict]:
    """Return a pipeline and how to call it."""
    model = tiny_llada(vocab_size=len(tiny_tokenizer()))
    return MortalMasked(model, MaskedDiffusionScheduler(block_length=4), tiny_tokenizer(), task="addition"), MASKED


def evaluate(pipeline, folder: Path, **options) -> Evaluation:
    """Answer the problems, four at a time unless the options say otherwise."""
    return evaluate_sharded(
        pipeline,
        tiny_problems("test", NUM_PROBLEMS),
        folder,
        **{"batch_size": 4, "show_progress": False, **LATENT, **options},
    )


def fork(work: Callable[[], object]) -> int:
    """Start a process that does the work; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)  # threads of the parent are not there
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def run_forked(pipeline, folder: Path, last_calls: list[int | None], **options) -> list[int]:
    """Evaluate in one process for each of `last_calls`; return how each ended, the signal as a negative number."""
    barrier, num_processes = get_context("fork").Barrier(len(last_calls)), len(last_calls)
    children, pipeline.calls = [], 0
    for index, pipeline.last_call in enumerate(last_calls):
        options |= {"process_index": index, "num_processes": num_processes, "wait": partial(barrier.wait, 60)}
        children.append(fork(partial(evaluate, pipeline, folder, **options)))
    pipeline.last_call = None
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def lines(folder: Path) -> dict[int, dict]:
    """Return what is written of each row, which is there once."""
    found = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()[1:]]
    assert len({line["row"] for line in found}) == len(found)
    return {line["row"]: line for line in found}


def test_a_part_of_a_set_is_answered_as_in_the_whole():
    pipeline, problems = latent()[0], tiny_problems("test", 11)
    whole = evaluate_pipeline(pipeline, problems, show_progress=False, **LATENT)
    options = {"batch_size": 3, "show_progress": False, **LATENT}
    assert evaluate_pipeline(pipeline, problems.select(range(4, 9)), first_row=4, **options) == whole[4:9]


@pytest.mark.parametrize("make", [latent, masked])
def test_after_kills_others_go_on_and_all_is_as_if_nothing_had_happened(make, tmp_path):
    pipeline, options = make()
    straight = evaluate_pipeline(
        pipeline, tiny_problems("test", NUM_PROBLEMS), batch_size=4, show_progress=False, **options
    )
    assert len({record.text for record in straight}) > NUM_PROBLEMS // 2  # else equality says little
    assert run_forked(pipeline, tmp_path, [1, 2], **options) == [-signal.SIGKILL] * 2
    assert set(lines(tmp_path)) == {*range(8), *range(12, 16)}  # batch 0 of one, batches 1 and 3 of the other
    assert run_forked(pipeline, tmp_path, [1], **options) == [-signal.SIGKILL]
    assert set(lines(tmp_path)) == set(range(16))
    assert run_forked(pipeline, tmp_path, [None, None, None], **options) == [0, 0, 0]
    assert set(lines(tmp_path)) == set(range(NUM_PROBLEMS))
    pipeline.calls = 0
    found = evaluate(pipeline, tmp_path, **options)
    assert pipeline.calls == 0
    assert found.records == straight
    assert found.num_inference_steps == options["num_inference_steps"]
    assert found.seconds == pytest.approx(sum(line["seconds"] for line in lines(tmp_path).values()))


def test_of_a_batch_that_was_written_in_part_only_the_rest_is_written_anew(tmp_path):
    pipeline, _ = latent()
    straight = evaluate(pipeline, tmp_path / "straight").records
    whole = (tmp_path / "straight" / "records-0.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    (tmp_path / "cut").mkdir()
    for end in (ends[6] + 30, ends[6], ends[0] - 5, 0):
        path = tmp_path / "cut" / "records-0.jsonl"
        path.write_bytes(whole[:end])
        kept = path.read_bytes()[: max([place for place in ends if place <= end], default=0)]
        assert evaluate(pipeline, tmp_path / "cut").records == straight
        assert path.read_bytes().startswith(kept)
        assert len(lines(tmp_path / "cut")) == NUM_PROBLEMS


def test_another_batch_size_goes_on_too(tmp_path):
    pipeline, _ = latent()
    straight = evaluate(pipeline, tmp_path / "straight").records
    assert run_forked(pipeline, tmp_path / "other", [2], batch_size=3) == [-signal.SIGKILL]
    assert set(lines(tmp_path / "other")) == set(range(6))
    assert evaluate(pipeline, tmp_path / "other", batch_size=5).records == straight
    assert len(lines(tmp_path / "other")) == NUM_PROBLEMS


def test_a_folder_holds_the_records_of_one_setting(tmp_path):
    pipeline, _ = latent()
    evaluate(pipeline, tmp_path)
    changes = {"seed": {"seed": 1}, "guidance_scale": {"guidance_scale": 2.0}, "num_samples": {"num_samples": 2}}
    for named, change in changes.items():
        with pytest.raises(ValueError, match=f"other settings: sampling is .*{named}.*--records"):
            evaluate(pipeline, tmp_path, **change)
    with pytest.raises(ValueError, match="other settings: num_problems is 22, not 5, problems is"):
        evaluate_sharded(pipeline, tiny_problems("test", 5), tmp_path, show_progress=False, **LATENT)
    with torch.no_grad():
        next(pipeline.denoiser.parameters())[0].add_(1e-3)
    with pytest.raises(ValueError, match="other settings: parts is .*denoiser"):
        evaluate(pipeline, tmp_path, num_processes=2, process_index=1, wait=list)  # whichever process asks


@pytest.mark.parametrize(
    ("make", "problems", "options"),
    [
        (tiny_pipeline, tiny_problems("test", 4), LATENT),
        (tiny_masked_pipeline, tiny_problems("test", 4), MASKED),
        (tiny_ladir.tiny_pipeline, tiny_ladir.sums(4), {**LATENT, "max_blocks": 3, "max_new_tokens": 8}),
    ],
)
def test_copies_of_a_checkpoint_are_the_same_and_calls_do_not_change_it(make, problems, options, tmp_path):
    make().save_pretrained(tmp_path / "a")
    load_pipeline(tmp_path / "a").save_pretrained(tmp_path / "b")
    options = {**options, "batch_size": 2, "show_progress": False}
    first, other = load_pipeline(tmp_path / "a"), load_pipeline(tmp_path / "b")
    found = [
        evaluate_sharded(pipeline, problems, tmp_path / "records", **options) for pipeline in (first, first, other)
    ]
    assert found[0] == found[1] == found[2]


def test_two_runs_never_write_to_one_folder_at_once(tmp_path):
    pipeline, _ = latent()
    with only_writer(tmp_path / "records-0.jsonl"), pytest.raises(ValueError, match="being written"):
        evaluate(pipeline, tmp_path)
    with only_writer(tmp_path / "records-1.jsonl"), pytest.raises(ValueError, match="records-1.*being written"):
        evaluate(pipeline, tmp_path)  # a process that outlived a run of two
    assert pipeline.calls == 0
    assert len(evaluate(pipeline, tmp_path).records) == NUM_PROBLEMS


def test_a_row_that_is_there_twice_or_not_at_all_is_an_error(tmp_path):
    pipeline, _ = latent()
    evaluate(pipeline, tmp_path)
    path = tmp_path / "records-0.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[3] + "\n")
    with pytest.raises(ValueError, match="has row 2 once more.*--records"):
        evaluate(pipeline, tmp_path)
    path.write_text(whole)
    header = whole.splitlines()[0] + "\n"
    waits = iter([lambda: None, lambda: path.write_text(header)])  # somebody empties the file while it works
    with pytest.raises(ValueError, match=r"lost the records of 22 rows, such as \[0, 1, 2, 3, 4\]"):
        evaluate(pipeline, tmp_path, wait=lambda: next(waits)())


@pytest.mark.parametrize("wrong", [{"process_index": 1}, {"num_processes": 2}, {"num_processes": 0}])
def test_processes_that_do_not_fit_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="process_index"):
        evaluate(latent()[0], tmp_path, **wrong)
    with pytest.raises(ValueError, match="JSON can say"):
        evaluate(latent()[0], tmp_path, callback=print)
