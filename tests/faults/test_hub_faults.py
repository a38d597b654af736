"""A few of the faults of the campaign in `hub.py`: pulls and pushes while the Hub fails."""

from __future__ import annotations

import pytest
from huggingface_hub import create_repo, upload_folder

from ldlm_hf import LatentDiT, LatentReasoningPipeline, repositories
from tests.fake_hub import Fault
from tests.faults.hub import (
    ALWAYS,
    MAKERS,
    NAME,
    Shelf,
    Trouble,
    noted_waits,
    pull_troubles,
    push_troubles,
    run,
    try_pull,
    try_push,
)
from tests.tiny import tiny_denoiser


every_class = pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)
shelf = Shelf()


@every_class
def test_a_file_that_is_not_what_was_announced_is_refused_and_not_kept(tmp_path, cls):
    fault = {"pattern": r"/resolve/.*\.safetensors$", "kind": "corrupt", "times": ALWAYS}
    case = try_pull(shelf, cls, Trouble("corrupt", "a bit of the weights is another one", (fault,)), tmp_path)
    assert case.passed, case.detail


@every_class
def test_a_commit_in_the_middle_of_a_pull_gives_all_of_the_old_or_all_of_the_new(tmp_path, cls):
    fault = {"method": "", "pattern": "/resolve/", "kind": "none", "skip": 3}
    case = try_pull(shelf, cls, Trouble("commit moves", "after 3 files", (fault,), moves=True), tmp_path)
    assert case.passed, case.detail


@every_class
def test_a_token_that_is_revoked_in_the_middle_of_a_push_leaves_all_of_the_old(tmp_path, cls):
    fault = {"method": "", "pattern": "", "status": 401, "times": ALWAYS, "skip": 4}
    case = try_push(shelf, cls, Trouble("revoked", "after 4 requests", (fault,)), tmp_path)
    assert case.passed, case.detail


@every_class
def test_a_commit_whose_answer_is_lost_leaves_all_of_the_new(tmp_path, cls):
    fault = {"method": "POST", "pattern": "/commit/", "kind": "lost"}
    case = try_push(shelf, cls, Trouble("lost", "the answer to the commit", (fault,)), tmp_path)
    assert case.passed, case.detail


def test_some_of_all_troubles_end_well(tmp_path):
    cases = run(tmp_path, 12, seed=3, stalls=False)
    assert [case.detail for case in cases if not case.passed] == []


def test_a_hub_that_says_nothing_is_given_up(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(repositories, "PATIENCE", 0.1)
    tiny_denoiser().push_to_hub(NAME)
    hub.faults[:] = [Fault("^/api/models/", kind="stall", times=ALWAYS)]
    with pytest.raises(OSError, match=f"{NAME}.*[Tt]ime"):
        LatentDiT.from_pretrained(NAME, cache_dir=tmp_path)
    hub.faults[:] = [Fault("/commit/", method="POST", kind="stall", times=ALWAYS)]
    with pytest.raises(OSError, match=f"{NAME}.*[Tt]ime"):
        tiny_denoiser(1).push_to_hub(NAME)


def test_a_hub_that_is_busy_is_asked_again_when_it_said_but_not_for_ever(hub, tmp_path):
    tiny_denoiser().push_to_hub(NAME)
    busy = {"status": 429, "headers": {"Retry-After": "7"}, "method": "HEAD"}
    hub.faults[:] = [Fault("/resolve/", **busy, times=2)]
    with noted_waits() as waits:
        LatentDiT.from_pretrained(NAME, cache_dir=tmp_path / "a")
    assert 8.0 in waits
    hub.faults[:] = [Fault("/resolve/", **busy, times=ALWAYS)]
    with noted_waits() as waits, pytest.raises(OSError, match=NAME):
        LatentDiT.from_pretrained(NAME, cache_dir=tmp_path / "b")
    assert waits.count(8.0) <= 10  # of a configuration and an index, five each


def test_the_troubles_are_many_and_a_mixture_is_told_from_a_version(tmp_path):
    troubles = [*pull_troubles(), *push_troubles()]
    assert len(troubles) >= 200
    assert len({trouble.kind for trouble in troubles}) >= 20
    shelf.files(LatentDiT, 0), shelf.files(LatentDiT, 1)
    mixture = tiny_denoiser(0)
    assert shelf.version_of(LatentDiT, mixture) == 0
    mixture.proj_in = tiny_denoiser(1).proj_in
    assert shelf.version_of(LatentDiT, mixture) is None


def test_a_push_of_two_commits_would_be_found(tmp_path, monkeypatch):
    def push(self, repo_id: str) -> None:
        self.save_pretrained(tmp_path / "saved")
        create_repo(repo_id, exist_ok=True)
        for part in ("autoencoder/*", "denoiser/*"):
            upload_folder(repo_id=repo_id, folder_path=tmp_path / "saved", allow_patterns=part)

    cls = LatentReasoningPipeline
    shelf.files(cls, 0), shelf.files(cls, 1)
    monkeypatch.setattr(cls, "push_to_hub", push)
    second = Trouble("500", "second commit", ({"method": "POST", "pattern": "/commit/", "status": 500, "skip": 1},))
    case = try_push(shelf, cls, second, tmp_path / "cache", over=False)
    assert "the repository is a mixture" in case.detail


def test_a_cache_that_keeps_what_was_not_announced_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr(repositories, "_is_as_announced", lambda blob: True)
    fault = {"pattern": r"/resolve/.*\.safetensors$", "kind": "corrupt", "times": ALWAYS}
    case = try_pull(shelf, LatentDiT, Trouble("corrupt", "a bit of the weights", (fault,)), tmp_path)
    assert "a mixture was loaded" in case.detail
    assert "something else is in the cache" in case.detail
