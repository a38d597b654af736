"""What can be chosen, what a Space needs, and that both agree with the package."""

from __future__ import annotations

import configparser
import json
import math
from pathlib import Path

import pytest
import yaml
from checkpoints import SYSTEMS, WHAT_TO_SEE, find_checkpoints
from make_space import gather
from settings import (
    MOST_CHARACTERS,
    NOISE,
    SEED,
    SELECTIONS,
    STEPS,
    TIE_RULES,
    Settings,
    check_problem,
)

from ldlm_hf.evaluation import PIPELINES
from ldlm_hf.hex.tally import TIE_BREAKS
from ldlm_hf.ladir.selection import SELECTIONS as LADIR_SELECTIONS


ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"


def test_every_shipped_checkpoint_is_offered_with_its_own_figure():
    found = find_checkpoints()
    assert set(found) == {path.parent.name for path in (ROOT / "model_cards").glob("*/model_index.json")}
    assert len({checkpoint.title for checkpoint in found.values()}) == len(found)
    for name, checkpoint in found.items():
        measured = json.loads((ROOT / "model_cards" / name / "results" / "evaluation.json").read_text())["evaluation"]
        assert f"{measured['answer_accuracy']:.1%} of {measured['num_problems']:,}" in checkpoint.summary
    assert found["hex-voting"].block_lengths == (2, 4, 8, 16)
    assert set(SYSTEMS) == set(PIPELINES)
    assert set(SYSTEMS.values()) == set(WHAT_TO_SEE) == set(STEPS)


def test_a_checkpoint_of_a_known_task_is_offered_and_others_are_not(tmp_path):
    for name, index in {
        "new": {"_class_name": "MaskedDiffusionPipeline", "task": "countdown", "gen_length": 12},
        "unknown": {"_class_name": "MaskedDiffusionPipeline", "task": "gsm8k", "gen_length": 12},
        "image": {"_class_name": "StableDiffusionPipeline"},
        "taskless": {"_class_name": "LaDiRPipeline", "task": None},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
    found = find_checkpoints(tmp_path)
    assert list(found) == ["new"]
    assert found["new"].title == "Countdown · new"
    assert (found["new"].accuracy, found["new"].block_lengths) == (None, (2, 3, 4, 6, 12))
    assert "%" not in found["new"].summary
    with pytest.raises(FileNotFoundError, match="No saved pipeline"):
        find_checkpoints(tmp_path / "image")


def test_the_choices_are_those_of_the_package():
    assert set(SELECTIONS.values()) == set(LADIR_SELECTIONS)
    assert set(TIE_RULES.values()) == set(TIE_BREAKS)


@pytest.mark.parametrize("value", [None, True, "3", 0, 51, 2.5, math.nan, math.inf])
def test_a_number_that_is_out_of_range_is_refused_by_its_name(value):
    with pytest.raises(ValueError, match=r"Denoising steps has to be a whole number from 1 to 50, but is"):
        STEPS["latent"].check(value)


def test_numbers_of_the_page_get_the_type_they_need():
    checked = Settings(steps=7.0, seed=3.0, guidance_scale=2).checked("masked")
    assert [type(value) for value in (checked.steps, checked.seed, checked.guidance_scale)] == [int, int, float]
    assert NOISE.check(0) == 0.0
    assert SEED.check(2**31 - 1) == 2**31 - 1
    for wrong in (
        {"scheduler": "os.system"},
        {"remasking": "none"},
        {"temperature": -1},
        {"seed": 1.5},
        {"noise_scale": 4},
    ):
        with pytest.raises(ValueError, match="has to be"):
            Settings(steps=7, **wrong).checked("latent")


def test_a_problem_is_stripped_and_neither_empty_nor_long():
    assert check_problem("  1+2+3\n") == "1+2+3"
    for wrong in (None, "", " \n"):
        with pytest.raises(ValueError, match="Type a problem"):
            check_problem(wrong)
    with pytest.raises(ValueError, match=f"at most {MOST_CHARACTERS}"):
        check_problem("1" * (MOST_CHARACTERS + 1))


def test_the_header_of_the_space_names_what_is_pinned_and_there():
    header = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    assert (header["sdk"], header["sdk_version"]) == ("gradio", pins["gradio"])
    assert (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60  # the Hub refuses longer ones
    assert header["license"] == "apache-2.0"


def test_the_space_installs_what_the_package_needs():
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    needed = metadata["options"]["install_requires"].split("\n")
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and line[0] not in "#-"] == [line for line in needed if line]


def test_a_gathered_space_has_page_package_and_checkpoints_and_is_not_written_over(tmp_path):
    cards = tmp_path / "cards"
    (cards / "one" / "figures").mkdir(parents=True)
    (cards / "one" / "model_index.json").write_text("{}")
    (cards / "one" / "figures" / "curve.png").write_text("")
    gather(tmp_path / "space", cards)
    files = {
        path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*") if path.is_file()
    }
    page = {
        "app.py",
        "README.md",
        "requirements.txt",
        "style.css",
        "player.js",
        "answers.py",
        "verdicts.py",
        "screenshots/answer.png",
    }
    assert (
        page | {"ldlm_hf/__init__.py", "ldlm_hf/ldlm/transformer_latent_dit.py", "model_cards/one/model_index.json"}
        <= files
    )
    assert not any("/figures/" in name or "__pycache__" in name or name == "make_space.py" for name in files)
    with pytest.raises(FileExistsError):
        gather(tmp_path / "space", cards)
