"""Rewards against what they cost: a picture of every curve, and the tables of a card."""

import json

import pytest
from make_d1_tables import curves_of, hand_out_reinforcement, order

from ldlm_hf.model_card import load_results, render_model_card
from ldlm_hf.reward_plots import plot_rewards
from tests.test_model_card import MINIMAL, typed_figures
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
    (study / "rl_elbo-0.json").write_text(json.dumps(result("rl_elbo", 0, 0.5, [0.7, 0.8])))
    (study / "rl_mu_2_none-0.json").write_text(json.dumps(result("rl_mu_2_none", 0, 0.5, [0.2, 0.4])))
    curves = curves_of(study)  # two variants have the first seed only, so that is what all are compared on
    assert list(curves) == ["elbo", "mu=2 none", "mu=12 none"]
    assert curves["mu=12 none"][0]["reward"] == pytest.approx(0.1)
    for name in ("elbo", "mu_2_none"):
        (study / f"rl_{name}-1.json").write_text(json.dumps(result(f"rl_{name}", 1, 0.5, [0.4, 0.4])))
    (study / "rl_mu_24_none-0.json").write_text(json.dumps(result("rl_mu_24_none", 0, 0.5, [0.2, 0.4])))
    assert list(curves_of(study)) == ["elbo", "mu=2 none", "mu=12 none"]


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


@pytest.mark.parametrize("arms", [("base",), ("base", "sft", "rl", "sft_in_task"), ("rl",)])
def test_a_study_of_countdown_has_a_section_of_its_own_with_the_arms_that_were_run(arms, tmp_path):
    figures = {"graded_style": 0.1234, "solved": 0.0567, "solved_in_either_style": 0.3456, "num_problems": 40}
    recipe = {
        "sft": {"task_arguments": {"min_target": 1, "max_target": 10}, "model_training": {"max_steps": 50}},
        "rl": {"task_arguments": {"min_target": 11, "max_target": 60}, "training": {"max_steps": 240}},
    }
    (tmp_path / "countdown").mkdir()
    (tmp_path / "card" / "results").mkdir(parents=True)
    for arm in arms:
        one = result(arm, 0, 0.0, [0.1, 0.2] if arm == "rl" else None)
        one |= {"greedy": figures, "sampled": {**figures, "graded_style": 0.2109}, "recipe": recipe}
        (tmp_path / "countdown" / f"{arm}-0.json").write_text(json.dumps(one))
    hand_out_reinforcement(tmp_path, tmp_path / "card")
    evaluation = {**MINIMAL["evaluation"], "tokens_per_forward": 2.0}
    rest = {
        **MINIMAL,
        "system": "masked_diffusion",
        "parameters": {"total": 5},
        "task": "countdown",
        "evaluation": evaluation,
    }
    results = {**rest, **load_results(tmp_path / "card" / "results")}
    text = render_model_card(results).text
    _, _, section = text.partition("### Style, on Countdown")
    assert section.count("| 12.3 % | 5.7 % | 34.6 % | 21.1 % | 5.7 % |") == len(arms)
    assert typed_figures(section, results) == set()
    assert "### Skill" not in text
    assert "What reinforcement does" not in render_model_card(rest).text


@pytest.mark.parametrize("curves", [{}, {"rl": []}])
def test_nothing_to_draw_is_refused(curves, tmp_path):
    with pytest.raises(ValueError, match="`curves`"):
        plot_rewards(curves, tmp_path / "a.png")
