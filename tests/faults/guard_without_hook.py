"""The guard of programs without its audit hook, so that they meet the kernel's refusals alone, with `ctypes` in their hands."""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[2] / "ldlm_hf" / "tasks"))
import program_guard


del sys.path[0]
program_guard.make_hook = lambda folder: lambda event, arguments: None
program_guard.main(sys.argv[1], *map(int, sys.argv[2:]))
