"""Takes the pictures of the page that its README shows: `python -m tests.space.take_screenshots`.

Needs Chromium and its driver; look at the pictures before they are committed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from tests.space.browser import Visitor, chromium, served


SPACE = Path(__file__).parents[2] / "examples" / "space"
SIZE = (1500, 1330)


def main(arguments: list[str] | None = None) -> None:
    """Visit every tab and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=SPACE / "screenshots", help="folder of the pictures")
    parser.add_argument("--dark", action="store_true", help="in the dark theme")
    args = parser.parse_args(arguments)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with served(SPACE, Path(folder) / "server.log") as address, chromium(Path(folder) / "profile") as driver:
            driver.set_window_size(*SIZE)
            visitor = Visitor(driver, address)
            visitor.open("?__theme=dark" if args.dark else "?__theme=light")
            take_all(visitor, args.output_dir)


def take_all(visitor: Visitor, folder: Path) -> None:
    """Take a picture of each kind of result."""
    visitor.answer()
    take(visitor, folder / "answer.png", step=6)
    visitor.choose("checkpoint", "llada-sudoku-4x4")
    visitor.wait_for(lambda: visitor.field("problem").get_attribute("value").isdigit())
    visitor.answer()
    take(visitor, folder / "canvas.png", step=4)
    visitor.choose("checkpoint", "ladir-countdown")
    visitor.wait_for(lambda: "=" in visitor.field("problem").get_attribute("value"))
    visitor.answer()
    take(visitor, folder / "thoughts.png", step=12)
    visitor.open_tab("vote", "Vote over block orders")
    visitor.answer()
    take(visitor, folder / "votes.png")
    visitor.open_tab("search", "Many trains of thought")
    visitor.answer()
    take(visitor, folder / "trajectories.png")


def take(visitor: Visitor, path: Path, step: int | None = None) -> None:
    """Write what is seen to a file, after a step has been chosen."""
    if step is not None:
        visitor.one(".player input").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * step)
    visitor.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    visitor.driver.save_screenshot(str(path))


if __name__ == "__main__":
    main()
