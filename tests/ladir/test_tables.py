"""The tables of the card are the means of the study's files, by whatever way they are worked out."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from make_ladir_tables import CONTENTS, VARIANTS, compare, repulsion_verdict, study_of


RESULTS = Path(__file__).parents[2] / "results" / "ladir" / "countdown_2_to_4"


@pytest.fixture(scope="module")
def study():
    return study_of(RESULTS)


def files(name: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-[0-9].json"))]


def test_rows_of_arms_are_means_over_seeds(study):
    for arm in ("autoregressive", "stage_1", "stage_2"):
        shares = [result["sampled"]["share_of_solutions"] for result in files(arm)]
        row = study["arms"][arm]["share"]
        assert len(shares) >= 3
        assert row["mean"] == pytest.approx(fmean(shares))
        assert row["standard_error"] == pytest.approx(stdev(shares) / len(shares) ** 0.5)


def test_rows_of_variants_say_how_many_steps_they_had(study):
    rows = {row["what"]: row for row in study["variants"]}
    assert len(rows) > 4
    for name, what in VARIANTS.items():
        if results := files(name):
            assert rows[what]["seeds"] == len(results)
            assert {result["training"]["reasoner"]["steps"] for result in results} == {rows[what]["steps"]}
            assert rows[what]["precise"] == pytest.approx(fmean(result["precise"]["pass@1"] for result in results))
    assert rows["as in the first table"]["steps"] == files("stage_1")[0]["training"]["reasoner"]["steps"]


def test_what_latents_hold_is_told_symbol_by_symbol(study):
    rows = {(row["what"], row["seed"]): row for row in study["contents"]}
    assert len(rows) == sum(len(files(f"content_{name}")) for name in CONTENTS) > 3
    for name, (what, arm) in CONTENTS.items():
        for seed, result in enumerate(files(f"content_{name}")):
            reasoner = json.loads((RESULTS / f"{arm}-{seed}.json").read_text())
            assert rows[what, str(seed)]["any"] == reasoner["sampled"]["pass@32"]
            assert rows[what, str(seed)]["steps"] == reasoner["training"]["reasoner"]["steps"]
            for kind in ("linear", "hidden layer", "most frequent"):
                shown = rows[what, str(seed)]["symbols"]["result"][kind]
                assert shown == result["shares"][kind]["result"]


def test_comparisons_are_of_the_rows_that_they_name(study):
    rows = {row["name"].split(", seeds")[0]: row for row in study["arms"].values()}
    assert len(study["comparisons"]) > 4
    for row in study["comparisons"]:
        one, other = rows[row["one"]], rows[row["other"]]
        assert row["precise"].startswith(
            f"{100 * one['precise']['mean']:.1f} % against {100 * other['precise']['mean']:.1f} %"
        )
        wide = [(arm["drawn"] or arm)["share"]["mean"] for arm in (one, other)]
        assert row["share"].startswith(f"{100 * wide[0]:.1f} % against {100 * wide[1]:.1f} %")
        assert ("one seed" in row["share"]) == (1 in (one["seeds"], other["seeds"]))


def test_a_difference_is_called_one_beyond_two_standard_errors():
    low = {"mean": 0.4, "standard_error": 0.03}
    assert compare({"mean": 0.51, "standard_error": 0.04}, low) == "51.0 % against 40.0 % (yes)"
    assert compare({"mean": 0.49, "standard_error": 0.04}, low) == "49.0 % against 40.0 % (no difference shown)"
    assert compare({"mean": 0.29, "standard_error": 0.04}, low) == "29.0 % against 40.0 % (worse)"


@pytest.mark.parametrize(("strongest", "verdict"), [("repulsion 0.5", "yes"), ("equal norm noise 0.5", "no")])
def test_repulsion_has_to_find_more_than_all_of_its_controls(strongest, verdict):
    values = [f"{name} {scale}" for name in ("repulsion", "attraction", "equal norm noise") for scale in (0.0, 0.5)]
    points = [{"value": value, "share": 0.9 if value == strongest else 0.5} for value in values]
    assert repulsion_verdict({"points": points, "seeds": 1}).startswith(
        f"{verdict}: of all solutions without any 50.0 %"
    )


def test_problems_are_counted_by_their_kind(study):
    assert sum(study["kinds"].values()) == study["num_problems"]
    assert list(study["kinds"]) == [f"{count} numbers" for count in study["counts"]]
