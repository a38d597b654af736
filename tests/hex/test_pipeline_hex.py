"""The vote: each path is the path alone, the winner that of a plain count, an early end changes no answer."""

from collections import Counter

import pytest
import torch

from ldlm_hf import MaskedDiffusionPipeline
from ldlm_hf.evaluation import load_pipeline
from ldlm_hf.hex import HexPipeline, random_block_schedules
from ldlm_hf.tasks.answers import normalize_answer
from tests.hex.tiny_hex import PROMPTS, parity, tiny_hex_pipeline, vote


RULES = [{}, {"remasking": "random"}, {"threshold": 0.4}, {"guidance_scale": 2.0}, {"window": "truncated"}]


@pytest.mark.parametrize("rules", RULES)
def test_every_path_equals_the_same_path_alone(rules):
    pipeline, alone = tiny_hex_pipeline()
    output = vote(pipeline, early_stop=False, **rules)
    assert len(output.votes) == 3 * 9
    assert {"nfe", "num_forwards", "num_rows"} <= output.keys()  # what an evaluation asks for
    for one in output.votes:
        generator = torch.Generator().manual_seed(one.generator_seed)
        arguments = {"block_length": one.block_length, "gen_length": 8, "num_inference_steps": 4, "temperature": 0.9}
        single = alone(PROMPTS[one.question], generator=generator, **arguments, **rules)
        assert single.texts == [one.text]
        assert single.nfe.tolist() == [one.nfe]
    assert output.nfe.tolist() == [sum(one.nfe for one in output.votes.of(question)) for question in range(3)]
    assert len({one.text for one in output.votes}) > 20


def plain_count(votes):
    """Return the winner by the rules of the paper: most votes, then the smallest block, then the first seed."""
    keys = Counter(normalize_answer(one.answer) for one in votes if one.answer is not None)
    listed = sorted(votes, key=lambda one: (one.block_length, one.seed))
    tied = [key for key in keys if keys[key] == max(keys.values())]
    return next((one for one in listed if one.answer is not None and normalize_answer(one.answer) in tied), None)


def test_the_winner_is_that_of_a_plain_count():
    pipeline, _ = tiny_hex_pipeline()
    num_tied = 0
    for first_seed in range(0, 60, 3):
        output = vote(pipeline, first_seed, early_stop=False)
        for question in range(3):
            votes = output.votes.of(question)
            winner = plain_count(votes)
            assert output.answers[question] == (None if winner is None else winner.answer)
            assert output.texts[question] == (winner or votes[0]).text
            counts = output.counts[question]
            assert sum(counts.values()) == 9 * output.coverage[question]
            assert output.tied[question] == (len(counts) > 1 and len({*list(counts.values())[:2]}) == 1)
            num_tied += output.tied[question]
    assert num_tied > 3


@pytest.mark.parametrize("tie_break", ["smallest_block", "first_listed", "abstain", "confidence"])
@pytest.mark.parametrize("max_batch_size", [None, 4])
def test_an_early_end_gives_the_same_answers_with_fewer_passes(tie_break, max_batch_size):
    pipeline, _ = tiny_hex_pipeline()
    passes = {True: 0, False: 0}
    for first_seed in range(0, 15, 3):
        arguments = {"tie_break": tie_break, "block_lengths": (4, 2, 8)}
        full = vote(pipeline, first_seed, early_stop=False, **arguments)
        early = vote(pipeline, first_seed, max_batch_size=max_batch_size, **arguments)
        assert early.answers == full.answers
        if tie_break != "confidence":  # its winner's first voter may come later
            assert early.texts == full.texts
        cast = {(one.question, one.candidate): one for one in full.votes}
        assert all(cast[one.question, one.candidate].text == one.text for one in early.votes)
        passes[True] += int(early.nfe.sum())
        passes[False] += int(full.nfe.sum())
    assert passes[True] < 0.95 * passes[False]


def test_a_batch_of_questions_equals_its_singles_whatever_the_batch_size():
    pipeline, _ = tiny_hex_pipeline()
    batch = vote(pipeline)
    for size in (1, 5):
        limited = vote(pipeline, max_batch_size=size)
        assert limited.votes.to_pandas().equals(batch.votes.to_pandas())
    for question, prompt in enumerate(PROMPTS):
        single = vote(pipeline, question, prompt=prompt)
        assert (single.answers, single.texts) == ([batch.answers[question]], [batch.texts[question]])
        assert [one.text for one in single.votes] == [one.text for one in batch.votes.of(question)]
        assert single.nfe[0] == batch.nfe[question]


def test_no_forward_pass_has_more_rows_than_allowed():
    pipeline, _ = tiny_hex_pipeline()
    rows = []
    hook = pipeline.model.model.register_forward_pre_hook(
        lambda module, arguments, keywords: rows.append(len(keywords["input_ids"])), with_kwargs=True
    )
    output = vote(pipeline, max_batch_size=4)
    hook.remove()
    assert max(rows) == 4
    assert output.num_forwards == len(rows) and output.num_rows == sum(rows) < int(output.nfe.sum())


def test_ties_go_where_they_are_said_to_go():
    pipeline, _ = tiny_hex_pipeline()
    schedules = (8, 2, 4)
    shown = set()
    for first_seed in range(0, 60, 3):
        arguments = {"early_stop": False, "block_lengths": schedules, "num_seeds": 1}
        by = {
            rule: vote(pipeline, first_seed, tie_break=rule, **arguments)
            for rule in ("smallest_block", "first_listed", "confidence", "abstain")
        }
        for question in range(3):
            if not by["abstain"].tied[question]:
                assert len({output.answers[question] for output in by.values()}) == 1
                continue
            votes = [one for one in by["confidence"].votes.of(question) if one.answer is not None]
            assert by["abstain"].answers[question] is None
            assert by["smallest_block"].answers[question] == min(votes, key=lambda one: one.block_length).answer
            listed = min(votes, key=lambda one: schedules.index(one.block_length))
            assert by["first_listed"].answers[question] == listed.answer
            assert by["confidence"].answers[question] == max(votes, key=lambda one: one.score).answer
            shown.add(len({output.answers[question] for output in by.values()}))
    assert max(shown) >= 3


def test_raw_votes_are_compared_letter_by_letter_and_nobody_abstains():
    pipeline, _ = tiny_hex_pipeline()
    spellings = ["5", "5.0", "\\frac{10}{2}"]
    reader = lambda text: None if len(text) % 4 == 0 else spellings[len(text) % 3]  # noqa: E731
    raw = vote(pipeline, answer_fn=reader, compare="raw", early_stop=False)
    normalized = vote(pipeline, answer_fn=reader, early_stop=False)
    for question in range(3):
        assert normalized.counts[question] == {"5": round(9 * normalized.coverage[question])}
        assert sum(raw.counts[question].values()) == 9
        assert raw.coverage == normalized.coverage
    texts = {one.text for one in raw.votes if one.answer is None}
    assert texts and texts <= {key for counts in raw.counts for key in counts}


def test_schedules_of_random_blocks_vote_too():
    pipeline, alone = tiny_hex_pipeline()
    schedules = random_block_schedules(8, 4, (2, 4, 8), torch.Generator().manual_seed(0))
    output = vote(pipeline, block_lengths=schedules, num_seeds=1, early_stop=False)
    assert {one.block_length for one in output.votes} == set(schedules)
    for one in output.votes:
        generator = torch.Generator().manual_seed(one.generator_seed)
        arguments = {"block_length": [list(one.block_length)], "num_inference_steps": 4, "temperature": 0.9}
        assert alone(PROMPTS[one.question], gen_length=8, generator=generator, **arguments).texts == [one.text]


def test_what_was_saved_loads_and_answers_the_same(tmp_path):
    pipeline, alone = tiny_hex_pipeline()
    expected = vote(pipeline)
    pipeline.save_pretrained(tmp_path / "hex")
    alone.save_pretrained(tmp_path / "alone")
    for loaded in (load_pipeline(tmp_path / "hex"), HexPipeline.from_pretrained(tmp_path / "alone")):
        assert type(loaded) is HexPipeline
        loaded.set_progress_bar_config(disable=True)
        assert vote(loaded).votes.to_pandas().equals(expected.votes.to_pandas())
    assert type(load_pipeline(tmp_path / "alone")) is MaskedDiffusionPipeline


def test_the_fields_come_as_a_tuple_too_and_the_task_reads_answers():
    pipeline, _ = tiny_hex_pipeline()
    output = vote(pipeline, answer_fn=None)
    values = vote(pipeline, answer_fn=None, return_dict=False)
    assert values[0] == output.answers and values[1] == output.texts and len(values) == 9
    assert all(one.answer == pipeline.task.parse_answer(one.text) for one in output.votes)
    single = pipeline(PROMPTS[0], generator=torch.Generator().manual_seed(7), gen_length=32, num_seeds=1)
    assert len(single.votes) <= 5 and {one.block_length for one in single.votes} <= {1, 2, 4, 8, 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_lengths": ()}, "block_lengths.*empty"),
        ({"block_lengths": (4, 4)}, "block_lengths.*different.*num_seeds"),
        ({"block_lengths": (3,)}, "block_length.*divide.*8.*3"),
        ({"block_lengths": None}, "gen_length.*8.*block_lengths"),
        ({"num_seeds": 0}, "num_seeds.*0"),
        ({"temperature": 0.0}, "num_seeds.*3.*temperature"),
        ({"temperature": -1.0}, "temperature.*-1"),
        ({"num_inference_steps": 0}, "num_inference_steps.*0"),
        ({"num_inference_steps": 3}, "num_inference_steps.*3"),
        ({"compare": "loosely"}, "compare.*loosely"),
        ({"tie_break": "coin"}, "tie_break.*coin"),
        ({"select": "best"}, "select.*best"),
        ({"keep_agreement": 0.2}, "keep_agreement.*0.2"),
        ({"max_batch_size": 0}, "max_batch_size.*0"),
        ({"n_mc": 0}, "n_mc.*0"),
        ({"generator": []}, "generator.*0 generators for 3"),
        ({"prompt": []}, "prompt"),
        ({"gen_length": 1000}, "gen_length.*1000"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    pipeline, _ = tiny_hex_pipeline()
    with pytest.raises(ValueError, match=message):
        vote(pipeline, **changes)


def test_a_vote_needs_texts():
    _, alone = tiny_hex_pipeline()
    pipeline = HexPipeline(alone.model, alone.scheduler)
    with pytest.raises(ValueError, match="tokenizer"):
        pipeline(input_ids=torch.tensor([[5, 6]]), gen_length=8, block_lengths=(4,), answer_fn=parity)
