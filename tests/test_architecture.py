"""The rules of the house, checked on the sources: which way imports point, sizes, names, documentation."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import diffusers
import pytest

import ldlm_hf


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ldlm_hf"
ROOMS = ("ldlm", "ladir", "llada", "d1", "hex")
BASE = (
    *("tasks", "metrics", "noise", "masks", "voting", "schedulers", "tokenization", "arguments", "pipeline"),
    *("checkpoints", "loading", "repositories", "pipeline_parts", "version", "votes", "elections", "result_log"),
)
ALLOWED = {  # who may import whom, beside itself
    **dict.fromkeys(BASE, BASE),
    "training": BASE,
    **dict.fromkeys(ROOMS, (*BASE, "training")),
    "d1": (*BASE, "training", "llada"),
    "hex": (*BASE, "training", "llada"),
    "evaluation": (*BASE, "training", *ROOMS),
    "sharded_evaluation": (*BASE, "training", *ROOMS, "evaluation"),
    "model_card": (*BASE, "training", *ROOMS, "evaluation"),
    "plots": BASE,
    "splits": BASE,
    "vote_plots": (*BASE, "plots"),
    "reward_plots": (*BASE, "plots"),
    "votes": (*BASE, "vote_plots"),  # a table of votes draws itself
    "registration": (*BASE, "training", *ROOMS, "evaluation", "model_card"),
    "__init__": (*BASE, "training", *ROOMS, "evaluation", "model_card", "registration"),
}
LONG_FUNCTIONS = {"forward": 90, "__call__": 90, "compute_loss": 90}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
VAGUE_NAMES = {"utils", "helpers", "common", "misc", "core"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNS_TEXT = {"eval", "exec", "torch.load", "torch.save", "importlib.import_module", "__import__"}
SECTIONS = ("Args", "Attributes")  # a data class documents its fields, which are its arguments


def package_imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """Return which parts of the package a file imports."""
    place = ("ldlm_hf", *path.relative_to(package).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parent = list(place[: len(place) - node.level]) if node.level else []
            module = [*parent, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names] if len(module) == 1 else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        # A public name out of the package itself is an import of `__init__`, which sees all.
        parts = [(name + ["__init__"])[1] for name in names if name[0] == "ldlm_hf"]
        found |= {part if part in ALLOWED else "__init__" for part in parts}
    return found


def wrong_imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """Return the imports of a file that point against the arrows."""
    part = path.relative_to(package).parts[0].removesuffix(".py")
    return package_imports(path, package) - {*ALLOWED[part], part}


def long_functions(source: str) -> list[tuple[str, int]]:
    """Return the functions of a source that are longer than allowed, docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= node.body[0].end_lineno - node.body[0].lineno + 1
        if lines > LONG_FUNCTIONS.get(node.name, MOST_FUNCTION_LINES):
            found.append((node.name, lines))
    return found


def forbidden_code(source: str) -> list[str]:
    """Return uses of pickles and of text run as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNS_TEXT:
            found.append(ast.unparse(node.func))
        elif isinstance(node, ast.Call):
            found += [f"{word.arg}=True" for word in node.keywords if is_unsafe(word)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in RUNS_TEXT or name.split(".")[0] in PICKLES]
    return found


def is_unsafe(word: ast.keyword) -> bool:
    """Return whether a keyword of a call switches pickles or a repository's own code on."""
    return word.arg in ("allow_pickle", "trust_remote_code", "shell") and ast.unparse(word.value) == "True"


def undocumented(thing: object) -> list[str]:
    """Return what the documentation of a public class or function lacks."""
    text = inspect.getdoc(thing) or ""
    lacks = [] if text else ["a docstring"]
    if not inspect.isclass(thing):
        if inspect.signature(thing).parameters and not has_section(text, "Args"):
            lacks.append("Args")
        return lacks + tensors_without_shape(text)
    init = thing.__dict__.get("__init__")
    text += "\n" + (inspect.getdoc(init) or "" if init is not None else "")
    if takes_own_arguments(thing) and not has_section(text, *SECTIONS):
        lacks.append("Args")
    for name in ("forward", "__call__"):
        if name in thing.__dict__:
            details = inspect.getdoc(thing.__dict__[name]) or ""
            lacks += [f"{section} of {name}" for section in ("Args", "Returns") if not has_section(details, section)]
    documented = [
        text,
        *(inspect.getdoc(member) or "" for member in vars(thing).values() if inspect.isroutine(member)),
    ]
    return lacks + [line for part in documented for line in tensors_without_shape(part)]


def takes_own_arguments(cls: type) -> bool:
    """Return whether a class says itself what it is made from, by its own constructor or as a data class."""
    if "__init__" in vars(cls):
        return bool(set(inspect.signature(cls).parameters) - {"args", "kwargs"})
    return False


def has_section(text: str, *sections: str) -> bool:
    """Return whether a docstring has one of the sections."""
    return re.search(rf"^\s*({'|'.join(sections)}):$", text, re.M) is not None


def tensors_without_shape(text: str) -> list[str]:
    """Return the entries of a docstring that document a tensor but not its shape."""
    entries = re.findall(r"^\s+(?:[\w, ]+ \()?`Tensor`.*|^\s+[\w, ]+\(`Tensor\b.*", text, re.M)
    return [entry.strip() for entry in entries if not re.search(r"\bshapes?\b", entry)]


SOURCES = sorted(PACKAGE.rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    assert wrong_imports(path) == set()


def test_an_import_that_points_back_is_found(tmp_path):
    room = tmp_path / "ldlm"
    room.mkdir()
    (room / "x.py").write_text(
        "from ..evaluation import summarize\nfrom ..llada.y import z\nfrom ..tasks import TASKS\n"
    )
    (room / "y.py").write_text("import ldlm_hf.model_card\nfrom .. import registration\n")
    (room / "z.py").write_text("def f():\n    from ldlm_hf import LatentDiT\n")
    (tmp_path / "noise.py").write_text("from .training.ema import update\nfrom . import ldlm\nimport ldlm_hf\n")
    assert wrong_imports(room / "x.py", tmp_path) == {"evaluation", "llada"}
    assert wrong_imports(room / "y.py", tmp_path) == {"model_card", "registration"}
    assert wrong_imports(room / "z.py", tmp_path) == {"__init__"}
    assert wrong_imports(tmp_path / "noise.py", tmp_path) == {"training", "ldlm", "__init__"}


def test_d1_and_hex_stand_on_llada_and_no_other_room_does(tmp_path):
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "x.py").write_text("from ..llada.y import z\n")
    allowed = {room for room in ROOMS if not wrong_imports(tmp_path / room / "x.py", tmp_path)}
    assert allowed == {"llada", "d1", "hex"}


@pytest.mark.parametrize("path", [*SOURCES, *EXAMPLES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MOST_LINES
    assert long_functions(source) == []


def test_a_long_function_is_found():
    assert long_functions("def f():\n" + "    x = 1\n" * 70) == [("f", 71)]
    assert long_functions("def forward():\n" + "    x = 1\n" * 70) == []


@pytest.mark.parametrize("path", [*SOURCES, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled_or_run_from_text(path):
    assert forbidden_code(path.read_text()) == []


def test_pickles_and_run_text_are_found():
    assert forbidden_code("import pickle\nx = eval('1')\ntorch.load(f)\nmodel.eval()") == [
        "pickle",
        "eval",
        "torch.load",
    ]
    assert forbidden_code("from torch import load\nfrom dill import loads") == ["torch.load", "dill.loads"]
    assert forbidden_code("np.load(f, allow_pickle=True)\nrun(x, shell=False)") == ["allow_pickle=True"]


def test_no_folder_is_named_like_one_of_diffusers_pipelines():
    # diffusers would look for our classes in its own module of that name.
    taken = {path.name for path in (Path(diffusers.__file__).parent / "pipelines").iterdir() if path.is_dir()}
    assert "dit" in taken
    assert {path.parent.name for path in SOURCES} & taken == set()


def test_no_name_is_vague():
    names = {part for path in SOURCES for part in (path.stem, path.parent.name)}
    assert names & VAGUE_NAMES == set()


@pytest.mark.parametrize("name", [name for name in ldlm_hf.__all__ if name not in ("TASKS", "__version__")])
def test_every_public_name_is_documented(name):
    assert undocumented(getattr(ldlm_hf, name)) == []


def test_missing_documentation_is_found():
    class Model:
        def __init__(self, size):
            """Make it."""

        def forward(self, x):
            """Return something."""

    def load(name):
        """Load it.

        Args:
            latents (`Tensor`): something.
        """

    assert undocumented(Model) == ["a docstring", "Args", "Args of forward", "Returns of forward"]
    assert undocumented(load) == ["latents (`Tensor`): something."]


def test_every_component_of_a_pipeline_is_registered_under_its_public_name():
    from ldlm_hf.registration import COMPONENTS

    for name in COMPONENTS:
        assert hasattr(ldlm_hf, name)
        assert hasattr(getattr(ldlm_hf, name), "from_pretrained")
