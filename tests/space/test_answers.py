"""What the page computes is what the same calls of the pipelines give anywhere else."""

from __future__ import annotations

from collections import Counter
from threading import Thread

import answers
import numpy
import pytest
import torch
from answers import END, MASK, answer, generator_of, held_out_problem, load, watch_masks
from checkpoints import find_checkpoints
from path_votes import hold_election
from pictures import canvas
from result_pages import answer_html, election_html, search_html
from settings import REMASKING_RULES, SCHEDULERS, SELECTIONS, Settings
from trains_of_thought import search
from verdicts import Judge

from ldlm_hf import HexPipeline, LaDiRPipeline, LatentReasoningPipeline, MaskedDiffusionPipeline
from ldlm_hf.ldlm.supported_schedulers import DOCUMENTED_SCHEDULERS
from ldlm_hf.schedulers import REMASKING
from tests.llada.tiny_llada import tiny_masked_pipeline


FOUND = find_checkpoints()
SUM, GRID, THOUGHTS, VOTES = (
    FOUND[name] for name in ("ldlm-two-digit-addition", "llada-sudoku-4x4", "ladir-countdown", "hex-voting")
)
PUZZLE = "0012000301304021"


def quiet(cls, checkpoint):
    pipeline = cls.from_pretrained(checkpoint.folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_latents_that_are_shown_are_those_of_the_pipeline():
    found = answer(SUM, " 57+68 ", Settings(steps=6, seed=3))
    pipeline = quiet(LatentReasoningPipeline, SUM)
    noised = []

    def watch(view, step, timestep, tensors):
        noised.append(tensors["latents"][0])
        return tensors

    output = pipeline("57+68", 6, generator=generator_of(3), output_type="trajectory", callback_on_step_end=watch)
    assert (found.problem, found.text, found.answer) == ("57+68", output.texts[0], output.answers[0])
    assert [frame.estimate for frame in found.frames] == [None, *(step.texts[0] for step in output.trajectory)]
    for frame, latents in zip(found.frames[1:], noised, strict=True):
        numpy.testing.assert_array_equal(frame.latents, latents)
    start = torch.randn(1, *found.frames[0].latents.shape, generator=generator_of(3))
    numpy.testing.assert_array_equal(found.frames[0].latents, start[0])
    assert found.frames[-1].reading == found.text
    assert [frame.noise.split()[-1] for frame in found.frames[:-1]] == [
        str(step.timestep) for step in output.trajectory
    ]


@pytest.mark.parametrize("scheduler", SCHEDULERS.values())
def test_latents_of_every_scheduler_have_the_variance_that_the_autoencoder_reads(scheduler):
    found = answer(SUM, "57+68", Settings(steps=5, scheduler=scheduler))
    assert len(found.frames) == 6
    assert all(0.7 < float(frame.latents.std()) < 1.4 for frame in found.frames)
    assert found.frames[-1].reading == found.text
    assert set(SCHEDULERS.values()) == set(DOCUMENTED_SCHEDULERS)


def test_a_visitor_does_not_change_what_the_next_one_gets():
    before = answer(SUM, "57+68", Settings(steps=4))
    answer(SUM, "57+68", Settings(steps=7, scheduler="EulerDiscreteScheduler", seed=5))
    again = answer(SUM, "57+68", Settings(steps=4))
    other = answer(SUM, "57+68", Settings(steps=4, seed=1))
    for one, two in zip(before.frames, again.frames, strict=True):
        numpy.testing.assert_array_equal(one.latents, two.latents)
    assert not numpy.array_equal(before.frames[1].latents, other.frames[1].latents)


@pytest.mark.parametrize("remasking", REMASKING_RULES.values())
def test_the_canvas_fills_as_the_pipeline_fills_it(remasking):
    found = answer(GRID, PUZZLE, Settings(steps=5, seed=2, remasking=remasking, temperature=0.5))
    output = quiet(MaskedDiffusionPipeline, GRID)(
        PUZZLE, num_inference_steps=5, remasking=remasking, temperature=0.5, generator=generator_of(2)
    )
    assert found.text == output.texts[0] == found.frames[-1].reading
    assert found.frames[0].reading == MASK * 16
    for before, after in zip(found.frames, found.frames[1:], strict=False):
        for old, new in zip(before.cells, after.cells, strict=True):
            assert new.is_new == (old.text == MASK != new.text)
            assert old.text in (MASK, new.text)
    assert [cell.is_given for cell in found.frames[0].cells] == [digit != "0" for digit in PUZZLE]
    assert set(REMASKING_RULES.values()) == set(REMASKING)


def test_a_wrong_cell_is_marked_and_a_sign_in_front_of_the_grid_is_no_cell_of_it():
    found = answer(FOUND["d1-sudoku-4x4"], "0100240000044321", Settings(steps=8))
    cells, right = found.frames[-1].cells, ">" + found.verdict.right_answer
    assert len(cells) == 17
    assert [cell.is_right for cell in cells] == [
        cell.text == wanted for cell, wanted in zip(cells, right, strict=True)
    ]
    assert [cell.is_given for cell in cells[1:]] == [digit != "0" for digit in found.problem]
    assert found.verdict.is_correct == all(cell.is_right for cell in cells)


def test_a_canvas_that_is_no_grid_has_neither_given_nor_right_cells():
    tiny = tiny_masked_pipeline()
    pipeline = MaskedDiffusionPipeline(**tiny.components, task="addition", gen_length=8)
    judge = Judge(pipeline.task, "3+5+2+4")
    text, frames = watch_masks(pipeline, "3+5+2+4", Settings(steps=4), judge)
    assert [len(frame.cells) for frame in frames] == [8] * 5
    assert not any(cell.is_given or cell.is_right is not None for frame in frames for cell in frame.cells)
    written = [cell.text for cell in frames[-1].cells]
    assert "".join(text.split()) == "".join(written).split(END)[0]
    assert 'class="board"' not in canvas(frames[-1].cells, has_grid=False)
    assert canvas(frames[-1].cells, has_grid=False).count('class="cell') == 8


def test_thoughts_end_as_the_pipeline_reads_them():
    found = answer(THOUGHTS, "9,2,4=34", Settings(steps=4, seed=1, noise_scale=1.0))
    output = quiet(LaDiRPipeline, THOUGHTS)("9,2,4=34", num_inference_steps=4, generator=generator_of(1))
    (thoughts,) = output.thoughts
    assert found.text == output.texts[0]
    assert [frame.reading for frame in found.frames[3::4]] == thoughts
    assert found.frames[-1].before == tuple(thoughts[:-1])
    assert len(found.frames) == 4 * len(thoughts)


def test_an_election_is_the_pipelines_and_its_bars_are_its_votes():
    found = hold_election(VOTES, PUZZLE, [16, 2, 4], 3, seed=4)
    output = quiet(HexPipeline, VOTES)(
        PUZZLE, block_lengths=[2, 4, 16], num_seeds=3, early_stop=False, generator=generator_of(4)
    )
    assert found.winner == output.answers[0]
    assert [(vote.block_length, vote.seed, vote.text) for vote in found.votes] == [
        (vote.block_length, vote.seed, vote.text) for vote in output.votes
    ]
    counts = Counter(vote.answer for vote in found.votes)
    assert {candidate.answer: candidate.num_votes for candidate in found.candidates} == dict(counts)
    assert max(counts.values()) == counts[found.winner] == sum(vote.is_for_winner for vote in found.votes)
    assert [candidate.answer for candidate in found.candidates if candidate.is_winner] == [found.winner]


def test_an_election_that_stops_early_has_the_same_winner_and_fewer_votes():
    puzzle = "2014000230011020"
    long, short = (hold_election(GRID, puzzle, [2, 4, 8, 16], 6, stop_early=stops) for stops in (False, True))
    assert long.winner == short.winner
    assert len(short.votes) < len(long.votes) == short.num_paths == 24


@pytest.mark.parametrize("select", SELECTIONS.values())
def test_each_rule_chooses_what_it_should_among_the_trajectories(select):
    found = search(THOUGHTS, "9,2,4=34", num_trajectories=8, steps=3, select=select)
    texts = [trajectory.text for trajectory in found.trajectories]
    (most_frequent, _), *_ = Counter(texts).most_common()
    assert {text: count for text, count, _ in found.counts} == dict(Counter(texts))
    assert [each for each in found.trajectories if each.is_chosen] == [found.chosen]
    right = [each for each in found.trajectories if each.is_right]
    assert 0 < len(right) < 8
    if select == "verifier":
        assert found.chosen == right[0]
    else:
        assert found.chosen == found.trajectories[texts.index(most_frequent) if select == "majority" else 0]
    assert found.verdict.is_correct == found.by_rule[select] == found.chosen.is_right


def test_the_first_of_many_trajectories_is_the_single_one():
    many = search(THOUGHTS, "8,12=96", num_trajectories=5, steps=2, seed=7)
    output = quiet(LaDiRPipeline, THOUGHTS)(
        "8,12=96", num_inference_steps=2, initial_noise_scale=2.0, generator=generator_of(7)
    )
    assert [thought.text for thought in many.trajectories[0].thoughts] == output.thoughts[0]
    assert many.trajectories[0].text == output.texts[0]


def test_threads_that_load_at_the_same_time_all_get_whole_models():
    answers._load.cache_clear()
    loaded = {}
    threads = [
        Thread(target=lambda each=each: loaded.update({each.name: load(each.folder)})) for each in FOUND.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(loaded) == set(FOUND)
    models = [
        part
        for pipeline in loaded.values()
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
    ]
    assert all(parameter.device.type == "cpu" for model in models for parameter in model.parameters())


@pytest.mark.parametrize("checkpoint", FOUND.values(), ids=lambda checkpoint: checkpoint.name)
def test_every_checkpoint_answers_a_problem_that_it_has_not_seen(checkpoint):
    problem, place = held_out_problem(checkpoint, 3)
    following, next_place = held_out_problem(checkpoint, 3, other_than=problem)
    assert (place, next_place) == (3, 4)
    assert following != problem
    found = answer(checkpoint, problem, Settings(steps=2))
    assert "held out" in found.verdict.origin
    html = answer_html(found)
    assert html.count('class="frame"') == len(found.frames)
    assert html.count("<div") == html.count("</div>")


def test_what_is_typed_cannot_become_part_of_the_page():
    election = election_html(hold_election(VOTES, PUZZLE, [16], 2))
    thoughts = search_html(search(THOUGHTS, "8,12=96", num_trajectories=3, steps=1))
    assert election.count("<tr") == 1 + 2
    assert thoughts.count("<tr") == 1 + 3
    for problem in ("<script>alert(1)</script>", "57+68<b>"):
        with pytest.raises(ValueError, match="has to be"):
            answer(SUM, problem, Settings(steps=2))
