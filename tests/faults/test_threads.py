"""Threads that share a pipeline: mixed requests, and the one interleaving that breaks a pipeline which keeps state."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import dill.temp
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DPMSolverMultistepScheduler

from tests.faults.threads import (
    OPTIONS,
    answer,
    calls_of,
    comparable,
    compare,
    evaluation_cases,
    make_pipelines,
    make_requests,
    same_parts_cases,
    scheduler_cases,
    scoring_cases,
    tokenizer_cases,
)
from tests.tiny import tiny_pipeline, tiny_scheduler


STEPWISE = [name for name in OPTIONS if name != "HexPipeline"]  # those that call back
STEPS = {
    "LatentReasoningPipeline": [{"num_inference_steps": 4}, {"num_inference_steps": 2}],
    "MaskedDiffusionPipeline": [{"gen_length": 8, "block_length": 4}, {"gen_length": 4, "block_length": 2}],
    "LaDiRPipeline": [{"num_inference_steps": 4, "max_blocks": 1}, {"num_inference_steps": 2, "max_blocks": 1}],
}
PROMPTS = {"LaDiRPipeline": "3,4,2"}


@pytest.fixture(scope="module")
def pipelines():
    return make_pipelines()


def failures(cases):
    assert cases
    return [case for case in cases if not case.passed]


def ask(pipeline, name, arguments, **changes):
    generator = torch.Generator().manual_seed(0)
    return pipeline(PROMPTS.get(name, "1+2+3"), generator=generator, **arguments, **changes)


@pytest.mark.parametrize("name", OPTIONS)
def test_threads_get_what_each_request_gives_alone(pipelines, name):
    assert failures(compare(name, calls_of(pipelines[name], make_requests(name, 24)))) == []


def test_pipelines_with_the_same_parts_do_not_disturb_each_other(pipelines):
    assert failures(same_parts_cases(pipelines, 8, 0)) == []


def test_schedulers_that_remember_predictions_remember_those_of_their_own_call():
    assert failures(scheduler_cases(DPMSolverMultistepScheduler, 12, 0)) == []


def test_a_tokenizer_pads_for_those_who_asked_for_it(pipelines):
    assert failures(tokenizer_cases(pipelines["LatentReasoningPipeline"], 120, 0)) == []


def test_threads_score_and_evaluate_as_one_does(pipelines):
    assert failures([*scoring_cases(40, 0), *evaluation_cases(pipelines, 3)]) == []


def test_scoring_leaves_standard_output_where_it_was(pipelines, monkeypatch):
    capture = dill.temp.capture

    @contextmanager
    def slow_capture(stream="stdout"):  # what dill does while a table is hashed, but long enough for others to begin
        with capture(stream) as caught:
            time.sleep(0.02)
            yield caught

    monkeypatch.setattr(dill.temp, "capture", slow_capture)
    assert failures(evaluation_cases(pipelines, 2)) == []


def test_a_call_that_gives_another_answer_the_second_time_is_found():
    numbers = iter(range(2))
    assert [case.passed for case in compare("counting", [lambda: next(numbers)])] == [False]


def test_a_request_is_answered_with_all_that_depends_on_its_seed(pipelines):
    requests = make_requests("LatentReasoningPipeline", 40)
    assert len({answer(pipelines["LatentReasoningPipeline"], request) for request in requests}) > 25


@pytest.mark.parametrize("name", STEPWISE)
def test_a_call_may_run_from_beginning_to_end_while_another_is_between_two_steps(pipelines, name):
    pipeline, (long, short) = pipelines[name], STEPS[name]
    expected = comparable(ask(pipeline, name, long)), comparable(ask(pipeline, name, short))
    waits, goes_on = threading.Event(), threading.Event()

    def wait(pipe, step, timestep, tensors):
        if step == 0:
            waits.set()
            assert goes_on.wait(60)
        return tensors

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(ask, pipeline, name, long, callback_on_step_end=wait)
        assert waits.wait(60)
        second = comparable(ask(pipeline, name, short))
        goes_on.set()
    assert (comparable(first.result()), second) == expected


@pytest.mark.parametrize("name", STEPWISE)
def test_a_callback_may_ask_the_pipeline_that_calls_it(pipelines, name):
    pipeline, (long, short) = pipelines[name], STEPS[name]
    expected, asked = [comparable(ask(pipeline, name, arguments)) for arguments in (long, short)], []

    def ask_again(pipe, step, timestep, tensors):
        asked.append(comparable(ask(pipe, name, short)))
        return tensors

    assert comparable(ask(pipeline, name, long, callback_on_step_end=ask_again)) == expected[0]
    assert asked and set(asked) == {expected[1]}


def test_pipeline_and_scheduler_tell_of_the_latest_call_that_ended():
    scheduler = tiny_scheduler()
    pipeline = tiny_pipeline(scheduler=scheduler)
    for steps in (3, 2):
        pipeline("1+2+3", num_inference_steps=steps, output_type="latent")
        assert pipeline.scheduler is scheduler
        assert len(scheduler.timesteps) == pipeline.num_timesteps == steps

    def fail(*_):
        raise RuntimeError("the callback failed")

    with pytest.raises(RuntimeError, match="the callback failed"):
        pipeline("1+2+3", num_inference_steps=5, callback_on_step_end=fail)
    assert len(scheduler.timesteps) == pipeline.num_timesteps == 2


def test_calls_take_turns_where_weights_are_moved(pipelines):
    pipeline, seen = tiny_pipeline(), []
    add_hook_to_module(pipeline.denoiser, ModelHook())

    def note(pipe, step, timestep, tensors):
        seen.append(threading.get_ident())
        return tensors

    def call(_):
        ask(pipeline, "", {"num_inference_steps": 5, "output_type": "latent"}, callback_on_step_end=note)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(call, range(8)))
    assert all(len(set(seen[start : start + 5])) == 1 for start in range(0, len(seen), 5))
