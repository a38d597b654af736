"""Continuation of natural text: read one chunk of a document, write the next one (paper, Tables 5 and 6, on C4).

The paper never says what its pairs of texts are; consecutive chunks of a document is the best-supported reading. A chunk
is counted in words, so that the problems do not depend on a tokenizer (the paper counts 64 or 128 tokens). Whole documents
are split, so no document is in two splits; documents that merely share passages are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from glob import glob
from itertools import islice
from pathlib import Path

from .task import ChainReport, EnumeratedTask, Problem


C4 = "allenai/c4"
BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # of `datasets`
SUFFIXES = (".txt", *BUILDERS)


class Continuation(EnumeratedTask):
    """Continue a chunk of `num_words` words of a document with the next one; nothing is read before it is needed."""

    name = "continuation"
    metrics = ("bertscore", "length_ratio", "diversity")
    truncates = True

    def __init__(
        self,
        source: str | Path = C4,
        config_name: str | None = None,
        num_words: int = 64,
        max_documents: int = 100_000,
        text_column: str = "text",
    ) -> None:
        """Make the task.

        Args:
            source (`str`, *optional*, defaults to `"allenai/c4"`): a file, folder or glob of texts, or the id of a data set
                on the Hub, whose training split is streamed. In a `.txt` file blank lines separate documents; in
                `.jsonl`, `.json`, `.csv` and `.parquet` files each row is one.
            config_name (`str`, *optional*): configuration of a data set on the Hub; that of C4 is `"en"` by default.
            num_words (`int`, *optional*, defaults to 64): words in a chunk.
            max_documents (`int`, *optional*, defaults to 100000): how many documents are read at most, the first ones.
            text_column (`str`, *optional*, defaults to `"text"`): the column that holds the text of a row.

        Raises:
            ValueError: for `num_words` or `max_documents` below 1.
        """
        super().__init__()
        for argument, value in (("num_words", num_words), ("max_documents", max_documents)):
            if value < 1:
                raise ValueError(f"`{argument}` has to be at least 1, but is {value}.")
        self.source, self.num_words, self.max_documents = str(source), num_words, max_documents
        self.config_name = "en" if config_name is None and self.source == C4 else config_name
        self.text_column = text_column
        self.prompt_format = f"a text of 1 to {num_words} words"

    def num_problems(self, split: str) -> int:
        """Return how many pairs of chunks the documents of `split` hold; `ValueError` if none."""
        size = super().num_problems(split)
        if size == 0:
            raise ValueError(
                f"`source` {self.source!r} has no document of at least {2 * self.num_words} words in the split {split!r}; "
                "give more or longer documents, or a smaller `num_words`."
            )
        return size

    def instances(self) -> Iterator[tuple[int, int]]:
        """Yield the number of the document and of the chunk to be continued."""
        longest = 0
        for i, document in enumerate(self._documents):
            num_words = document.count(" ") + 1
            longest = max(longest, num_words)
            yield from ((i, chunk) for chunk in range(num_words // self.num_words - 1))
        if longest < 2 * self.num_words:
            raise ValueError(
                f"`num_words` is {self.num_words}, so a document has to have {2 * self.num_words} words, but the longest of "
                f"{len(self._documents)} in `source` {self.source!r} has {longest}; make `num_words` smaller."
            )

    def canonical(self, instance: tuple[int, int]) -> str:
        """Return the document: all its chunks go into one split."""
        return self._documents[instance[0]]

    def make(self, instance: tuple[int, int]) -> Problem:
        """Return the problem of continuing a chunk of a document."""
        document, chunk = instance
        words = self._documents[document].split(" ")
        starts = (chunk * self.num_words, (chunk + 1) * self.num_words)
        prompt, target = (" ".join(words[start : start + self.num_words]) for start in starts)
        return Problem(prompt=prompt, target=target, answer="")

    def words(self) -> list[str]:
        """Return nothing, since any word can occur: the tokenizer has to know arbitrary text."""
        return []

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` has 1 to `num_words` words."""
        if not 1 <= len(prompt.split()) <= self.num_words:
            raise self.refuse(prompt)

    def parse_answer(self, text: str) -> str | None:
        """Return `None`: a continuation has no answer that is right or wrong."""
        return None

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Return a report of no steps: a continuation has no chain."""
        return ChainReport(num_steps=0, num_correct_steps=0, is_consistent=False)

    @cached_property
    def _documents(self) -> tuple[str, ...]:
        """The distinct documents with single spaces between their words."""
        files = _find_files(self.source)
        if files:
            return _distinct(_read_files(files, self.text_column), self.max_documents)
        return _read_hub(self.source, self.config_name, self.text_column, self.max_documents)


def _find_files(source: str) -> list[Path]:
    """Return the files that `source` names, or none if it can only be the id of a data set."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    else:
        files = sorted(map(Path, glob(str(path), recursive=True))) or [path] * path.is_file()
    unknown = [str(file) for file in files if file.suffix not in SUFFIXES]
    if unknown:
        raise ValueError(f"`source` has to name files that end in one of {SUFFIXES}, but names {unknown[0]!r}.")
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source) and path.suffix not in SUFFIXES
    if not files and (path.is_dir() or not is_hub_id):
        raise FileNotFoundError(
            f"`source` is {source!r}, but there is no such file (of {', '.join(SUFFIXES)}); give a file, folder or glob of "
            "texts, or the id of a data set on the Hub."
        )
    return files


def _read_files(files: list[Path], text_column: str) -> Iterator[str]:
    from datasets import load_dataset

    for file in files:
        if file.suffix == ".txt":
            yield from re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))
        else:
            rows = load_dataset(BUILDERS[file.suffix], data_files=str(file), split="train", streaming=True)
            yield from _column(rows, text_column, str(file))


@lru_cache(maxsize=2)  # a task is made anew for training, evaluation and metrics
def _read_hub(source: str, config_name: str | None, text_column: str, max_documents: int) -> tuple[str, ...]:
    from datasets import load_dataset

    try:
        rows = load_dataset(source, config_name, split="train", streaming=True)
        return _distinct(_column(rows, text_column, source), max_documents)
    except OSError as error:
        raise OSError(
            f"`source` {source!r} is no file here, and the data set of that id could not be read from the Hub: {error}. "
            "Check the id and the connection, or give a file, folder or glob of texts."
        ) from error


def _column(rows: Iterable[dict], name: str, source: str) -> Iterator[str]:
    for row in rows:
        if name not in row or not isinstance(row[name], str | None):
            raise ValueError(
                f"`text_column` has to name a column of texts in {source!r}, but is {name!r}: {sorted(row)}."
            )
        yield row[name] or ""  # empty cells are no documents


def _distinct(texts: Iterable[str], max_documents: int) -> tuple[str, ...]:
    documents = (" ".join(text.split()) for text in islice(texts, max_documents))
    return tuple(dict.fromkeys(filter(None, documents)))
