"""The script that runs a program, or its tests: sets limits, has the kernel confine the process, and then an audit hook.

[`run_program`] and [`run_tests`] start it in a folder of its own by `python -I program_guard.py ROLE CPU_SECONDS MEMORY_MB ...`,
followed by file descriptors: of one to write a mark to when the last line was run, and of the pipes between program and tests.
It imports nothing of the package but the two files beside it.
"""

from __future__ import annotations

import os
import resource
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


MOST_FILE_BYTES = 1 << 20
MOST_OPEN_FILES = 32
REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "sqlite3.", "pty.", "syslog.", "resource.", "os.exec", "os.posix_spawn"),
    *("os.spawn", "os.system", "os.fork", "os.kill", "signal.pthread_kill", "os.startfile", "os.mkdir", "gc.get_"),
)
CHANGES = (  # events whose arguments are paths that are changed, and numbers
    *(
        "os.remove",
        "os.rmdir",
        "os.rename",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
    ),
    *("os.lchown", "os.utime", "os.setxattr", "os.removexattr", "os.chflags"),
)
FLAGS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def set_limits(cpu_seconds: int, memory_mb: int) -> None:
    """Limit what this process can use; the limits can only be lowered."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: MOST_FILE_BYTES,
        resource.RLIMIT_NOFILE: MOST_OPEN_FILES,
        resource.RLIMIT_NPROC: 0,  # no process and no thread beside this one
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def make_hook(folder: str) -> Callable[[str, tuple], None]:
    """Return an audit hook that refuses what a program has no need for, and to change files outside `folder`."""

    def is_outside(path: str | bytes | os.PathLike) -> bool:
        place = os.path.realpath(os.fsdecode(path))
        return os.path.commonpath([place, folder]) != folder and place != os.devnull

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(REFUSED):
            # Libraries such as NumPy do without `ctypes` where it cannot be imported.
            error = ImportError if event.startswith("ctypes.") else PermissionError
            raise error(f"a program may not do this here: {event}")
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            writes = any(sign in (mode or "") for sign in "wax+") or (
                isinstance(flags, int) and flags & FLAGS_TO_WRITE
            )
            # A folder that is open would let paths begin there.
            if writes and is_outside(path) or os.path.isdir(path):
                raise PermissionError(f"a program may not open this here: {path!r}")
        elif event in CHANGES:
            paths = [path for path in arguments if isinstance(path, str | bytes | os.PathLike)]
            if any(map(is_outside, paths)):
                raise PermissionError(f"a program may not do this here: {event} {paths}")

    return hook


def main(role: str, cpu_seconds: int, memory_mb: int, *descriptors: int) -> None:
    """Run what is in the current folder within limits.

    Args:
        role (`str`): `"alone"` runs `program.py`, `"program"` also serves its tests, and `"tests"` runs `tests.py`.
        cpu_seconds (`int`): most processor time.
        memory_mb (`int`): most address space in MiB.
        descriptors (`int`): of the pipes to read from and to write to, unless alone; then, unless it is a program with
            tests, one that gets a byte when all has come to its end.
    """
    folder = os.path.realpath(os.getcwd())
    sys.path.insert(0, os.path.dirname(__file__))
    from program_calls import CallerEnd, ProgramEnd
    from program_confinement import confine

    del sys.path[0]
    sys.argv = [f"{role}.py"]
    set_limits(cpu_seconds, memory_mb)
    confine(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]  # to be refused when it is imported anew
    sys.addaudithook(make_hook(folder))
    if role == "alone":
        runpy.run_path("program.py", run_name="__main__")
    elif role == "program":
        names = runpy.run_path("program.py", run_name="__main__")
        with suppress(ConnectionError):
            ProgramEnd(*descriptors).serve(names)
        return
    else:
        tests = CallerEnd(*descriptors[:2])
        wanted = Path("names").read_text().split()
        runpy.run_path("tests.py", tests.define(Path("tests.py").read_text("utf-8"), wanted), "__main__")
        tests.define("")  # a program that has ended has not passed
    os.write(descriptors[-1], b"1")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
