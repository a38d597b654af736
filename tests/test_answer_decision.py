"""When answers are decided: counted by hand on a real pipeline, and independent of the batch size."""

import pytest
from datasets import Dataset

from ldlm_hf.evaluation import answer_decision, decoding_trajectory, evaluate_pipeline
from tests.test_evaluation import latent_writer
from tests.tiny import tiny_pipeline, tiny_problems


def problems_with_answers_of(pipeline, size: int) -> Dataset:
    """Return problems of which every second has the answer that the pipeline will give."""
    problems = tiny_problems("test", size)
    records = evaluate_pipeline(pipeline, problems, num_inference_steps=4, show_progress=False)
    answers = [record.predicted_answer if i % 2 else "none" for i, record in enumerate(records)]
    return Dataset.from_dict({**problems[:], "answer": answers})


def test_shares_equal_counting_by_hand_one_problem_at_a_time():
    pipeline = latent_writer()
    problems = problems_with_answers_of(pipeline, 10)
    decision = answer_decision(pipeline, problems, 4, show_progress=False)
    for batch_size in (1, 3):
        assert decision == answer_decision(pipeline, problems, 4, batch_size=batch_size, show_progress=False)
    final = evaluate_pipeline(pipeline, problems, num_inference_steps=4, show_progress=False)
    assert decision[-1]["share_correct"] == sum(record.is_correct for record in final) / 10 == 0.5
    assert decision[-1]["share_final"] == 1
    assert 0 < decision[0]["share_final"] < 1
    assert [step["timestep"] for step in decision] == [999, 749, 499, 249]
    assert all(step["num_problems"] == 10 for step in decision)


def test_texts_without_an_answer_are_never_final():
    decision = answer_decision(tiny_pipeline(), tiny_problems("test", 4), 2, show_progress=False)
    records = evaluate_pipeline(tiny_pipeline(), tiny_problems("test", 4), num_inference_steps=2, show_progress=False)
    assert decision[-1]["share_final"] == sum(record.predicted_answer is not None for record in records) / 4


def test_a_trajectory_ends_in_the_answer():
    pipeline = latent_writer()
    trajectory = decoding_trajectory(pipeline, "1+2+3", num_inference_steps=5)
    assert [timestep for timestep, _ in trajectory] == [999, 799, 599, 399, 199]
    assert len({text for _, text in trajectory}) > 1
    other = decoding_trajectory(pipeline, "1+2+3", num_inference_steps=5, seed=1)
    assert other[-1] != trajectory[-1]


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="dataset"):
        answer_decision(tiny_pipeline(), Dataset.from_dict({"prompt": ["1+1+1"]}))
    with pytest.raises(ValueError, match="batch_size"):
        answer_decision(tiny_pipeline(), tiny_problems("test", 2), batch_size=0)
