"""A few hostile programs of the campaign, each by the guard that leaves most to it, and fakes of success."""

from pathlib import Path

import pytest

from ldlm_hf.tasks import programs
from tests.faults.faked_successes import FAKES, RIGHT, TESTS, WRONG
from tests.faults.program_escapes import GROUPS, UNHOOKED, Place, escape


pytestmark = pytest.mark.skipif(bool(programs.missing()), reason="this system does not confine programs")

TRIED = {  # by the group, those that the audit hook has to stop, and those that the kernel has to stop without it
    "reads files": (["open", "its environment"], ["a symbolic link", "C", "openat2", "the parent's environment"]),
    "changes files": (["replacing"], ["removing all", "opening to be read, and cut", "its mode by C", "a folder"]),
    "connects": (["socket"], ["datagrams", "a Unix socket", "C"]),
    "makes processes": (["a daemon"], ["_posixsubprocess", "a daemon by C", "exec from memory", "threads"]),
    "exhausts resources": (["10 GiB of memory"], ["many files", "a stop by C", "no limits by C", "deep folders"]),
    "attacks the caller": (["kill"], ["kill by C", "a signal for its output", "tracing"]),
    "undoes the guard": (["subclasses", "another path"], ["no filter", "another machine's numbers"]),
}
CASES = [
    pytest.param(group, name, guard, id=f"{name}-{'hook' if guard == programs.GUARD else 'kernel'}")
    for group, choices in TRIED.items()
    for guard, names in zip((programs.GUARD, UNHOOKED), choices, strict=True)
    for name in names
]
FAKED = [
    *(
        "leaving at once",
        "leaving when it is called",
        "the mark when it is called",
        "equal to everything",
        "a name of Python",
    ),
    *("whatever it is compared with", "of whatever class", "a module of its own", "frames when it is called"),
    *("answers before they are asked", "questions in the place of answers", "an object in itself", "other tests"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("escapes")) as place:
        yield place


@pytest.mark.parametrize(("group", "name", "guard"), CASES)
def test_hostile_programs_get_nothing_and_leave_nothing_behind(place, monkeypatch, group, name, guard):
    monkeypatch.setenv("SECRET", "a-secret-that-nobody-may-see")
    case = escape(place, group, name, GROUPS[group][name], guard, timeout=0.7, grace=30)
    assert case.passed, case.detail


@pytest.mark.parametrize("name", FAKED)
def test_wrong_answers_never_pass(place, name):
    case = escape(place, "fakes", name, FAKES[name], programs.GUARD, TESTS, timeout=10, grace=30)
    assert case.passed, case.detail


def test_right_answers_pass_and_what_is_left_over_is_found(place):
    case = escape(place, "right", "right", RIGHT, programs.GUARD, TESTS, timeout=10, grace=30)
    assert case.detail == "right: it passed"
    (place.folder / "outside" / "x").touch()
    (place.folder / "boxes" / "x").touch()
    assert len(place.harm("root:x:0:0")) == 3
    (place.folder / "boxes" / "x").unlink()
    assert place.harm("") == []


def test_a_system_that_confines_nothing_is_named(monkeypatch):
    monkeypatch.setattr(programs, "missing", lambda: ["landlock", "seccomp"])
    with pytest.warns(RuntimeWarning, match="lacks landlock and seccomp"):
        assert programs.run_program("x = 1").finished


def test_every_program_of_the_campaign_is_a_program():
    for sources in (*GROUPS.values(), FAKES):
        for name, source in sources.items():
            compile(f"{source}\n{WRONG}", name, "exec")
    assert sum(map(len, GROUPS.values())) + len(FAKES) >= 200
    assert Path(UNHOOKED).exists()
