"""What a repository can do to whoever loads a pipeline from it, beside what `attacks.py` does to the models in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.attacks import Attack, Bait, broken_json, change_json


INDEX = "model_index.json"
CLASSES = (  # entries of a part: library and class
    *(["os", "system"], ["subprocess", "Popen"], ["builtins", "eval"], ["pickle", "Unpickler"], ["torch", "load"]),
    *(["evil", "Evil"], ["pipeline", "Evil"], ["../../evil", "Evil"], ["", ""], ["ldlm_hf", "load_pipeline"]),
    *(["transformers", "pipeline"], ["transformers", "AutoModel"], ["transformers", "../../evil"]),
    *(["diffusers", "DiffusionPipeline"], ["diffusers", "StableDiffusionPipeline"], ["diffusers", "AutoModel"]),
    *(["diffusers", "UNet2DModel"], ["ldlm_hf", "HexPipeline"], ["ldlm_hf.pipeline", "Path"], ["ldlm_hf", "Task"]),
)
NO_CLASSES = ("os.system", ["os"], ["os", "system", "true"], [["os"], "system"], [1, 2], {"os": "system"}, 7, None)


def pipeline_attacks(parts: tuple[str, ...], models: tuple[str, ...]) -> Iterator[Attack]:
    """Return what can be done to a pipeline, beside its models.

    Args:
        parts (`tuple[str]`): names of its parts that it cannot do without.
        models (`tuple[str]`): those that are models.
    """
    yield from _parts(parts)
    yield from _code()
    yield from _values()
    yield from _paths(models[0])
    yield from _tokenizer()
    for detail, content in broken_json().items():
        for name in (INDEX, "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
            change = lambda folder, bait, name=name, content=content: (folder / name).write_bytes(content)  # noqa: E731
            yield Attack(f"JSON that is no configuration in {name}", detail, change, r"JSON|json")


def chat_templates() -> dict[str, str]:
    """Return templates that reach for more than the conversation, and one that never ends unless ranges are bounded."""
    chain = "''.__class__.__mro__[1].__subclasses__()"
    return {
        "classes of a string": "{{ " + chain + " }}",
        "classes by a filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
        "globals of a function": "{{ raise_exception.__globals__['__builtins__'] }}",
        "globals of a namespace": "{{ namespace.__init__.__globals__ }}",
        "globals of a loop": "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "a format string": "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "a format of a mapping": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
        "a changed list": "{{ messages.append(1) }}",
        "a loop over a range of 10**10": "{% for i in range(10**10) %}{% endfor %}",
        "an import": "{% import 'os' as os %}{{ os.system('true') }}",
        "an unfinished template": "{% for x in",
    }


def _parts(names: tuple[str, ...]) -> Iterator[Attack]:
    kind, tells = "classes that model_index.json names", r"model_index\.json"

    def entry(part: str, value: object) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            for place in (folder, folder / part):
                for name in ("evil.py", "pipeline.py", "os.py", "builtins.py"):
                    place.mkdir(exist_ok=True)
                    (place / name).write_text(bait.code)
            change_json(folder / INDEX, **{part: value})

        return change

    for part in names:
        for value in (*CLASSES, *NO_CLASSES):
            yield Attack(kind, f"{part}: {value!r}", entry(part, value), tells)
    for value in CLASSES[:6]:
        yield Attack(kind, f"a part of its own: {value!r}", entry("evil", value), tells)
    for name in ("../../outside", "/etc", "..", "."):
        change = lambda folder, bait, name=name: change_json(folder / INDEX, **{name: ["ldlm_hf", "LatentDiT"]})  # noqa: E731
        yield Attack("paths that lead out of the repository", f"a part called {name!r}", change, tells)


def _code() -> Iterator[Attack]:
    def beside(folder: Path, bait: Bait) -> None:
        for name in ("pipeline.py", "evil.py", "__init__.py", "model_index.py"):
            (folder / name).write_text(bait.code)

    def configured(**changes: object) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            beside(folder, bait)
            change_json(folder / INDEX, **changes)

        return change

    kind = "code that model_index.json names"
    yield Attack(kind, "pipeline.py beside it", beside, loads=True)
    yield Attack(kind, "custom_pipeline", configured(custom_pipeline="pipeline"), loads=True)
    for name in (["pipeline", "Evil"], ["os", "system"], "os.system", "StableDiffusionPipeline", None, 7, {}):
        yield Attack(kind, f"_class_name {name!r}", configured(_class_name=name), r"_class_name")


def _values() -> Iterator[Attack]:
    kind = "values in model_index.json"
    for name, values in {
        "task": ("os.system", ["os", "system"], 7, {"os": 1}, "../../evil"),
        "task_arguments": ({"allow_execution": True}, {"__class__": 1}, ["os", "system"], "os.system", 7),
    }.items():
        for value in values:
            changes = {"task": "addition", name: value}
            change = lambda folder, bait, changes=changes: change_json(folder / INDEX, **changes)  # noqa: E731
            yield Attack(kind, f"{name} {value!r}", change, r"task|allow_execution")
    place = "scheduler/scheduler_config.json"
    for value in (10**9, 10**12, -1, "os.system", ["os", "system"]):
        for field in ("num_train_timesteps", "block_length"):
            change = lambda folder, bait, field=field, value=value: change_json(folder / place, **{field: value})  # noqa: E731
            yield Attack("values of a scheduler", f"{field} {value!r}", change, r"\d|scheduler|" + field, loads=True)


def _paths(model: str) -> Iterator[Attack]:
    kind = "paths that lead out of the repository"

    def linked(name: str) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            path = folder / name
            target = bait.outside / path.name
            if path.exists():
                shutil.move(path, target)
            else:
                target.write_text("a secret")
            os.symlink(target, path)

        return change

    for name in (
        INDEX,
        model,
        "tokenizer",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "README.md",
    ):
        yield Attack(kind, f"a link as {name.replace(model, 'model')}", linked(name), r"link", is_local=True)


def _tokenizer() -> Iterator[Attack]:
    kind, place = "code that a tokenizer names", "tokenizer/tokenizer_config.json"

    def configured(**changes: object) -> Callable[[Path, Bait], None]:
        def change(folder: Path, bait: Bait) -> None:
            for name in ("tokenizer/evil.py", "evil.py", "tokenizer/tokenization_evil.py"):
                (folder / name).write_text(bait.code)
            change_json(folder / place, **changes)

        return change

    remote = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    yield Attack(kind, "a class of its own", configured(tokenizer_class="EvilTokenizer"), loads=True)
    yield Attack(kind, "auto_map", configured(tokenizer_class="EvilTokenizer", auto_map=remote), loads=True)
    yield Attack(kind, "a processor", configured(processor_class="evil.Evil", auto_map=remote), loads=True)
    for detail, template in chat_templates().items():
        yield Attack("a chat template", detail, configured(chat_template=template), loads=True)

    def tokens(content: bytes) -> Callable[[Path, Bait], int]:
        return lambda folder, bait: (folder / "tokenizer/tokenizer.json").write_bytes(content)

    deep = b'{"version": "1.0", "model": ' + b"[" * 100_000
    wrong = json.dumps({"version": "1.0", "model": {"type": "os.system", "vocab": {}}}).encode()
    for detail, content in {"a deep one": deep, "a wrong model": wrong, "nothing": b"", "a list": b"[]"}.items():
        yield Attack("JSON that is no tokenizer", detail, tokens(content), r"tokenizer|JSON|json")
