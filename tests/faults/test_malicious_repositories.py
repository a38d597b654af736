"""A few of the attacks of the campaign in `malicious_repositories.py`, and that its baits would work."""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path

import pytest

import ldlm_hf
from ldlm_hf import (
    LaDiRForReasoning,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAForMaskedDiffusion,
    TextLatentAutoencoder,
    ThoughtVAE,
    loading,
    repositories,
)
from tests.faults.attacks import Attack, Bait, change_json, nested_code
from tests.faults.malicious_repositories import SUBJECTS, Workshop, attacks_on, run
from tests.faults.pipeline_attacks import chat_templates
from tests.llada.tiny_llada import tiny_masked_pipeline


@pytest.fixture
def workshop(tmp_path):
    """Return a place to attack copies of healthy folders."""
    return Workshop(tmp_path / "all")


def attack(cls: type, kind: str, detail: str) -> Attack:
    """Return the first attack of a kind whose detail begins as given."""
    return next(attack for attack in attacks_on(cls) if attack.kind == kind and attack.detail.startswith(detail))


def test_some_of_all_attacks_fail(tmp_path):
    cases = run(tmp_path / "all", share=0.015)
    assert [case.detail for case in cases if not case.passed] == []
    assert len(cases) > 20


@pytest.mark.parametrize("cls", SUBJECTS, ids=lambda cls: cls.__name__)
def test_pickles_are_refused_from_a_folder_and_from_the_hub(workshop, cls):
    part = f"in {SUBJECTS[cls].models[0]}, " if SUBJECTS[cls].parts else ""
    for through_hub in (False, True):
        case = workshop.attack(cls, attack(cls, "pickled weights", f"{part}an index of safetensors"), through_hub)
        assert case.passed, case.detail


def test_a_configuration_of_a_trillion_layers_is_refused_before_they_are_made(workshop):
    sizes = [found for found in attacks_on(LLaDAForMaskedDiffusion) if found.detail.startswith("n_layers")]
    for found in sizes:
        case = workshop.attack(LLaDAForMaskedDiffusion, found, False)  # would take more than its seconds
        assert case.passed, case.detail
    assert len(sizes) == 3


def test_the_attacks_are_many():
    kinds = {cls: {attack.kind for attack in attacks_on(cls)} for cls in SUBJECTS}
    assert sum(len(list(attacks_on(cls))) for cls in SUBJECTS) > 1000
    assert all(len(found) >= 9 for found in kinds.values())


def test_the_baits_would_work(tmp_path):
    bait = Bait(tmp_path / "marker", tmp_path / "outside")
    pickle.loads(bait.pickled)
    assert bait.marker.exists()
    bait.marker.unlink()
    compile(bait.code, "evil.py", "exec")
    (tmp_path / "evil_bait.py").write_text(bait.code)
    sys.path.insert(0, str(tmp_path))
    try:
        __import__("evil_bait")
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("evil_bait", None)
    assert bait.marker.exists()


def test_what_is_loaded_or_run_or_written_would_be_found(workshop, monkeypatch):
    def run_code(folder: Path, bait: Bait) -> None:
        bait.marker.touch()

    def change(folder: Path, bait: Bait) -> None:
        change_json(folder / "config.json", hidden_size="x")

    assert (
        "code of the repository ran"
        in workshop.attack(LatentDiT, Attack("x", "x", run_code, loads=True), False).detail
    )
    assert "does not tell" in workshop.attack(LatentDiT, Attack("x", "x", change, "nothing like it"), False).detail
    assert "it was loaded" in workshop.attack(LatentDiT, Attack("x", "x", lambda folder, bait: None), False).detail
    numbers, paths = "weights that are no numbers", "paths that lead out of the repository"
    monkeypatch.setattr(loading, "check_finite", lambda *_: None)
    assert "it was loaded" in workshop.attack(LatentDiT, attack(LatentDiT, numbers, "nan"), False).detail
    monkeypatch.setattr(loading, "check_links", lambda *_: None)
    assert "it was loaded" in workshop.attack(LatentDiT, attack(LatentDiT, paths, "a link as weights"), False).detail
    monkeypatch.setattr(repositories.re, "fullmatch", lambda *_: True)
    cls = LLaDAForMaskedDiffusion  # since diffusers looks itself
    assert "it was loaded" in workshop.attack(cls, attack(cls, paths, "../../"), False).detail


@pytest.mark.parametrize("name", chat_templates())
def test_a_chat_template_stays_in_its_sandbox(name):
    pipeline = tiny_masked_pipeline(task=None)
    pipeline.tokenizer.chat_template = chat_templates()[name]
    messages = [{"role": "user", "content": "1+2+3"}]
    with pytest.raises(ValueError, match="chat template"):
        pipeline(messages=messages, gen_length=4)
    with pytest.raises(ValueError, match="chat template"):
        pipeline("1+2+3", gen_length=4)
    assert len(pipeline("1+2+3", gen_length=4, use_chat_template=False).texts) == 1


def test_a_part_that_runs_code_from_its_own_folder_is_refused(workshop):
    def beside(folder: Path, bait: Bait) -> None:
        (folder / "denoiser/ldlm_hf.py").write_text(bait.code)

    for through_hub in (False, True):
        attempt = Attack("code", "a module called as the library", beside, "trust_remote_code", loads=through_hub)
        case = workshop.attack(LatentReasoningPipeline, attempt, through_hub)
        assert case.passed, case.detail


@pytest.mark.parametrize("cls", [LaDiRForReasoning, ThoughtVAE, TextLatentAutoencoder], ids=lambda cls: cls.__name__)
def test_code_that_a_nested_configuration_names_is_not_run(workshop, cls):
    for attempt in nested_code(SUBJECTS[cls].nested):
        case = workshop.attack(cls, attempt, False)
        assert case.passed, case.detail


def test_no_file_of_the_package_trusts_remote_code():
    files = sorted(Path(ldlm_hf.__file__).parent.rglob("*.py"))
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    given = [word for call in calls for word in call.keywords if word.arg == "trust_remote_code"]
    assert {ast.unparse(word.value) for word in given} == {"False"}
