"""The tables of the paper as published, so that every card and table of ours shows them beside what we measured.

*Latent Diffusion with LLMs for Reasoning*, §4. It states no held-out split, no number of problems and no seeds; the
backbone of its BERTScore is unknown, so Tables 5 and 6 can be compared within themselves only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper.

    Attributes:
        title (`str`): what it is about.
        task (`str`): the task of ours that it is measured on.
        metric (`str`): `"answer_accuracy"` or `"bertscore"`.
        rows (`dict[str, float]`): the published figure of each system, in percent.
    """

    title: str
    task: str
    metric: str
    rows: dict[str, float]


PUBLISHED_TABLES: dict[str, PublishedTable] = {
    "table1": PublishedTable(
        "Single-digit additions",
        "addition",
        "answer_accuracy",
        {
            "latent diffusion, T = 500": 97.2,
            "latent diffusion, T = 1000": 96.7,
            "latent diffusion, T = 4000": 97.3,
            "BART, answer first": 1.3,
            "BART, answer last": 0.3,
        },
    ),
    "table2": PublishedTable(
        "Two-digit addition",
        "two_digit_addition",
        "answer_accuracy",
        {
            "latent diffusion, T = 1000": 87.2,
            "BART, answer first": 0.0,
            "GPT-3 400M": 5.0,
            "GPT-3 13B": 57.0,
            "GPT-3 175B": 99.0,
        },
    ),
    "table3": PublishedTable(
        "Three one-digit numbers, two operations",
        "three_operations",
        "answer_accuracy",
        {
            "latent diffusion, T = 1000": 100.0,
            "BART, answer first": 11.8,
            "GPT-3 400M": 2.5,
            "GPT-3 13B": 10.5,
            "GPT-3 175B": 21.0,
        },
    ),
    "table4": PublishedTable(
        "Rotation by four numbers",
        "rotation",
        "answer_accuracy",
        {
            "latent diffusion, T = 500": 90.4,
            "latent diffusion, T = 1000": 92.3,
            "latent diffusion, T = 4000": 89.5,
            "BART, answer first": 0.0,
        },
    ),
    "table5": PublishedTable(
        "Conditioning, depth and diffusion length, on text",
        "continuation",
        "bertscore",
        {
            "in context, 6 layers, length 16": 70.0,
            "in context, 12 layers, length 16": 70.2,
            "in context, 24 layers, length 16": 70.6,
            "in context, 6 layers, length 32": 70.2,
            "in context, 6 layers, length 64": 69.6,
            "cross-attention, 6 layers, length 16": 70.2,
            "cross-attention, 12 layers, length 16": 70.4,
            "cross-attention, 24 layers, length 16": 70.4,
            "cross-attention, 6 layers, length 32": 70.0,
            "cross-attention, 6 layers, length 64": 68.1,
            "adaLN-Zero, 6 layers, length 16": 69.7,
            "adaLN-Zero, 12 layers, length 16": 69.8,
            "adaLN-Zero, 24 layers, length 16": 70.1,
            "adaLN-Zero, 6 layers, length 32": 69.0,
            "adaLN-Zero, 6 layers, length 64": 70.1,
        },
    ),
    "table6": PublishedTable(
        "Encoder, on text", "continuation", "bertscore", {"BART-base": 67.64, "BART-large": 69.80}
    ),
}


def published_of(task: str) -> PublishedTable | None:
    """Return the table that the paper measured on a reasoning task, if there is one."""
    tables = [table for table in PUBLISHED_TABLES.values() if table.metric == "answer_accuracy"]
    return next((table for table in tables if table.task == task), None)
