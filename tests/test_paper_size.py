"""The benchmarks at the paper's size: they run at a small one, and write what the card shows."""

import json

import pytest
import run_compiled
import run_paper_size
from torch.utils.flop_counter import FlopCounterMode

from ldlm_hf import LatentDiT


@pytest.mark.parametrize("conditioning", ["in_context", "cross_attention", "adaln_zero"])
def test_every_mode_and_precision_is_measured_and_written(tmp_path, conditioning):
    sizes = ["--depths", "1", "--hidden_size", "64", "--batch_size", "2", "--rounds", "1", "--device", "cpu"]
    path = tmp_path / "paper_size.json"
    run_paper_size.main(["--output", str(path), "--conditionings", conditioning, *sizes])
    results = json.loads(path.read_text())
    rows = results["paper_size"]["rows"]
    wanted = {(mode, name) for mode, names in run_paper_size.PRECISIONS.items() for name in names}
    assert {(row["mode"], row["precision"]) for row in rows} == wanted
    assert all(row["share_of_matrix_rate"] > 0 for row in rows)
    assert results["paper_size"]["cost"] is None
    assert f"--conditionings {conditioning}" in results["paper_size"]["command"]


@pytest.mark.parametrize(("mode", "times"), [("sampling", 1), ("training", 3)])
def test_the_products_beside_a_step_are_those_of_a_block(mode, times):
    args = run_paper_size.argparse.Namespace(hidden_size=64, device="cpu")
    multiply, flops = run_paper_size.make_products(args, 32, "bfloat16", mode)
    assert flops == times * 2 * 32 * 12 * 64**2
    with FlopCounterMode(display=False) as counter:
        multiply()
    assert counter.get_total_flops() == flops


def test_compiled_and_plain_steps_take_turns(tmp_path, monkeypatch):
    timed, compiled = [], []
    monkeypatch.setattr(run_compiled, "time_of", lambda action, device: timed.append(action) or float(len(timed)))
    monkeypatch.setattr(LatentDiT, "compile_repeated_blocks", lambda self, **given: compiled.append(given))
    sizes = ["--hidden_sizes", "64", "--batch_sizes", "2", "--depth", "1", "--rounds", "4", "--device", "cpu"]
    path = tmp_path / "compilation.json"
    run_compiled.main(["--output", str(path), "--backend", "eager", *sizes])
    rows = json.loads(path.read_text())["compilation"]["rows"]
    wanted = [(mode, name) for mode, names in run_paper_size.PRECISIONS.items() for name in names]
    assert [(row["mode"], row["precision"]) for row in rows] == wanted
    assert compiled == [{"fullgraph": True, "backend": "eager"}] * len(wanted)  # one side of each row
    assert rows[0]["seconds"] == {"plain": [1, 4, 5, 8], "compiled": [2, 3, 6, 7]}
    assert rows[0]["range"] == [1 / 2, 4 / 3]
    assert rows[0]["speedup"] == pytest.approx((5 / 6 + 8 / 7) / 2)


def test_every_width_needs_a_batch_size(capsys):
    with pytest.raises(SystemExit):
        run_compiled.main(["--hidden_sizes", "64", "128", "--batch_sizes", "2"])
    assert "--batch_sizes" in capsys.readouterr().err
