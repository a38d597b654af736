"""Reading the answer out of a text, and one canonical form of it, for voting and for comparison.

Extractors return what a text states, or `None`; [`normalize_answer`] makes alike what means the same. Everything takes
time linear in the text, computes no powers that a text asks for and never runs a text.

What differs from the released code:
- HEX (specified in its `HEX.py`) reads the *first* box for GSM8K and the *last* for all else, and lets a text without a box
  vote for itself as a whole; here it is always the last box, and a text without an answer gives `None`.
- HEX counts votes by the exact string and normalises only to grade, so `\\frac12` and `\\frac{1}{2}` split a vote; here
  both are normalised.
- d1 compares GSM8K answers as strings and rewards a box by looking for `"\\boxed"` with a single backslash, which Python
  reads as a backspace, so that it is never found; here a box is found and numbers are compared by value.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ..arguments import checked, shown
from .latex import clean_latex


LONGEST_NUMBER = 100  # characters
LONGEST_ANSWER = 1000  # what is longer is no answer, and is not read as one
LARGEST_EXPONENT = 100
MOST_PASSES = 8
THIN_SPACES = re.compile(r"\\(?:! ?|,)")
BOX = re.compile(r"\\boxed(?![A-Za-z])\s*+(\{)?+([^\s$]*+)")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
FULL_STOP = re.compile(r"\.(?=\s|$)")
WORDED = re.compile(r"\bthe answer is\b:?", re.IGNORECASE)
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm) ?\{([^{}]*)\}")
WORDS = re.compile(r"[^\W\d_]+(?:[' -][^\W\d_]+)*")
UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])(?:\.[0-9]++)?|[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)"
SIGNED = rf"[+-]?+ ?+{UNSIGNED}"
DECIMAL = re.compile(
    rf"(?P<value>{UNSIGNED})(?:e(?P<e>[+-]?[0-9]+)"
    r"| ?(?:\\times|\\cdot|×|x|\*) ?10\^(?:(?P<power>[+-]?[0-9]+)|\{(?P<braced>[+-]?[0-9]+)\}))?",
    re.IGNORECASE,
)
LATEX_FRACTION = re.compile(
    rf"(?:(?P<whole>[0-9]+) ?)?\\[dtc]?frac ?(?:\{{ ?(?P<over>{SIGNED}) ?\}}|(?P<top>[0-9])) ?"
    rf"(?:\{{ ?(?P<under>{SIGNED}) ?\}}|(?P<bottom>[0-9]))"
)
SLASH_FRACTION = re.compile(rf"(?:(?P<whole>[0-9]+) )?(?P<over>{UNSIGNED}) ?/ ?(?P<under>{SIGNED})")
# Bounded, so that a long row of thousands that is none is not read again from each of its places.
IN_TEXT = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,10}+(?![0-9])(?:\.[0-9]++)?|[0-9]++(?:\.[0-9]++)?|\.[0-9]++)"
NUMBER_IN_TEXT = re.compile(
    r"(?:(?<![\w.)\]}])[-+−])?+(?:\\?\$)?+(?:(?:[0-9]++ ?)?+\\[dtc]?frac(?:\{-?+" + IN_TEXT + r"\}|[0-9])"
    rf"(?:\{{-?+{IN_TEXT}\}}|[0-9])|[0-9]++ [0-9]++/[0-9]++(?![.0-9])|{IN_TEXT}(?: ?/ ?{IN_TEXT})?+%?+)"
)
PREFIX = re.compile(r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?\w\}?)? ?= ?")
UNITS = frozenset(
    "acres bytes calories cents centimeter centimeters cm cubic day days degree degrees dollar dollars euro euros feet foot "
    "ft gallon gallons gram grams hour hours inch inches kg kilogram kilograms kilometer kilometers km kph liter liters "
    "meter meters mg mile miles minute minutes ml mm month months mph ounce ounces per percent point points pound pounds "
    "radians second seconds sq square ton tons unit units week weeks yard yards year years".split()
)


@checked
def last_boxed(text: str) -> str | None:
    r"""Return what is in the last `\boxed{}` of a text, braces matched; `None` without one or if it is not closed.

    A box without braces, `\boxed 5`, holds what follows up to the next space or dollar sign, as in some references of MATH.

    Args:
        text (`str`): what was written.
    """
    return _boxed(text, text.rfind("\\boxed"))


@checked
def first_boxed(text: str) -> str | None:
    r"""Return what is in the first `\boxed{}` of a text, as [`last_boxed`] does that in the last.

    Args:
        text (`str`): what was written.
    """
    return _boxed(text, text.find("\\boxed"))


@checked
def tagged_answer(text: str, tag: str = "answer") -> str | None:
    """Return what is between the last `<answer>` and its `</answer>`, without white space around it, or `None`.

    Args:
        text (`str`): what was written.
        tag (`str`, *optional*, defaults to `"answer"`): name of the tags.
    """
    start = text.rfind(f"<{tag}>")
    end = text.find(f"</{tag}>", start)
    return text[start + len(tag) + 2 : end].strip() if -1 < start < end else None


@checked
def worded_answer(text: str) -> str | None:
    """Return what follows the last "The answer is" on its line, without the full stop and what is said after it, or `None`.

    Args:
        text (`str`): what was written.
    """
    start = None
    for match in WORDED.finditer(text):
        start = match.end()
    if start is None:
        return None
    return FULL_STOP.split(text[start:].partition("\n")[0], maxsplit=1)[0].strip() or None


@checked
def multiple_choice(text: str, letters: str = "ABCD") -> str | None:
    """Return the letter of the chosen option: in the last box, else in the answer tags, else in "the answer is (B)".

    Args:
        text (`str`): what was written.
        letters (`str`, *optional*, defaults to `"ABCD"`): the letters of the options, capitals.

    Raises:
        ValueError: for other `letters`.
    """
    if not re.fullmatch("[A-Z]+", letters):
        raise ValueError(f"`letters` has to be capitals, at least one, but is {shown(letters)}.")
    letter = f"[{letters}]"
    for stated in (last_boxed(text), tagged_answer(text)):
        if stated is None:
            continue
        # A letter by itself, or marked off from the option's words: "A dog" is no letter.
        pattern = rf"(?:option|choice|answer:?)?(?:\(({letter})\).*|({letter})(?:[.:)].*)?)"
        match = re.fullmatch(pattern, clean_latex(stated[:LONGEST_ANSWER]), re.I | re.S)
        if match:
            return (match[1] or match[2]).upper()
    words = re.sub(r"[*_$\s]++", " ", text)
    stated = re.findall(
        rf"\b(?i:answer(?: is)?|(?:option|choice) is) ?:? ?(?i:option |choice )?(?:\(({letter})\)|({letter})(?![\w'])(?! [a-z]))",
        words,
    )
    return "".join(stated[-1]) if stated else None


@checked
def last_number(text: str) -> str | None:
    r"""Return the last number in a text as it is written there, such as `$1,200`, `-3.5`, `2/3`, `\frac{1}{2}` or `40%`.

    Args:
        text (`str`): what was written.
    """
    last = None
    for match in NUMBER_IN_TEXT.finditer(text):
        last = match[0]
    return last


@checked
def numeric_answer(text: str) -> str | None:
    """Return the number that an answer states, in canonical form, or `None`: "2 * 9 = 18 eggs" states 18.

    That is the answer as a whole if it is a number, else the first number after the last equals sign, else the first one.

    Args:
        text (`str`): an answer, such as what is in a box.
    """
    text = THIN_SPACES.sub("", text.replace("{,}", ","))
    for part in (text.rpartition("=")[2], text):
        number = parse_number(part)
        match = NUMBER_IN_TEXT.search(part) if number is None else None
        number = parse_number(match[0]) if match else number
        if number is not None:
            return str(number)
    return None


@checked
def parse_number(text: str) -> Fraction | None:
    r"""Return the exact value of a text that is a number, or `None`: no expression is computed.

    Numbers are `1,200`, `-3.50`, `2/3`, `\frac{2}{3}`, `\frac23`, `1 1/2`, `1\frac{1}{2}`, `6e3` and `6 \times 10^3`. Signs of
    currency and a percent sign are units, as in the references of the benchmarks: `50%` is 50. Refused are texts of more than
    100 characters, numbers that would need more, exponents beyond 100, and a denominator of 0.

    Args:
        text (`str`): the number.
    """
    if len(text) > LONGEST_NUMBER:
        return None
    text = THIN_SPACES.sub("", text.replace("{,}", ",").replace("−", "-"))
    text = " ".join(text.split()).removesuffix("\\%").removesuffix("%").strip("$ ")
    sign, text = ("-" if text.startswith("-") else ""), re.sub(r"^[+-] ?", "", text)
    text = re.sub(r"^(?:\\?\$|[€£]) ?|(?:\\%|%| ?\\\$| ?[€£])$", "", text)
    value = _unsigned(text)
    if value is None:
        return None
    value = -value if sign else value
    return value if len(str(value)) <= LONGEST_NUMBER else None


@checked
def normalize_answer(answer: str) -> str:
    """Return the canonical form of an answer: two answers are equal if theirs are. It never raises, and is idempotent.

    Numbers are written as reduced fractions, also as members of a tuple or list; a common unit after a number goes, as does
    a prefix such as `x =` and a final period; LaTeX is cleaned by [`clean_latex`]; plain words are put in lower case.
    Expressions are not computed: `2\\sqrt{2}` is not `\\sqrt{8}`, and lists are not sorted. Of more than 1,000 characters only
    white space is made alike.

    Args:
        answer (`str`): what is in a box, or a reference.
    """
    start = " ".join(answer.split())
    text = start
    for _ in range(MOST_PASSES if len(start) <= LONGEST_ANSWER else 0):
        cleaned = _clean(text)
        if cleaned == text:
            return text
        text = cleaned
    return start  # too long, or nested beyond all use: its own canonical form


@checked
def are_equal_answers(a: str, b: str) -> bool:
    """Return whether two answers mean the same, as far as [`normalize_answer`] sees.

    Args:
        a (`str`): an answer.
        b (`str`): another one, such as the reference.
    """
    return normalize_answer(a) == normalize_answer(b)


def _boxed(text: str, start: int) -> str | None:
    match = BOX.match(text, start) if start >= 0 else None
    if match is None or match[1] is None:
        return match[2] or None if match else None
    depth = 0
    for brace in BRACE.finditer(text, match.start(1)):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # an escaped brace is none
        if depth == 0 and brace[0] == "}":
            return text[match.end(1) : brace.start()].strip()
    return None


def _unsigned(text: str) -> Fraction | None:
    decimal = DECIMAL.fullmatch(text)
    if decimal:
        exponent = int(decimal["e"] or decimal["power"] or decimal["braced"] or 0)
        if abs(exponent) > LARGEST_EXPONENT:
            return None
        return _value(decimal["value"]) * Fraction(10) ** exponent
    fraction = LATEX_FRACTION.fullmatch(text) or SLASH_FRACTION.fullmatch(text)
    if not fraction:
        return None
    parts = fraction.groupdict()
    over, under = (_value(parts[name] or parts[other]) for name, other in (("over", "top"), ("under", "bottom")))
    return int(parts["whole"] or 0) + over / under if under else None


def _value(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def _clean(text: str) -> str:
    """Return the text after one pass; passes are repeated until nothing changes."""
    number = parse_number(_without_unit(text))
    if number is not None:
        return str(number)
    text = text.strip("$ ").rstrip(". ")
    wrapped = WRAPPED.fullmatch(text)
    text = wrapped[1].strip() if wrapped else text
    if _are_words(text):
        return text.lower()
    text = clean_latex(text).strip().rstrip(".").strip()
    prefix = PREFIX.match(text)
    if prefix and text.count("=") == 1:
        text = text[prefix.end() :]
    if re.fullmatch(r"\([A-Za-z]\)", text):
        return text[1]
    return text if parse_number(text) is not None else _with_numbers(text)


def _are_words(text: str) -> bool:
    """Return whether a text is words of a language and not, such as `ab - c`, a formula."""
    lengths = [len(word) for word in re.split("[' -]", text)] if WORDS.fullmatch(text) else [0]
    return min(lengths) >= 2 or max(lengths) >= 3


def _without_unit(text: str) -> str:
    """Return a short text without the unit words that it ends with."""
    match = re.search(r"(?<=[0-9} ])[A-Za-z]+(?: [A-Za-z]+)*\.?$", text) if len(text) <= LONGEST_NUMBER else None
    if match and all(word in UNITS for word in match[0].rstrip(".").lower().split()):
        return text[: match.start()].strip()
    return text


def _with_numbers(text: str) -> str:
    """Return a tuple, interval or list with its members that are numbers in canonical form, and a space after commas."""
    depth, members = 0, [""]
    opening, closing = re.match(r"\(|\[|\\\{|", text)[0], re.search(r"(?:\)|\]|\\\}|)$", text[-2:])[0]
    is_bracketed = bool(opening and closing) and len(text) >= len(opening + closing)
    inner = text[len(opening) : -len(closing)] if is_bracketed else text
    for part in re.split(r"([()\[\]{}]|, *+)", inner):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(part, 0)
        if part[:1] == "," and depth == 0:
            members.append("")
        else:
            members[-1] += ", " if part[:1] == "," else part
    if len(members) == 1:
        return text
    numbers = [parse_number(member) for member in members]
    written = ", ".join(member if n is None else str(n) for member, n in zip(members, numbers, strict=True))
    return f"{opening}{written}{closing}" if is_bracketed else written
