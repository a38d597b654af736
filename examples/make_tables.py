"""Every table of the paper anew: published figure, ours over seeds, baselines, chance, as Markdown and JSON.

Called by `run_evaluate.py --suite tables`. The rows that are ours are the plan `recipes/ldlm/tables.yaml`: shipped
checkpoints are evaluated, everything else is trained first, run by run, and what is there is not repeated; so the suite
can be broken off and taken up again. A row that was not run says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from run_comparison import OtherSettingsError, run_section  # beside this script

from ldlm_hf.evaluation import environment, write_results
from ldlm_hf.ldlm.published import PUBLISHED_TABLES, PublishedTable
from ldlm_hf.splits import baselines_of_chance
from ldlm_hf.tasks import get_task
from ldlm_hf.training import read_recipe


PLAN = Path(__file__).parent / "recipes" / "ldlm" / "tables.yaml"
NOTES = """The published figures are of BART-base with a denoiser 768 wide; what is ours was trained from scratch and has as many
parameters as its row says, BART and all. Rows go by the paper's names: what they change is as in the paper, not their size.
In Table 3 all that is ours but the rows that say otherwise trains on further problems, with a number of two digits in the
brackets; the test is the same. Reasoners sample in 20 steps whatever T they were trained with. Of a shipped checkpoint there is one set of weights, and the
standard error is over seeds of the sampling noise; every other row was trained anew under each of its seeds, and has no
standard error if that was one. The error of drawing other held-out problems is not in it."""


def main(
    output: Path,
    names: list[str] | None,
    command: str,
    run: bool = True,
    text: str | None = None,
    bertscore: dict | None = None,
) -> dict:
    """Make the tables that are asked for; write them to `output`, beside those that it holds, and as Markdown beside it.

    A table that cannot be made, for want of texts or since its runs are of other settings, stays as it is in `output`.

    Args:
        output (`Path`): JSON file to write.
        names (`list[str]`, *optional*): which tables; all by default.
        command (`str`): what called this.
        run (`bool`, *optional*, defaults to `True`): run what is missing, or only write down what is there.
        text (`str`, *optional*): file, folder or Hub id of the texts of Tables 5 and 6; C4 by default.
        bertscore (`dict`, *optional*): arguments of that metric; that of the plan, `roberta-large` of the Hub, by default.

    Raises:
        ValueError: for a table that the paper has not.
    """
    unknown = sorted(set(names or []) - set(PUBLISHED_TABLES))
    if unknown:
        raise ValueError(f"`--tables` has to be among {list(PUBLISHED_TABLES)}, but holds {unknown}.")
    plan = read_recipe(PLAN)
    changes = {} if text is None else {"task": f"continuation:{text}"}
    changes |= {} if bertscore is None else {"bertscore": bertscore}
    for section in plan["sections"].values():
        section.update(changes if section["task"] == "continuation" else {})
    tables = json.loads(output.read_text())["tables"] if output.exists() else {}
    for name in names or PUBLISHED_TABLES:
        ours = None
        if name in plan["sections"]:
            try:
                ours = run_section(plan, name, command, partial=True, run=run)
            except (OSError, OtherSettingsError) as error:  # no Hub, or rows of other texts: this table alone
                print(f"{name} {'stays as it was' if name in tables else 'was not run'}: {error}", file=sys.stderr)
                if name in tables:
                    continue
        tables[name] = make_table(PUBLISHED_TABLES[name], ours)
    tables = {name: tables[name] for name in PUBLISHED_TABLES if name in tables}
    results = {"tables": tables, "command": command, "environment": environment()}
    write_results(output, results)
    output.with_suffix(".md").write_text(markdown(tables, command))
    print(output.with_suffix(".md").read_text())
    return results


def make_table(published: PublishedTable, ours: dict | None) -> dict:
    """Return a table: every published row, with ours of the same name beside it, then our further rows."""
    measured = {row["name"]: row for row in (ours or {"rows": []})["rows"]}
    names = list(dict.fromkeys([*published.rows, *measured]))
    rows = [{"published": published.rows.get(name), **measured.get(name, {"name": name})} for name in names]
    table = {"title": published.title, "task": published.task, "metric": published.metric, "rows": rows}
    if published.metric == "answer_accuracy":
        task = get_task(published.task)
        table |= baselines_of_chance(*(task.to_dataset(split)["answer"][:] for split in ("train", "test")))
    return table


def markdown(tables: dict, command: str) -> str:
    """Return the tables as Markdown."""
    lines = ["# The tables of the paper", "", f"Command: `{command}`", "", NOTES]
    for name, table in tables.items():
        number = name.removeprefix("table")
        lines += ["", f"## Table {number}: {table['title']} (`{table['task']}`, {table['metric']}, %)", ""]
        judges = sorted({judge_of(row["bertscore"]) for row in table["rows"] if row.get("bertscore")})
        lines += [f"BERTScore by {' and '.join(judges)}, no idf weights, not rescaled.", ""] if judges else []
        lines += ["| system | published | ours ± standard error | seeds | problems | steps x batch | parameters |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [markdown_row(row) for row in table["rows"]]
        lines += [
            f"| {guess} | | {100 * table[guess]:.1f} | | | | |" for guess in ("chance", "majority") if guess in table
        ]
    return "\n".join(lines) + "\n"


def judge_of(bertscore: dict) -> str:
    """Return which encoder scored, and by which of its hidden states if not by the usual one."""
    layer = bertscore.get("num_layers")
    return Path(bertscore["model_type"]).name + (f" (hidden state {layer})" if layer is not None else "")


def markdown_row(row: dict) -> str:
    """Return one row of a table."""
    published = "" if row["published"] is None else f"{row['published']}"
    if "mean" not in row:
        missing = "not run" if not row["name"].startswith("GPT") else ""
        return f"| {row['name']} | {published} | {missing} | | | | |"
    error = "" if row["standard_error"] is None else f" ± {100 * row['standard_error']:.2f}"
    trained = [f"{max(row['steps']):,} x {row['batch_size']}"] if "steps" in row else []
    steps = ", ".join([*trained, *(["shipped"] if row.get("shipped") else [])])
    figures = f"{100 * row['mean']:.2f}{error} | {len(row['accuracies'])} | {row['num_problems']:,} | {steps}"
    parameters = f"{row['parameters']:,}" if "parameters" in row else ""
    return f"| {row['name']} | {published} | {figures} | {parameters} |"
