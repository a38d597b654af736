"""Evaluates saved pipelines one after the other, in as many processes as start this: FOLDER PIPELINE…"""

from __future__ import annotations

import sys
from pathlib import Path

from examples import run_evaluate


OPTIONS = "--num_problems 11 --batch_size 2 --num_inference_steps 4 --steps_curve 2,8 --curve_problems 5".split()


def main(folder: Path, pipelines: list[Path]) -> None:
    """Write the results of each pipeline, named like its folder: once with records that stay, once without."""
    for pipeline in pipelines:
        keep = ["--records", str(folder / pipeline.name), "--output", str(folder / f"{pipeline.name}.json")]
        run_evaluate.main([str(pipeline), *OPTIONS, *keep])
        run_evaluate.main([str(pipeline), *OPTIONS, "--output", str(folder / f"{pipeline.name}-again.json")])


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(Path, sys.argv[2:])))
