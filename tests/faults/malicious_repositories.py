"""Repositories that try to run code, to read or write outside themselves or to exhaust the machine: all are refused.

Each attack is tried on a folder and through the loopback Hub, and whoever is asked whether to run code says yes. Nothing of a
repository may be unpickled or imported, nothing outside may be read or written, and what is refused has to say why; what a
repository asks for in vain, such as `auto_map`, may be ignored, if the very same weights come out.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# The loopback Hub first: the libraries read where it is when they are imported.
from tests.conftest import HUB, pytest_unconfigure


# isort: split
import torch

from ldlm_hf import (
    ExactDenoiser,
    ExactDenoiserConfig,
    HexPipeline,
    LaDiRForReasoning,
    LaDiRPipeline,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAForMaskedDiffusion,
    MaskedDiffusionPipeline,
    TextLatentAutoencoder,
    ThoughtVAE,
)
from tests.fake_hub import Repository
from tests.faults.attacks import Attack, Bait, huge_sizes, model_attacks, nested_code
from tests.faults.pipeline_attacks import pipeline_attacks
from tests.faults.report import Case, write_report
from tests.hex.tiny_hex import tiny_hex_pipeline
from tests.ladir.tiny_ladir import tiny_pipeline as tiny_ladir_pipeline
from tests.ladir.tiny_ladir import tiny_reasoner, tiny_vae
from tests.llada.tiny_llada import tiny_llada, tiny_masked_pipeline
from tests.tiny import tiny_autoencoder, tiny_denoiser, tiny_pipeline


NAME = "tester/evil"
SECONDS, MEMORY = 20, 12 * 2**30  # of an attack; addresses, of which the libraries take a third
LM = ("text_config:num_hidden_layers", "text_config:vocab_size", "text_config:hidden_size")
BLOCKS = ("latent_dim", "time_embedding_dim")


@dataclass(frozen=True)
class Subject:
    """What is attacked: how it is made, sizes in its configuration, one nested in it; of a pipeline parts, and models of them."""

    make: Callable[[], object]
    sizes: tuple[str, ...] = ()
    nested: str | None = None
    parts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


SUBJECTS = {
    LatentDiT: Subject(tiny_denoiser, ("num_layers", "hidden_size", "latent_dim", "latent_length")),
    TextLatentAutoencoder: Subject(
        tiny_autoencoder,
        (
            *("num_layers", "latent_dim", "latent_length", "decoder_length"),
            *("seq2seq_config:encoder_layers", "seq2seq_config:vocab_size", "seq2seq_config:d_model"),
        ),
        nested="seq2seq_config",
    ),
    ThoughtVAE: Subject(tiny_vae, (*LM, "latent_dim", "latents_per_block"), nested="text_config"),
    LaDiRForReasoning: Subject(tiny_reasoner, (*LM, *BLOCKS), nested="text_config"),
    LLaDAForMaskedDiffusion: Subject(tiny_llada, ("n_layers", "vocab_size", "d_model", "mlp_hidden_size")),
    ExactDenoiser: Subject(
        lambda: ExactDenoiser(ExactDenoiserConfig(num_questions=20)), ("num_questions", "vocab_size")
    ),
    LatentReasoningPipeline: Subject(
        tiny_pipeline,
        parts=("autoencoder", "denoiser", "scheduler", "tokenizer"),
        models=("denoiser", "autoencoder"),
    ),
    MaskedDiffusionPipeline: Subject(tiny_masked_pipeline, parts=("model", "scheduler"), models=("model",)),
    HexPipeline: Subject(lambda: tiny_hex_pipeline()[0], parts=("model", "scheduler"), models=("model",)),
    LaDiRPipeline: Subject(tiny_ladir_pipeline, parts=("model", "scheduler", "tokenizer"), models=("model", "vae")),
}


class Workshop:
    """Healthy folders of all subjects, saved once, and a place to attack copies of them."""

    def __init__(self, root: Path):
        """Use a folder that is empty."""
        self.root = root
        self.healthy: dict[type, dict[str, torch.Tensor]] = {}
        self.count = 0

    def attack(self, cls: type, attack: Attack, through_hub: bool) -> Case:
        """Return what became of an attack."""
        place = self.root / str(self.count)
        self.count += 1
        folder, bait = self._copy(cls, place), Bait(place / "marker", place / "outside")
        attack.change(folder, bait)
        source, options = folder, {}
        if through_hub:
            HUB.clear()
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            HUB.repositories[NAME] = Repository(files=files | dict.fromkeys(attack.listed, b"{}"))
            source, options = NAME, {"cache_dir": place / "cache"}
        before, modules = _listing(place), set(sys.modules)
        error, loaded = None, None
        with _limited(), says_yes():
            try:
                loaded = cls.from_pretrained(source, **options)
            except Exception as caught:
                error = caught
        wrong = self._judge(cls, attack, error, loaded)
        if bait.marker.exists():
            wrong.append("code of the repository ran")
        wrong += [f"{name} was imported" for name in sys.modules.keys() - modules if _is_foreign(name, place)]
        wrong += [f"{path} was written" for path in sorted(_listing(place) - before)]
        shutil.rmtree(place)
        where = "the Hub" if through_hub else "a folder"
        detail = f"{cls.__name__} from {where}, {attack.detail}: {'; '.join(wrong)}".removesuffix(": ")
        return Case(attack.kind, not wrong, detail)

    def _copy(self, cls: type, place: Path) -> Path:
        saved = self.root / cls.__name__
        if cls not in self.healthy:
            SUBJECTS[cls].make().save_pretrained(saved)
            self.healthy[cls] = weights(cls.from_pretrained(saved))
        (place / "outside").mkdir(parents=True)
        folder = place / "repository"
        shutil.copytree(saved, folder)
        configurations = (path for path in saved.iterdir() if path.suffix == ".json")
        for path in configurations:
            shutil.copy(path, place / "outside")
        return folder

    def _judge(self, cls: type, attack: Attack, error: Exception | None, loaded: object) -> list[str]:
        if error is None and not attack.loads:
            return ["it was loaded"]
        if error is None:
            expected, found = self.healthy[cls], weights(loaded)
            same = expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in found)
            return [] if same else ["other weights were loaded"]
        if not isinstance(error, OSError | ValueError | TypeError) or isinstance(error, TimeoutError):
            return [f"{type(error).__name__} instead of an OSError, ValueError or TypeError: {str(error)[:200]}"]
        if not re.search(attack.tells, str(error)):
            return [f"the message does not tell {attack.tells!r}: {type(error).__name__}: {str(error)[:200]}"]
        return []


def weights(thing: object) -> dict[str, torch.Tensor]:
    """Return every tensor of a model or pipeline."""
    models = thing.components if not isinstance(thing, torch.nn.Module) else {"": thing}
    models = {part: model for part, model in models.items() if isinstance(model, torch.nn.Module)}
    return {f"{part}.{name}": value for part, model in models.items() for name, value in model.state_dict().items()}


def attacks_on(cls: type) -> Iterator[Attack]:
    """Return all attacks on a model or pipeline; on a pipeline also those on the models in it."""
    subject = SUBJECTS[cls]
    if not subject.parts:
        yield from model_attacks()
        yield from huge_sizes(subject.sizes)
        if subject.nested is not None:
            yield from nested_code(subject.nested)
        return
    yield from pipeline_attacks(subject.parts, subject.models)
    for part in subject.models:
        for attack in model_attacks():
            change = lambda folder, bait, part=part, change=attack.change: change(folder / part, bait)  # noqa: E731
            options = {"tells": attack.tells, "loads": attack.loads, "is_local": attack.is_local}
            yield Attack(attack.kind, f"in {part}, {attack.detail}", change, **options)


def run(root: Path, share: float = 1.0, seed: int = 0, classes: tuple[type, ...] = tuple(SUBJECTS)) -> list[Case]:
    """Try a share of all attacks, in folders and through the Hub."""
    workshop, generator, cases = Workshop(root), random.Random(seed), []
    for cls in classes:
        for attack in attacks_on(cls):
            for through_hub in (False, True):
                exists = not attack.is_local if through_hub else not attack.listed
                if exists and generator.random() < share:
                    cases.append(workshop.attack(cls, attack, through_hub))
    return cases


@contextmanager
def says_yes() -> Iterator[None]:
    """Answer every question with yes, as somebody in a hurry does."""
    before, sys.stdin = sys.stdin, _Yes()
    try:
        yield
    finally:
        sys.stdin = before


def _listing(place: Path) -> set[Path]:
    """Return what there is in and above a place, but for the repository's own cache."""
    around = set(place.parent.parent.iterdir())
    return around | {path for path in place.rglob("*") if "cache" not in path.relative_to(place).parts[:1]}


def _is_foreign(name: str, place: Path) -> bool:
    file = getattr(sys.modules[name], "__file__", None) or ""
    return (
        "evil" in name.lower() or name.startswith(("transformers_modules", "diffusers_modules")) or str(place) in file
    )


class _Yes:
    """An input that answers every question with yes."""

    def readline(self, *_) -> str:
        return "y\n"

    def fileno(self) -> int:
        raise OSError("not a file")


@contextmanager
def _limited() -> Iterator[None]:
    """Raise `TimeoutError` where something takes too long, and `MemoryError` before the machine runs out of memory."""

    def stop(*_) -> None:
        raise TimeoutError(f"took more than {SECONDS} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.malicious_repositories", description=__doc__)
    parser.add_argument("--share", type=float, default=0.3, help="share of all attacks to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", nargs="*", help="names of models and pipelines; all by default")
    parser.add_argument("--output", type=Path, default=Path("results/faults/malicious_repositories.json"))
    return parser


def main() -> int:
    """Run the campaign and write its report."""
    parser = make_parser()
    args = parser.parse_args()
    classes = tuple(cls for cls in SUBJECTS if args.classes is None or cls.__name__ in args.classes)
    start = time.perf_counter()
    fault = (
        "A repository tries to run code, to leave its folder or to exhaust the machine; it is refused and told why."
    )
    try:
        with tempfile.TemporaryDirectory() as root:
            cases = run(Path(root) / "all", args.share, args.seed, classes)
    finally:
        pytest_unconfigure()
    return write_report(parser, args.output, fault, cases, time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
