"""The block splitter: what a block is in each mode, and where the answer begins."""

from fractions import Fraction

import pytest

from ldlm_hf.ladir.block_splitter import BlockSplitter, work_out
from ldlm_hf.tasks import Countdown
from ldlm_hf.tasks.countdown_solver import read_expression


@pytest.mark.parametrize(
    ("mode", "chain", "blocks"),
    [
        ("sentence", "She has 3.5 kg. That is, e.g. two bags!  Or 1? Yes.", 4),
        ("sentence", "1. Add 2 and 3. 2. Double it.", 2),
        ("sentence", "No end\nAnother line. And more", 3),
        ("line", "a = 1\n\nb = 2\n", 2),
        ("equation", "86+28=114,31-13=18, 114-18=96", 3),
        ("word", "7+5+4  12+4 16", 3),
        ("expression", "(3+4)*(5-2)", 3),
    ],
)
def test_each_mode_finds_its_blocks_and_loses_no_symbol(mode, chain, blocks):
    found = BlockSplitter(mode).split(chain)
    assert len(found) == blocks
    if mode != "expression":
        kept = "".join(found).replace(" ", "")
        assert kept == "".join(c for c in chain if c not in " \n" and (mode != "equation" or c != ","))


def test_a_decimal_point_an_abbreviation_and_a_number_of_a_list_end_no_sentence():
    assert BlockSplitter().split("1. It costs 2.50 now, cf. above. Fine.") == [
        "1. It costs 2.50 now, cf. above.",
        "Fine.",
    ]


def test_several_pieces_can_share_a_block():
    assert BlockSplitter("equation", pieces_per_block=2).split("1+1=2,2+2=4,3+3=6") == ["1+1=2,2+2=4", "3+3=6"]


def test_the_answer_begins_at_the_last_prefix():
    target = "The answer is near. We add. The answer is 7."
    assert BlockSplitter().split_target(target) == (["The answer is near.", "We add."], "The answer is 7.")


def test_without_the_prefix_the_answer_is_what_stands_last():
    assert BlockSplitter("word").split_target("7+5 12+0 12", "12") == (["7+5", "12+0"], "12")


@pytest.mark.parametrize(
    "end", ["\\boxed{\\frac{1}{2}}", "$\\boxed{\\frac{1}{2}}$.", "<answer>\n\\boxed{\\frac{1}{2}}\n</answer>"]
)
def test_a_box_at_the_end_is_the_answer_and_is_in_no_block(end):
    target = f"A coin has \\boxed{{2}} sides. One of them counts.\n{end}"
    chain, answer = BlockSplitter().split_target(target, "1/2")
    assert chain == ["A coin has \\boxed{2} sides.", "One of them counts."]
    assert answer == "\\boxed{\\frac{1}{2}}"


def test_a_box_that_more_follows_is_a_part_of_the_chain():
    chain = ["First \\boxed{2} {sides}.", "So {7}."]
    assert BlockSplitter().split_target(f"{' '.join(chain)} 7", "7") == (chain, "7")


@pytest.mark.parametrize(
    ("mode", "target", "answer", "name"),
    [
        ("line", "no end", None, "answer_prefix"),
        ("word", "12 7+5 12+0", "12", "does not end in"),  # it would be in the first block
        ("line", "The answer is 3.", None, "no chain"),
        ("expression", "3+", "3+", "expression"),
        ("expression", "31", "31", "nothing to work out"),
    ],
)
def test_what_cannot_be_split_is_refused(mode, target, answer, name):
    with pytest.raises(ValueError, match=name):
        BlockSplitter(mode).split_target(target, answer)


@pytest.mark.parametrize("arguments", [{"mode": "token"}, {"pieces_per_block": 0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        BlockSplitter(**arguments)


def test_the_equations_of_an_expression_are_true_and_end_in_its_value():
    assert work_out("55+36-19") == ["55+36=91", "91-19=72"]
    assert work_out("3/2-2") == ["3/2=3/2", "(3/2)-2=-1/2"]
    for problem in Countdown().to_dataset("test", 40):
        steps, answer = BlockSplitter("expression").split_target(problem["target"], problem["answer"])
        assert answer == problem["answer"]
        assert len(steps) == 2
        for step in steps:
            left, right = step.split("=")
            assert read_expression(left).value == Fraction(right)
        assert Fraction(right) == read_expression(answer).value
