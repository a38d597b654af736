"""Generated problems are the same in every process, whatever order Python gives the strings of a set there."""

import os
import subprocess
import sys

from ldlm_hf.tasks import TASKS


PUBLISHED = (
    "continuation",
    "gsm8k",
    "math500",
    "arc_challenge",
    "truthful_qa",
    "human_eval",
)  # read from files, not generated
GENERATED = [name for name in TASKS if name not in PUBLISHED]
SHOW = """
import sys
from ldlm_hf.tasks import get_task
for name in sys.argv[1:]:
    task = get_task(name)
    for index in range(3):
        print(name, task.problem("train", index, seed=index), task.kind(task.problem("test", index).prompt))
"""


def test_problems_do_not_depend_on_the_order_of_sets():
    shown = []
    for hash_seed in ("1", "2"):  # the order is drawn when Python starts, so it takes two of them
        own = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SHOW, *GENERATED]
        shown.append(subprocess.run(command, env=own, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert shown[0].count("\n") == 3 * len(GENERATED)
    assert shown[0] == shown[1]
