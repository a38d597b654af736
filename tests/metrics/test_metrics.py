"""The evaluate modules: loaded by path without a Hub, alone and combined, against numbers counted by hand."""

import doctest
from pathlib import Path

import evaluate
import pytest

from ldlm_hf import load_metric, metrics
from ldlm_hf.metrics import METRICS, REASONING_METRICS
from ldlm_hf.tasks import Addition


REFERENCES = ["14 8+2+4 10+4 14", "6 3+3 6", "5 4+1 5", "9 8+1 9"]
PREDICTIONS = [
    "14 8+2+4 10+4 14",
    "6 3+4 7",
    "four",
    "8 8+1 9",
]  # right, right answer on a wrong chain, invalid, wrong


def test_answers_are_counted():
    result = load_metric("answer_accuracy").compute(predictions=PREDICTIONS, references=REFERENCES, task="addition")
    assert result == {"answer_accuracy": 0.5, "invalid_rate": 0.25, "num_problems": 4}


def test_chains_are_counted():
    result = load_metric("chain_accuracy").compute(predictions=PREDICTIONS, references=REFERENCES, task="addition")
    assert result == {
        "exact_match": 0.25,
        "step_accuracy": 5 / 9,  # 3 of 3, 0 of 2, 0 of 2, 2 of 2
        "consistency": 0.25,
        "invalid_output_rate": 0.25,
    }


def test_white_space_does_not_count():
    result = load_metric("chain_accuracy").compute(predictions=["  6 3+3\n6 "], references=["6 3+3 6"])
    assert result["exact_match"] == 1.0


def test_both_combine():
    combined = evaluate.combine([load_metric("answer_accuracy"), load_metric("chain_accuracy")])
    result = combined.compute(predictions=PREDICTIONS, references=REFERENCES, task="addition")
    alone = [load_metric(name).compute(predictions=PREDICTIONS, references=REFERENCES) for name in REASONING_METRICS]
    assert result == {**alone[0], **alone[1]}  # no key stands in both, else `combine` would rename it
    assert len(result) == len(alone[0]) + len(alone[1])


def test_answers_that_the_problem_judges_need_it():
    prompt, texts = "4,13,10=19", ["10+13-4", "13-4+10", "4+15"]  # two other ways, and one without its numbers
    given = {"predictions": texts, "references": ["13+10-4"] * 3, "task": "countdown"}
    result = load_metric("answer_accuracy").compute(**given, prompts=[prompt] * 3)
    assert result["answer_accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="prompts"):
        load_metric("answer_accuracy").compute(**given)
    with pytest.raises(ValueError, match="prompts"):
        load_metric("answer_accuracy").compute(**given, prompts=[prompt])


def test_a_combination_hands_the_problems_on():
    combined = evaluate.combine([load_metric("answer_accuracy"), load_metric("chain_accuracy")])
    given = {"predictions": ["10+13-4", "4+15"], "references": ["13+10-4"] * 2, "task": "countdown"}
    assert combined.compute(**given, prompts=["4,13,10=19"] * 2)["answer_accuracy"] == 0.5
    assert combined.compute(**given, verdicts=[True, True])["answer_accuracy"] == 1.0


def test_batches_add_up():
    metric = load_metric("answer_accuracy")
    metric.add_batch(predictions=PREDICTIONS[:1], references=REFERENCES[:1])
    metric.add_batch(predictions=PREDICTIONS[1:], references=REFERENCES[1:])
    assert metric.compute()["num_problems"] == 4


@pytest.mark.parametrize("name", REASONING_METRICS)
def test_an_unknown_task_is_refused(name):
    with pytest.raises(ValueError, match="poetry"):
        load_metric(name).compute(predictions=["1"], references=["1"], task="poetry")


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="bleu"):
        load_metric("bleu")


@pytest.mark.parametrize("name", REASONING_METRICS)
@pytest.mark.parametrize(
    ("predictions", "references"), [([], []), (["6 3+3 6"], []), (["6 3+3 6"], ["six"]), (["6"], ["6"])]
)
def test_nothing_to_count_and_references_of_no_task_are_refused(name, predictions, references):
    with pytest.raises(ValueError, match="predictions|references"):
        load_metric(name).compute(predictions=predictions, references=references)


def test_a_task_with_other_settings_can_be_given_itself():
    last = Addition(answer_position="last")
    result = load_metric("answer_accuracy").compute(predictions=["8+2 10"], references=["8+2 10"], task=last)
    assert result["answer_accuracy"] == 1.0


@pytest.mark.parametrize("name", REASONING_METRICS)
def test_the_folder_of_a_metric_loads_by_its_path(name):
    metric = evaluate.load(str(Path(metrics.__file__).parent / name))
    expected = load_metric(name).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == expected


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_loads_and_says_what_it_takes_and_returns(name):
    metric = load_metric(name)
    assert {"predictions"} <= set(metric.features) <= {"predictions", "references"}
    assert "Returns:" in metric.inputs_description and "Examples:" in metric.inputs_description


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ("bertscore", "perplexity")])
def test_examples_are_true(name):
    # those of the other two need weights
    example = doctest.DocTestParser().get_doctest(load_metric(name).inputs_description, {}, name, None, 0)
    results = doctest.DocTestRunner().run(example)
    assert results.attempted > 0 and results.failed == 0


def test_names_of_metrics_are_those_of_the_folders():
    folders = {path.parent.name for path in Path(metrics.__file__).parent.glob("*/__init__.py")}
    assert set(METRICS) == folders
    assert set(REASONING_METRICS) < set(METRICS)
    assert "bertscore" not in REASONING_METRICS  # it ignores order


def test_no_two_metrics_return_the_same_name():
    # else `evaluate.combine` would rename both
    texts = {"predictions": PREDICTIONS, "references": REFERENCES}
    names = [*REASONING_METRICS, "reconstruction", "length_ratio", "diversity"]
    found = [key for name in names for key in load_metric(name).compute(**texts)]
    assert len(found) == len(set(found))
    combined = evaluate.combine([load_metric(name) for name in names[2:]])
    assert set(combined.compute(**texts)) < set(found)
