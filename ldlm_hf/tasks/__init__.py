"""Tasks by name; to add one, write its file, add its line here and a test (see `ldlm_hf/README.md`)."""

from .addition import Addition
from .task import SPLITS, ChainReport, Problem, Task


TASKS: dict[str, type[Task]] = {
    "addition": Addition,
}

__all__ = ["SPLITS", "TASKS", "Addition", "ChainReport", "Problem", "Task"]
