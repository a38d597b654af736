"""Which parts a repository may bring into a pipeline: those that its constructor names, of the classes that it names.

diffusers loads whatever class `model_index.json` names out of a library that is imported, and only warns where it is another
one than the pipeline was written for. Here the index is compared with the constructor before anything is loaded.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import diffusers.pipelines
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .loading import CompleteLoadingMixin, check_finite, load_complete
from .repositories import check_links, fetch, read_json, same_commit


INDEX = DiffusionPipeline.config_name
PART_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # of a model, a scheduler or any tokenizer
LIBRARIES = ("ldlm_hf", "transformers", "diffusers")
MOST_TIMESTEPS = 1_000_000  # of a scheduler, which makes tables of them


def find_parts(
    cls: type[DiffusionPipeline], source: str | Path, given: dict, hub: dict
) -> tuple[Path, dict[str, type]]:
    """Return the folder of a pipeline, and the classes of those of its parts that are to be loaded from it.

    Args:
        cls (`type`): the pipeline's class.
        source (`str` or `Path`): folder, or id on the Hub; all files are from one commit.
        given (`dict`): arguments of `from_pretrained`; parts among them are not loaded.
        hub (`dict`): options of [`fetch`].

    Raises:
        OSError: if files are missing or lead out of the repository, or if `model_index.json` names something else than the
            parts of this pipeline.
    """
    root = fetch(source, [INDEX], hub)
    check_links(root, [root])
    index = read_json(root / INDEX)
    place = f"{INDEX} of {str(source)!r}"
    _check_class_name(cls, index.get("_class_name"), place)
    allowed = {name: types for name, types in _allowed_classes(cls).items() if name not in given}
    entries = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    unknown = sorted(entries.keys() - _allowed_classes(cls).keys())
    if unknown:
        raise OSError(f"{place} names the parts {unknown}, which no {cls.__name__} has.")
    classes = {}
    for name, types in allowed.items():
        found = _class_of(index.get(name), types, name, place)
        if found is not None:
            classes[name] = found
        elif name not in cls._optional_components:
            raise OSError(f"{place} has no part {name!r}.")
    fetch(source, [f"{name}/{pattern}" for name in classes for pattern in PART_FILES], same_commit(source, root, hub))
    check_links(root, [root / name for name in classes])
    for name, found in classes.items():
        if issubclass(found, SchedulerMixin):
            _check_scheduler(root / name / SchedulerMixin.config_name)
        elif issubclass(found, PreTrainedTokenizerBase):
            _check_tokenizer(root / name)
    return root, classes


def load_foreign_models(folder: Path, classes: dict[str, type], kwargs: dict) -> dict[str, PreTrainedModel]:
    """Return those models of a pipeline that are not the package's own, complete; diffusers would fill what they lack.

    Args:
        folder (`Path`): of the pipeline.
        classes (`dict[str, type]`): of its parts.
        kwargs (`dict`): arguments of `from_pretrained`; where they spread models over devices or quantize them, diffusers
            loads them.
    """
    if kwargs.get("device_map") is not None or kwargs.get("quantization_config") is not None:
        return {}
    dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
    loaded = {}
    for name, cls in classes.items():
        if issubclass(cls, PreTrainedModel) and not issubclass(cls, CompleteLoadingMixin):
            own = dtype.get(name, dtype.get("default")) if isinstance(dtype, dict) else dtype
            variant = kwargs.get("variant")
            if not list((folder / name).glob(f"*.{variant}.*")):  # as diffusers has it, where a part has no such files
                variant = None
            loaded[name] = load_complete(cls, folder, subfolder=name, dtype=own, variant=variant)
    return loaded


def check_models(source: object, pipeline: DiffusionPipeline) -> None:
    """Raise `OSError` if a weight of a loaded pipeline is NaN or infinite; the package's own models have checked theirs."""
    for part in pipeline.components.values():
        if isinstance(part, PreTrainedModel | ModelMixin) and not isinstance(part, CompleteLoadingMixin):
            check_finite(source, part, [])


def _check_class_name(cls: type[DiffusionPipeline], name: object, place: str) -> None:
    """Raise `OSError` unless it is the name of the pipeline, or of one that has the same parts."""
    bases = {base for base in cls.__mro__ if issubclass(base, DiffusionPipeline)}
    known, new = bases, [cls]
    while new:
        new = [derived for base in new for derived in base.__subclasses__()]
        known = known | set(new)
    if name not in [related.__name__ for related in known]:
        raise OSError(f"{place} names the `_class_name` {name!r}, not {cls.__name__!r}.")


def _allowed_classes(cls: type[DiffusionPipeline]) -> dict[str, tuple[type, ...]]:
    """Return the parts that the constructor names, and their classes."""
    kinds = (ModelMixin, PreTrainedModel, SchedulerMixin, PreTrainedTokenizerBase)
    allowed = {}
    for name, hint in get_type_hints(cls.__init__).items():
        types = tuple(kind for kind in (hint, *get_args(hint)) if inspect.isclass(kind) and issubclass(kind, kinds))
        if types:
            allowed[name] = types
    return allowed


def _class_of(entry: object, types: tuple[type, ...], name: str, place: str) -> type | None:
    """Return the class that an entry of an index names, `None` for a part that was left out.

    Raises:
        OSError: for anything else than a class of that kind in a library that is imported.
    """
    if entry is None or entry == [None, None]:
        return None
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
        raise OSError(f"{place} has {entry!r} for the part {name!r}, which is no library and class.")
    library, class_name = entry
    module = sys.modules.get(library)
    if library not in LIBRARIES and library in dir(diffusers.pipelines):  # where diffusers would look for it instead
        module = None
    found = getattr(module, class_name, None) if isinstance(module, ModuleType) else None
    if not inspect.isclass(found) or not issubclass(found, types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise OSError(f"{place} has {entry!r} for the part {name!r}, which is no {wanted} of an imported library.")
    return found


def _check_scheduler(path: Path) -> None:
    for name, value in read_json(path).items():
        if name == "num_train_timesteps" and not isinstance(value, int):
            raise OSError(f"`{name}` in {str(path)!r} has to be a number, but is {value!r}.")
        if isinstance(value, int) and value > MOST_TIMESTEPS:
            raise OSError(f"`{name}` in {str(path)!r} is {value}; {MOST_TIMESTEPS} is the most for a scheduler.")


def _check_tokenizer(folder: Path) -> None:
    for path in folder.glob("*config.json"):
        read_json(path)
    path = folder / "tokenizer.json"
    lacks = sorted({"model", "added_tokens"} - read_json(path).keys()) if path.exists() else []
    if lacks:
        raise OSError(f"{str(path)!r} is no tokenizer; it lacks {lacks}.")
