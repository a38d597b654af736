"""Repositories of models and pipelines, on the Hub or in a folder, and what nobody's files may do.

What was downloaded comes from one commit, is what the Hub announced, and holds neither code nor pickles, which are never
asked for. In a folder links may not lead out of it, and JSON has to be an object of a sensible size and depth.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import get_session


HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
PATIENCE = 6  # times the seconds that the client waits for files, 10 unless set; a commit may take longer
MOST_JSON_BYTES = 100_000_000
FEWEST_LAYERS = 1000  # that any configuration may have, whatever the weights


def take_hub_options(kwargs: dict) -> tuple[dict, dict]:
    """Return what of the arguments of `from_pretrained` is for the Hub, and the others."""
    hub = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS and value is not None}
    if kwargs.get("_commit_hash") is not None:  # of a configuration that an auto class has read already
        hub["revision"] = kwargs["_commit_hash"]
    return hub, {
        name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "proxies", "_commit_hash")
    }


def fetch(source: str | Path, patterns: Sequence[str], options: dict) -> Path:
    """Return a folder with the files that match, downloaded if `source` is no folder; all from one commit.

    Args:
        source (`str` or `Path`): folder, or id on the Hub.
        patterns (`Sequence[str]`): of file names in it; those of a folder are there or not.
        options (`dict`): `cache_dir`, `force_download`, `local_files_only`, `revision` and `token` of `snapshot_download`.

    Raises:
        OSError: if there is no such repository or revision, the Hub cannot be reached, or what it sent is not what it had
            announced, which then is not kept either.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise OSError(f"{str(source)!r} is a file; give the folder that it is in.")
    blobs = _blobs(str(source), options)
    before = set(blobs.iterdir()) if blobs.is_dir() and not options.get("force_download") else set()
    try:
        with _answered_in_time():
            folder = Path(snapshot_download(str(source), allow_patterns=list(patterns), **options))
    except Exception as error:  # of the Hub, of the network below it, and of the form of the id
        raise OSError(
            f"{str(source)!r} is no folder, and could not be loaded from the Hub: {type(error).__name__}: {error}"
        ) from error
    if blobs.is_dir():
        _check_downloads(str(source), folder, set(blobs.iterdir()) - before)
    return folder


def same_commit(source: str | Path, folder: Path, options: dict) -> dict:
    """Return options by which [`fetch`] takes further files from the commit that `folder` is a snapshot of."""
    return options if Path(source).is_dir() else {**options, "revision": folder.name}


@contextmanager
def pushing(repo_id: str) -> Iterator[None]:
    """Raise `OSError`, as the Hub's client does where it refuses, also where the Hub cannot be reached or says nothing."""
    try:
        with _answered_in_time():
            yield
    except (OSError, ValueError, TypeError):
        raise
    except Exception as error:  # of the network; its library is another one in each version of the client
        raise OSError(f"{repo_id!r} could not be pushed to the Hub: {type(error).__name__}: {error}") from error


def read_json(path: Path) -> dict:
    """Return the object in a JSON file.

    Raises:
        OSError: if there is no file, or no object in it, or it is too large or too deep.
    """
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"it has more than {MOST_JSON_BYTES:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, not an object")
    except FileNotFoundError as error:
        raise OSError(f"{str(path.parent)!r} has no file named {path.name}.") from error
    except (ValueError, RecursionError) as error:
        raise OSError(f"{str(path)!r} is no JSON that a configuration could be read from: {error}.") from error
    return values


def check_links(root: Path, folders: Iterable[Path]) -> None:
    """Raise `OSError` for a link in one of the folders that leads out of `root`, unless the Hub's cache made it."""
    root = root.absolute()
    allowed = [root.resolve()]
    for parent in root.parents:
        if parent.name == "snapshots":  # of the cache, in which files are links to blobs, maybe shared ones
            allowed += [parent.parent / "blobs", parent.parent.parent / "blobs"]
    for folder in folders:
        entries = [folder, *folder.iterdir()] if folder.is_dir() else []
        for path in entries:
            if path != root and path.is_symlink() and not any(path.resolve().is_relative_to(to) for to in allowed):
                raise OSError(
                    f"{str(path)!r} is a link to {os.readlink(path)!r}, out of {str(root)!r}: a repository could read "
                    "any file by it. Put a copy there if it is yours."
                )


def check_shards(path: Path) -> list[str]:
    """Return the files that an index of shards names.

    Raises:
        OSError: if it names none, or something else than safetensors beside it.
    """
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise OSError(f"{str(path)!r} has no `weight_map` from weights to files.")
    for name in shards.values():
        if not isinstance(name, str) or re.fullmatch(r"[\w.-]+\.safetensors", name) is None:
            raise OSError(
                f"The `weight_map` of {str(path)!r} names {name!r}, which is no file of safetensors beside it."
            )
    return sorted(set(shards.values()))


def check_configuration(values: object, source: str, num_tensors: int) -> None:
    """Raise `OSError` for entries, at any depth, by which a configuration names files or code, or too many layers."""
    if isinstance(values, list):
        for value in values:
            check_configuration(value, source, num_tensors)
    if not isinstance(values, dict):
        return
    for name, value in values.items():
        if name == "transformers_weights" and value is not None:
            raise OSError(
                f"{source!r} names its weights by `transformers_weights` ({value!r}), which is not supported."
            )
        if name in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            raise OSError(f"{source!r} asks for code by `{name}` ({value!r}); a configuration cannot.")
        if (
            name == "quantization_config"
            and isinstance(value, dict)
            and not isinstance(value.get("quant_method"), str)
        ):
            raise OSError(f"{source!r} has a `quantization_config` without the name of a `quant_method`: {value}.")
        most = max(num_tensors, FEWEST_LAYERS)
        if "layer" in name and isinstance(value, int) and value > most:
            raise OSError(f"`{name}` of {source!r} is {value}, but its weights are {num_tensors} tensors.")
        check_configuration(value, source, num_tensors)


@contextmanager
def _answered_in_time() -> Iterator[None]:
    """Let the Hub's client give up on a server that says nothing: for lists and commits it would wait for ever."""
    client = get_session()
    before = client.event_hooks
    if _limit_wait not in before["request"]:
        client.event_hooks = {**before, "request": [*before["request"], _limit_wait]}
    try:
        yield
    finally:
        client.event_hooks = before


def _limit_wait(request: object) -> None:
    most = PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT
    waits = request.extensions["timeout"]
    request.extensions["timeout"] = {name: most if wait is None else wait for name, wait in waits.items()}


def _blobs(source: str, options: dict) -> Path:
    cache = Path(options.get("cache_dir") or constants.HF_HUB_CACHE).expanduser()
    return cache / "--".join(["models", *source.split("/")]) / "blobs"


def _check_downloads(source: str, folder: Path, blobs: set[Path]) -> None:
    """Remove downloads that are not what their names announce, the hashes of their contents, and raise `OSError`."""
    wrong = {blob.resolve() for blob in blobs if not _is_as_announced(blob)}
    if not wrong:
        return
    names = sorted(path for path in folder.rglob("*") if path.is_symlink() and path.resolve() in wrong)
    for path in (*names, *wrong):
        path.unlink()
    raise OSError(
        f"The Hub sent something else than it announced for {[str(path.relative_to(folder)) for path in names]} of "
        f"{source!r}; nothing of it was kept. Load it again."
    )


def _is_as_announced(blob: Path) -> bool:
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with blob.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):  # git's own
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
        with blob.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
        return digest.hexdigest() == blob.name
    return True
