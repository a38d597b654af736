"""What a user installs: every subpackage and data file is in the wheel, and the metadata agree with each other."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ldlm_hf import __version__
from ldlm_hf.metrics import METRICS


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_wheel_holds_every_module_and_data_file(tmp_path):
    source = tmp_path / "source"  # a copy, since a build leaves folders behind in its source
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "ldlm_hf", source / "ldlm_hf", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    paths = [
        path for path in (ROOT / "ldlm_hf").rglob("*") if path.suffix in (".py", ".md") or path.name == "py.typed"
    ]
    assert {path.relative_to(ROOT).as_posix() for path in paths} - packed == set()
    assert {f"ldlm_hf/metrics/{name}/{name}.py" for name in METRICS} <= packed
    assert {"ldlm_hf/py.typed", "ldlm_hf/model_card_template.md"} <= packed
    assert not any(name.startswith(("tests", "examples", "model_cards")) for name in packed)


def test_all_metadata_are_in_setup_cfg(metadata):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project) == {"build-system", "tool"}
    assert metadata["metadata"]["name"] == "ldlm_hf"
    assert metadata["metadata"]["license"] == "Apache-2.0"
    assert metadata["options"]["python_requires"] == ">=3.11"
    assert set(metadata["options.extras_require"]) == {"train", "peft", "gym", "eval", "test", "quality", "demo"}


def test_the_version_is_the_same_everywhere(metadata):
    assert metadata["metadata"]["version"] == "attr: ldlm_hf.version.__version__"
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == __version__


def requirements(metadata: configparser.ConfigParser, *, with_extras: bool) -> list[Requirement]:
    """Return what installing the package asks for."""
    groups = [metadata["options"]["install_requires"]]
    groups += metadata["options.extras_require"].values() if with_extras else []
    return [Requirement(line) for group in groups for line in group.strip().splitlines()]


def read_pins(text: str) -> dict[str, str]:
    """Return the version of every package that a constraints file pins, by normalised name."""
    pins = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, separator, pinned = line.partition("==")
        if not separator or Version(pinned).local is not None:
            raise ValueError(f"a constraint has to be a name, '==' and a public version, but is {line!r}.")
        pins[canonicalize_name(name)] = pinned
    return pins


def unsatisfied(wanted: list[Requirement], pins: dict[str, str]) -> list[str]:
    """Return the requirements that no pin satisfies."""
    found = [(requirement, pins.get(canonicalize_name(requirement.name))) for requirement in wanted]
    return [str(requirement) for requirement, pin in found if pin is None or pin not in requirement.specifier]


def test_the_known_good_versions_are_within_the_supported_ranges(metadata):
    pins = read_pins((ROOT / "constraints.txt").read_text())
    assert unsatisfied(requirements(metadata, with_extras=True), pins) == []


def test_pins_that_do_not_fit_are_found():
    wanted = [Requirement("torch>=2.6"), Requirement("PyYAML>=6"), Requirement("numpy>=2,<3")]
    assert unsatisfied(wanted, read_pins("torch==2.5.1\npyyaml==6.0\n")) == ["torch>=2.6", "numpy<3,>=2"]
    for line in ("torch>=2.6", "torch==2.13.0+cpu"):
        with pytest.raises(ValueError, match="torch"):
            read_pins(line)


def test_the_installed_libraries_are_supported(metadata):
    wanted = requirements(metadata, with_extras=False)
    installed = {canonicalize_name(requirement.name): version(requirement.name) for requirement in wanted}
    assert unsatisfied(wanted, installed) == []


def third_party_imports(path: Path) -> set[str]:
    """Return the top-level modules that a file imports, other than Python's own, the package and the file's neighbours."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    neighbours = {neighbour.stem for neighbour in path.parent.glob("*.py")}
    return found - set(sys.stdlib_module_names) - neighbours - {"ldlm_hf"}


def test_everything_that_is_imported_is_required(metadata):
    distributions = packages_distributions()
    sources = [*(ROOT / "ldlm_hf").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    modules = {module for path in sources for module in third_party_imports(path)}
    needed = {canonicalize_name(distributions.get(module, [module])[0]) for module in modules}
    named = {canonicalize_name(requirement.name) for requirement in requirements(metadata, with_extras=True)}
    assert needed - named == set()
