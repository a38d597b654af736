"""Answers read out of texts and made alike: numbers against exact fractions, boxes against a plain reading, odd texts."""

import random
import signal
from fractions import Fraction

import pytest

from ldlm_hf.tasks.answers import (
    are_equal_answers,
    first_boxed,
    last_boxed,
    last_number,
    multiple_choice,
    normalize_answer,
    numeric_answer,
    parse_number,
    tagged_answer,
    worded_answer,
)


EXTRACTORS = (
    first_boxed,
    last_boxed,
    last_number,
    multiple_choice,
    numeric_answer,
    parse_number,
    tagged_answer,
    worded_answer,
)
PIECES = [
    "\\frac", "\\dfrac", "\\sqrt", "\\left", "\\right", "\\text", "\\text{ cm}", "\\mbox{", "\\boxed{", "\\pi", "\\", "{", "}",
    "(", ")", "[", "]", "\\{", "\\}", "^", "_", "^\\circ", ",", ", ", ".", " ", "$", "\\$", "%", "\\%", "=", "1", "2", "12", "1,234",
    ".5", "1/2", "E5", "-", "−", "+", "/", "x", "x=", "A", "(A)", "East side", "5 dollars", "\\!", "\\,", "\\ ", "~", "\\infty",
    "°", "½", "Ⅷ", "٣", "İ", "ß", "\n", "\x00", "\ud800", "<answer>", "</answer>",
]  # fmt: skip


def random_texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(count)]


def spellings(value: Fraction) -> list[str]:
    """Return ways to write a fraction, made without what is tested."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    found = [f"{sign}{top}/{bottom}", f"{sign}{3 * top} / {3 * bottom}", f"{sign}{top:,}/{bottom}"]
    for command in ("\\frac", "\\dfrac", "\\tfrac"):
        found += [f"{sign}{command}{{{top}}}{{{bottom}}}", f"{command}{{{sign}{2 * top}}}{{ {2 * bottom} }}"]
    if top < 10 and bottom < 10:
        found += [f"{sign}\\frac{top}{bottom}", f"{sign}\\frac {top} {bottom}"]
    if top > bottom > 1:
        whole, rest = divmod(top, bottom)
        found += [f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}", f"{sign}{whole} {rest}/{bottom}"]
    if bottom == 1:
        found += [
            f"{sign}{top}",
            f"{sign}{top}.",
            f"{sign}{top:,}.00",
            f"{sign}{top}e0",
            f"{sign}{top} \\times 10^{{0}}",
        ]
        found += [f"{sign}{top:,}".replace(",", comma) for comma in (",\\!", "{,}")]
    return [form.format(text) for text in found for form in ("{}", "${}$", "{}\\%", " {} ")]


def test_every_spelling_of_a_number_has_its_exact_value_and_one_canonical_form():
    rng = random.Random(0)
    values = {Fraction(rng.randint(-20_000, 20_000), rng.choice([1, 1, 2, 3, 8, 25])) for _ in range(150)}
    values |= {Fraction(n, d) for n in range(-9, 10) for d in (1, 2, 7)}
    for value in values:
        for text in spellings(value):
            assert parse_number(text) == value, text
            assert normalize_answer(text) == str(value), text
    forms = [normalize_answer(spellings(value)[0]) for value in values]
    assert len(set(forms)) == len(values)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,200.50", "2401/2"), ("\\$18.90", "189/10"), ("-$5", "-5"), ("+7", "7"), ("−3", "-3"), (".25", "1/4"),
        ("40%", "40"), ("€3", "3"), ("6.5 \\times 10^3", "6500"), ("2e-2", "1/50"), ("007", "7"), ("12 345", None),
        ("1,23", None), ("1,2345", None), ("1, 234", None), ("1/0", None), ("\\frac{1}{0}", None), ("x", None), ("", None),
        ("9**9**9", None), ("2^{10}", None), ("1e999999999", None), ("1e101", None), ("10^{99999}", None), ("1+1", None),
        ("1" * 101, None), ("٣", None), ("½", None), ("nan", None), ("inf", None), ("1_000", None), ("0x10", None),
    ],
)  # fmt: skip
def test_what_is_a_number_and_what_is_not(text, value):
    assert parse_number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    "alike",
    [
        ["5", "5.0", "$5", "5 dollars", "x = 5", "x=5.", "5\\text{ cm}^2", "5^\\circ", "5^{\\circ}", "5 degrees", "\\text{5}"],
        ["1/2", "\\frac{1}{2}", "\\frac12", "0.5", "\\dfrac 1 2", ".5", "\\tfrac{2}{4}", "$\\frac12$"],
        ["2\\sqrt{5}", "2\\sqrt5", "2 \\sqrt 5", "2\\sqrt{5}\\text{ inches}", "2\\sqrt5."],
        ["\\frac{\\sqrt{3}}{2}", "\\frac{\\sqrt3}2", "\\dfrac{\\sqrt 3}{2}", "\\frac{ \\sqrt{3} }{ 2 }"],
        ["\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac\\pi2)", "( 3.0 , \\dfrac{\\pi}{2} )"],
        ["(1/2, -13)", "\\left(\\frac{1}{2},-13\\right)", "(0.5,-13)"],
        ["\\{1, 2\\}", "\\left\\{1,2\\right\\}", "\\lbrace 1,2.0\\rbrace"],
        ["x^{2} + 1", "x^2+1"], ["1, -2", "1,-2", "1.0,  -2"], ["x \\leq 3", "x\\le3", "x ≤ 3"],
        ["East side", "east  side", "\\text{East side}", "East side."], ["C", "\\text{(C)}", "(C)", "\\textbf{C}."],
        ["11,\\!111,\\! 100", "11,111,100", "11{,}111{,}100", "11111100"], ["p - q", "p-q"], ["y = 2x", "2x"],
    ],
)  # fmt: skip
def test_answers_that_mean_the_same_are_equal(alike):
    assert {normalize_answer(answer) for answer in alike} == {normalize_answer(alike[0])}
    assert all(are_equal_answers(alike[0], answer) for answer in alike)


def test_answers_that_differ_are_not_equal():
    different = [
        "5", "-5", "50", "1/5", "1 2", "12", "(1, 234)", "1234", "1, 234", "(1,2)", "[1,2]", "(1,2]", "2x", "2y", "x=1, y=2",
        "\\sqrt{2}", "\\sqrt{3}", "\\pi", "\\infty", "-\\infty", "A", "B", "a", "east", "west", "4210_5", "421_{05}", "x^2", "",
        "\\text{a} < 5", "5 < x", "x - 1", "x-y", "\\sqrt[3]{2}", "10_{\\text{six}}", "10_{\\text{two}}", "\\frac{x}{2}",
    ]  # fmt: skip
    assert len({normalize_answer(answer) for answer in different}) == len(different)


def test_the_canonical_form_is_its_own_and_no_text_is_refused():
    for text in random_texts(4000):
        canonical = normalize_answer(text)
        assert normalize_answer(canonical) == canonical
        for extract in EXTRACTORS:
            extract(text)


def test_boxes_are_read_as_a_count_of_braces_reads_them():
    rng = random.Random(0)
    for _ in range(500):
        inside = "".join(rng.choices(["{", "}", "1", " ", "\\frac"], k=rng.randint(0, 6)))
        depth, expected = 1, None
        for place, character in enumerate(f"{inside}}} and so on"):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                expected = inside[:place].strip() if place < len(inside) else inside.strip()
                break
        text = f"So \\boxed{{{inside}}} and so on"
        assert last_boxed(text) == first_boxed(text) == expected


def test_the_last_box_and_the_first_one():
    text = "\\boxed{1} then \\boxed{\\frac{2}{3}} and \\boxed {\\{4\\}}."
    assert (first_boxed(text), last_boxed(text)) == ("1", "\\{4\\}")
    assert last_boxed("\\boxed{1} or \\boxed{2") is None  # cut off
    assert last_boxed("\\boxed{\\left\\{ x }") == "\\left\\{ x"  # an escaped brace does not count
    assert (last_boxed("so \\boxed 5$."), last_boxed("\\boxed{}"), last_boxed("none")) == ("5", "", None)
    assert last_boxed("\\boxedtext{5}") is None
    assert last_boxed("\boxed{5}") is None  # a backspace, which d1's reward looked for


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("We add. The answer is 3.5.", "3.5"), ("the answer is: $\\frac12$. Is it?", "$\\frac12$"), ("The answer is 4", "4"),
        ("The answer is 3. No, THE ANSWER IS 12, at last\nor so", "12, at last"), ("The answer is", None), ("42", None),
        ("İİ The answer is 7.", "7"), ("The answer isn't 7", None), ("The answer is .5.", ".5"),
    ],
)  # fmt: skip
def test_worded_answers(text, stated):
    assert worded_answer(text) == stated


def test_tagged_answers():
    assert tagged_answer("<answer>1</answer> no: <answer>\n2 \n</answer> end") == "2"
    assert tagged_answer("<answer>1</answer><answer>2") is None
    assert tagged_answer("</answer> 1 <answer>") is None
    assert tagged_answer("<solution>7</solution>", tag="solution") == "7"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("\\boxed{B}", "B"), ("\\boxed{\\text{(B)}}", "B"), ("\\boxed{b}", "B"), ("\\boxed{B. Two}", "B"), ("\\boxed{(B) two}", "B"),
        ("<answer> C </answer>", "C"), ("<answer>\\boxed{A}</answer> The answer is D", "A"), ("\\boxed{Option D}", "D"),
        ("Not (A). The answer is (B).", "B"), ("Answer: **C**", "C"), ("the correct option is D, not A", "D"),
        ("the answer is A. Or no, the answer is B", "B"), ("the answer is A dog", None), ("\\boxed{A dog}", None),
        ("\\boxed{E}", None), ("\\boxed{}", None), ("A", None), ("Answer:  \n D", "D"), ("\\boxed{12} so the answer is (C)", "C"),
    ],
)  # fmt: skip
def test_letters_of_options(text, letter):
    assert multiple_choice(text) == letter


def test_letters_are_those_of_the_options():
    assert multiple_choice("\\boxed{E}", "ABCDE") == "E"
    assert multiple_choice("\\boxed{C}", "AB") is None


@pytest.mark.parametrize(
    ("text", "written", "number"),
    [
        ("2 * 9 = 18 eggs", "18", "18"), ("\\$1,200", "\\$1,200", "1200"), ("16-3-4 = 9", "9", "9"), ("18 dollars for 2", "2", "18"),
        ("about -3.50.", "-3.50", "-7/2"), ("a \\frac{1}{2} cup", "\\frac{1}{2}", "1/2"), ("1 1/2 cups", "1 1/2", "3/2"),
        ("40% off", "40%", "40"), ("in 5-10 days", "10", "5"), ("5 = x", "5", "5"), ("none", None, None), ("3 + 4", "4", "3"),
        ("2\\frac34", "2\\frac34", "11/4"), ("x = \\frac{-1}{2}", "\\frac{-1}{2}", "-1/2"), ("1,234,5678", "5678", "1"),
        ("11,\\!111 km", "111", "11111"), ("7.", "7", "7"),
    ],
)  # fmt: skip
def test_numbers_in_texts(text, written, number):
    assert last_number(text) == written
    assert numeric_answer(text) == number


def test_long_texts_that_are_made_to_be_slow_are_read_at_once():
    def stop(*_):
        raise AssertionError("took far more time than a reading that is linear in the text")

    bases = [
        "1", "1,", "1 ", "1/", "1.", "a", "a ", "ab-", " ", "{", "(1,2", ",", "$", "=", "x=", "\\", "-", "^{", "<answer>", ",234",
        "\\boxed{", "\\frac", "\\frac{1", "\\text{", "\\text{a}", "\\sqrt[", "answer ", "answer is (", "the answer is ", "the answer is .", "{,}", "1 1/",
    ]  # fmt: skip
    sizes = {**dict.fromkeys(EXTRACTORS, 300_000), normalize_answer: 100_000}
    pairs = [(base * (size // len(base)), extract) for base in bases for extract, size in sizes.items()]
    previous = signal.signal(signal.SIGVTALRM, stop)
    try:
        for text, extract in pairs:
            signal.setitimer(signal.ITIMER_VIRTUAL, 10)  # processor time of this process; a second is the most
            for whole in (text, f"1{text}5!"):
                extract(whole)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
