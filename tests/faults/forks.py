"""Work in a forked process that is killed at a chosen moment, as a crash, a scheduler or a lack of memory would.

Importing the libraries takes seconds, so they are imported once and each process is a fork of that. Three ways to choose the
moment: after some seconds; at the n-th time that Python opens a file to write, renames, removes or makes something; and when
any file, also one that a library writes in Rust or C++, grows beyond a number of bytes: there the kernel kills the process in
the middle of the write, with the file cut at that byte.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic

import safetensors.torch
import torch


CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
MOST_SECONDS = 1800
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Moment:
    """When a process is killed; never, where nothing is given.

    Args:
        seconds (`float`, *optional*): after so long.
        operation (`int`, *optional*): before it changes a file for the n-th time, counted from 1.
        size (`int`, *optional*): when it writes beyond so many bytes of a file.
    """

    seconds: float | None = None
    operation: int | None = None
    size: int | None = None

    def __str__(self) -> str:
        """Return it in words."""
        if self.seconds is not None:
            return f"after {self.seconds:.3f} s"
        if self.operation is not None:
            return f"at change {self.operation} of a file"
        return "never" if self.size is None else f"at byte {self.size} of a file"


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Args:
        killed (`bool`): by a signal, rather than by itself.
        error (`str`): the traceback of what it raised, empty if nothing.
        result (`object`): what the work returned, as JSON can say it.
        seconds (`float`): how long it took.
        operations (`int`): how often it changed a file.
    """

    killed: bool
    error: str
    result: object
    seconds: float
    operations: int

    @property
    def is_done(self) -> bool:
        """Whether the work was done to its end."""
        return not self.killed and not self.error


def run_forked(work: Callable[[], object], folder: Path, moment: Moment = Moment(), largest: int = 0) -> Ending:
    """Run `work` in a forked process and wait for it.

    Args:
        work (`Callable`): returns something that JSON can say.
        folder (`Path`): where changes of files count.
        moment ([`Moment`], *optional*): when it is killed; never by default.
        largest (`int`, *optional*, defaults to 0): refuse to write beyond so many bytes of a file, as a full disk would.
    """
    reading, writing = os.pipe()
    started = monotonic()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work(work, folder, moment, largest, writing)
    os.close(writing)
    if moment.seconds is not None:
        ready, _, _ = select.select([reading], [], [], moment.seconds)
        if not ready:
            os.kill(process, signal.SIGKILL)
    with open(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], MOST_SECONDS)
        if not ready:
            os.kill(process, signal.SIGKILL)
            raise RuntimeError(f"A forked process was not done after {MOST_SECONDS} seconds.")
        content = pipe.read()
    _, status = os.waitpid(process, 0)
    seconds = monotonic() - started
    if os.WIFSIGNALED(status):
        expected = signal.SIGXFSZ if moment.size is not None else signal.SIGKILL
        error = "" if os.WTERMSIG(status) == expected else f"ended by signal {os.WTERMSIG(status)}"
        return Ending(not error, error, None, seconds, 0)
    said = json.loads(content)
    return Ending(False, said["error"], said["result"], seconds, said["operations"])


def draw_moments(generator: Random, seconds: float, operations: int, largest: int) -> Iterator[Moment]:
    """Return moments of all three kinds in turn, within what an unkilled run took, counted and wrote."""
    while True:
        yield Moment(seconds=generator.uniform(0, seconds))
        yield Moment(operation=generator.randint(1, operations))
        yield Moment(seconds=generator.uniform(0, seconds))
        yield Moment(operation=generator.randint(1, operations))
        yield Moment(size=int(largest ** generator.uniform(0.3, 1)))


def _work(work: Callable[[], object], folder: Path, moment: Moment, largest: int, pipe: int) -> None:
    said = {"error": "", "result": None}
    count = [0]
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = moment.size or largest
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if moment.size else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        _count_changes(str(folder), moment.operation, count)
        said["result"] = work()
    except BaseException:
        said["error"] = traceback.format_exc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.write(pipe, json.dumps({**said, "operations": count[0]}).encode())
        os._exit(0)


def _count_changes(folder: str, last: int | None, count: list[int]) -> None:
    """Count changes of files in a folder from now on, and kill the process before the last one."""

    def change() -> None:
        count[0] += 1
        if count[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            is_counted = isinstance(args[0], str | bytes) and os.fsdecode(args[0]).startswith(folder)
        elif event in CHANGES:
            by_descriptor = isinstance(args[-1], int) and args[-1] >= 0  # names then lack their folder
            is_counted = by_descriptor or os.fsdecode(args[0]).startswith(folder)
        else:
            return
        if is_counted:
            change()

    def write_file(*args, **kwargs):
        change()
        return own(*args, **kwargs)

    own, safetensors.torch.serialize_file = safetensors.torch.serialize_file, write_file  # Rust tells no hook
    sys.addaudithook(hook)
