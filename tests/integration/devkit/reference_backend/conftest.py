"""A headless Chromium, and a network between it and the backend that can be cut."""

from __future__ import annotations

import selectors
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Network:
    """A TCP relay in front of a server: `cut` ends all that is connected, and refuses the next.

    Args:
        server: the server's address.
    """

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._up = True
        self._connected: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._up = False
            for one in self._connected:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        with self._lock:
            self._up = True

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                try:
                    if not self._up:
                        raise ConnectionRefusedError
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._connected |= {client, server}
            threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    if not data:
                        with self._lock:
                            self._connected -= {client, server}
                        return
                    key.data.sendall(data)


@contextmanager
def network_to(server: str) -> Iterator[Network]:
    network = Network(server)
    try:
        yield network
    finally:
        network.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The machine's own Chromium, driven by Playwright."""
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
