"""Rows that are read as they come (`datasets.IterableDataset`), beside those that lie in a file or in memory.

A stream is trained on for `max_steps` steps, and begins again whenever it ends. To its trainer it has no end: a run that is
resumed skips as many rows as it had read, however often it had begun again, and each process of several reads the whole stream
and takes the rows that it would have of a data set in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import torch
from datasets import Dataset, IterableDataset


class EndlessStream(torch.utils.data.IterableDataset):
    """The rows of a stream, again and again, shuffled anew for each pass if the stream is."""

    def __init__(self, rows: IterableDataset):
        """Wrap a stream."""
        self.rows = rows

    def __iter__(self) -> Iterator[dict]:
        """Return the rows of pass after pass."""
        for number in count():
            self.rows.set_epoch(number)
            is_empty = True
            for row in self.rows:
                is_empty = False
                yield row
            if is_empty:  # as for a worker that has no part of the stream
                return


def map_rows(
    rows: Dataset | IterableDataset, function: Callable[[dict], dict], desc: str
) -> Dataset | IterableDataset:
    """Return the new rows that `function` makes of batches, without the old columns; those of a stream as they are read.

    Args:
        rows (`Dataset` or `IterableDataset`): what to map; of a stream, a batch is one row, which keeps what it becomes together.
        function (`Callable`): from a list for each column to a list for each new one, all of the same length.
        desc (`str`): what a progress bar says.
    """
    if isinstance(rows, IterableDataset):
        return rows.map(function, batched=True, batch_size=1, remove_columns=column_names(rows))
    return rows.map(function, batched=True, remove_columns=rows.column_names, desc=desc)


def column_names(rows: Dataset | IterableDataset) -> list[str]:
    """Return the names of the columns; of a stream that does not know them, those of its first row."""
    return list(next(iter(rows), {})) if rows.column_names is None else rows.column_names


def spread_rows(rows: Dataset | EndlessStream, most: int) -> Dataset:
    """Return about `most` rows at most: evenly spread ones of a data set, or the first ones of a stream."""
    if isinstance(rows, EndlessStream):
        return Dataset.from_list(list(islice(rows.rows, most)))
    return rows.select(range(0, len(rows), max(1, len(rows) // most)))


def check_not_streamed(why: str, **datasets: Dataset | IterableDataset | None) -> None:
    """Raise `ValueError`, naming the argument, for a stream where rows are needed more than once or in any order."""
    for name, rows in datasets.items():
        if isinstance(rows, IterableDataset | torch.utils.data.IterableDataset):
            raise ValueError(
                f"`{name}` is a stream ({type(rows).__name__}), but {why}. Pass a `datasets.Dataset`, such as "
                "`Dataset.from_generator` makes of a stream."
            )
