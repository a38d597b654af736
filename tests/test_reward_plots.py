"""Rewards against what they cost: a picture of every curve, and the tables of a card."""

import json

import pytest
from make_d1_tables import curves_of, hand_out_reinforcement, order

from ldlm_hf.model_card import load_results
from ldlm_hf.reward_plots import plot_rewards
from tests.test_plots import size_of_png


def result(arm: str, seed: int, solved: float, rewards: list[float] | None = None) -> dict:
    """Return what `run_d1_study.py` writes of an arm."""
    figures = {"solved": solved, "cell_accuracy": solved / 2, "num_problems": 40}
    training = {"base": {"steps": 5}}
    if rewards is not None:
        log = [{"step": 2 * (i + 1), "reward": reward} for i, reward in enumerate(rewards)]
        training["rl"] = {
            "steps": 2 * len(rewards),
            "completions": 60,
            "seconds": 10.0 + seed,
            "log": [*log, {"step": 9}],
        }
    recipe = {"rl": {"rewards": {"style": {}}}}
    shared = {"greedy": figures, "sampled": figures, "training": training, "seconds": 30.0, "recipe": recipe}
    return {"arm": arm, "seed": seed, **shared, "command": "python examples/run_d1_study.py"}


@pytest.fixture
def study(tmp_path):
    """Return a folder with a study of two arms and two seeds."""
    folder = tmp_path / "studies" / "skill"
    folder.mkdir(parents=True)
    for seed in (0, 1):
        for one in (result("base", seed, 0.25), result("rl_mu_12_none", seed, 0.5 + seed / 4, [0.1 + seed, 0.2, 0.3])):
            (folder / f"{one['arm']}-{seed}.json").write_text(json.dumps(one))
    return folder


def test_curves_are_means_over_seeds_with_their_costs(study):
    curves = curves_of(study)
    assert list(curves) == ["mu=12 none"]
    first, *_, last = curves["mu=12 none"]
    assert first["reward"] == pytest.approx(0.6)
    assert (last["updates"], last["completions"], last["seconds"]) == (6, 60, 10.5)


def test_a_card_is_handed_rows_with_spreads_and_a_picture(study, tmp_path):
    (tmp_path / "card" / "results").mkdir(parents=True)
    hand_out_reinforcement(study.parent, tmp_path / "card")
    results = load_results(tmp_path / "card" / "results")
    rows = results["reinforcement"]["skill"]["rows"]
    assert rows["base"]["greedy_solved"] == {"mean": 0.25, "standard_error": 0.0, "values": [0.25, 0.25]}
    assert rows["rl_mu_12_none"]["greedy_solved"]["standard_error"] == pytest.approx(0.125)
    assert rows["rl_mu_12_none"]["completions"] == 60
    for path in results["figures"].values():
        width, height = size_of_png(tmp_path / "card" / path)
        assert width > 1000 > height > 300


def test_arms_come_in_the_order_of_the_paper_and_numbers_by_size():
    arms = ["rl_mu_12_none", "rl_mu_2_none", "sft_rl", "base", "rl_elbo"]
    assert sorted(arms, key=order) == ["base", "sft_rl", "rl_elbo", "rl_mu_2_none", "rl_mu_12_none"]


@pytest.mark.parametrize("curves", [{}, {"rl": []}])
def test_nothing_to_draw_is_refused(curves, tmp_path):
    with pytest.raises(ValueError, match="`curves`"):
        plot_rewards(curves, tmp_path / "a.png")
