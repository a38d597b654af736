"""What a split gives away: chance, majority, prompts and targets in training, too."""

import pytest
from datasets import Dataset

from ldlm_hf.splits import baselines_of_chance, share_of_known_targets, split_overlap
from ldlm_hf.tasks import get_task
from tests.tiny import tiny_problems


def test_chance_and_majority_are_taken_from_the_training_answers():
    assert baselines_of_chance(["7", "7", "8", "9"], ["7", "8", "8", "8"]) == {"chance": 1 / 3, "majority": 0.25}
    ties = [baselines_of_chance(answers, ["7"])["majority"] for answers in (["8", "7"], ["7", "8"])]
    assert ties[0] == ties[1]
    with pytest.raises(ValueError, match="test_answers"):
        baselines_of_chance(["7"], [])


def test_shared_prompts_are_counted():
    one, other = (Dataset.from_dict({"prompt": prompts}) for prompts in (["a", "b", "c"], ["c", "d", "c"]))
    assert split_overlap(one, other) == 1
    assert split_overlap(tiny_problems("train", None), tiny_problems("test", None)) == 0


def test_targets_that_training_problems_have_too_are_counted_by_test_problem():
    train, test = (Dataset.from_dict({"target": targets}) for targets in (["a", "b", "a"], ["b", "b", "c", "d"]))
    assert share_of_known_targets(train, test) == 0.5
    with pytest.raises(ValueError, match="target"):
        share_of_known_targets(train, Dataset.from_dict({"prompt": ["a"]}))
    with pytest.raises(ValueError, match="test"):
        share_of_known_targets(train, test.select([]))


def test_further_problems_bring_the_targets_of_held_out_ones():
    test = get_task("three_operations").to_dataset("test")
    alone, more = (
        share_of_known_targets(get_task("three_operations", with_two_digits=further).to_dataset("train"), test)
        for further in (False, True)
    )
    assert alone < 0.9 < 0.99 < more
