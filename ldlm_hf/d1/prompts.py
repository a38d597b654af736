r"""What the policy is asked, and demonstrations of how to answer: reasoning and answer between tags, as d1 wants it.

The words are this package's own; d1's differ. A template holds `{problem}` where the problem goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..arguments import check_option, checked


FORM = (
    "Answer in this form, each tag on a line of its own:\n"
    "<reasoning>\nyour reasoning, step by step\n</reasoning>\n<answer>\n{answer}\n</answer>"
)
TEMPLATES = {  # by name, for recipes
    "plain": "{problem}",
    "reasoning": f"{FORM.replace('{answer}', 'your answer')}\n\n{{problem}}",
    "gsm8k": f"{FORM.replace('{answer}', 'the number')}\n\n{{problem}}",
    "math": f"{FORM.replace('{answer}', chr(92) + 'boxed{your answer}')}\n\n{{problem}}",
    "countdown": (
        "On the left of the equals sign are numbers, on its right is a target. Combine all the numbers, each used exactly "
        "once, by +, -, * and / into an expression whose value is the target.\n"
        f"{FORM.replace('{answer}', 'the expression only')}\n\n{{problem}}"
    ),
    "sudoku": (
        "Below is a 4x4 Sudoku, row by row, with 0 for an empty cell. Fill in the empty cells so that each row, each column "
        "and each 2x2 box holds 1, 2, 3 and 4.\n"
        f"{FORM.replace('{answer}', 'the 16 digits of the solution')}\n\n{{problem}}"
    ),
}


@checked
def ask(template: str, problem: str) -> str:
    """Return the prompt of a problem.

    Args:
        template (`str`): a name in `TEMPLATES`.
        problem (`str`): the problem.

    Raises:
        ValueError: for another name.
    """
    check_option("template", template, tuple(TEMPLATES))
    return TEMPLATES[template].replace("{problem}", problem)  # problems may hold braces


@checked
def demonstration_of_s1k(row: Mapping[str, object]) -> dict[str, str]:
    """Return prompt and target of a row of `simplescaling/s1K`: its first trajectory is the reasoning, its attempt the answer.

    Args:
        row (`Mapping[str, object]`): with `question`, `thinking_trajectories` and `attempt`.

    Raises:
        ValueError: for a row that lacks one of them.
    """
    missing = [name for name in ("question", "thinking_trajectories", "attempt") if not row.get(name)]
    if missing:
        raise ValueError(f"`row` is none of s1K: it lacks {missing}, but has {sorted(row)}.")
    reasoning, answer = row["thinking_trajectories"][0].strip(), row["attempt"].strip()
    target = f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"
    return {"prompt": ask("reasoning", row["question"].strip()), "target": target}
