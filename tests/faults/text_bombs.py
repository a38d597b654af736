"""Texts that stall or break what reads them, as functions of their length in characters, and everything that reads answers."""

from __future__ import annotations

from collections.abc import Callable

from ldlm_hf.d1.rewards import BLOCK, REWARD_MAKERS, REWARDS, _program
from ldlm_hf.d1.styles import style_figures, style_reward
from ldlm_hf.hex.tally import vote_key
from ldlm_hf.ladir.block_splitter import MODES, BlockSplitter
from ldlm_hf.metrics.scores import answer_scores, chain_scores
from ldlm_hf.metrics.texts import diversity_scores, length_ratios, reconstruction_scores
from ldlm_hf.tasks import TASKS, Problem, Task, answers, are_equal_answers, latex
from ldlm_hf.tasks.countdown_solutions import expression_key
from ldlm_hf.tasks.countdown_solver import read_expression
from ldlm_hf.tasks.reasoning_gym import may_be_scored
from ldlm_hf.tasks.sudoku import solutions
from ldlm_hf.voting import majority_vote, minimum_bayes_risk, ngram_f1


Reader = Callable[[str], object]
FORM = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>"
UNITS = {  # what is repeated
    "spaces": " ", "tabs and lines": "\t\n", "lines": "\n", "digits": "7", "zeros": "0", "minus signs": "-", "plus and minus": "+-",
    "points": ".", "commas": ",", "thousands": "1,234,", "thousands that break off": "123,4567 ", "slashes": "/", "1/": "1/",
    "1 1/": "1 1/", "fractions": "1/2 ", "percents": "5%", "dollars": "$", "dollars and digits": "$1", "minus dollars": "-$",
    "equals signs": "=", "x=": "x=", "x = ": "x = ", "exponents": "1e9", "e": "e", "powers": "9**", "times": "1\\times10^{", "round brackets": "(",
    "square brackets": "[", "braces": "{", "closing brackets": ")]}", "pairs of brackets": "()", "brackets that cross": "([)]{(})",
    "backslashes": "\\", "fraction commands": "\\frac", "fractions of fractions": "\\frac{1}{", "short fractions": "\\frac12", "digits and fractions": "1\\frac",
    "roots": "\\sqrt", "roots of roots": "\\sqrt{", "roots with degrees": "\\sqrt[", "boxes": "\\boxed{", "boxes and spaces": "\\boxed  ", "boxes without braces": "\\boxed ",
    "text": "\\text{", "closed text": "\\text{a}", "left": "\\left(", "thin spaces": "\\!", "commas in braces": "{,}", "degrees": "^\\circ", "degrees in braces": "^{\\circ}",
    "powers of powers": "^{", "indices": "_{1}", "answer tags": "<answer>", "closed answer tags": "</answer>", "pairs of tags": "<answer></answer>", "tags on lines": "<answer>\n",
    "reasoning tags": "<reasoning>", "both tags": "<reasoning></reasoning>", "almost the form": "<reasoning></reasoning> <answer>", "tags that cross": "<answer></reasoning>",
    "angles": "<", "hashes": "####", "hashes and digits": "#### 1 ", "backquotes": "```", "blocks": "```python\n", "closed blocks": "```python\nx\n```\n", "blocks without lines": "```a ",
    "definitions": "def f(\n", "letters": "A", "letters and points": "A. ", "letters in brackets": "(A)", "the answer is": "the answer is ", "answer:": "answer: ",
    "answers and letters": "answer is (A) ", "stars": "*", "stars and spaces": "* ", "underscores": "_", "words": "word ", "a word": "a", "words with dashes": "ab-", "apostrophes": "a'",
    "units": "5 cm ", "unit words": "cm ", "quotes": "'\"", "zero bytes": "\0", "accents": "e\u0301", "wide digits": "\uff11", "Arabic digits": "\u0661", "superscripts": "\u00b2",
    "fractions of one sign": "\u00bd", "minus of mathematics": "\u2212", "right to left": "\u202e", "surrogates": "\ud800", "faces": "\U0001f600", "Roman numerals": "\u2167", "spaces of other widths": "\u2003",
    "separators": "\u2028", "arrows": "> ", "sudoku": ">1234", "cells": "1 2\n3|4", "up": "up ", "sums": "1+", "products": "2*", "sums and spaces": "1 + ", "chains": "3+5+2 8+2 ", "not": "not ", "commas and digits": "1, ", "tuples": "(1, ",
    "sentences": "Mr. ", "sentences that end": "a. ", "list marks": "1. ", "question marks": "? ", "e.g.": "e.g. ", "The answer is": "The answer is ",
}  # fmt: skip
WRAPS = {  # what stands around it, in the place of @
    "bare": "@", "in a box": "\\boxed{@}", "in a box that is open": "\\boxed{@", "in tags": "<answer>@</answer>", "in tags that are open": "<answer>@",
    "in the form": "<reasoning>\n@\n</reasoning>\n<answer>\n@\n</answer>", "after hashes": "#### @", "between numbers": "1@1", "after an equals sign": "x = @",
    "in brackets": "(@)", "in a block": "```python\n@\n```", "after text": "The answer is @",
}  # fmt: skip
GIANTS = {  # texts that are short, or stand for something large
    **{text: text for text in (
        "9**9**9", "9^9^9", "9**9**9**9", "1e999999", "1e-999999", "1e+999999999999", "1E400", "-1e400", "1e1e1", "1/0", "0/0", "-0", "0.0", ".", "-", "+",
        "1/1e999", "6 \\times 10^{999999999}", "6 \\times 10^{-999999999}", "10^999999999", "2^{999999999}", "\\frac{1}{0}", "\\frac10", "1\\frac{1}{0}", "nan", "inf", "-inf",
        "Infinity", "1_000", "0x10", "0b1", "1j", "True", "None", "1,2,3", "1,234,56", "12,34", "\u0661\u0662\u0663", "\uff11\uff12", "\u00b2", "\u00bd", "\u2167", "1\u0660",
        "\u0967/\u0968", "1\u066b5", "\\boxed", "\\boxed{", "\\boxed{}", "\\boxed{\\boxed{1}}", "\\boxed{1}\\boxed{", "\\boxed{}}", "}{", "<answer></answer>", "<answer>", "</answer><answer>",
        "", " ", "\n", "\0", "\ud800", "\x1b[2J", "\u202e1", "\r\n", "__import__('os').system('x')", "lambda: 0", "1 if 1 else 2", "[1]*10**9", "'a'*10**9", "f'{9**9**9}'",
        "9" * 101, "1." + "0" * 200 + "1", "1/" + "9" * 99, "(" * 50 + "1" + ")" * 50, "-" * 50 + "1", "1" + "+1" * 49, "9*" * 49 + "9", "1/" * 49 + "1", "1//1", "2**3", "1 - -1", "07+1", "1e5+1",
    )},
    "a million digits": "7" * 10**6, "a million digits behind the point": "0." + "7" * 10**6, "a fraction of them": "1/" + "7" * 10**6, "its exponent": "1e" + "7" * 10**6,
    "boxes nested 100,000 times": "\\boxed{" * 10**5 + "1" + "}" * 10**5, "boxes without an end": "\\boxed{" * 10**5, "brackets nested 100,000 times": "(" * 10**5 + "1" + ")" * 10**5,
    "fractions nested 100,000 times": "\\frac{1}{" * 10**5 + "1" + "}" * 10**5, "roots nested 100,000 times": "\\sqrt{" * 10**5 + "1" + "}" * 10**5, "texts nested 100,000 times": "\\text{" * 10**5 + "1" + "}" * 10**5,
    "powers nested 100,000 times": "2^{" * 10**5 + "1" + "}" * 10**5, "lists nested 100,000 times": "[" * 10**5 + "]" * 10**5, "tags nested 100,000 times": "<answer>" * 10**5 + "1" + "</answer>" * 10**5,
}  # fmt: skip
PUZZLE = "0140300200010020"
GRID = solutions(PUZZLE)[0]
PROBLEMS = {  # by task
    "addition": Problem("3+5+2+4", "14 8+2+4 10+4 14", "14"),
    "two_digit_addition": Problem("47+35", "82 12+70 82", "82"),
    "three_operations": Problem("6+(4*8)", "38 6+32 30+8 38", "38"),
    "rotation": Problem("1 3", "left up down up right", "left"),
    "sudoku": Problem(PUZZLE, GRID, GRID),
    "styled_sudoku": Problem(PUZZLE, f">{GRID}", GRID),
    "styled_latin_squares": Problem(PUZZLE, f">{GRID}", GRID),
    "countdown": Problem("19,36,55=72", "55+36-19", "55+36-19"),
    "styled_countdown": Problem("19,36,55=72", ">55+36-19", "55+36-19"),
    "mixed_countdown": Problem("9,2,5=12", "9+5-2", "9+5-2"),
    "gsm8k": Problem("1 + 1?", "So.\n\\boxed{2}", "2"),
    "math500": Problem("1 + 1?", "So.\n\\boxed{2}", "2"),
    "arc_challenge": Problem("1 + 1?\n\nA. 2\nB. 3", "\\boxed{A}", "A"),
    "truthful_qa": Problem("1 + 1?\n\nA. 2\nB. 3", "\\boxed{A}", "A"),
}


def bomb(unit: str, wrap: str, length: int) -> str:
    """Return a text of about `length` characters: a unit over and over, in what stands around it."""
    return WRAPS[wrap].replace("@", UNITS[unit] * (length // len(UNITS[unit])))


def readers() -> dict[str, Reader]:
    """Return all that reads what a model has written, or a person asks, by name; none of it may raise or take long."""
    found: dict[str, Reader] = {name: getattr(answers, name) for name in (
        "last_boxed", "first_boxed", "tagged_answer", "multiple_choice", "last_number", "numeric_answer", "parse_number", "normalize_answer",
    )}  # fmt: skip
    found["clean_latex"] = latex.clean_latex
    found["are_equal_answers"] = lambda text: are_equal_answers(text, "1") or are_equal_answers(text, text + " ")
    found["read_expression"], found["expression_key"] = read_expression, expression_key
    found["vote_key, normalized"] = lambda text: vote_key(text, answers.last_boxed(text), "normalized")
    found["vote_key, raw"] = lambda text: vote_key(text, answers.last_boxed(text), "raw")
    for name, problem in PROBLEMS.items():
        found |= task_readers(TASKS[name](), problem)
    found["human_eval: parse_answer"] = TASKS["human_eval"]().parse_answer
    for name, function in REWARDS.items():
        found[f"reward {name}"] = lambda text, f=function: f(prompts=["1"], completions=[text], answer=["1"])
        found[f"reward {name}, the reference"] = refusing(lambda text, f=function: f(["1"], ["1"], answer=[text]))
    found |= task_rewards()
    for mode in MODES:
        splitter = BlockSplitter(mode)
        found[f"BlockSplitter {mode}"] = refusing(splitter.split)
        found[f"BlockSplitter {mode}, target"] = refusing(lambda text, s=splitter: s.split_target(text, "1"))
    for name in ("countdown", "puzzle24", "n_queens", "binary_matrix"):
        found[f"may_be_scored {name}"] = lambda text, n=name: may_be_scored(n, text)
    found["program of a reward"] = lambda text: (_program(text), BLOCK.findall(text))
    found["ngram_f1"] = lambda text: (ngram_f1(text, "1 2"), ngram_f1(text, text[1:]))
    found["minimum_bayes_risk"] = lambda text: minimum_bayes_risk([text, "1", text[1:]])
    found["majority_vote"] = lambda text: majority_vote([text, None, text, "1"])
    found["diversity"] = lambda text: diversity_scores([text, "1 2"])
    found["length_ratios"] = lambda text: length_ratios([text, "1"], ["1 2", "1"])
    found["reconstruction"] = lambda text: reconstruction_scores([text, "1"], ["1 2", "1"])
    return found


def task_readers(task: Task, problem: Problem) -> dict[str, Reader]:
    """Return all ways in which a task looks at a text, by name."""
    prompt, target, answer = problem.prompt, problem.target, problem.answer
    found = {
        "parse_answer": task.parse_answer,
        "is_correct": lambda text: task.is_correct(text, prompt, answer),
        "partial_score": lambda text: task.partial_score(text, prompt, answer),
        "check_chain": lambda text: task.check_chain(text, target),
        "check_chain, the reference": lambda text: task.check_chain(target, text),
        "check_prompt": refusing(task.check_prompt),
        "answer_scores": lambda text: answer_scores([text, target], [target, target], task, [prompt, prompt]),
        "chain_scores": lambda text: chain_scores([text, target], [target, target], task),
    }
    return {f"{task.name}: {way}": reader for way, reader in found.items()}


def task_rewards() -> dict[str, Reader]:
    """Return the rewards that are made for a task, by name."""
    make_countdown, make_sudoku, make_task = (REWARD_MAKERS[name] for name in ("countdown", "sudoku", "task"))
    made = {}
    for tags in (True, False):
        made[f"countdown, tags {tags}"] = make_countdown(TASKS["countdown"](), tags=tags), "countdown"
        made[f"sudoku, tags {tags}"] = make_sudoku(tags=tags), "sudoku"
        made[f"addition, tags {tags}"] = make_task(TASKS["addition"](), tags=tags), "addition"
    made["style"], made["style, countdown"] = (style_reward, "styled_sudoku"), (style_reward, "styled_countdown")
    found: dict[str, Reader] = {}
    for name, (function, task) in made.items():
        prompt, answer = PROBLEMS[task].prompt, PROBLEMS[task].answer
        found[f"reward {name}"] = lambda text, f=function, p=prompt, a=answer: f(
            prompts=[p], completions=[text], answer=[a]
        )
    found["style_figures"] = lambda text: style_figures([text], [PUZZLE], [GRID])
    found["style_figures, countdown"] = lambda text: style_figures([text], ["19,36,55=72"], ["55+36-19"])
    return found


def refusing(function: Reader) -> Reader:
    """Return a function that may refuse a text by `ValueError`, and by nothing else."""

    def read(text: str) -> object:
        try:
            return function(text)
        except (RecursionError, OverflowError, UnicodeError):
            raise
        except ValueError as error:
            return str(error)[:100]

    return read
