"""What a frozen model makes of a data set, computed once, by any number of processes, and kept for later runs.

A cache is an Arrow file of the `datasets` library, memory-mapped and named by a fingerprint of all that it depends on: every
weight and the configuration of the model, the tokenizer, the contents of the rows, further settings and the release of this
package. It gets its name when it is complete, so that a run that is killed while it writes leaves nothing that is ever read,
and runs that need the same one at the same time wait for the first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow as pa
import torch
from accelerate import PartialState
from datasets import Dataset, Features
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..arguments import check_integer
from ..checkpoints import saved_whole, writing
from ..version import __version__


ROWS_OF_A_RECORD = 1000  # rows that are read and written together


def map_once(
    dataset: Dataset,
    encode: Callable[[dict[str, list]], dict[str, list]],
    features: Features,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Sequence[object] = (),
    cache_dir: str | Path | None = None,
    name: str = "rows",
    batch_size: int = 256,
    num_proc: int | None = None,
) -> Dataset:
    """Return what `encode` makes of the rows of `dataset`, read from its file where there is one.

    Where several processes were launched, the first of each machine fills the cache and the others wait for it. Batches are the
    same for any `num_proc`, and so are the results, bit for bit where torch runs on one thread, as it does in each process of
    several.

    Args:
        dataset (`Dataset`): the rows; every column counts for the fingerprint, so select those that are read.
        encode (`Callable`): turns a batch, a list for each column, into as many new rows; runs `model` in eval mode and without
            gradients.
        features (`Features`): of what it returns.
        model (`PreTrainedModel`): the frozen model.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        settings (`Sequence`, *optional*): whatever else the result depends on, as `repr` shows it.
        cache_dir (`str` or `Path`, *optional*): where the file is kept; in memory by default, of each process on its own.
        name (`str`, *optional*, defaults to `"rows"`): what the name of the file begins with.
        batch_size (`int`, *optional*, defaults to 256): rows at a time.
        num_proc (`int`, *optional*): processes that encode, each with a copy of the model; by default this one does.

    Raises:
        OSError: if there is no room for the file.
        ValueError: for no rows, or a `batch_size` or `num_proc` below 1, or several processes for a model on a GPU.
    """
    check_integer("batch_size", batch_size)
    if num_proc is not None:
        check_integer("num_proc", num_proc)
    if num_proc is not None and num_proc > 1 and model.device.type != "cpu":
        raise ValueError(
            f"`num_proc` is {num_proc}, but the model is on {model.device}, which one process has to itself: leave it out, or "
            "move the model to the CPU."
        )
    if len(dataset) == 0:
        raise ValueError("The data set has no rows to encode.")
    processes = min(num_proc or 1, -(-len(dataset) // batch_size))  # each has at least one batch
    job = (dataset, _run_frozen(encode, model, processes), features, batch_size, processes)
    if cache_dir is None:
        return _encode_batches(*job, keep_in_memory=True)
    path = Path(cache_dir) / f"{name}-{fingerprint(dataset, model, tokenizer, *settings)}.arrow"
    with _first_process_first():
        if not _is_complete(path, len(dataset)):
            with writing(path):
                _write(path, *job)
    return Dataset.from_file(str(path))


def check_moments(mean: float, std: float, mean_within: float, std_within: tuple[float, float]) -> None:
    """Raise `ValueError` unless cached latents have about the mean 0 and the standard deviation 1, as a model's input has to.

    Args:
        mean (`float`), std (`float`): of the latents.
        mean_within (`float`): how far from 0 the mean may be.
        std_within (`tuple[float, float]`): between which the standard deviation may be.
    """
    if abs(mean) > mean_within or not std_within[0] <= std <= std_within[1]:
        raise ValueError(
            f"The training latents have mean {mean:.3f} and standard deviation {std:.3f}, not about 0 and 1 (within "
            f"{mean_within} of 0, between {std_within[0]} and {std_within[1]}): the latent statistics were fitted on other "
            "texts or another precision. Fit them again on these training texts."
        )


def cache_folder(args: TrainingArguments, given: str | Path | None) -> Path | None:
    """Return where the processes of a run share a cache: the given folder, or else, where there are several, one of the run's.

    Args:
        args (`TrainingArguments`): of the run.
        given (`str` or `Path`, *optional*): the folder that the user named.
    """
    if given is not None:
        return Path(given)
    return Path(args.output_dir) / "frozen_cache" if args.world_size > 1 else None


def fingerprint(
    dataset: Dataset, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *settings: object
) -> str:
    """Return 16 hexadecimal digits that change with whatever a cache depends on.

    Args:
        dataset (`Dataset`): whose columns and rows count, however they came about and wherever they are kept.
        model (`PreTrainedModel`): whose configuration and weights count, whatever device they are on.
        tokenizer (`PreTrainedTokenizerBase`): whose vocabulary and rules count, but not what its last call was told.
        settings (`object`): anything else, as `repr` shows it.
    """
    digest = hashlib.sha256(repr((__version__, type(model).__name__, *settings)).encode())
    digest.update(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(json.dumps(_rules(tokenizer), sort_keys=True).encode())
    rows = dataset.with_format(None)
    for start in range(0, len(rows), ROWS_OF_A_RECORD):
        digest.update(json.dumps(rows[start : start + ROWS_OF_A_RECORD], sort_keys=True, default=repr).encode())
    return digest.hexdigest()[:16]


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Return all that decides which tokens a text becomes and how they are padded."""
    names = ("padding_side", "split_special_tokens", "model_input_names", "special_tokens_map")
    rules = {name: getattr(tokenizer, name) for name in names}
    if not tokenizer.is_fast:
        return {**rules, "class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {**rules, **backend, "padding": None, "truncation": None}  # those two are traces of the last call


def _run_frozen(encode: Callable, model: PreTrainedModel, processes: int) -> Callable:
    """Return `encode` with the model in eval mode, without gradients, and on one thread where there are several processes."""

    def run(rows: dict[str, list]) -> dict[str, list]:
        if processes > 1:
            torch.set_num_threads(1)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return encode(rows)
        finally:
            model.train(was_training)

    return run


def _encode_batches(
    dataset: Dataset,
    encode: Callable,
    features: Features,
    batch_size: int,
    processes: int,
    cache_file_name: str | None = None,
    keep_in_memory: bool = False,
) -> Dataset:
    """Map the starts of batches and not rows: several processes then have the same batches as one, padded alike."""
    rows, starts = dataset.with_format(None), Dataset.from_dict({"start": range(0, len(dataset), batch_size)})
    return starts.map(
        lambda start: encode(rows[start["start"][0] : start["start"][0] + batch_size]),
        batched=True,
        batch_size=1,
        remove_columns=["start"],
        features=features,
        num_proc=processes if processes > 1 else None,
        cache_file_name=cache_file_name,
        keep_in_memory=keep_in_memory,
        load_from_cache_file=False,
        new_fingerprint="frozen",  # else the model would be hashed once more, in a slower way
        desc="Running the frozen model",
    )


def _write(path: Path, dataset: Dataset, *job) -> None:
    """Encode in a folder of its own and put everything into one file there, which then gets its name."""
    with saved_whole(path.parent) as place:
        if _is_complete(path, len(dataset)):  # another run has made it while this one waited for its turn
            return
        rows = _encode_batches(dataset, *job, cache_file_name=str(place / "parts.arrow"))
        schema = rows.features.arrow_schema  # which names the features too
        with pa.OSFile(str(place / path.name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for table in rows.with_format("arrow").iter(ROWS_OF_A_RECORD):
                stream.write_table(table.cast(schema).combine_chunks())
        for part in place.glob("parts*"):
            part.unlink()


def _is_complete(path: Path, num_rows: int) -> bool:
    """Return whether a cache can be read to its end: a disk that was full or lost its power may have cut it short."""
    if not path.is_file():
        return False
    try:
        return len(Dataset.from_file(str(path))) == num_rows
    except (OSError, pa.ArrowInvalid):
        return False


def _first_process_first() -> AbstractContextManager:
    """Let the first process of each machine go ahead, where a launcher started several."""
    state = PartialState()
    return state.local_main_process_first() if state.num_processes > 1 else nullcontext()
