"""Hostile programs in the hands of [`run_program`] and [`run_tests`]: what they are after must not be got, and none may pass.

Every program is run as it is; again without the audit hook, so that the kernel alone refuses it; and as a solution that is tested.
Controls show that the programs do harm, and the fakes pass, where nothing stops them.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from ldlm_hf.tasks import programs
from tests.faults.faked_successes import FAKES, RIGHT, TESTS, WRONG
from tests.faults.hostile_programs import CHANGE, CONNECT, PROCESS, READ, RESOURCE, SIGNAL, UNDO
from tests.faults.report import Case, make_parser, write_report


FAULT = (
    "Hostile programs (files, network, processes, signals, resources, Python's guard, faked success): nothing outside is read or "
    "changed, nobody is reached, nothing is left over, time is kept, none passes"
)
SECRET = "a-secret-that-nobody-may-see"
UNHOOKED = Path(__file__).with_name("guard_without_hook.py")
GROUPS = {
    "reads files": READ,
    "changes files": CHANGE,
    "connects": CONNECT,
    "makes processes": PROCESS,
    "exhausts resources": RESOURCE,
    "attacks the caller": SIGNAL,
    "undoes the guard": UNDO,
}
# What does no harm by itself, or not to the superuser or in the place of a control, but is a step on the way.
WITHOUT_CONTROL = {
    *("a new root", "a mount", "a file handle", "its environment", "from a folder that is open", "errors of its own"),
}
FOOLED = {  # fakes that a test in the same process is taken in by
    "equal to everything": "assert f(2) == 4",
    "a number equal to everything": "assert f(2) == 4 and abs(f(3) - 9) < 1e-6",
    "a text equal to everything": "assert f(2) == 'four'",
    "a list equal to everything": "assert f(2) == [4]",
    "other functions of Python": "assert isinstance(f(2), str)",
    "a name of Python": "assert abs(f(3) - 9) < 1e-6",
    "a module of its own": "assert math.isclose(f(2), 4)",
    "the mark, and leaving": "assert f(2) == 4",
    "the mark when it is called": "assert f(2) == 4",
}
TIMEOUT, GRACE = 1.0, 1.5  # seconds; a busy machine starts processes slowly


@dataclass
class Place:
    """What hostile programs aim at, and what of it they got.

    Args:
        folder (`Path`): an empty one for all of it; the programs' own folders are made there too.
    """

    folder: Path
    servers: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Place:
        """Make the files and the servers."""
        for name in ("home", "outside", "boxes"):
            (self.folder / name).mkdir()
        self.name = f"escape-{os.getpid()}-{time.monotonic_ns()}"
        tcp, udp, unix = socket.socket(), socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX)
        tcp.bind(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", self.port))
        unix.bind(f"\0{self.name}")
        self.servers = [tcp, udp, unix]
        for server in self.servers:
            server.setblocking(False)
        tcp.listen()
        unix.listen()
        self.restore()
        return self

    def __exit__(self, *error: object) -> None:
        """Close the servers."""
        for server in self.servers:
            server.close()

    def restore(self) -> None:
        """Make the folder outside as it was."""
        outside, token = self.folder / "outside", self.folder / "home" / "token"
        outside.mkdir(exist_ok=True)
        token.write_text(SECRET)
        for entry in outside.iterdir():
            entry.unlink() if not entry.is_dir() else rmtree(entry)
        kept = outside / "kept"
        kept.write_text("as it was")
        os.chmod(kept, 0o640)
        os.utime(kept, (1e9, 1e9))

    def head(self, parent: int) -> str:
        """Return the first lines of a program."""
        names = {"TOKEN": str(self.folder / "home" / "token"), "OUTSIDE": str(self.folder / "outside")}
        names |= {
            "KEPT": str(self.folder / "outside" / "kept"),
            "PORT": self.port,
            "SOCKET": self.name,
            "PARENT": parent,
        }
        return "".join(f"{name} = {value!r}\n" for name, value in names.items())

    def harm(self, output: str) -> list[str]:
        """Return what came of a program that has ended, and undo it.

        Args:
            output (`str`): what it wrote on its standard output; errors may quote the program.
        """
        found = ["a secret was read"] if SECRET in output or "root:" in output else []
        outside = self.folder / "outside"
        kept = outside / "kept"
        entries = [entry.name for entry in outside.iterdir()] if outside.exists() else []
        if entries != ["kept"] or kept.read_text() != "as it was" or not is_as_made(kept):
            found.append(f"files outside were changed: {entries}")
        self.restore()
        with selectors.DefaultSelector() as selector:
            for server in self.servers:
                selector.register(server, selectors.EVENT_READ)
            reached = [key.fileobj for key, _ in selector.select(0)]
        for server in reached:
            found.append("a connection arrived")
            server.recv(99) if server.type == socket.SOCK_DGRAM else server.accept()[0].close()
        if left := list((self.folder / "boxes").iterdir()):
            found.append(f"files are left over: {[path.name for path in left]}")
        return found + [f"a process is left over: {pid}" for pid in processes_in(self.folder)]


def is_as_made(kept: Path) -> bool:
    """Return whether mode, owner and time of the file outside are what they were."""
    status = kept.stat()
    return (status.st_mode & 0o777, status.st_uid, int(status.st_mtime)) == (0o640, os.getuid(), 10**9)


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose current folder is, or was, inside a folder, but for this one; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            inside = os.readlink(path).startswith(f"{folder}/")
        except OSError:
            continue
        found += [int(path.parent.name)] * inside
    return found


def zombies() -> int:
    """Return how many children of this process have ended and were not waited for."""
    states = (
        path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()
    )
    return sum(state[0] == "Z" and int(state[1]) == os.getpid() for state in states)


@contextmanager
def temporary_folders(folder: Path, guard: Path) -> Iterator[None]:
    """Make the programs' folders in `folder`, and run them by another guard."""
    before = tempfile.tempdir, programs.GUARD
    tempfile.tempdir, programs.GUARD = str(folder), guard
    try:
        yield
    finally:
        tempfile.tempdir, programs.GUARD = before


def escape(
    place: Place,
    kind: str,
    name: str,
    source: str,
    guard: Path,
    tests: str | None = None,
    timeout: float = TIMEOUT,
    grace: float = GRACE,
) -> Case:
    """Run a hostile program and return what came of it.

    Args:
        place (`Place`): what it aims at.
        kind (`str`): of the case.
        name (`str`): what it tries.
        source (`str`): the program, without its first lines.
        guard (`Path`): the script that runs it.
        tests (`str`, *optional*): of a program that is tested.
        timeout (`float`, *optional*): seconds after which it has to be killed.
        grace (`float`, *optional*): seconds that all the rest may take.
    """
    start = time.monotonic()
    source = place.head(os.getpid()) + source
    with temporary_folders(place.folder / "boxes", guard):
        if tests is None:
            result = programs.run_program(source, timeout=timeout, memory_mb=256)
        else:
            result = programs.run_tests(source, tests, timeout=timeout, memory_mb=256)
    seconds = time.monotonic() - start
    found = place.harm(result.stdout)
    if seconds > timeout + grace:
        found.append(f"it took {seconds:.1f} s")
    if zombies():
        found.append("a zombie is left over")
    if tests is not None and result.passed and result.finished:
        found.append("it passed")
    return Case(kind, not found, f"{name}: {'; '.join(found)}")


def control(place: Place, group: str, name: str, source: str) -> Case:
    """Run a hostile program with nothing to stop it and return whether it does harm, so that to stop it means something."""
    box = place.folder / "boxes" / "control"
    box.mkdir()
    victim = subprocess.Popen(["sleep", "60"])
    (box / "program.py").write_text(place.head(victim.pid) + source)
    command = [sys.executable, "-I", "program.py"]
    with tempfile.TemporaryFile("w+", errors="replace") as output:  # no pipe, which what is left over would keep open
        subprocess.run(command, cwd=box, stdout=output, stderr=subprocess.STDOUT, timeout=20)
        output.seek(0)
        written = output.read()
    time.sleep(0.1)
    harmed = victim.poll() is not None
    victim.kill()
    victim.wait()
    for pid in processes_in(place.folder):
        os.kill(pid, 9)
        harmed = True
    rmtree(box)
    harmed = bool(place.harm(written)) or harmed
    return Case(f"control: {group}, with nothing to stop it", harmed, f"{name}: no harm: {written[-200:]}")


def controls(place: Place) -> list[Case]:
    """Return the controls of what is safe to run without limits."""
    cases = []
    for group, sources in (("reads files", READ), ("changes files", CHANGE), ("connects", CONNECT)):
        left_out = WITHOUT_CONTROL if os.getuid() == 0 else {*WITHOUT_CONTROL, "its owner by C"}
        chosen = {name: source for name, source in sources.items() if name not in left_out}
        cases += [control(place, group, name, source) for name, source in chosen.items()]
    left_over = ("subprocess", "posix_spawn", "posix_spawn by C")
    cases += [control(place, "makes processes", name, PROCESS[name]) for name in left_over]
    killing = ("kill", "kill by posix", "kill by C", "tgkill", "a queued signal", "a descriptor of the parent")
    cases += [control(place, "attacks the caller", name, SIGNAL[name]) for name in killing]
    with temporary_folders(place.folder / "boxes", programs.GUARD):
        for name, test in FOOLED.items():
            result = programs.run_program(f"{FAKES[name]}\n{test}")
            fooled = result.passed and result.finished
            cases.append(
                Case("control: fakes success, where tests share its process", fooled, f"{name}: it did not pass")
            )
    return cases


def main() -> int:
    """Run the campaign; return its exit status."""
    parser = make_parser("program_escapes", FAULT, count=1)
    arguments = parser.parse_args()
    start, cases = time.monotonic(), []
    os.environ["SECRET"] = SECRET
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="escapes-"))
        place = stack.enter_context(Place(Path(folder)))
        for _ in range(arguments.count):
            cases += controls(place)
            cases.append(escape_fails_to_fail(place))
            for group, sources in GROUPS.items():
                for name, source in sources.items():
                    cases.append(escape(place, f"{group}", name, source, programs.GUARD))
                    cases.append(escape(place, f"{group}, without the audit hook", name, source, UNHOOKED))
                    tested = f"{source}\n{WRONG}"
                    cases.append(escape(place, f"{group}, as a solution", name, tested, programs.GUARD, TESTS))
            for name, source in FAKES.items():
                cases.append(escape(place, "fakes success", name, source, programs.GUARD, TESTS))
                cases.append(escape(place, "fakes success, without the audit hook", name, source, UNHOOKED, TESTS))
    return write_report(parser, arguments.output, FAULT, cases, time.monotonic() - start)


def escape_fails_to_fail(place: Place) -> Case:
    """Return whether a right solution passes the tests that no other one may pass."""
    case = escape(place, "control: a right solution passes", "right", RIGHT, programs.GUARD, TESTS)
    return Case(case.kind, case.detail == "right: it passed", case.detail)


if __name__ == "__main__":
    sys.exit(main())
