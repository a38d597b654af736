"""What all results are drawn with: verdicts, heat maps, Sudoku boards, marked words and tables, as HTML without scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy
from answers import MASK, Cell
from PIL import Image
from verdicts import Verdict


BLUE, WHITE, RED = (33, 102, 172), (247, 247, 247), (178, 24, 43)
LARGEST_LATENT = 2.5  # standard deviations at which the colours end
GRID_CELLS, GRID_SIDE = 16, 4


def verdict_panel(answer: str | None, verdict: Verdict, note: str = "") -> str:
    """Return the answer, whether it is right, why, and what would have been."""
    kind, mark, word = ("right", "✓", "right") if verdict.is_correct else ("wrong", "✗", "wrong")
    checks = "".join(
        f'<li class="{"holds" if check.holds else "fails"}">{escape(check.text)}</li>' for check in verdict.checks
    )
    right = "" if verdict.is_correct else f"<p>A right answer: <code>{escape(spaced(verdict.right_answer))}</code></p>"
    shown = escape(spaced(answer)) if answer else "no answer"
    return (
        f'<section class="verdict {kind}"><h3><span class="mark">{mark}</span> <output>{shown}</output> '
        f'<span class="tag">{word}</span></h3><ul>{checks}</ul>{right}<p class="note">{escape(verdict.origin)} {escape(note)}</p>'
        "</section>"
    )


def heat_map(latents: numpy.ndarray, title: str) -> str:
    """Return latents as an image, a row each vector, from blue below zero to red above.

    Args:
        latents (`numpy.ndarray` of shape `(vectors, size)`): about standard normal.
        title (`str`): for those who cannot see it.
    """
    values = numpy.clip(latents / LARGEST_LATENT, -1, 1)[..., None]
    ends = numpy.where(values < 0, numpy.array(BLUE), numpy.array(RED))
    colours = numpy.array(WHITE) + (ends - numpy.array(WHITE)) * numpy.abs(values)
    file = BytesIO()
    Image.fromarray(colours.round().astype(numpy.uint8)).save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    height, width = latents.shape
    style = f"aspect-ratio: {width} / {height}"
    return f'<img class="latents" style="{style}" alt="{escape(title)}" src="data:image/png;base64,{data}">'


def canvas(cells: Sequence[Cell], has_grid: bool) -> str:
    """Return the tokens of masked diffusion in boxes; with a grid, the last 16 as a Sudoku board."""
    grid = cells[-GRID_CELLS:] if has_grid else ()
    signs = "".join(_cell(cell, "") for cell in cells[: len(cells) - len(grid)])
    places = [f"{'right-edge ' * (i % GRID_SIDE == 1)}{'low-edge' * (i // GRID_SIDE == 1)}" for i in range(len(grid))]
    drawn = "".join(_cell(cell, place) for cell, place in zip(grid, places, strict=True))
    board = f'<div class="board">{drawn}</div>' if grid else ""
    return f'<div class="canvas">{signs and f"<div class=signs>{signs}</div>"}{board}</div>'


def canvas_line(cells: Sequence[Cell], has_grid: bool) -> str:
    """Return the canvas in one line, a space between the rows of a grid, new tokens marked."""
    front = len(cells) - GRID_CELLS
    parts = []
    for place, cell in enumerate(cells):
        parts.append(" " if has_grid and place and (place - front) % GRID_SIDE == 0 else "")
        parts.append(f"<b>{escape(cell.text)}</b>" if cell.is_new else escape(cell.text))
    return f'<code class="line">{"".join(parts)}</code>'


def solved_board(problem: str, grid: str, right: str) -> str:
    """Return a filled grid on which the digits that are given, and those unlike the right ones, can be told apart."""
    triples = zip(problem, grid, right, strict=True)
    return canvas([Cell(digit, False, given != "0", digit == wanted) for given, digit, wanted in triples], True)


def marked(text: str, goal: str) -> str:
    """Return a text in which each word that is already what the goal has at its place is marked."""
    wanted = goal.split()
    words = [
        f'<span class="{"same" if wanted[i : i + 1] == [word] else "other"}">{escape(word)}</span>'
        for i, word in enumerate(text.split())
    ]
    return f'<code class="words">{" ".join(words) or "&nbsp;"}</code>'


def table(headers: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], name: str) -> str:
    """Return a table.

    Args:
        headers (`Sequence[str]`): titles of the columns.
        rows (`Sequence[tuple[str, Sequence[str]]]`): attributes of each row, and its cells, which are HTML.
        name (`str`): class of the table.
    """
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "".join(
        f"<tr {attributes}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for attributes, cells in rows
    )
    return (
        f'<div class="scroll"><table class="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def bars(counts: Sequence[tuple[str, int, bool, bool]], title: str, sign: str) -> str:
    """Return how often each answer was given; each is `(answer, count, is_right, is_chosen)`, the chosen one gets a sign."""
    most = max((count for _, count, _, _ in counts), default=1)
    rows = "".join(
        f'<div class="row {"chosen" if chosen else ""}"><code>{escape(spaced(answer)) or "nothing"}</code>'
        f'<div class="track"><div class="bar {"right" if right else "wrong"}" style="width: {count / most:.1%}"></div></div>'
        f'<span class="count">{count} {mark(right)}{f" ◀ {sign}" if chosen else ""}</span></div>'
        for answer, count, right, chosen in counts
    )
    return f'<section class="bars"><h4>{escape(title)}</h4>{rows}</section>'


def mark(is_right: bool | None) -> str:
    """Return a tick, a cross, or nothing where it is unknown."""
    if is_right is None:
        return ""
    kind, sign, word = ("right", "✓", "right") if is_right else ("wrong", "✗", "wrong")
    return f'<span class="mark {kind}" aria-label="{word}">{sign}</span>'


def is_grid(text: str) -> bool:
    """Return whether a text is a Sudoku: 16 digits."""
    return len(text) == GRID_CELLS and text.isdigit()


def spaced(answer: str) -> str:
    """Return a grid of 16 digits row by row; any other text as it is."""
    if not is_grid(answer):
        return answer
    return " ".join(answer[start : start + GRID_SIDE] for start in range(0, GRID_CELLS, GRID_SIDE))


def _cell(cell: Cell, place: str) -> str:
    states = {"mask": cell.text == MASK, "new": cell.is_new, "given": cell.is_given, "wrong": cell.is_right is False}
    classes = " ".join(["cell", place, *(name for name, holds in states.items() if holds)])
    return f'<span class="{classes}">{escape(cell.text)}</span>'
