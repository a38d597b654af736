"""The page in a real browser: a server, a headless Chromium, and what a person does and sees."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait


CHROMIUM, DRIVER = (
    shutil.which("chromium"),
    shutil.which("chromedriver"),
)  # Debian: apt-get install chromium chromium-driver
LONGEST_START, LONGEST_WAIT = 90, 90  # seconds; on an idle machine a few
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1500,1250")
QUIET_FLAGS = (
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
)


@contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """Run `app.py` of a folder and yield the address of the page.

    Args:
        folder (`Path`): of a Space.
        log (`Path`): file for what the server prints.

    Raises:
        RuntimeError: if the server ends or does not answer; the message holds the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "*"}
    with log.open("w") as output:
        command = [sys.executable, "app.py", "--port", str(port)]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_server(server, address, log)
            yield address
        finally:
            server.terminate()
            server.wait()


def wait_for_server(server: subprocess.Popen, address: str, log: Path) -> None:
    """Return once the address answers."""
    opener, end = build_opener(ProxyHandler({})), time.monotonic() + LONGEST_START
    while server.poll() is None and time.monotonic() < end:
        try:
            opener.open(address, timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"The page is not served:\n{log.read_text()[-3000:]}")


@contextmanager
def chromium(profile: Path, *more_flags: str) -> Iterator[webdriver.Chrome]:
    """Yield a headless Chromium; nothing is downloaded for it, since both programs are named."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *QUIET_FLAGS, f"--user-data-dir={profile}", *more_flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Visitor:
    """A person in front of the page.

    Args:
        driver (`webdriver.Chrome`): the browser.
        address (`str`): of the page.
    """

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        """Sit down; `open` comes next."""
        self.driver, self.address = driver, address
        self.tab = "watch"

    def open(self, query: str = "") -> None:
        """Load the page afresh."""
        self.driver.get(f"{self.address}/{query}")
        self.tab = "watch"
        self.wait_for(lambda: self.all("#watch-answer"))

    def open_tab(self, tab: str, title: str) -> None:
        """Click on a tab."""
        next(button for button in self.all("button[role=tab]") if button.text == title).click()
        self.tab = tab
        self.wait_for(lambda: self.one(f"#{tab}-answer").is_displayed())

    def all(self, selector: str) -> list[WebElement]:
        """Return what a CSS selector finds, shown or not."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """Return the first that a CSS selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait_for(self, condition) -> object:
        """Return what a condition gives once that is true; an error says which messages the page shows instead."""
        try:
            return WebDriverWait(self.driver, LONGEST_WAIT, poll_frequency=0.1).until(lambda _: condition())
        except TimeoutException:
            shown = [part.text for part in self.all("[data-testid=toast-text]")]
            raise AssertionError(f"Nothing came within {LONGEST_WAIT} seconds but the messages {shown}.") from None

    def field(self, name: str) -> WebElement:
        """Return a text or number field of this tab."""
        return self.one(f"#{self.tab}-{name} input:not([type=range]), #{self.tab}-{name} textarea")

    def type(self, name: str, text: str, *keys: str) -> None:
        """Write into a field in the place of what is there."""
        self.field(name).send_keys(Keys.CONTROL, "a")
        self.field(name).send_keys(text, *(keys or (Keys.TAB,)))

    def choose(self, name: str, title: str) -> None:
        """Choose from a list; returns when the list shows it."""
        self.field(name).click()
        options = self.wait_for(lambda: self.all("[role=option]"))
        next(option for option in options if title in option.text).click()
        self.wait_for(lambda: title in self.field(name).get_attribute("value"))

    def answer(self) -> str:
        """Click on the button and return the answer, once it is there and has stopped moving."""
        old = self.runs()
        self.one(f"#{self.tab}-answer").click()
        return self.await_answer(old)

    def await_answer(self, old: list[str]) -> str:
        """Return the answer that comes in the place of the one of an old run."""
        self.wait_for(lambda: self.runs() not in ([], old))
        self.wait_for(lambda: all("Play" in button.text for button in self.all(f"#{self.tab}-result .play")))
        return self.one(f"#{self.tab}-result .verdict output").text

    def runs(self) -> list[str]:
        """Return the number of the run whose result is shown, if there is one."""
        return [found.get_attribute("data-run") for found in self.all(f"#{self.tab}-result .run")]

    def rows(self, selector: str) -> list[list[str]]:
        """Return the cells of a table, row by row, also of rows that have to be scrolled to."""
        script = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(r => [...r.cells].map(c => c.innerText.trim()))"
        return self.driver.execute_script(script, f"#{self.tab}-result {selector}")

    def message(self) -> str:
        """Return the message that comes up."""
        return self.wait_for(lambda: [part.text for part in self.all("[data-testid=toast-text]") if part.text])[0]

    def requested(self) -> set[str]:
        """Return the addresses that pages have asked for since this was last called, the browser's own pages aside."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return {address for address in sent if not address.startswith(("data:", "chrome:"))}
