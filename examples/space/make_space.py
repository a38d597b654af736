"""Puts together what a Hugging Face Space needs in one folder: the page, the package and the checkpoints.

python examples/space/make_space.py build/space
hf repos create USER/NAME --repo-type space --space-sdk gradio
hf upload USER/NAME build/space . --repo-type space
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import ldlm_hf


HERE = Path(__file__).resolve().parent
PAGE_FILES = ("*.py", "*.css", "*.js", "README.md", "requirements.txt")
LEFT_OUT = ("__pycache__", "figures", "ABLATIONS.md")


def main(arguments: list[str] | None = None) -> None:
    """Gather the files and say what to do with them."""
    args = make_parser().parse_args(arguments)
    gather(args.folder, args.checkpoints)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(
        f"{args.folder} holds a Space of {size / 2**20:.0f} MiB; `hf upload USER/NAME {args.folder} . --repo-type space`"
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new folder for the Space")
    parser.add_argument("--checkpoints", type=Path, default=HERE.parents[1] / "model_cards", help="saved pipelines")
    return parser


def gather(folder: Path, checkpoints: Path) -> None:
    """Copy page, package and checkpoints into a new folder, from which `python app.py` serves the page.

    Args:
        folder (`Path`): must not exist yet.
        checkpoints (`Path`): folder of saved pipelines.

    Raises:
        FileExistsError: if `folder` exists.
    """
    folder.mkdir(parents=True)
    for pattern in PAGE_FILES:
        for path in sorted(HERE.glob(pattern)):
            if path != Path(__file__).resolve():
                shutil.copy(path, folder)
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(HERE / "screenshots", folder / "screenshots")  # its README shows one
    shutil.copytree(Path(ldlm_hf.__file__).parent, folder / "ldlm_hf", ignore=ignored)
    shutil.copytree(checkpoints, folder / "model_cards", ignore=ignored)


if __name__ == "__main__":
    main()
