"""The script that evaluates, started by accelerate as two processes: the results are those of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluate_saved import main
from tests.ladir import tiny_ladir
from tests.llada.tiny_llada import tiny_masked_pipeline


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> list[Path]:
    """Return the folders of a latent and a masked pipeline."""
    folder = tmp_path_factory.mktemp("saved")
    latent = tiny_ladir.tiny_pipeline(task="mixed_countdown", task_arguments={"train_size": 40, "heldout_size": 12})
    latent.register_to_config(max_blocks=3, max_new_tokens=8)
    masked = tiny_masked_pipeline()
    masked.register_task("addition", {"max_terms": 3})  # a thousand problems
    masked.register_to_config(gen_length=8)
    for name, pipeline in (("latent", latent), ("masked", masked)):
        pipeline.save_pretrained(folder / name)
    return [folder / "latent", folder / "masked"]


def launch(*arguments: str | Path) -> str:
    """Start two processes; return what they print."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", "-m", "tests.evaluate_saved", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def results(path: Path) -> dict:
    """Return the results in a file without what they may differ in."""
    found = json.loads(path.read_text())
    assert found.pop("environment")
    assert found["evaluation"].pop("command")
    assert found["evaluation"].pop("seconds") > 0
    return found


def texts(folder: Path) -> dict[tuple[str, int], str]:
    """Return the text of each row of each evaluation in a folder of records, as far as lines are whole."""
    found = {}
    for path in folder.rglob("records-*.jsonl"):
        whole = path.read_text().rpartition("\n")[0]
        for line in map(json.loads, whole.splitlines()[1:]):
            found[str(path.parent.relative_to(folder)), line["row"]] = line["text"]
    return found


def test_two_processes_find_what_one_finds_and_one_goes_on_where_they_were(pipelines, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    main(one, pipelines)
    printed = launch(two, *pipelines)
    assert printed.count("latent: 11 problems of mixed_countdown") == 2  # two runs, each told of by one process
    for name in ("latent", "masked"):
        found = [results(folder / f"{name}{again}.json") for folder in (one, two) for again in ("", "-again")]
        assert all(result == found[0] for result in found)
        own, shared = texts(one / name), texts(two / name)
        assert own == shared
        assert len(own) == 11 + 2 * 5
        assert len(set(own.values())) > 10  # else the comparison says little
        assert {path.name for path in (two / name / "evaluation").iterdir()} == {"records-0.jsonl", "records-1.jsonl"}
    entries = {"latent", "masked", "latent.json", "masked.json", "latent-again.json", "masked-again.json"}
    assert {path.name for path in two.iterdir()} == entries  # records that nobody asked for are gone

    cut = two / "masked" / "evaluation" / "records-1.jsonl"
    cut.write_bytes(cut.read_bytes()[:-70])
    assert len(texts(two / "masked")) == len(texts(one / "masked")) - 1
    before = results(two / "masked.json")
    main(two, pipelines[1:])
    assert results(two / "masked.json") == before
    assert texts(two / "masked") == texts(one / "masked")
