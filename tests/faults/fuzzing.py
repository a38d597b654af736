"""Generated calls of every public entry point, by `python -m tests.faults.fuzzing`: the properties of `tests/fuzz`, on more calls.

Each entry point is tried from a seed of its own; `--seed` gives others. Every call is counted, by what became of it.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
import traceback
import warnings

import datasets
import torch
import transformers

from tests.faults.report import Case, make_parser, write_report
from tests.fuzz.entry_points import TRIED, EntryPoint, check
from tests.fuzz.test_entry_points import ENTRIES


FAULT = (
    "arguments of any kind and size, one of them of a wrong type or shape a third of the time, are given to every public "
    "entry point: each call ends in a valid output, or in a `ValueError`, `TypeError` or `OSError` that names the argument, "
    "within seconds; weights that are NaN or infinite are reported"
)
MOST_BYTES = 10 * 2**30  # of address space: a call that takes all memory is to fail, not to end the campaign


def try_entry_point(entry: EntryPoint, seed: int, count: int) -> list[Case]:
    """Return a case for each call of an entry point, and one more if any failed or too few were answered."""
    failure = ""
    try:
        check(entry, "campaign", seed, count / 100)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        failure = told(error)
        traceback.print_exc()
    answered, refused = TRIED[entry.name, "answered"], TRIED[entry.name, "refused"]
    if not failure and answered < entry.least_answered * (answered + refused):
        failure = f"only {answered} of {answered + refused} calls were answered"
    cases = [Case(entry.name, True, "answered")] * answered + [Case(entry.name, True, "refused")] * refused
    return [*cases, Case(entry.name, False, failure)] if failure else cases


def told(error: BaseException) -> str:
    """Return what an error says, with the call that it was found on; of several that were found, what each says."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(told, error.exceptions))
    return f"{type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', []))}"


def main() -> int:
    """Run the campaign."""
    parser = make_parser("fuzzing", __doc__, count=150)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    started, cases = time.time(), []
    for place, entry in enumerate(ENTRIES):
        cases += try_entry_point(entry, 1000 * arguments.seed + place, arguments.count)
    return write_report(parser, arguments.output, FAULT, cases, time.time() - started)


if __name__ == "__main__":
    sys.exit(main())
