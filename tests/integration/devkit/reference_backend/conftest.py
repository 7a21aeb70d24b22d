"""A headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The machine's own Chromium, driven by Playwright.

    Closed after a file's tests: until then its event loop counts as running, and no other could.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium here: install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A page of the browser, and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        self.asked: list[str] = []
        page.on("console", self._say)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.asked.append(request.url))

    def _say(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def write(self, text: str) -> None:
        """As a person does."""
        self.page.locator("#message").press_sequentially(text)
        self.page.locator("#message").press("Enter")

    def state(self, text: str) -> None:
        """Wait until the turn's state begins so."""
        self.page.locator(f"#state:text-matches('^{text}')").wait_for()

    def shows(self, place: str, text: str) -> None:
        """Wait until just this text stands in a place."""
        from playwright.sync_api import expect

        expect(self.page.locator(place)).to_have_text(text, use_inner_text=True, timeout=60_000)

    def counts(self, place: str, number: int) -> None:
        """Wait until there are so many of something."""
        from playwright.sync_api import expect

        expect(self.page.locator(place)).to_have_count(number, timeout=60_000)

    def is_cut(self) -> bool:
        """Whether the browser has found the network gone."""
        return any("net::ERR_" in problem for problem in self.problems)


@pytest.fixture
def open_tab(chromium: Any) -> Iterator[Any]:
    """Open a page; at the end it must have complained of nothing but a network that was cut."""
    contexts, tabs = [], []

    def open_one(url: str, **options: Any) -> Tab:
        contexts.append(chromium.new_context(viewport={"width": 1360, "height": 820}, **options))
        contexts[-1].set_default_timeout(60_000)
        tab = Tab(contexts[-1].new_page())
        tabs.append((tab, url))
        tab.page.goto(url)
        tab.page.locator("#send").wait_for()
        return tab

    yield open_one
    for context in contexts:
        context.close()
    for tab, url in tabs:
        own = "{0.scheme}://{0.netloc}/".format(urlsplit(url))
        assert [one for one in tab.asked if not one.startswith(own)] == []
        assert [one for one in tab.problems if "net::ERR_" not in one] == []
