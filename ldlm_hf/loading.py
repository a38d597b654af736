"""Loading weights completely or not at all.

The libraries fill weights that a checkpoint lacks with fresh random ones and warn; a model that answers at random is a
silent wrong answer, so here it is an error, and so are weights that are no numbers. Only safetensors are read, never a pickle.
What a configuration asks for is compared with the weights before anything of that size is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_NAME

from .repositories import (
    check_configuration,
    check_links,
    check_shards,
    fetch,
    pushing,
    read_json,
    same_commit,
    take_hub_options,
)


CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG = "config.json", "generation_config.json", "adapter_config.json"
MOST_ELEMENTS_PER_BYTE = (
    16  # of a model, for each byte of its weights; four bits to an element are the densest there are
)
MOST_SMALL_ELEMENTS = 4096


class CompleteLoadingMixin:
    """Makes `from_pretrained` load a model completely, from safetensors alone, or not at all; put it before the base class."""

    _refuses_unknown_weights = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *args, output_loading_info: bool = False, **kwargs):
        """Load a saved model as the base class does, but never an incomplete, broken or pickled one.

        Raises:
            OSError: if files or weights are missing, truncated, of another shape or no numbers, or if a repository tries
                to lead out of itself.
            ValueError: if the caller asks for pickles, or the configuration is another model's.
        """
        load, source = super().from_pretrained, pretrained_model_name_or_path
        model, info = _load_complete(cls, load, lambda folder: _skeleton(cls, folder, kwargs), source, args, kwargs)
        if cls._refuses_unknown_weights and info["unexpected_keys"]:
            unknown = sorted(info["unexpected_keys"])
            raise OSError(
                f"{str(source)!r} has {len(unknown)} weights that no {cls.__name__} has, such as {unknown[:3]}; its "
                "architecture is another one than its config.json says."
            )
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """Save as the base class does, but never a pickle.

        Raises:
            ValueError: for `safe_serialization=False`.
        """
        _check_no_pickle_is_written(kwargs)
        super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(self, repo_id: str, *args, **kwargs) -> str:
        """Push as the base class does, all in one commit, but never a pickle; return the address of the commit.

        Raises:
            OSError: if the Hub cannot be reached or refuses; what is there is then as it was.
            ValueError: for `safe_serialization=False`.
        """
        _check_no_pickle_is_written(kwargs)
        with pushing(repo_id):
            return super().push_to_hub(repo_id, *args, **kwargs)


class CompleteConfigMixin:
    """Makes `from_pretrained` of a configuration never take the defaults where there is none, nor another model's."""

    _other_model_hint = ""  # `{name}` in it becomes what was to be loaded

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str, **kwargs) -> tuple[dict, dict]:
        """Read the configuration file as transformers does, but only if it is there and this model's.

        Raises:
            OSError: if there is no `config.json`.
            ValueError: if it is that of another model.
        """
        values, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        name = repr(str(pretrained_model_name_or_path))
        if not values:
            raise OSError(f"{name} has no file named config.json.")
        found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            hint = cls._other_model_hint.format(name=name)
            raise ValueError(f"{name} holds a {found!r}, not a {cls.model_type!r}.{hint}")
        return values, kwargs


def load_complete(auto_class: type, source: str | Path, unused: Sequence[str] = (), **kwargs) -> PreTrainedModel:
    """Return a model of transformers, loaded by an auto class such as `AutoModelForCausalLM`: complete or not at all.

    Args:
        auto_class (`type`): an auto class of transformers, or a model class.
        source (`str` or `Path`): Hub id or folder.
        unused (`Sequence[str]`, *optional*): what names of weights begin with that the caller does not use, and a checkpoint may lack.
        kwargs: arguments of its `from_pretrained`.

    Raises:
        OSError: if files or weights are missing, truncated, of another shape or no numbers.
        ValueError: if the caller asks for pickles or for code of the repository.
    """
    _check_no_code_is_asked_for(source, kwargs)

    def skeleton(folder: Path) -> nn.Module:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if issubclass(auto_class, PreTrainedModel):
            return auto_class(config)
        return auto_class.from_config(config, trust_remote_code=False)

    return _load_complete(auto_class, auto_class.from_pretrained, skeleton, source, (), kwargs, unused)[0]


def load_tokenizer(source: str | Path, **kwargs) -> PreTrainedTokenizerBase:
    """Return a tokenizer, for which no code of its repository was run.

    Args:
        source (`str` or `Path`): Hub id or folder.
        kwargs: arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        OSError: if files are missing or unreadable.
        ValueError: if the caller asks for code of the repository, or the tokenizer is nothing without.
    """
    _check_no_code_is_asked_for(source, kwargs)
    kwargs.pop("trust_remote_code", None)
    with naming_the_checkpoint(source, AutoTokenizer):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **kwargs)


def load_adapters(model: PreTrainedModel, source: str | Path, **hub: object) -> nn.Module:
    """Return a model with adapters on it, from safetensors alone.

    Args:
        model (`PreTrainedModel`): the model they were trained on.
        source (`str` or `Path`): Hub id or folder of the adapters.
        hub: `cache_dir`, `force_download`, `local_files_only`, `revision` and `token`.

    Returns:
        `PeftModel`.

    Raises:
        OSError: if they are missing, unreadable, or no numbers.
    """
    from peft import PeftModel
    from peft.utils import SAFETENSORS_WEIGHTS_NAME as ADAPTER_WEIGHTS

    with naming_the_checkpoint(source, PeftModel):
        folder = fetch(source, [ADAPTER_CONFIG, ADAPTER_WEIGHTS], dict(hub))
        check_links(folder, [folder])
        read_json(folder / ADAPTER_CONFIG)
        if not (folder / ADAPTER_WEIGHTS).is_file():  # PEFT would read a pickle
            raise OSError(
                f"{str(source)!r} has no file named {ADAPTER_WEIGHTS}; adapters are read from safetensors only."
            )
        adapted = PeftModel.from_pretrained(model, str(folder))
    check_finite(source, adapted, [])
    return adapted


@contextmanager
def naming_the_checkpoint(source: object, cls: type) -> Iterator[None]:
    """Raise `OSError` that names the checkpoint, whatever a library stumbles over in it."""
    try:
        yield
    except (OSError, ValueError, ImportError, torch.OutOfMemoryError):  # say themselves what is wrong
        raise
    except Exception as error:  # of half a dozen parsers
        what = "has unreadable weights that" if isinstance(error, SafetensorError | RuntimeError) else ""
        reason = f"could not be loaded as a {cls.__name__}: {type(error).__name__}: {error}"
        raise OSError(" ".join(filter(None, [repr(str(source)), what, reason]))) from error


def check_finite(source: object, model: nn.Module, files: list[Path]) -> None:
    """Raise `OSError` if a weight of a loaded model is NaN or infinite.

    Args:
        source (`object`): what it was loaded from, for the message.
        model (`Module`): a model; tensors that were left on disk are read from the files.
        files (`list[Path]`): its weights.
    """
    tensors = list(chain(model.named_parameters(), model.named_buffers()))
    is_offloaded = any(tensor.is_meta for _, tensor in tensors)
    for name, tensor in chain(tensors, _tensors(files) if is_offloaded else ()):
        if not tensor.is_meta and not _is_finite(tensor):
            raise OSError(
                f"The checkpoint {str(source)!r} is broken: its weight {name!r} holds NaN or infinite numbers"
                f"{'' if tensor.dtype == torch.float32 else f' in {tensor.dtype}'}. Get another copy."
            )


def config_of(name: str, values: dict) -> PreTrainedConfig:
    """Return the configuration that a dictionary describes, or raise `ValueError`, naming the argument, if it describes none."""
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # of whatever model there is
        raise ValueError(f"`{name}` {values} describes no model: {type(error).__name__}: {error}") from error


def check_weights(name: str, model: nn.Module) -> None:
    """Raise `ValueError` if a weight of a model in memory is NaN or infinite, which an output need not show.

    Attention gives numbers for queries that are none, so that a spoiled model answers as if it were whole. It takes half a
    millisecond for a few hundred small tensors, and what reading the weights once takes for large ones. That they were sound
    at an earlier call is not noted: torch does not count what is written through `parameter.data`.

    Args:
        name (`str`): what the message calls the model.
        model (`Module`): tensors that are offloaded to nowhere, on the meta device, are not looked at.
    """
    bounds: dict[torch.device, list[Tensor]] = {}
    small: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}  # read as one, as each by itself takes a call
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta and tensor.element_size() > 1:
            if tensor.numel() <= MOST_SMALL_ELEMENTS:
                small.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach().flatten())
            else:
                bounds.setdefault(tensor.device, []).append(_bounds(tensor))
    for (device, _), tensors in small.items():
        bounds.setdefault(device, []).append(_bounds(torch.cat(tensors)))
    if all(bool(torch.cat(found).isfinite().all()) for found in bounds.values()):  # one wait for each device
        return
    tensors = chain(model.named_parameters(), model.named_buffers())
    wrong = next(place for place, tensor in tensors if not tensor.is_meta and not _is_finite(tensor))
    raise ValueError(f"`{name}` has weights that are NaN or infinite, such as {wrong!r}; load or train it again.")


def _check_no_code_is_asked_for(source: object, kwargs: dict) -> None:
    if kwargs.get("trust_remote_code"):
        raise ValueError(
            f"`trust_remote_code=True` would run code out of {str(source)!r}, which is never done here; give the model."
        )


def _check_no_pickle_is_written(kwargs: dict) -> None:
    if kwargs.get("safe_serialization") is False:
        raise ValueError("`safe_serialization=False` would write a pickle; only safetensors are written.")


def _load_complete(
    cls: type,
    load: Callable,
    skeleton: Callable[[Path], nn.Module],
    source: str | Path,
    args: tuple,
    kwargs: dict,
    unused: Sequence[str] = (),
) -> tuple[PreTrainedModel | ModelMixin, dict]:
    """Return what `load` loads and its report, after the files were found to be what they should be."""
    if kwargs.get("use_safetensors") is False:
        raise ValueError("`use_safetensors=False` would read a pickle; only safetensors are loaded.")
    hub, kwargs = take_hub_options(kwargs)
    kwargs |= {"use_safetensors": True, "output_loading_info": True, "trust_remote_code": False}
    kwargs |= {"ignore_mismatched_sizes": True}  # which are named and refused below
    place, files = source, []
    with naming_the_checkpoint(source, cls):
        if source is not None:  # else the weights are given
            place, files = _find(cls, source, kwargs.pop("subfolder", None) or "", kwargs.get("variant"), hub)
            _check_files(source, place, files, skeleton, kwargs)
        model, info = load(place, *args, **kwargs)
    _check_complete(cls.__name__, source, info, unused)
    check_finite(source, model, files)
    if place is not source:
        _rename(model, str(source))
    return model, info


def _find(cls: type, source: str | Path, subfolder: str, variant: str | None, hub: dict) -> tuple[Path, list[Path]]:
    """Return the folder of a model and the files of its weights, all from one commit."""
    prefix = f"{subfolder}/" if subfolder else ""
    weights = SAFETENSORS_WEIGHTS_NAME if issubclass(cls, ModelMixin) else SAFE_WEIGHTS_NAME
    ending = f".{variant}" if variant else ""
    stem = weights.removesuffix(".safetensors")
    index, single = f"{weights}.index{ending}.json", f"{stem}{ending}.safetensors"
    small = [f"{prefix}{name}" for name in (CONFIG, GENERATION_CONFIG, index)]
    root = fetch(source, small, hub)
    folder = root / subfolder
    check_links(root, [folder])
    hub = same_commit(source, root, hub)
    # Where both are in a folder, transformers reads the one file, and diffusers the shards.
    is_one_file = not issubclass(cls, ModelMixin) and (folder / single).is_file()
    names = [single] if is_one_file or not (folder / index).is_file() else check_shards(folder / index)
    fetch(source, [f"{prefix}{name}" for name in names], hub)
    check_links(root, [folder])
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OSError(f"{str(source)!r} has no file named {missing[0]}; weights are read from safetensors only.")
    return folder, [folder / name for name in names]


def _check_files(
    source: str | Path, folder: Path, files: list[Path], skeleton: Callable[[Path], nn.Module], kwargs: dict
) -> None:
    """Raise `OSError` unless a model as its configuration describes it can be what is in the files."""
    if (folder / ADAPTER_CONFIG).exists():
        raise OSError(
            f"{str(source)!r} holds adapters ({ADAPTER_CONFIG}). Load the model they were trained on, and put them on it "
            "with `PeftModel.from_pretrained`."
        )
    num_tensors, num_bytes = sum(_count(file) for file in files), sum(file.stat().st_size for file in files)
    if kwargs.get("config") is None or (folder / CONFIG).exists():
        check_configuration(read_json(folder / CONFIG), str(source), num_tensors)
    with torch.device("meta"):  # of any size, but without memory
        elements = sum(tensor.numel() for tensor in skeleton(folder).state_dict().values())
    if elements > MOST_ELEMENTS_PER_BYTE * num_bytes:
        raise OSError(
            f"The configuration of {str(source)!r} describes {elements:,} weights, but its files hold no more than "
            f"{num_bytes:,} bytes. Download it again."
        )


def _skeleton(cls: type, folder: Path, kwargs: dict) -> nn.Module:
    """Return a model as its configuration describes it."""
    if issubclass(cls, ModelMixin):
        values = cls.load_config(folder)
        found = values.get("_class_name", cls.__name__)
        if found != cls.__name__:
            raise OSError(f"The `_class_name` in {str(folder / CONFIG)!r} is {found!r}, not {cls.__name__!r}.")
        return cls.from_config(values)
    config = kwargs.get("config")
    if not isinstance(config, PreTrainedConfig):
        config = cls.config_class.from_pretrained(folder if config is None else config)
    return cls(config)


def _check_complete(name: str, source: object, info: dict, unused: Sequence[str]) -> None:
    """Raise `OSError` if the loading `info` of a checkpoint says that weights were missing or of another shape."""
    missing = sorted(weight for weight in info["missing_keys"] if not weight.startswith(tuple(unused)))
    mismatched = sorted(map(str, info["mismatched_keys"]))
    if missing or mismatched:
        wrong = [f"{len(missing)} missing weights such as {missing[:3]}"] if missing else []
        wrong += [f"{len(mismatched)} weights of another shape such as {mismatched[:3]}"] if mismatched else []
        raise OSError(
            f"The checkpoint {str(source)!r} is no complete {name}: {' and '.join(wrong)}. Download it again."
        )


def _rename(model: PreTrainedModel | ModelMixin, source: str) -> None:
    """Let a model know what it was loaded from, rather than where that is on this machine."""
    if isinstance(model, PreTrainedModel):
        model.name_or_path = model.config.name_or_path = source  # PEFT writes the one down, cards the other
    else:
        model.register_to_config(_name_or_path=source)


def _count(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return len(tensors.keys())


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                yield name, tensors.get_tensor(name)


def _is_finite(tensor: Tensor) -> bool:
    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    tensor = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    if tensor.element_size() == 1:  # float8 can be compared nowhere
        tensor = tensor.float()
    # NaN comes through both, at 20 GB/s; `isfinite` makes a mask of the size of the tensor, at 0.5 GB/s.
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _bounds(tensor: Tensor) -> Tensor:
    """Return the smallest and the largest number of a tensor in float32; NaN comes through both."""
    return torch.stack(torch.aminmax(tensor.detach())).float()
