"""Write every model card, and the README's results table, from the results that ship with the checkpoints.

    python examples/run_evaluate.py --suite tables --output results/tables.json
    python examples/write_results_table.py

Each card gets the table of the paper that its task stands in; `ABLATIONS.md` beside the card of `ldlm-addition` is written
from what `run_comparison.py` wrote for the plan `ablations.yaml` in `results/ablations/results/`.
"""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from make_d1_tables import hand_out_reinforcement  # these two are beside this script
from make_ladir_tables import hand_out_latents

from ldlm_hf.evaluation import write_results
from ldlm_hf.model_card import load_results, percent, write_model_card
from ldlm_hf.plots import plot_accuracy
from ldlm_hf.splits import share_of_known_targets
from ldlm_hf.tasks import get_task
from ldlm_hf.training import read_recipe
from ldlm_hf.vote_plots import plot_seconds, plot_votes, plot_work


ROOT = Path(__file__).parents[1]
TEMPLATE = Path(__file__).parent / "ablations_template.md"
TITLES = {  # sections of `recipes/ldlm/ablations.yaml` beside the study itself
    "size": "Width of the denoiser",
    "size_rotation": "Width of the denoiser, rotation, trained for longer and sampled in 20 steps",
    "size_three_operations": "Width of the denoiser, three operations, trained for longer and sampled in 20 steps",
    "training_set": "Size of the training set",
    "autoencoder": "Autoencoder, chain and tokens, every stage trained anew",
}
SIZES = {  # sections that have accuracy by width, and the card whose task they are about
    "size": "ldlm-two-digit-addition",
    "size_rotation": "ldlm-rotation",
    "size_three_operations": "ldlm-three-operations",
}
STUDIES = {  # of `run_hex_study.py`, in the order of the card
    "exact_sigma_0": "exact, sigma 0",
    "exact_sigma_0.7": "exact, sigma 0.7",
    "exact_sigma_1.2": "exact, sigma 1.2",
    "exact_null": "null: exact, random order",
    "sudoku_4x4_early": "Sudoku, stopped early",
    "countdown_3": "Countdown",
}
START = "<!-- {name}: written by examples/write_results_table.py, do not edit -->"
END = "<!-- end of {name} -->"


def main() -> None:
    """Rewrite the cards and the table in place."""
    cards = ROOT / "model_cards"
    hand_out_tables(ROOT / "results" / "tables.json", cards)
    for section, card in SIZES.items():
        draw_sizes(ROOT / "results" / "ablations" / "results" / f"{section}.json", cards / card)
    for card in shipped(cards):
        hand_out_targets(card)
    hand_out_speed(ROOT / "results" / "llada" / "benchmark.json", cards)
    hand_out_baselines(ROOT / "results" / "llada" / "results", cards)
    hand_out_reinforcement(ROOT / "results" / "d1", cards / "d1-sudoku-4x4")
    hand_out_latents(ROOT / "results" / "ladir", cards / "ladir-countdown")
    hand_out_votes(ROOT / "results" / "hex", cards / "hex-voting")
    for card in shipped(cards):
        write_model_card(load_results(card / "results"), card / "README.md")
    study = ROOT / "results" / "ablations" / "results"
    if study.is_dir():
        place = ROOT / "model_cards" / "ldlm-addition" / "ABLATIONS.md"
        place.write_text(ablations(study, ROOT / "results" / "tables.json"))
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text(), ROOT))


def hand_out_speed(benchmark: Path, model_cards: Path) -> None:
    """Write how fast the benchmark sampled from a checkpoint, and from larger random weights, into its results."""
    if not benchmark.exists():
        return
    file = json.loads(benchmark.read_text())
    results = file["llada_benchmark"]
    names = {
        "plain": "the published loop",
        "ours": "this package, the same tokens",
        "prefix": "with a prefix cache",
        "dual": "with a dual cache",
        "threshold": "committing what is at least so probable:",
    }
    rows = []
    for row in results["checkpoint"]["rows"]:
        kind, number = row["sampler"].split("_")
        name = f"{names[kind]} {number}" if kind == "threshold" else f"{names[kind]}, {number} a pass"
        kept = {key: row[key] for key in ("tokens_per_forward", "tokens_per_second", "speedup")}
        rows.append({"name": name, "answer_accuracy": row["accuracy"], **kept})
    grid: dict[tuple, dict] = {}
    for row in results["grid"]:
        setting = tuple(row[key] for key in ("gen_length", "block_length"))
        line = grid.setdefault(setting, {"gen_length": setting[0], "block_length": setting[1]})
        line[row["sampler"]] = row["speedup"]
        if row["sampler"] == "plain":
            line["plain_tokens_per_second"] = row["tokens_per_second"]
    speed = {
        "rows": rows,
        "num_problems": results["checkpoint"]["num_problems"],
        "model": results["model"],
        "grid": list(grid.values()),
        "memory": results.get("memory"),
        "machine": file["environment"]["processor"],
        "command": results["command"],
    }
    place = model_cards / results["checkpoint"]["checkpoint"] / "results" / "speed.json"
    write_results(place, {"speed": speed, "environment": file["environment"]})


def hand_out_baselines(folder: Path, model_cards: Path) -> None:
    """Write the baselines of a masked diffusion checkpoint, as the plan `recipes/llada/tables.yaml` calls them, into its results."""
    for path in sorted(folder.glob("*.json")):
        file = json.loads(path.read_text())
        kept = ("name", "parameters", "accuracies", "mean", "standard_error")
        rows = [{key: row[key] for key in kept} for row in file[path.stem]["rows"]]
        place = model_cards / f"llada-{path.stem.replace('_', '-')}" / "results" / "baselines.json"
        write_results(place, {"baselines": rows, "environment": file["environment"]})


def hand_out_votes(folder: Path, card: Path) -> None:
    """Write the studies of votes, what they cost, and the paper's figures for its own tables into the card's results; draw them."""
    if not (card / "results").is_dir():
        return
    studies = {}
    for name, title in STUDIES.items():
        if (folder / f"{name}.json").exists():
            study = json.loads((folder / f"{name}.json").read_text())
            kept = ("gate", "best_on_dev", "single_paths", "curve", "work", "num_problems", "command", "environment")
            rows = {row["name"]: row for row in study["rows"]}
            studies[name] = {"title": title, "rows": rows, **{key: study[key] for key in kept}}
    published = {
        name: read_recipe(ROOT / "examples" / "recipes" / "hex" / name)["published"]
        for name in ("gsm8k", "math500", "arc_challenge", "truthful_qa")
    }
    paper = {name: {row: round(value / 100, 4) for row, value in rows.items()} for name, rows in published.items()}
    figures = {
        "Accuracy and ties against the number of votes": "figures/votes.png",
        "Accuracy against forward passes": "figures/work.png",
        "Seconds against votes": "figures/seconds.png",
    }
    speed = json.loads((folder / "speed.json").read_text())["hex_speed"]
    (card / "figures").mkdir(exist_ok=True)
    named = {study["title"]: study for study in studies.values()}
    plot_votes({title: study["curve"] for title, study in named.items()}, card / "figures" / "votes.png")
    plot_work({title: study["work"] for title, study in named.items()}, card / "figures" / "work.png")
    plot_seconds(speed["rows"], card / "figures" / "seconds.png")
    results = {"studies": studies, "hex_speed": speed, "figures": figures, "paper_tables": paper}
    write_results(
        card / "results" / "studies.json",
        {**results, "paper_rows": sorted({row for rows in paper.values() for row in rows})},
    )


def draw_sizes(section: Path, card: Path) -> None:
    """Draw accuracy against parameters into the card of the task that the study is about."""
    if not section.exists():
        return
    study = json.loads(section.read_text())[section.stem]
    points = [
        {"answer_accuracy": row["mean"], **{key: row[key] for key in ("parameters", "num_problems", "standard_error")}}
        for row in study["rows"]
    ]
    place = "figures/accuracy_against_parameters.png"
    chance = {"chance": load_results(card / "results")["chance"]}
    plot_accuracy(points, card / place, chance, against="parameters", label="parameters")
    figures = json.loads((card / "results" / "figures.json").read_text())["figures"]
    seeds = min(len(row["accuracies"]) for row in study["rows"])
    trainings = f"mean and standard error over {seeds} seeds" if seeds > 1 else "one training each"
    title = f"Accuracy against parameters, {trainings}, after {study['steps']:,} steps of {study['batch_size']}"
    others = {name: path for name, path in figures.items() if path != place}
    write_results(card / "results" / "figures.json", {"figures": {**others, title: place}})


def hand_out_tables(tables: Path, model_cards: Path) -> None:
    """Write the table of the paper that a checkpoint's task stands in into its results."""
    if not tables.exists():
        return
    results = json.loads(tables.read_text())
    for card in shipped(model_cards):
        task = load_results(card / "results")["task"]
        for name, table in results["tables"].items():
            if table["task"] == task:
                table = {**table, "number": name.removeprefix("table"), "command": results["command"]}
                write_results(card / "results" / "table.json", {"table": table, "environment": results["environment"]})


def hand_out_targets(card: Path) -> None:
    """Write into the results of a latent-diffusion reasoner how many held-out targets its training problems have, too."""
    results = load_results(card / "results")
    recipe = results.get("recipe") or {}
    if results.get("system") != "latent_diffusion" or recipe.get("task") is None:
        return
    arguments, further = recipe.get("task_arguments") or {}, recipe.get("denoiser_task_arguments") or {}
    task = get_task(recipe["task"], **arguments)
    test, train = (task.to_dataset(split) for split in ("test", "train"))
    known = {"share": share_of_known_targets(train, test), "training_problems": len(train), "further_share": None}
    if further:
        more = get_task(recipe["task"], **{**arguments, **further}).to_dataset("train")
        alike = dict(
            zip(more["target"], more["prompt"], strict=True)
        )  # by target: the last, which is a further problem
        pairs = [(row["prompt"], alike[row["target"]]) for row in test if row["target"] in alike]
        example = next(pair for pair in pairs if pair[1] not in set(train["prompt"]))
        known |= {"further_share": share_of_known_targets(more, test), "further_problems": len(more) - len(train)}
        known["example"] = dict(zip(("held_out", "further"), example, strict=True))
    write_results(card / "results" / "targets.json", {"known_targets": known})


def shipped(model_cards: Path) -> list[Path]:
    """Return the folders of the checkpoints that ship with results."""
    return sorted(path for path in model_cards.iterdir() if (path / "results").is_dir())


def with_tables(readme: str, root: Path) -> str:
    """Return the README with the tables of all cards and of all campaigns of faults between their marks."""
    tables = {"results": results_table(root / "model_cards"), "faults": faults_table(root / "results" / "faults")}
    for name, table in tables.items():
        start, end = START.format(name=name), END.format(name=name)
        before, rest = readme.split(start)
        readme = f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"
    return readme


def ablations(folder: Path, tables: Path) -> str:
    """Return the study of single settings as Markdown, from its sections and the tables of the paper."""
    sections = {path.stem: json.loads(path.read_text())[path.stem] for path in sorted(folder.glob("*.json"))}
    rows = {name: {row["name"]: row for row in section["rows"]} for name, section in sections.items()}
    measured = json.loads(tables.read_text())["tables"] if tables.exists() else {}
    cards = ROOT / "model_cards"
    curves = {card.name: load_results(card / "results") for card in shipped(cards)}
    decisions = {name: curve["answer_decision"] for name, curve in curves.items() if "answer_decision" in curve}
    trial = folder.parent / "trials" / "three_operations_adaln_zero.json"
    plan = read_recipe(ROOT / "examples" / "recipes" / "ldlm" / "ablations.yaml")["sections"]
    baselines = [row for table in measured.values() for row in table["rows"] if row["name"].startswith("BART, ")]
    context = {
        "sections": sections,
        "planned_rows": {name: [row["name"] for row in section["rows"]] for name, section in plan.items()},
        "rows": rows,
        "tables": measured,
        "means": {
            name: {row["name"]: row["mean"] for row in table["rows"] if "mean" in row}
            for name, table in measured.items()
        },
        "rotations": runs_of(tables.parent / "tables" / "table4"),
        "three_operations_runs": runs_of(tables.parent / "tables" / "table3"),
        "baseline_sizes": [row["parameters"] for row in baselines if "parameters" in row],
        "comparison": load_results(cards / "ldlm-addition" / "results").get("comparison"),
        "decided": {name: steps[0]["share_final"] for name, steps in decisions.items()},
        "known_targets": curves["ldlm-three-operations"]["known_targets"],
        "three_operations_curve": {
            point["training_steps"]: point for point in curves["ldlm-three-operations"]["training_curve"]
        },
        "trial": json.loads(trial.read_text())["evaluation"] if trial.exists() else None,
    }
    template = Environment(trim_blocks=False, undefined=StrictUndefined).from_string(TEMPLATE.read_text())
    return template.render(**context, percent=percent, titles=TITLES).rstrip() + "\n"


def runs_of(folder: Path) -> dict[str, dict]:
    """Return the runs of a table that are there, with their accuracy by kind of problem if they have it, by file name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: {"by_kind": [], **run} for name, run in found.items()}


def results_table(model_cards: Path) -> str:
    """Return a Markdown table with a row for each figure and the command that made it."""
    lines = ["| checkpoint or system | held-out problems | answers correct | command |", "|---|---|---|---|"]
    for card in shipped(model_cards):
        results = load_results(card / "results")
        evaluation = results["evaluation"]
        accuracy = f"{100 * evaluation['answer_accuracy']:.2f} % ± {100 * evaluation['standard_error']:.2f}"
        lines.append(
            f"| **`{card.name}`** | {evaluation['num_problems']:,} | {accuracy} | `{evaluation['command']}` |"
        )
        comparison = results.get("comparison", {"rows": []})
        for row in comparison["rows"]:
            figure = f"{100 * row['mean']:.2f} % ± {100 * row['standard_error']:.2f} ({len(row['accuracies'])} seeds)"
            name = f"{row['name']}, {comparison['steps']:,} steps of {comparison['batch_size']}"
            lines.append(f"| {name} | {comparison['num_problems']:,} | {figure} | `{comparison['command']}` |")
        guesses = {f"chance, {name}": value for name, value in (results.get("chance_levels") or {}).items()}
        if not guesses and "chance" in results:
            guesses = {"chance": results["chance"]}
        for name, value in {**guesses, **{key: results[key] for key in ("majority",) if key in results}}.items():
            lines.append(f"| {name} | {evaluation['num_problems']:,} | {100 * value:.1f} % | as above |")
    return "\n".join(lines)


def faults_table(folder: Path) -> str:
    """Return a Markdown table with a row for each campaign of faults and the command that ran it."""
    lines = ["| what was done, and what had to hold | tried | failed | command |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        lines.append(f"| {found['fault']} | {found['count']:,} | {found['failed']:,} | `{found['command']}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
