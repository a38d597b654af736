"""Figures of votes: written as images, on any table that can occur."""

import pytest

from ldlm_hf.vote_plots import plot_seconds, plot_votes, plot_work
from tests.test_plots import size_of_png
from tests.test_votes import make_table


def test_a_table_draws_itself(tmp_path):
    make_table().plot(tmp_path / "votes.png", lambda vote: vote.key == "a", num_draws=3, title="three questions")
    width, height = size_of_png(tmp_path / "votes.png")
    assert width > 500 and height > 500


def test_studies_are_drawn_side_by_side(tmp_path):
    point = {"answer_accuracy": 0.7, "tie_rate": 0.1}
    curve = [{"voters": name, "num_votes": n, **point} for name in ("schedules", "seeds", "few_seeds") for n in (4, 8)]
    plot_votes({"one": curve, "two": curve[:1]}, tmp_path / "votes.png")
    work = [{"way": way, "nfe": n, **point} for way in ("full", "early_stop", "keep_0.75") for n in (20.0, 40.0)]
    plot_work({"one": work, "two": work}, tmp_path / "work.png")
    rows = [{"way": way, "num_votes": n, "seconds": 1.5 * n} for way in ("published", "batch") for n in (5, 25)]
    plot_seconds(rows, tmp_path / "seconds.png")
    assert size_of_png(tmp_path / "votes.png")[0] > size_of_png(tmp_path / "seconds.png")[0]
    assert size_of_png(tmp_path / "work.png")[0] > 500


@pytest.mark.parametrize(
    ("draw", "nothing", "name"),
    [(plot_votes, {}, "curves"), (plot_work, {"one": []}, "ways"), (plot_seconds, [], "rows")],
)
def test_nothing_is_refused(tmp_path, draw, nothing, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        draw(nothing, tmp_path / "nothing.png")
