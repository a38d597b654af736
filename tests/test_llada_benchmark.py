"""The benchmark of masked diffusion at a size that runs in seconds: exact samplers agree, all is written. Nothing is timed."""

import json

import measure_llada_memory
import pytest
import run_llada_benchmark
import torch
from llada_samplers import EXACT, REFERENCES, SAMPLERS, Samplers, Setting, make_state, plain_generate, random_prompt
from measure_llada_checkpoint import THRESHOLDS, measure_checkpoint

from ldlm_hf import MaskedDiffusionPipeline, MaskedDiffusionScheduler
from ldlm_hf.tasks import Sudoku
from ldlm_hf.tokenization import build_tokenizer
from tests.llada.plain_llada import plain_llada
from tests.llada.tiny_llada import MASK, tiny_llada


TOY = ["--hidden_size", "32", "--num_layers", "2", "--vocab_size", "200", "--prompt_length", "8"]
TURNS = ["--lengths", "16", "--blocks", "4", "8", "32", "--whole", "16", "4", "2", "--places", "2", "--rounds", "1"]
SIZES = {"vocab_size": 4096, "length": 64, "hidden_size": 16, "num_layers": 1, "batch_size": 2}


@pytest.fixture
def one_thread():
    """Give torch its threads back, which the scripts set for the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_samplers_that_have_to_agree_do_and_every_figure_is_written(tmp_path, one_thread):
    path = tmp_path / "benchmark.json"
    parts = ["--parts", "grid", "whole", "pieces"]
    run_llada_benchmark.main(["--output", str(path), *TOY, *TURNS, *parts])  # exits with an error if they differ
    results = json.loads(path.read_text())
    benchmark = results["llada_benchmark"]
    assert results["environment"]["threads"] == 1
    settings = {(row["block_length"], row["tokens_per_step"]) for row in benchmark["grid"]}
    assert settings == {(4, 1), (4, 2), (8, 1), (8, 2)}  # 32 does not divide 16
    assert len(benchmark["grid"]) == len(settings) * len(SAMPLERS)
    for row in benchmark["grid"]:
        assert row["tokens_per_second"] == row["forwards_per_second"] * row["tokens_per_forward"] > 0
        assert row["identical"] is (True if row["sampler"] in {"full", "block_causal_cached"} else None)
    whole = {row["sampler"]: row for row in benchmark["whole"]}
    assert tuple(whole) == SAMPLERS
    for name, row in whole.items():
        assert row["num_forwards"] == 8 and row["tokens_per_forward"] == 2.0
        assert row["reference"] == REFERENCES.get(name)
        assert row["identical"] is (True if name in EXACT else None)
    assert whole["plain_float32"]["agreement"] == 1.0
    assert min(benchmark["pieces"].values()) > 0
    assert "memory" not in benchmark and "--vocab_size 200" in benchmark["command"]


def test_tokens_that_differ_are_named():
    row = {"gen_length": 16, "block_length": 4, "tokens_per_step": 2}
    rows = [{**row, "sampler": name, "identical": same} for name, same in (("full", False), ("truncated", True))]
    assert run_llada_benchmark.disagreements({"whole": rows}) == ["full at 16/4/2"]


@pytest.mark.parametrize(("block_length", "tokens"), [(12, 1), (4, 2), (12, 5), (3, 2)])
def test_the_plain_loop_is_the_published_one(block_length, tokens):
    model = tiny_llada()
    with torch.no_grad():
        model.lm_head.weight[MASK] = 0  # never the likeliest
        setting, ids = Setting(12, block_length, tokens), torch.arange(5, 12)[None]
        expected, passes = plain_llada(model, MASK, ids[0].tolist(), 12, block_length, setting.num_steps)
        assert plain_generate(model, ids, MASK, setting).tolist() == expected[:, 7:].tolist()
    assert passes == setting.num_steps


def test_predictions_of_the_random_model_differ_from_place_to_place():
    samplers = Samplers(64, 3, 500, 48)
    with torch.no_grad():
        tokens = plain_generate(samplers.model, random_prompt(16, 500), samplers.mask_token_id, Setting(32, 32, 1))
    assert tokens.unique().numel() > 8 and not (tokens == samplers.mask_token_id).any()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_state_is_that_of_a_generation_on_its_way(share):
    state = make_state(random_prompt(8, 200), Setting(16, 4, 2), share, mask_token_id=199)
    is_masked = state.now == 199
    assert not is_masked[:, : state.end - 4].any() and is_masked[:, state.end :].all()
    assert (state.start == 199)[:, state.end - 4 :].all()
    assert is_masked[:, state.end - 4 : state.end].sum() == 2  # one of the block's two steps is done
    assert (state.previous is None) == (share == 0.0)


def test_an_allocation_is_counted_while_it_lives():
    def allocate() -> None:
        kept = torch.empty(1000)
        for _ in range(3):
            torch.empty(500)
        del kept
        torch.empty(250)

    assert 6000 <= measure_llada_memory.allocated_peak(allocate) < 7000  # in float32, and a little for alignment


def test_every_way_has_the_same_loss_and_the_trainers_needs_the_least_memory(capsys, one_thread):
    rows = {}
    for way in measure_llada_memory.WAYS:
        measure_llada_memory.main(["--way", way, *(f"--{name}={value}" for name, value in SIZES.items())])
        rows[way] = json.loads(capsys.readouterr().out)
    losses = [row["loss"] for row in rows.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert rows["chunked"]["allocated_bytes"] < rows["all_logits"]["allocated_bytes"]
    shares = measure_llada_memory.with_shares(list(rows.values()))
    assert shares[0]["share_of_all_logits"] < 1 == shares[1]["share_of_all_logits"]


def test_a_checkpoint_is_measured_on_its_task(tmp_path):
    tokenizer = build_tokenizer([], Sudoku().words(), granularity="digit", model_max_length=40)
    model = tiny_llada(vocab_size=len(tokenizer), mask_token_id=tokenizer.mask_token_id)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.mask_token_id] = 0
    scheduler = MaskedDiffusionScheduler(block_length=16)
    pipeline = MaskedDiffusionPipeline(model, scheduler, tokenizer, task="sudoku", gen_length=16)
    pipeline.save_pretrained(tmp_path)
    results = measure_checkpoint(tmp_path, num_problems=5, batch_size=3, rounds=1)
    rows = {row["sampler"]: row for row in results["rows"]}
    assert results["num_problems"] == 5 and results["gen_length"] == results["block_length"] == 16
    assert rows["plain_1"]["nfe"] == rows["ours_1"]["nfe"] == 16 and rows["ours_2"]["nfe"] == 8
    assert rows["plain_1"]["num_forwards"] == rows["ours_1"]["num_forwards"] == 32  # two batches
    assert rows["ours_1"]["agreement"] == 1.0
    assert rows["ours_2"]["agreement"] == rows["plain_2"]["agreement"]
    assert {f"threshold_{value}" for value in THRESHOLDS} < set(rows)
    assert all(0 <= row["exact_accuracy"] <= row["accuracy"] <= 1 for row in results["rows"])
