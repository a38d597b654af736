"""Generators, sampling of answers, rows that leave, and the choice of a trajectory."""

import pytest
import torch

from ldlm_hf.ladir.denoising import append_answer, read_question
from ldlm_hf.ladir.selection import choose_trajectories, task_verifier
from ldlm_hf.ladir.trajectories import Trajectories, trajectory_generators, write_answers
from ldlm_hf.tasks import Addition, Countdown
from tests.ladir.tiny_ladir import randn, tiny_batch, tiny_reasoner


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(generators: list[torch.Generator]) -> list[float]:
    return [torch.rand(1, generator=generator).item() for generator in generators]


def test_more_trajectories_change_none_of_those_before():
    lone, few, many = (drawn(trajectory_generators(seeded(3, 5), 2, count)) for count in (1, 2, 4))
    assert lone == drawn(seeded(3, 5))
    assert [few[0], few[2]] == lone
    assert [*many[:2], *many[4:6]] == few
    assert len(set(many)) == 8


def test_one_generator_serves_any_number_of_rows():
    assert drawn(trajectory_generators(seeded(3)[0], 1, 3)) == drawn(trajectory_generators(seeded(3), 1, 3))
    assert len(set(drawn(trajectory_generators(seeded(3)[0], 2, 2)))) == 4
    assert len(set(drawn(trajectory_generators(None, 2, 2)))) == 4
    own = seeded(1, 2, 3, 4)
    assert trajectory_generators(own, 2, 2) is own


def test_samples_follow_the_tempered_distribution():
    model = tiny_reasoner()
    prefix = read_question(model, torch.tensor([[0, 5, 6]]), torch.ones(1, 3)).repeat(1500)
    expected = (append_answer(model, prefix.select(torch.tensor([0])), None)[1][0] / 0.7).softmax(-1)
    written = write_answers(model, prefix, seeded(*range(1500)), 1, 0.7)
    tokens = [row[0] if row else model.config.eos_token_id for row in written]
    frequencies = torch.bincount(torch.tensor(tokens), minlength=len(expected)) / 1500
    assert (frequencies - expected).abs().max() < 4 * (0.25 / 1500) ** 0.5


def test_a_written_answer_depends_on_its_own_generator_only():
    model, batch = tiny_reasoner(), tiny_batch()
    prefix = read_question(model, batch["question_ids"], batch["question_mask"])
    together = write_answers(model, prefix, seeded(1, 2, 3), 6, 1.0)
    for row in range(3):
        assert write_answers(model, prefix.select(torch.tensor([row])), seeded(row + 1), 6, 1.0) == [together[row]]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rows_that_leave_change_nothing_for_the_others(scale):
    model, batch = tiny_reasoner(), tiny_batch()
    parts = (batch["question_ids"], batch["question_mask"])
    thinking = Trajectories(model, *parts, seeded(*range(6)), scale)
    assert thinking.questions.tolist() == [0, 0, 1, 1, 2, 2]
    latents, t = thinking.noise(), torch.tensor(0.7)
    assert torch.equal(latents[4], torch.randn(latents.shape[1:], generator=seeded(4)[0]))
    probability = thinking.append(latents)
    assert ((0 < probability) & (probability < 1)).all()
    before = thinking.velocity(randn(6, *latents.shape[1:]), t)
    is_done = torch.tensor([False, True, False, False, True, True])
    rows, prefix, generators = thinking.leave(is_done)
    assert rows.tolist() == [1, 4, 5]
    assert len(generators) == len(prefix.mask) == 3
    assert thinking.questions.tolist() == [0, 1, 1]
    after = thinking.velocity(randn(6, *latents.shape[1:])[~is_done], t)
    torch.testing.assert_close(after, before[~is_done], atol=1e-5, rtol=1e-4)


def test_guidance_goes_from_the_null_beyond_the_conditional():
    model, batch = tiny_reasoner(), tiny_batch()
    parts, t = (batch["question_ids"], batch["question_mask"], seeded(0, 1, 2)), torch.tensor(0.4)
    latents = randn(3, *batch["noise"].shape[-2:])
    plain, guided, more = (Trajectories(model, *parts, scale) for scale in (1.0, 0.0, 2.5))
    null = guided.velocity(latents, t)
    expected = null + 2.5 * (plain.velocity(latents, t) - null)
    torch.testing.assert_close(more.velocity(latents, t), expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(more.append(latents), plain.append(latents))  # stops see the true question


TEXTS = ["a", "b", "c", "c", "x", "y", "z", "y"]


@pytest.mark.parametrize(
    ("select", "accepted", "rows"),
    [
        ("first", "", [0, 4]),
        ("majority", "", [2, 5]),
        ("verifier", "bz", [1, 6]),
        ("verifier", "c", [2, 5]),
        ("verifier", "", [2, 5]),
    ],
)
def test_the_chosen_trajectory_is_the_first_the_majoritys_or_an_accepted_one(select, accepted, rows):
    verifier = None if select != "verifier" else lambda text, prompt: text in accepted
    assert choose_trajectories(TEXTS, TEXTS, ["p", "q"], 4, select, verifier) == rows


def test_trajectories_without_an_answer_cast_no_vote():
    assert choose_trajectories(TEXTS[:4], [None, None, None, "c"], ["p"], 4, "majority") == [3]
    assert choose_trajectories(TEXTS[:4], [None] * 4, ["p"], 4, "majority") == [0]
    assert choose_trajectories(TEXTS[:4], [None] * 4, ["p"], 4, "verifier", lambda text, prompt: text == "b") == [1]


def test_only_a_task_that_needs_no_reference_verifies():
    verifier = task_verifier(Countdown())
    assert verifier("55+36-19", "19,36,55=72")
    assert not verifier("55+36", "19,36,55=72")
    assert task_verifier(Addition()) is None
    assert task_verifier(None) is None
