"""One spelling for the LaTeX of short answers, by tokens and in time linear in the text; it need not be well formed.

What is made alike is what the string comparison that is customary for MATH makes alike (Hendrycks et al. 2021, arXiv
2103.03874): `\\left` and `\\right`, spaces, `\\dfrac`, `\\frac12`, `\\sqrt2`, degrees, dollar and percent signs, `\\text{}`
and units in it. What differs: braces are matched, so `\\frac{\\sqrt3}2` is read too, and a few characters beyond ASCII.
"""

from __future__ import annotations

import re

from ..arguments import checked


TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
THOUSANDS = re.compile(r"(?:\{,\}|,\\! ?)(?=[0-9]{3})")
SPELLINGS = {
    "^{\\circ}": "",
    "^\\circ": "",
    "\\degree": "",
    "°": "",
    "−": "-",
    "–": "-",
    "π": "\\pi ",
    "∞": "\\infty ",
    "×": "\\times ",
    "·": "\\cdot ",
    "≤": "\\le ",
    "≥": "\\ge ",
}
COMMANDS = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cfrac": "\\frac",
    "\\leq": "\\le",
    "\\geq": "\\ge",
    "\\neq": "\\ne",
    "\\lbrace": "\\{",
    "\\rbrace": "\\}",
}
DROPPED = {"\\left", "\\right", "\\!", "\\,", "\\displaystyle", "%", "\\%", "\\$"}
GAPS = {"$", "~", "\\;", "\\:", "\\ ", "\\quad", "\\qquad"}  # like white space
WRAPPERS = {"\\text", "\\textbf", "\\textit", "\\textrm", "\\mbox", "\\mathrm", "\\mathbf", "\\operatorname"}
NUM_ARGUMENTS = {"\\frac": 2, "\\sqrt": 1}
POWERS = {"", "^2", "^3", "^{2}", "^{3}"}  # of a unit


@checked
def clean_latex(text: str) -> str:
    """Return `text` with one spelling for what looks or means the same, without spaces that mean nothing.

    A text in `\\text{}` after a number or formula is its unit and goes; elsewhere it stays, without the command.

    Args:
        text (`str`): an answer, with or without dollar signs around it.
    """
    text = THOUSANDS.sub("", text)
    for spelling, replacement in SPELLINGS.items():
        text = text.replace(spelling, replacement)
    tokens = _with_braces(_plain_tokens(TOKEN.findall(text)))
    return _join(_without_needless_braces(tokens))


def _plain_tokens(tokens: list[str]) -> list[str]:
    """Return the tokens renamed, without spaces and what is dropped, and without wrappers and the unit at the end."""
    kept: list[str] = []
    is_wrapper: list[bool] = []  # of every brace that is open
    wrapped: list[tuple[int, int]] = []  # what the wrappers outside all braces hold: places in `kept`
    gap = opens_wrapper = False
    for token in tokens:
        if token.isspace() or token in GAPS:
            gap = True
        elif token in WRAPPERS:
            opens_wrapper = True
        elif token == "{" and opens_wrapper:
            if not is_wrapper:
                wrapped.append((len(kept), len(kept)))
            is_wrapper.append(True)
            opens_wrapper = False
        elif token == "}" and is_wrapper and is_wrapper[-1]:
            is_wrapper.pop()
            if not is_wrapper:
                wrapped[-1] = (wrapped[-1][0], len(kept))
        elif token not in DROPPED:
            if gap and kept and _need_gap(kept[-1], token):
                kept.append(" ")
            if token == "{":
                is_wrapper.append(False)
            elif token == "}" and is_wrapper:
                is_wrapper.pop()
            kept.append(COMMANDS.get(token, token))
            gap = opens_wrapper = False
    return kept[: wrapped[0][0]] if len(wrapped) == 1 and _is_unit(kept, *wrapped[0]) else kept


def _need_gap(token: str, following: str) -> bool:
    """Return whether a space between two tokens means something: `1 2` is not 12, nor `1, 234` a thousand."""
    digits = "0123456789."
    return token == "," or (token in digits and following in digits)


def _is_unit(tokens: list[str], start: int, end: int) -> bool:
    """Return whether the wrapped tokens from `start` to `end` follow a formula and close the text, but for a power."""
    if not 0 < start < end:
        return False
    before = tokens[start - 1]
    return (before.isalnum() or before in (")", "}", ".")) and "".join(tokens[end : end + 6]).rstrip(".") in POWERS


def _with_braces(tokens: list[str]) -> list[str]:
    """Return the tokens with braces around each argument of a fraction or root; LaTeX takes one token without them."""
    kept: list[str] = []
    missing, outer = 0, []  # arguments that are to come now, and after each open brace is closed
    for token in tokens:
        if token == "{":
            outer.append(max(0, missing - 1))
            missing = 0
        elif token == "}":
            missing = outer.pop() if outer else 0
        elif token in NUM_ARGUMENTS:
            missing = NUM_ARGUMENTS[token]
        elif missing and token == " ":
            continue
        elif token == "[" and kept and kept[-1] == "\\sqrt":
            missing = 0  # the degree of the root comes first; leave it as it is
        elif missing:
            kept += ["{", token]
            token, missing = "}", missing - 1
        kept.append(token)
    return kept


def _without_needless_braces(tokens: list[str]) -> list[str]:
    """Return the tokens without the braces around a single one that is raised or lowered."""
    kept: list[str] = []
    for token in tokens:
        kept.append(token)
        if token == "}" and len(kept) >= 4 and kept[-3] == "{" and kept[-4] in ("^", "_"):
            kept[-3:] = [kept[-2]]
    return kept


def _join(tokens: list[str]) -> str:
    parts: list[str] = []
    for token in tokens:
        is_command = bool(parts) and len(parts[-1]) > 1 and parts[-1][-1].isalpha()
        if is_command and token[0].isalpha():
            parts.append(" ")
        parts.append(token)
    return "".join(parts)
