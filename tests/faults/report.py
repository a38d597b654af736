"""What a campaign of faults writes: how often each was tried and what failed, for the table in the README.

A campaign is a file `tests/faults/NAME.py` that runs as `python -m tests.faults.NAME --output results/faults/NAME.json`;
`test_NAME.py` beside it runs a few of its cases in the suite.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ldlm_hf.evaluation import environment, write_results


@dataclass(frozen=True)
class Case:
    """One fault that was tried.

    Args:
        kind (`str`): what was tried, the same for all cases of a kind, such as "kill -9 while DenoiserTrainer trains".
        passed (`bool`): whether all that has to hold afterwards did.
        detail (`str`, *optional*): what exactly was tried, and what failed.
    """

    kind: str
    passed: bool
    detail: str = ""


def make_parser(name: str, description: str, count: int) -> argparse.ArgumentParser:
    """Return the parser of a campaign's command line, with `--count`, `--seed` and `--output`."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.faults.{name}", description=description)
    parser.add_argument("--count", type=int, default=count, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/faults") / f"{name}.json")
    return parser


def write_report(parser: argparse.ArgumentParser, path: Path, fault: str, cases: list[Case], seconds: float) -> int:
    """Write and print what a campaign found.

    Args:
        parser (`ArgumentParser`): of the campaign, whose name is the command.
        path (`Path`): the JSON file to write.
        fault (`str`): what was done and what had to hold, in one sentence for the README's table.
        cases (`list[Case]`): everything that was tried.
        seconds (`float`): how long it took.

    Returns:
        `int`: the exit status, 1 if anything failed.
    """
    failures = [case for case in cases if not case.passed]
    tried = Counter(case.kind for case in cases)
    failed = Counter(case.kind for case in failures)
    results = {
        "fault": fault,
        "count": len(cases),
        "failed": len(failures),
        "kinds": {kind: {"count": count, "failed": failed[kind]} for kind, count in sorted(tried.items())},
        "failures": [{"kind": case.kind, "detail": case.detail[:500]} for case in failures[:20]],
        "seconds": round(seconds, 1),
        "command": shlex.join([*parser.prog.split(), *sys.argv[1:]]),
        "environment": environment(),
    }
    write_results(path, results)
    for kind, count in sorted(tried.items()):
        print(f"{count:>7} tried, {failed[kind]} failed: {kind}")
    for case in failures[:20]:
        print(f"failed: {case.kind}: {case.detail[:500]}")
    return int(bool(failures))
