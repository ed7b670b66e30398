"""One server, one browser; a page of its own for each test, with nothing wrong in its console."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.world import ROOT, until
from tests.browser.server import TALKER, Server

pytest.importorskip("playwright.sync_api", reason="the Python package playwright is missing")
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = ROOT / "build/browser"
SLOW_MS = 30_000
"""Longest wait for something to appear, on a loaded machine."""


def launch(playwright: object) -> Browser:
    """The system's Chromium."""
    path = shutil.which("chromium")
    browser: Browser = playwright.chromium.launch(  # type: ignore[attr-defined]
        executable_path=path, headless=True, args=FLAGS
    )
    return browser


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With three applications: `talk` writes lines, `web` serves files, `ask` keeps asking it."""
    server = Server(tmp_path_factory.mktemp("b"))
    server.start()
    try:
        network: dict[str, dict[str, object]] = {"network-lwip": {}}
        server.run("talk", ["sh", "-c", TALKER], labels={"team": "blue"})
        server.run(
            "web",
            ["python3", "-u", "-m", "http.server", "80", "--directory", str(ROOT / "examples")],
            elements={**network, "clock-faketime": {"settings": {"offset": "-30d"}}},
        )
        ask = "while :; do curl -s -o /dev/null http://web/ && echo asked; sleep 0.3; done"
        server.run("ask", ["sh", "-c", ask], elements=network)
        until(lambda: "asked" in server.api.get("/v1/applications/ask/logs").text, 30)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Of these tests only: Playwright keeps an event loop running in this thread until it ends."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


class Watch:
    """What a page did that it should not: messages in the console, requests to elsewhere."""

    def __init__(self, page: Page, origin: str) -> None:
        self.wrong: list[str] = []
        # Chromium drops requests whenever an interface of this host changes, and taps come and
        # go all the time; the page asks again.
        self.expected = ["ERR_NETWORK_CHANGED"]
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        page.on("request", lambda request: self._ask(request.url, origin))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(f"{kind}: {text}")

    def _ask(self, url: str, origin: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(origin):
            self.wrong.append(f"asked {url}")

    def allow(self, pattern: str) -> None:
        """Messages of this kind are what the test brings about."""
        self.expected.append(pattern)

    def check(self) -> None:
        """Nothing else was wrong."""
        assert [
            text
            for text in self.wrong
            if not any(re.search(pattern, text) for pattern in self.expected)
        ] == []


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    context = browser.new_context(
        base_url=server.url, viewport={"width": 1440, "height": 900}, color_scheme="light"
    )
    context.set_default_timeout(SLOW_MS)
    yield context
    context.close()


@pytest.fixture
def watch(page: Page, server: Server) -> Watch:
    watch: Watch = page.watch  # type: ignore[attr-defined]
    return watch


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    page = context.new_page()
    watch = Watch(page, server.url)
    page.watch = watch  # type: ignore[attr-defined]
    yield page
    watch.check()


def picture(page: Page, name: str) -> Path:
    """A screenshot, kept as build output to be looked at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path)
    return path


def keep_figure(name: str, value: object) -> None:
    """Beside the pictures, in build/browser/figures.json."""
    path = PICTURES / "figures.json"
    PICTURES.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: value}, indent=2))
