"""What a repository can do to whoever loads it: changes to a healthy folder, one attack each.

Every attack leaves traces if it works: unpickled bait and imported code create a file, and paths that lead out of the
repository lead to weights that would load.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


ANY = r"\w"


class Touch:
    """What is unpickled as a call of `Path.touch`."""

    def __init__(self, path: Path):
        """Remember which file to create."""
        self.path = path

    def __reduce__(self) -> tuple:
        """Return the call."""
        return Path.touch, (self.path,)


@dataclass(frozen=True)
class Bait:
    """Where attacks lead.

    Args:
        marker (`Path`): a file that exists once code of the repository has run.
        outside (`Path`): a folder outside the repository, with healthy weights in `x.safetensors` and a configuration.
    """

    marker: Path
    outside: Path

    @property
    def pickled(self) -> bytes:
        """Return a pickle that creates the marker."""
        return pickle.dumps(Touch(self.marker))

    @property
    def code(self) -> str:
        """Return a module that creates the marker and has the classes that configurations ask for."""
        names = ("Evil", "EvilConfig", "EvilTokenizer", "LatentDiT", "LLaDAForMaskedDiffusion")
        classes = "\n".join(f"class {name}:\n    pass" for name in names)
        return f"import pathlib\npathlib.Path({str(self.marker)!r}).touch()\n{classes}\n"


@dataclass(frozen=True)
class Attack:
    """A change to a healthy folder of a model or pipeline.

    Args:
        kind (`str`): what is attacked, for the report.
        detail (`str`): the attack.
        change (`Callable[[Path, Bait], object]`): applies it.
        tells (`str`, *optional*): regular expression that the message of the error has to match.
        loads (`bool`, *optional*): whether the repository loads, since what it tries is ignored.
        is_local (`bool`, *optional*): whether it exists in folders only, as links do.
        listed (`tuple[str]`, *optional*): names of files that the Hub lists beside; it exists at the Hub only.
    """

    kind: str
    detail: str
    change: Callable[[Path, Bait], object]
    tells: str = ANY
    loads: bool = False
    is_local: bool = False
    listed: tuple[str, ...] = ()


def weights_of(folder: Path) -> Path:
    """Return the one file of weights in a model's folder."""
    return next(path for path in folder.iterdir() if path.suffix == ".safetensors")


def change_json(path: Path, **changes: object) -> None:
    """Change values of a JSON file; names are paths such as `text_config:vocab_size`."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split(":")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(values))


def model_attacks() -> Iterator[Attack]:
    """Return what can be done to the folder of any model."""
    yield from _pickles()
    yield from _paths()
    yield from _classes()
    yield from _headers()
    yield from _wrong_numbers()
    for name in ("config.json", "index"):
        for detail, content in broken_json().items():
            yield Attack(f"JSON that is no configuration in {name}", detail, _write_json(name, content), r"JSON|json")


def huge_sizes(names: tuple[str, ...]) -> Iterator[Attack]:
    """Return configurations that ask for more than the weights hold; names are paths in `config.json`."""
    for name in names:
        for size in (10**7, 10**9, 10**12):
            change = lambda folder, bait, name=name, size=size: change_json(folder / "config.json", **{name: size})  # noqa: E731
            yield Attack("huge sizes in a configuration", f"{name} {size}", change, r"\d|hold|most|weights")


def nested_code(nested: str) -> Iterator[Attack]:
    """Return configurations whose nested one names code beside it, for a model that no auto class knows or that one does."""

    def named(model_type: str) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            (folder / "evil.py").write_text(bait.code)
            classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
            remote = dict.fromkeys(classes, "evil.Evil")
            values = {"model_type": model_type, "_name_or_path": str(folder), "auto_map": remote}
            change_json(folder / "config.json", **{f"{nested}:{name}": value for name, value in values.items()})

        return change

    for model_type in ("clip_vision_model", "evil", "bert"):
        tells = r"custom code|loaded|configuration|weights|evil"
        yield Attack(
            "code that a configuration names", f"{nested} of {model_type} with auto_map", named(model_type), tells
        )


def broken_json() -> dict[str, bytes]:
    """Return files that no JSON object can be read from, or one that is too deep."""
    return {
        "200,000 lists in lists": b"[" * 200_000 + b"]" * 200_000,
        "100,000 objects in objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "an object that never ends": b'{"hidden_size": 32, "a":' + b"[" * 100_000,
        "nothing": b"",
        "null": b"null",
        "a list": b"[]",
        "a number": b"7",
        "no UTF-8": b"\xff\xfe\x00{}",
        "cut off": b'{"hidden_size": 3',
        "a number of 6,000 digits": b'{"hidden_size": 1' + b"0" * 6000 + b"}",
    }


def _pickles() -> Iterator[Attack]:
    kind, tells = "pickled weights", r"safetensors"
    names = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "adapter_model.bin")

    def only_pickles(folder: Path, bait: Bait) -> None:
        weights_of(folder).unlink()
        for name in names:
            (folder / name).write_bytes(bait.pickled)

    def only_saved_by_torch(folder: Path, bait: Bait) -> None:
        weights_of(folder).unlink()
        for name in names:
            torch.save(Touch(bait.marker), folder / name)

    def only_shards(folder: Path, bait: Bait) -> None:
        only_pickles(folder, bait)
        for name in names[:2]:
            index = {"metadata": {}, "weight_map": {"x": name}}
            (folder / f"{name}.index.json").write_text(json.dumps(index))

    def under_another_name(folder: Path, bait: Bait) -> None:
        weights_of(folder).write_bytes(bait.pickled)

    def adapters(folder: Path, bait: Bait) -> None:
        (folder / "adapter_model.bin").write_bytes(bait.pickled)
        about = {
            "peft_type": "LORA",
            "base_model_name_or_path": str(bait.outside),
            "r": 2,
            "target_modules": ["q_proj"],
        }
        (folder / "adapter_config.json").write_text(json.dumps(about))

    def adapters_alone(folder: Path, bait: Bait) -> None:
        adapters(folder, bait)
        weights_of(folder).unlink()
        (folder / "config.json").unlink()

    yield Attack(kind, "a pickle and nothing else", only_pickles, tells)
    yield Attack(kind, "a file of torch.save and nothing else", only_saved_by_torch, tells)
    yield Attack(kind, "an index of pickles", only_shards, tells)
    yield Attack(kind, "a pickle called safetensors", under_another_name, r"safetensors|weights")
    yield Attack(kind, "an index of safetensors that names a pickle", _index("pytorch_model.bin", "pickled"), tells)
    yield Attack(kind, "a configuration that names a pickle", _explicit("adapter_model.bin"), r"transformers_weights")
    yield Attack("pickled adapters", "beside the weights", adapters, r"adapter")
    yield Attack(
        "pickled adapters",
        "alone, with another model named as theirs",
        adapters_alone,
        r"adapter|config.json|safetensors",
    )


def _paths() -> Iterator[Attack]:
    kind, tells = "paths that lead out of the repository", r"weight_map|file name|shard"
    yield Attack(kind, "../../ in an index", _index("../outside/x.safetensors", "outside"), tells)
    yield Attack(kind, "an absolute path in an index", _index(None, "outside"), tells)
    yield Attack(kind, "a folder and ../../ in an index", _index("a/../../outside/x.safetensors", "outside"), tells)
    for name in ("..\\..\\outside\\x.safetensors", "", ".", "https://evil.example/x.safetensors", 7, None, ["x"]):
        yield Attack("an index that names no file", repr(name), _index(name), tells)
    for detail, index in {
        "no weight_map": {"metadata": {}},
        "a list as weight_map": {"metadata": {}, "weight_map": ["x.safetensors"]},
        "an empty weight_map": {"metadata": {}, "weight_map": {}},
    }.items():
        change = _write_json("index", json.dumps(index).encode())
        yield Attack("an index that names no file", detail, change, r"weight_map|weights")
    yield Attack(kind, "../ in the configuration", _explicit("../outside/x.safetensors"), r"transformers_weights")
    for name in ("weights", "config.json"):
        yield Attack(kind, f"a link as {name}", _link(name), r"link", is_local=True)


def _classes() -> Iterator[Attack]:
    kind = "code that a configuration names"

    def beside(folder: Path, bait: Bait) -> None:
        for name in ("evil.py", "modeling_evil.py", "custom_generate/generate.py", "__init__.py", "config.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(bait.code)

    def configured(**changes: object) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            beside(folder, bait)
            change_json(folder / "config.json", **changes)

        return change

    everything = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoTokenizer")
    remote = dict.fromkeys(everything, "evil.Evil")
    yield Attack(kind, "files of code beside the weights", beside, loads=True)
    yield Attack(kind, "auto_map to a file beside", configured(auto_map=remote), loads=True)
    yield Attack(
        kind, "architectures that are a call", configured(architectures=["os.system", "evil.Evil"]), loads=True
    )
    for name in ("os.system", ["os", "system"], ["evil", "Evil"], "StableDiffusionPipeline"):
        yield Attack(kind, f"_class_name {name!r}", configured(_class_name=name), r"_class_name", loads=True)
    for name in ("os", "evil", "../../evil", ["os"], "bert"):
        change = configured(model_type=name, auto_map=remote)
        yield Attack(kind, f"model_type {name!r}", change, r"model_type|holds a", loads=True)
    for name in ("attn_implementation", "_attn_implementation"):
        yield Attack(kind, f"{name} from a repository", configured(**{name: "evil/kernel"}), r"attn_implementation")
    for method in ("os.system", ["os", "system"], None):
        change = configured(quantization_config={"quant_method": method})
        yield Attack(kind, f"quantization {method!r}", change, r"quant", loads=True)


def _headers() -> Iterator[Attack]:
    """Headers that lie, with and without data behind them."""
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers = {
        "a tensor behind the end": {"x": {**tensor, "data_offsets": [0, 2**40], "shape": [2**38]}},
        "tensors that overlap": {"x": tensor, "y": {**tensor, "data_offsets": [4, 12]}},
        "a hole between tensors": {"x": tensor, "y": {**tensor, "data_offsets": [16, 24]}},
        "offsets that run backwards": {"x": {**tensor, "data_offsets": [8, 0]}},
        "a shape of other size": {"x": {**tensor, "shape": [3]}},
        "a shape that overflows": {"x": {**tensor, "shape": [2**32, 2**32, 2**32]}},
        "a negative shape": {"x": {**tensor, "shape": [-2]}},
        "an unknown dtype": {"x": {**tensor, "dtype": "PICKLE"}},
        "no tensors": {},
        "a tensor without offsets": {"x": {"dtype": "F32", "shape": [2]}},
    }
    contents = {name: _safetensors(json.dumps(header).encode()) for name, header in headers.items()}
    contents |= {
        "a header of 2**60 bytes": _safetensors(b"{}", 2**60),
        "a header of 2**64 - 1 bytes": _safetensors(b"{}", 2**64 - 1),
        "a header longer than the file": _safetensors(b"{}", 4096),
        "a header that is no JSON": _safetensors(b"x" * 64),
        "a header of lists in lists": _safetensors(b"[" * 100_000),
        "a header of objects in objects": _safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "seven bytes": b"1234567",
        "nothing": b"",
        "zeros": bytes(4096),
    }
    for detail, content in contents.items():
        change = lambda folder, bait, content=content: weights_of(folder).write_bytes(content)  # noqa: E731
        yield Attack("headers of safetensors that lie", detail, change, r"weights")

    def cut_off(folder: Path, bait: Bait) -> None:
        path = weights_of(folder)
        path.write_bytes(path.read_bytes()[:-100])

    def twice(folder: Path, bait: Bait) -> None:
        path = weights_of(folder)
        path.write_bytes(path.read_bytes() * 2)

    yield Attack("headers of safetensors that lie", "100 bytes are missing", cut_off, r"weights")
    yield Attack("headers of safetensors that lie", "the file twice", twice, r"weights")


def _wrong_numbers() -> Iterator[Attack]:
    def changed(value: float, place: int) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            path = weights_of(folder)
            tensors = load_file(path)
            names = sorted(name for name, tensor in tensors.items() if tensor.is_floating_point())
            tensors[names[place]].view(-1)[-1] = value
            save_file(tensors, path, metadata={"format": "pt"})

        return change

    for value in (float("nan"), float("inf"), -float("inf")):
        for place in (0, -1):
            detail = f"{value} in the {'first' if place == 0 else 'last'} tensor"
            yield Attack("weights that are no numbers", detail, changed(value, place), r"NaN|finite")


def _safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(24)


def _index(name: object, what: str = "") -> Callable[[Path, Bait], None]:
    """Return a change that leaves an index instead of the weights; every tensor is in the file of that name."""

    def change(folder: Path, bait: Bait) -> None:
        path = weights_of(folder)
        names = list(load_file(path))
        if what == "pickled":
            (folder / str(name)).write_bytes(bait.pickled)
        if what == "outside":
            path.replace(bait.outside / "x.safetensors")
            place = str(bait.outside / "x.safetensors") if name is None else name
        else:
            path.unlink()
            place = name
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, place)}
        path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))

    return change


def _explicit(name: str) -> Callable[[Path, Bait], None]:
    def change(folder: Path, bait: Bait) -> None:
        (bait.outside / "x.safetensors").write_bytes(weights_of(folder).read_bytes())
        (folder / "adapter_model.bin").write_bytes(bait.pickled)
        change_json(folder / "config.json", transformers_weights=name)

    return change


def _link(name: str) -> Callable[[Path, Bait], None]:
    def change(folder: Path, bait: Bait) -> None:
        path = weights_of(folder) if name == "weights" else folder / name
        path.replace(bait.outside / path.name)
        os.symlink(bait.outside / path.name, path)

    return change


def _write_json(name: str, content: bytes) -> Callable[[Path, Bait], None]:
    def change(folder: Path, bait: Bait) -> None:
        path = folder / name
        if name == "index":
            weights = weights_of(folder)
            weights.unlink()
            path = weights.with_name(f"{weights.name}.index.json")
        path.write_bytes(content)

    return change
