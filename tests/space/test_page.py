"""The page as a person uses it, in a headless Chromium, served from a folder that `make_space.py` put together."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_space import gather
from selenium.webdriver.common.keys import Keys

from tests.space.browser import CHROMIUM, DRIVER, Visitor, chromium, served


ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    gather(folder / "space", ROOT / "model_cards")
    log = folder / "server.log"
    with served(folder / "space", log) as address:
        yield address, log


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def visitor(server, browser):
    person = Visitor(browser, server[0])
    person.open()
    yield person
    assert "Traceback" not in server[1].read_text()
    assert "Traceback" not in browser.page_source


def test_the_page_says_what_it_is_and_asks_nobody_else_for_anything(server, visitor):
    assert visitor.driver.title == "Reasoning by diffusion"
    assert visitor.one("h1").text == "Reasoning by diffusion"
    titles = [tab.text for tab in visitor.all("button[role=tab]") if tab.text]
    assert titles == ["Watch an answer form", "Vote over block orders", "Many trains of thought"]
    assert "ldlm-addition" in visitor.field("checkpoint").get_attribute("value")
    assert "held-out problems" in visitor.one("#watch-introduction").text
    assert visitor.answer()
    asked = visitor.requested()
    assert asked  # the log is kept
    assert {address for address in asked if not address.startswith(server[0])} == set()
    assert [entry for entry in visitor.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_typed_problem_is_answered_and_its_steps_can_be_walked_through(visitor):
    visitor.type("steps", "12")
    visitor.type("problem", "3+5+2+4", Keys.ENTER)
    assert visitor.await_answer([]) == "14"
    assert visitor.one("#watch-result .verdict .tag").text == "right"
    steps = visitor.rows(".steps")
    assert len(steps) == 13
    assert steps[0][0] == "pure noise"
    assert steps[-1][2] == "14 8+2+4 10+4 14"
    slider, label = visitor.one(".player input"), visitor.one(".player .labels")
    slider.send_keys(Keys.HOME)
    assert label.text.startswith("pure noise")
    assert visitor.one(".stage .frame:not([hidden]) .big").text == steps[0][2]
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert label.text.startswith("after step 2 of 12")
    assert visitor.one(".stage .frame:not([hidden]) .big").text == steps[2][2]
    visitor.all(".steps tbody tr")[5].click()
    assert label.text.startswith("after step 5 of 12")
    assert visitor.all(".strip .current")[0].get_attribute("title") == "after step 5 of 12"
    visitor.one(".play").click()
    visitor.wait_for(lambda: label.text.startswith("after step 12 of 12"))


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("problem", "3+five", "3 to 5 one-digit numbers joined by '+'"),
        ("problem", "", "Type a problem first"),
        ("problem", "<img src=x onerror=alert(1)>", "3 to 5 one-digit numbers joined by '+'"),
        ("seed", "-3", "Seed has to be a whole number from 0"),
    ],
)
def test_what_is_out_of_range_gets_a_message(visitor, field, text, expected):
    visitor.type(field, text or Keys.DELETE)
    visitor.one("#watch-answer").click()
    assert expected in visitor.message()
    assert visitor.all("#watch-result .verdict") == []


def test_a_number_beyond_a_slider_is_brought_back(visitor):
    visitor.type("steps", "999")
    visitor.wait_for(lambda: visitor.field("steps").get_attribute("value") == "50")


def test_another_checkpoint_brings_its_own_settings_and_examples(visitor):
    assert visitor.one("#watch-scheduler").is_displayed()
    visitor.choose("checkpoint", "llada-sudoku-4x4")
    visitor.wait_for(lambda: visitor.all("#watch-remasking") and visitor.one("#watch-remasking").is_displayed())
    assert not [shown for shown in visitor.all("#watch-scheduler") if shown.is_displayed()]
    example = visitor.wait_for(
        lambda: [part for part in visitor.all("#watch-examples button") if "0012" in part.text]
    )[0]
    example.click()
    visitor.wait_for(lambda: visitor.field("problem").get_attribute("value") == "0012000301304021")
    visitor.type("steps", "16")
    assert visitor.answer() == "3412 1243 2134 4321"
    visitor.one(".player input").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    cells = visitor.all(".stage .frame:not([hidden]) .cell")
    kinds = [cell.get_attribute("class").split() for cell in cells]
    assert [sum(kind in classes for classes in kinds) for kind in ("cell", "mask", "new")] == [16, 15, 1]
    visitor.one("#watch-another button, button#watch-another").click()
    visitor.wait_for(lambda: visitor.field("problem").get_attribute("value") != "0012000301304021")


def test_every_vote_is_listed_and_the_seed_decides_how_it_ends(visitor):
    visitor.open_tab("vote", "Vote over block orders")
    winner = visitor.answer()
    votes = visitor.rows(".votes")
    assert len(votes) == 24
    assert {row[0] for row in votes} == {"2", "4", "8", "16"}
    counts = [int(part.text.split()[0]) for part in visitor.all("#vote-result .bars .count")]
    assert sum(counts) == 24
    assert visitor.one("#vote-result .bars .chosen code").text == winner
    assert [row[2] for row in votes].count(winner) == counts[0] == sum(row[4] != "" for row in votes)
    assert visitor.answer() == winner
    assert visitor.rows(".votes") == votes
    visitor.type("seed", "1")
    visitor.answer()
    assert visitor.rows(".votes") != votes


def test_every_trajectory_is_listed_and_one_is_chosen(visitor):
    visitor.open_tab("search", "Many trains of thought")
    chosen = visitor.answer()
    rows = visitor.rows(".trajectories")
    assert len(rows) == 16
    picked = [row for row in rows if "chosen" in row[-1]]
    assert len(picked) == 1
    wrote, mark = picked[0][-3:-1]
    assert (wrote, mark) == (chosen, "✓")
    assert all(row[1] for row in rows)  # each has a first block
    next(part for part in visitor.all("#search-select label") if part.text == "majority").click()
    majority = visitor.answer()
    counts = [int(part.text.split()[0]) for part in visitor.all("#search-result .bars .count")]
    assert [row[-3] for row in rows].count(majority) == max(counts)
    assert visitor.one("#search-result .bars .chosen code").text == majority
