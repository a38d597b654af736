"""Saving completely or not at all: what stays, what goes, and in which order."""

import os

import pytest
import torch
from transformers import AutoTokenizer

from ldlm_hf import LatentDiT, LLaDAForMaskedDiffusion
from ldlm_hf.checkpoints import LOADED_FIRST, saved_whole, write_whole, writing
from tests.llada.tiny_llada import tiny_llada
from tests.tiny import tiny_denoiser, tiny_tokenizer


def test_files_take_their_places_and_all_others_stay(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "training.json").write_text("{}")
    (tmp_path / "README.md").write_text("old")
    with saved_whole(tmp_path) as place:
        assert place.parent == tmp_path and not any(place.iterdir())
        (place / "README.md").write_text("new")
        (place / "part").mkdir()
        (place / "part" / "config.json").write_text("{}")
        assert (tmp_path / "README.md").read_text() == "old"
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"README.md", "part/config.json", "results/training.json"}
    assert (tmp_path / "README.md").read_text() == "new"


def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path):
    tiny_denoiser(0).save_pretrained(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(KeyboardInterrupt), saved_whole(tmp_path / "model") as place:
        tiny_denoiser(1).save_pretrained(place)
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    with pytest.raises(KeyboardInterrupt), saved_whole(tmp_path / "new"):
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()


def test_what_a_killed_save_left_goes_with_the_next(tmp_path):
    (tmp_path / ".unfinished-abc").mkdir()
    (tmp_path / ".unfinished-abc" / "model.safetensors").write_text("half")
    with saved_whole(tmp_path) as place:
        (place / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_older_weights_that_are_split_otherwise_do_not_stay_beside_the_new_ones(tmp_path):
    """A loader prefers a single file, also where it is older than the shards beside it."""
    old, new = tiny_llada(0), tiny_llada(1)
    with saved_whole(tmp_path) as place:
        old.save_pretrained(place)
    (tmp_path / "model_of_another.safetensors").write_text("stays")
    for size in ("40KB", "50GB", "30KB"):
        with saved_whole(tmp_path) as place:
            new.save_pretrained(place, max_shard_size=size)
        names = [path.name for path in tmp_path.glob("model*.safetensors") if "another" not in path.name]
        assert (len(names) == 1) == (size == "50GB")
        loaded = LLaDAForMaskedDiffusion.from_pretrained(tmp_path)
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in new.state_dict().items())
    assert (tmp_path / "model_of_another.safetensors").exists()


def test_nothing_loads_without_the_files_that_come_last(tmp_path):
    tiny_denoiser().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    for folder, loader in (("model", LatentDiT), ("tokenizer", AutoTokenizer)):
        loader.from_pretrained(tmp_path / folder)
        for path in (tmp_path / folder).iterdir():
            if path.name in LOADED_FIRST:
                path.unlink()
        with pytest.raises((OSError, ValueError)):
            loader.from_pretrained(tmp_path / folder)


def test_text_is_written_whole_and_nothing_stays_beside_it(tmp_path):
    write_whole(tmp_path / "new" / "results.json", "1")
    write_whole(tmp_path / "new" / "results.json", "2")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]
    assert (tmp_path / "new" / "results.json").read_text() == "2"


def test_errors_that_are_not_about_room_stay_what_they_are(tmp_path):
    others = RuntimeError("shapes differ"), ValueError("no rows"), Exception("Permission denied (os error 13)")
    for error in (FileNotFoundError(2, "No such file", "x"), ConnectionError("no Hub"), *others):
        with pytest.raises(type(error)) as raised, writing(tmp_path):
            raise error
        assert raised.value is error


def test_saving_waits_for_another_save_to_the_same_folder(tmp_path):
    """Processes of one launch may all save the same: each waits for its turn, and the last one is whole."""
    with saved_whole(tmp_path) as place:
        (place / "config.json").write_text("first")
        child = os.fork()
        if child == 0:
            with saved_whole(tmp_path) as other:
                (other / "config.json").write_text("second")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "config.json").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
