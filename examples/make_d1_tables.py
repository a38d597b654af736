"""Turn the files of `run_d1_study.py` into what the card of a reinforced model says: arms, variants, curves."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean, median, stdev

from ldlm_hf.evaluation import write_results
from ldlm_hf.reward_plots import plot_rewards


FIGURES = ("solved", "cell_accuracy", "graded_style", "solved_in_either_style")
STUDIES = ("skill", "elicitation", "iterations", "countdown")
ARMS = {
    "base": "the model at its start",
    "sft": "+ demonstrations of other problems",
    "rl": "+ diffu-GRPO",
    "sft_rl": "+ demonstrations of other problems, then diffu-GRPO",
    "sft_continued": "+ as many updates on demonstrations of other problems",
    "sft_in_task": "+ as many updates on demonstrations of the task itself",
}
POINTS = 20  # of a curve


def hand_out_reinforcement(folder: Path, card: Path) -> None:
    """Write the studies in a folder into the results of a card, and draw the rewards of the variants."""
    studies = {name: study_of(folder / name) for name in STUDIES if (folder / name).is_dir()}
    if not studies or not (card / "results").is_dir():
        return
    (card / "figures").mkdir(exist_ok=True)
    figures = {}
    for name, title in (("iterations", "by updates on the same completions"), ("skill", "in the study of skill")):
        curves = curves_of(folder / name) if name in studies else {}
        if curves:
            plot_rewards(curves, card / "figures" / f"{name}.png")
            figures[f"Rewards {title}, means over the seeds that most variants have"] = f"figures/{name}.png"
    measured: dict[str, dict] = {}
    for name in ("signal", "speed"):
        if (folder / f"{name}.json").exists():
            measured |= {
                key: value
                for key, value in json.loads((folder / f"{name}.json").read_text()).items()
                if key != "environment"
            }
    write_results(card / "results" / "reinforcement.json", {"reinforcement": studies, "figures": figures, **measured})


def read_arms(folder: Path) -> dict[str, list[dict]]:
    """Return the results of every arm of a study, those of all seeds."""
    arms = defaultdict(list)
    for path in sorted(folder.glob("*-[0-9]*.json")):
        result = json.loads(path.read_text())
        arms[result["arm"]].append(result)
    return {arm: arms[arm] for arm in sorted(arms, key=order)}


def order(arm: str) -> tuple[int, list]:
    """Return the place of an arm in a table: those of d1 first, then variants, numbers by size."""
    known = list(ARMS).index(arm) if arm in ARMS else len(ARMS)
    return known, [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in arm.split("_")]


def study_of(folder: Path) -> dict:
    """Return the rows of a study's table and the command that made it."""
    arms = read_arms(folder)
    rows = {}
    for arm, results in arms.items():
        reinforcement = [result["training"]["rl"] for result in results if "rl" in result["training"]]
        row = {"arm": arm, "name": ARMS.get(arm, arm.removeprefix("rl_").replace("_", " ")), "seeds": len(results)}
        row["which_seeds"] = ", ".join(str(result["seed"]) for result in results)
        row |= {
            f"{kind}_{name}": spread([result[kind][name] for result in results]) for kind, name in figures_of(results)
        }
        row["minutes"] = fmean(result["seconds"] for result in results) / 60
        if reinforcement:
            row |= {key: reinforcement[0][key] for key in ("steps", "completions")}
        rows[arm] = row
    first = next(iter(arms.values()))[0]
    commands = list(dict.fromkeys(result["command"] for results in arms.values() for result in results))
    return {
        "rows": rows,
        "num_problems": first["greedy"]["num_problems"],
        "commands": commands,
        "recipe": first["recipe"],
    }


def figures_of(results: list[dict]) -> list[tuple[str, str]]:
    """Return which figures the results have, greedy and sampled."""
    return [(kind, name) for kind in ("greedy", "sampled") for name in FIGURES if name in results[0][kind]]


def spread(values: list[float]) -> dict:
    """Return mean, standard error over the seeds (none for one), and the values."""
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": fmean(values), "standard_error": error, "values": values}


def curves_of(folder: Path) -> dict[str, list[dict]]:
    """Return the mean reward of every variant in parts of its training, and what it had cost by then.

    Seeds start from models of different skill, so the mean is over the same ones for all: those that the most variants
    have. A variant that lacks one of them is left out. Seconds are the median, as a run may have stood still a while.
    """
    reinforced = {
        arm: {result["seed"]: result["training"]["rl"] for result in results if "rl" in result["training"]}
        for arm, results in read_arms(folder).items()
    }
    found = Counter(frozenset(records) for records in reinforced.values() if records)
    seeds = max(found, key=lambda some: (found[some], len(some)), default=frozenset())
    curves = {}
    for arm, by_seed in reinforced.items():
        if not by_seed or not seeds <= by_seed.keys():
            continue
        records = [by_seed[seed] for seed in sorted(seeds)]
        logs = [[entry for entry in record["log"] if "reward" in entry] for record in records]
        total, size = logs[0][-1]["step"], max(1, len(logs[0]) // POINTS)
        points = []
        for start in range(0, len(logs[0]) - size + 1, size):
            part = [entry for log in logs for entry in log[start : start + size]]
            updates = fmean(entry["step"] for entry in part)
            share = updates / total
            points.append(
                {
                    "updates": updates,
                    "completions": share * fmean(record["completions"] for record in records),
                    "seconds": share * median(record["seconds"] for record in records),
                    "reward": fmean(entry["reward"] for entry in part),
                }
            )
        name = "as it stands" if arm == "rl" else arm.removeprefix("rl_").replace("_", " ").replace("mu ", "mu=")
        curves[name] = points
    return curves
