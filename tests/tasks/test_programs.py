"""Programs within limits: what they do is reported, and none outlives its time, its folder or its process group."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ldlm_hf.tasks.program_guard import make_hook
from ldlm_hf.tasks.programs import MOST_OUTPUT, _watch, run_program


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="limits and processes are those of Linux")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The place of temporary folders, which has to be as empty after each program as it was before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_output_errors_and_exit_are_reported():
    result = run_program(
        "import sys\nprint(input()[::-1] + '√')\nprint('no', file=sys.stderr)\nsys.exit(3)", stdin="abc\nd"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (3, "cba√\n", "no\n")
    assert not (result.passed or result.timed_out or result.finished)


def test_finished_is_a_program_that_came_to_its_last_line():
    ways = {"x = 1": (True, True), "import sys; sys.exit(0)": (True, False), "import os; os._exit(0)": (True, False)}
    ways |= {"assert False": (False, False), "def f(:": (False, False), "x = 1\0": (False, False), "": (True, True)}
    for source, expected in ways.items():
        result = run_program(source)
        assert (result.passed, result.finished) == expected, source


def test_a_program_has_an_empty_folder_no_environment_and_an_end_of_its_input(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    source = "import os\nprint(os.listdir(), 'SECRET' in os.environ, __name__)\ninput()"
    result = run_program(source)
    assert result.stdout == "['program.py'] False __main__\n"
    assert "EOFError" in result.stderr


def test_files_may_be_written_in_the_folder():
    result = run_program("open('a', 'w').write('text')\nopen('/dev/null', 'w').write('x')\nprint(open('a').read())")
    assert (result.stdout, result.finished) == ("text\n", True)


ENDLESS = {
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "closed output": "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(1000)",
    "ignored signals": "import signal\nfor s in (1, 2, 3, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    "flood": "while True: print('x' * 1000)",
    "flood of errors": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "forks": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_killed(name):
    result = run_program(f"import os\nprint(os.getpid(), flush=True)\n{ENDLESS[name]}", timeout=0.7)
    assert result.timed_out
    assert not (result.passed or result.finished)
    assert not is_running(int(result.stdout.split()[0]))
    assert len(result.stdout) <= MOST_OUTPUT
    assert len(result.stderr) <= MOST_OUTPUT
    if "flood" in name:
        assert MOST_OUTPUT in (len(result.stdout), len(result.stderr))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = []\nwhile True: x.append(bytearray(1 << 22))", "MemoryError"),
        ("x = 'a' * (1 << 36)", "MemoryError"),
        ("open('a', 'w').write('x' * (1 << 22))", "File too large"),
        ("files = [open('program.py') for _ in range(100)]", "Too many open files"),
        ("f = lambda: f()\nf()", "RecursionError"),
    ],
)
def test_resources_are_limited_by_the_system(source, error):
    result = run_program(source, memory_mb=128)
    assert error in result.stderr
    assert not (result.passed or result.timed_out)


def test_limits_hold_without_the_hook_and_cannot_be_raised():
    names = ["RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE"]
    source = f"import resource\nfor n in {names}: print(*resource.getrlimit(getattr(resource, n)))\n"
    result = run_program(source + "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", timeout=2.5, memory_mb=100)
    limits = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    assert limits == [(100 << 20,) * 2, (4, 4), (1 << 20,) * 2, (32, 32), (0, 0), (0, 0)]
    assert "PermissionError" in result.stderr


@pytest.mark.parametrize(
    "source",
    [
        "import socket\nsocket.socket()", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "import subprocess\nsubprocess.run(['true'])", "import os\nos.system('true')", "import os\nos.fork()", "import ctypes",
        "import os\nos.execv('/bin/true', ['true'])", "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import os\nos.kill(os.getppid(), 9)", "import os\nos.open('/', os.O_RDONLY)", "import sqlite3\nsqlite3.connect('x')",
    ],
)  # fmt: skip
def test_network_processes_and_native_code_are_refused(source):
    result = run_program(source)
    assert "a program may not" in result.stderr
    assert not result.passed


@pytest.mark.parametrize(
    "change",
    [
        "open(path, 'w')", "open(path, 'r+')", "os.open(path, os.O_WRONLY | os.O_CREAT)", "os.remove(path)", "os.truncate(path, 0)",
        "os.rename(path, 'x')", "os.rename('program.py', path)", "os.link(path, 'x')", "os.symlink(path, 'x')", "os.chmod(path, 0)",
        "os.mkdir(path + 'x')", "os.utime(path)", "pathlib.Path('..', pathlib.Path(path).parent.name, 'kept').write_text('x')",
    ],
)  # fmt: skip
def test_nothing_outside_the_folder_is_changed(tmp_path_factory, change):
    kept = tmp_path_factory.mktemp("other") / "kept"
    kept.write_text("as it was")
    before = kept.stat()
    result = run_program(f"import os, pathlib\npath = {str(kept)!r}\n{change}")
    assert not result.passed
    assert [kept] == list(kept.parent.iterdir())
    assert (kept.read_text(), kept.stat().st_mode, kept.stat().st_mtime) == (
        "as it was",
        before.st_mode,
        before.st_mtime,
    )


def test_the_hook_tells_the_folder_from_others_with_the_same_beginning(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    hook = make_hook(str(place))
    hook("open", (f"{place}/a", "w", os.O_WRONLY))
    hook("open", (f"{place}x/a", "r", os.O_RDONLY))
    hook("import", ("math",))
    for event in (
        ("open", (f"{place}x/a", "w", 0)),
        ("os.remove", (f"{place}/../a".encode(), -1)),
        ("os.forkpty", ()),
    ):
        with pytest.raises(PermissionError, match="a program may not"):
            hook(*event)


def test_the_whole_process_group_is_killed():
    # Without the guard, so that there is a child that outlives its parent.
    source = "import os, time\nif pid := os.fork(): print(pid, flush=True), os._exit(0)\ntime.sleep(1000)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-I", "-c", source], start_new_session=True, **pipes)
    reader, writer = os.pipe()
    result = _watch([process], [], 10.0, reader)
    os.close(reader)
    os.close(writer)
    assert (result.exit_code, result.timed_out, result.finished) == (0, False, False)
    for _ in range(500):  # an orphan dies by the signal, but nobody waits for it
        if not is_running(int(result.stdout)):
            break
        time.sleep(0.01)
    assert not is_running(int(result.stdout))


@pytest.mark.parametrize(
    ("argument", "value"), [("timeout", 0), ("timeout", float("inf")), ("timeout", float("nan")), ("memory_mb", 8)]
)
def test_arguments_that_make_no_sense_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` has to"):
        run_program("", **{argument: value})
