"""The tables of the card are the means of the study's files, by whatever way they are worked out."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from make_ladir_tables import CONTENTS, VARIANTS, study_of


RESULTS = Path(__file__).parents[2] / "results" / "ladir" / "countdown_2_to_4"


@pytest.fixture(scope="module")
def study():
    return study_of(RESULTS, "Two, three or four numbers")


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
