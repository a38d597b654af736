"""Saving completely or not at all (`loading.py` is its counterpart).

The libraries write over what is there file by file: who is killed, or runs out of space, leaves the configuration of one model
with the weights of another, which may well load. Here a save goes into a folder of its own; only when all of it is on the
disk do its files take their places, in an order in which no mixture of old and new loads at any moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


UNFINISHED = ".unfinished-"  # what the name of a folder begins with in which a save goes on
# Nothing loads without these, neither a tokenizer, adapters, a model nor a pipeline: they leave first and come back last.
LOADED_FIRST = ("tokenizer.json", "adapter_config.json", "config.json", "model_index.json")
WEIGHTS = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what comes while writing, and names no file
TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter", "basic_ios")  # in what torch raises then
CLOSED_FILE = "I/O operation on closed file"  # datasets ends a file once more that it could not write to its end


@contextmanager
def saved_whole(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder to save into, whose files take their places in `folder` when the `with` block ends.

    Whatever else is in `folder` stays. If the block raises, all of it stays. A process that is killed meanwhile leaves what was
    there, or, while files are moved, nothing that loads; what else it leaves goes with the next save.

    Args:
        folder (`str` or `Path`): made where it is missing.

    Raises:
        OSError: if there is no room; it names the folder.
    """
    folder = Path(folder)
    with writing(folder), _only_saver(folder):
        place = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            yield place
            sync(place)
            _move(place, folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; it is on the disk when this returns.

    Raises:
        OSError: if there is no room; it names the file, which is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")  # processes may share a folder
    with writing(path):
        try:
            unfinished.write_text(text)
            sync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say what could not be written, and how much room there is: the libraries at best say that there is none.

    Raises:
        OSError: in place of what safetensors, tokenizers, torch and datasets raise while they write, and of an `OSError` that
            names no file.
    """
    try:
        yield
    except Exception as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        raise _no_room(path, *shortage) from error


def sync(path: str | Path) -> None:
    """Wait until a file, or everything in a folder, is on the disk and will be there after a loss of power."""
    path = Path(path)
    for part in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _flush(part)
    _flush(path.parent)  # which knows the name


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise  # else its file system has no such thing, as some have not for folders
    finally:
        os.close(descriptor)


def _shortage(error: BaseException | None) -> tuple[int, str] | None:
    """Return the number and the reason of an error that says that something could not be written, `None` of any other."""
    if isinstance(error, OSError):
        return (error.errno, os.strerror(error.errno)) if error.errno in NO_ROOM else None
    text = str(error)
    said = re.search(r"os error (\d+)", text)  # by Rust
    code = int(said[1]) if said else errno.EIO
    if isinstance(error, SafetensorError) or (type(error) is Exception and said and code in NO_ROOM):  # or tokenizers
        return code, text
    if isinstance(error, RuntimeError) and any(name in text for name in TORCH_WRITER):
        return code, text
    if isinstance(error, ValueError) and CLOSED_FILE in text:
        return _shortage(error.__context__) or (code, text)
    return None


def _no_room(path: str | Path, code: int, reason: str) -> OSError:
    place = Path(path)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**20
    return OSError(code, f"{reason}; there are {free:.1f} MiB left for", str(path))


@contextmanager
def _only_saver(folder: Path) -> Iterator[None]:
    """Let others who save to a folder wait, where its file system knows locks, and clear away what a killed one left."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left in folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a forked process has a copy
        os.close(descriptor)
        if is_new and not any(folder.iterdir()):  # nothing was saved
            folder.rmdir()


def _move(place: Path, folder: Path) -> None:
    names = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
    names.sort(key=lambda name: LOADED_FIRST.index(name.name) if name.name in LOADED_FIRST else -1)
    for name in reversed(names):
        if name.name in LOADED_FIRST:
            (folder / name).unlink(missing_ok=True)
    for name in _stale_weights(folder, names):
        (folder / name).unlink(missing_ok=True)
    for name in names:
        (folder / name.parent).mkdir(parents=True, exist_ok=True)
        (place / name).replace(folder / name)
    for parent in {folder / name.parent for name in names}:
        _flush(parent)


def _stale_weights(folder: Path, names: Iterable[Path]) -> Iterator[Path]:
    """Return older weights of the same models that are split into other files than the new ones: loaders may prefer those."""
    names = set(names)
    stems = {(name.parent, match[1]) for name in names if (match := WEIGHTS.fullmatch(name.name))}
    for parent in {parent for parent, _ in stems}:
        for path in (folder / parent).glob("*.safetensors*"):
            match, name = WEIGHTS.fullmatch(path.name), path.relative_to(folder)
            if match and (parent, match[1]) in stems and name not in names:
                yield name
