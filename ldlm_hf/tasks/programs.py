"""Running a program that a model has written, with limits on all that it uses (HumanEval; d1's reward for code).

On Linux the kernel confines the program, native code and the superuser included: its own folder is all that it can write to, that
and what Python is made of all that it can read, and it can make no process, thread, socket or folder and signal no other process
(`program_confinement.py`). On every system there are limits on processor time, memory, the size of a file and the number of
open ones, on how much is in its folder, a time after which all of it is killed, and a cap on what is read of its output. Before
these an audit hook of Python refuses the same with a message, which stops accidents only.

What is *not* promised: where the kernel lacks Landlock or seccomp (other systems and processors, Linux before 5.13), a warning says so and
the hook is all there is, so that a program that is hostile enough reads files, and writes and connects where it likes. A kernel has
faults, and programs share the processor's caches: run what you do not trust at all in a virtual machine. What a program has come
to by itself, [`run_program`], is its own word; for a verdict, run the tests where it cannot reach them, by [`run_tests`].
"""

from __future__ import annotations

import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from ..arguments import check_integer, checked
from .program_confinement import missing


MOST_OUTPUT = 64 * 1024  # bytes that are kept of each stream
MOST_ENTRIES, MOST_BYTES = 1000, 64 << 20  # files and folders in a program's folder, and what they hold
LONGEST_PATH = 2000  # characters
MOST_SECONDS, MOST_MEMORY_MB = 10**7, 1 << 32  # what the system's limits can say
LEAST_MEMORY_MB = 64  # Python itself does not start with less
POLL_SECONDS, LOOK_SECONDS = 0.01, 0.05
GUARD = Path(__file__).with_name("program_guard.py")
# No secret of the caller's, and no threads, which are refused and which numerical libraries start unasked.
ENVIRONMENT = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class ProgramResult:
    """What became of a program.

    Attributes:
        exit_code (`int`): 0 where all went well; the negative number of the signal that ended it.
        stdout (`str`): the first 64 KiB of its output.
        stderr (`str`): the first 64 KiB of its errors.
        timed_out (`bool`): whether it was killed for the time that it took.
        finished (`bool`): whether its last line was run: a program that leaves by `sys.exit(0)` has not finished.
    """

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    finished: bool

    @property
    def passed(self) -> bool:
        """Whether the program ended by itself and without an error, be it by `sys.exit(0)`."""
        return self.exit_code == 0 and not self.timed_out


@checked
def run_program(source: str, stdin: str = "", timeout: float = 5.0, memory_mb: int = 512) -> ProgramResult:
    """Run a Python program in a process of its own with limited resources and an empty folder (POSIX only).

    It has the standard library and whatever is installed beside it, but no network, no further processes or threads, no folders
    inside its own, no `ctypes` and none of the caller's environment. See the module for what this protects from and what not.
    That it passed and finished is its own word: a hostile one can fake it.

    Args:
        source (`str`): the program.
        stdin (`str`, *optional*): what it reads.
        timeout (`float`, *optional*, defaults to 5.0): seconds after which it is killed.
        memory_mb (`int`, *optional*, defaults to 512): most address space in MiB, at least 64.

    Raises:
        ValueError: for a `timeout` that is not positive and finite, or too little memory.
        OSError: on a system that has no such limits.
    """
    _check(timeout, memory_mb)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder({"program.py": source}))
        reader, writer = stack.enter_context(_pipe())
        process = stack.enter_context(_start("alone", folder, stdin, timeout, memory_mb, [writer]))
        return _watch([process], [folder], timeout, reader)


@checked
def run_tests(
    program: str, tests: str, names: Sequence[str] = (), timeout: float = 5.0, memory_mb: int = 512
) -> ProgramResult:
    """Run tests of a Python program, each in a process of its own, both as by [`run_program`], so that neither can be faked.

    The tests hold stand-ins of the program's functions, classes and values: calls go to the other process, and results that
    are numbers, texts or bytes, or lists, tuples, sets and dictionaries of these come back as copies. What else the tests use
    they import themselves; a module of the standard library that they name is imported for them. A program that ends before
    the tests do has failed. It knows the arguments that it is given and can change lists among them, as any function can.

    Args:
        program (`str`): what is tested; all of it is run before the tests.
        tests (`str`): a program that fails by raising.
        names (`Sequence[str]`, *optional*): what the tests take from the program; by default all names that they use.
        timeout (`float`, *optional*, defaults to 5.0): seconds after which both are killed.
        memory_mb (`int`, *optional*, defaults to 512): most address space of each in MiB, at least 64.

    Returns:
        [`ProgramResult`]: that of the tests, with the output and errors of the program before theirs.

    Raises:
        ValueError: for a `timeout` that is not positive and finite, or too little memory.
        OSError: on a system that has no such limits.
    """
    _check(timeout, memory_mb)
    with ExitStack() as stack:
        folders = [
            stack.enter_context(_folder({"program.py": program})),
            stack.enter_context(_folder({"tests.py": tests, "names": "\n".join(names)})),
        ]
        mark, marker = stack.enter_context(_pipe())
        with _pipe() as calls, _pipe() as results:
            given = [calls[0], results[1]], [results[0], calls[1], marker]
            processes = [
                stack.enter_context(_start(role, folder, "", timeout, memory_mb, descriptors))
                for role, folder, descriptors in zip(("program", "tests"), folders, given, strict=True)
            ]
        # The caller's ends of the pipes are closed by now, so that each process sees the other one end.
        return _watch(processes, folders, timeout, mark)


def _check(timeout: float, memory_mb: int) -> None:
    if not 0 < timeout <= MOST_SECONDS:
        raise ValueError(
            f"`timeout` has to be a positive number of seconds, at most {MOST_SECONDS}, but is {timeout}."
        )
    check_integer("memory_mb", memory_mb, MOST_MEMORY_MB, LEAST_MEMORY_MB)
    if os.name != "posix":
        raise OSError(f"Programs can only be run where their resources can be limited, but the system is {os.name!r}.")
    if lacks := missing():
        warnings.warn(
            f"This system lacks {' and '.join(lacks)}, so that nothing but an audit hook keeps programs from files, network and "
            "other processes; run them in a container or virtual machine.",
            RuntimeWarning,
            stacklevel=4,
        )


@contextmanager
def _folder(files: dict[str, str]) -> Iterator[str]:
    """Make a folder with some files, and remove it with all that has come into it."""
    with TemporaryDirectory(prefix="program-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8", errors="replace")
        try:
            yield folder
        finally:
            _empty(folder)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe that is closed afterwards; its end to read from does not wait in the caller."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def _start(
    role: str, folder: str, stdin: str, timeout: float, memory_mb: int, descriptors: Sequence[int]
) -> Iterator[subprocess.Popen]:
    """Start a process in a session of its own, which is killed with all its group afterwards."""
    limits = [math.ceil(timeout) + 1, memory_mb, *descriptors]
    with TemporaryFile() as given:
        given.write(stdin.encode(errors="replace"))
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(GUARD), role, *map(str, limits)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=descriptors,
        )
    with process:
        try:
            yield process
        finally:
            _kill(process)


def _kill(process: subprocess.Popen) -> None:
    """Kill a process and its group, before it is waited for: until then nothing else can have got its number."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _watch(processes: list[subprocess.Popen], folders: list[str], timeout: float, mark: int) -> ProgramResult:
    """Return the result of the last process, with the output of all, which are killed before this returns or raises."""
    deadline, last, look = time.monotonic() + timeout, processes[-1], 0.0
    outputs: dict[object, bytearray] = {}
    ended = overfull = False
    with selectors.DefaultSelector() as selector:
        for stream in (stream for process in processes for stream in (process.stdout, process.stderr)):
            selector.register(stream, selectors.EVENT_READ)
            outputs[stream] = bytearray()
        try:
            while not (ended := _has_ended(last)) and not overfull and (now := time.monotonic()) < deadline:
                _read(selector, outputs, min(POLL_SECONDS, deadline - now))
                if now > look:
                    overfull, look = any(map(_is_overfull, folders)), now + LOOK_SECONDS
        finally:
            for process in processes:
                _kill(process)
        while _read(selector, outputs, 0) and time.monotonic() < deadline + 1:
            pass
    texts = [bytes(output).decode(errors="replace") for output in outputs.values()]
    # A process may have ended by itself after it wrote too much.
    code = -signal.SIGKILL if any(map(_is_overfull, folders)) else last.returncode
    return ProgramResult(
        code, "".join(texts[::2]), "".join(texts[1::2]), not (ended or overfull), finished=_has_mark(mark)
    )


def _read(selector: selectors.BaseSelector, outputs: dict[object, bytearray], seconds: float) -> bool:
    """Read once what there is of each stream, also what is beyond the cap, so that the process can go on; tell if there was any."""
    if not selector.get_map():
        time.sleep(seconds)
        return False
    events = selector.select(seconds)
    for key, _ in events:
        chunk, output = os.read(key.fd, 1 << 16), outputs[key.fileobj]
        output.extend(chunk[: MOST_OUTPUT - len(output)])
        if not chunk:
            selector.unregister(key.fileobj)
    return bool(events)


def _has_ended(process: subprocess.Popen) -> bool:
    """Return whether a process has ended, without letting the system forget it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _has_mark(reader: int) -> bool:
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1) == b"1"
    except BlockingIOError:
        return False


def _is_overfull(folder: str) -> bool:
    """Return whether a folder holds more than a program may write, or what cannot be looked at."""
    entries = size = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    waiting += [entry.path] if entry.is_dir(follow_symlinks=False) else []
                    if entries > MOST_ENTRIES or size > MOST_BYTES:
                        return True
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except OSError:
            return True
    return False


def _empty(folder: str) -> None:
    """Remove all that is in a folder, be it ten thousand folders one inside another."""
    waiting, found = [folder], []
    while waiting:
        path = waiting.pop()
        if len(path) > LONGEST_PATH:  # up, before no path is long enough to name what is inside
            shorter = os.path.join(folder, secrets.token_hex(16))
            os.rename(path, shorter)
            path = shorter
        os.chmod(path, 0o700)
        found.append(path)
        for entry in list(os.scandir(path)):
            waiting.append(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    for path in reversed(found[1:]):  # what is inside comes after what it is in
        os.rmdir(path)
