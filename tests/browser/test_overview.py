"""The first view: what runs, found, sorted and kept true while things happen."""

from __future__ import annotations

from datetime import datetime

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SLOW_MS, Watch, keep_figure
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]


def rows(page: Page) -> list[str]:
    return page.locator("[role=table] [role=row] .name a").all_inner_texts()


def test_shows_what_runs_and_what_is_private(page: Page) -> None:
    page.goto("/")
    web = page.get_by_role("row", name="web")
    expect(web).to_contain_text("running", timeout=SLOW_MS)
    expect(web).to_contain_text("network-lwip")
    expect(web).to_contain_text("clock-faketime")
    expect(page.get_by_role("row", name="talk")).to_contain_text("none")
    assert rows(page) == ["ask", "talk", "web"]


def test_search_filters_and_is_in_the_address(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("row", name="talk")).to_be_visible(timeout=SLOW_MS)
    page.keyboard.press("/")
    page.keyboard.type("team=blue")
    expect(page.locator(".name a")).to_have_text(["talk"])
    assert "q=team" in page.url
    page.reload()
    expect(page.locator(".name a")).to_have_text(["talk"], timeout=SLOW_MS)
    page.get_by_role("searchbox").fill("state:failed")
    expect(page.get_by_text("Nothing fits")).to_be_visible()


def test_sorts_by_column_and_opens_by_keyboard(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("row", name="talk")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Name").click()
    expect(page.locator(".name a")).to_have_text(["web", "talk", "ask"])
    page.keyboard.press("/")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", level=1, name="talk")).to_be_visible()


def test_follows_events_without_being_asked(page: Page, server: Server, watch: Watch) -> None:
    watch.allow("404")  # what was removed is looked for once
    page.goto("/")
    expect(page.get_by_role("row", name="web")).to_be_visible(timeout=SLOW_MS)
    server.run("fleeting", ["sleep", "1000"])
    expect(page.get_by_role("row", name="fleeting")).to_contain_text("running", timeout=SLOW_MS)
    server.api.post("/v1/applications/fleeting/stop", params={"wait": 30})
    expect(page.get_by_role("row", name="fleeting")).to_contain_text("stopped", timeout=SLOW_MS)
    server.api.delete("/v1/applications/fleeting", params={"wait": 30})
    expect(page.get_by_role("row", name="fleeting")).to_have_count(0, timeout=SLOW_MS)


def test_lost_server_is_said_and_comes_back_by_itself(
    page: Page, server: Server, watch: Watch
) -> None:
    watch.allow(
        "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY|ERR_CONTENT_LENGTH"
    )
    page.goto("/")
    connection = page.get_by_role("navigation").get_by_role("status")
    expect(connection).to_contain_text("Live", timeout=SLOW_MS)
    server.kill()
    try:
        expect(connection).to_contain_text("Reconnecting", timeout=SLOW_MS)
        expect(page.get_by_role("row", name="web")).to_be_visible()
    finally:
        server.start()
    expect(connection).to_contain_text("Live", timeout=SLOW_MS)
    expect(page.get_by_role("row", name="web")).to_contain_text("running", timeout=SLOW_MS)


def test_first_view_is_small_and_asks_nobody_else(page: Page) -> None:
    """At most 200 kB of compressed JavaScript; `watch` fails on any other origin."""
    with page.expect_response("**/v1/usage"):
        page.goto("/")
    expect(page.get_by_role("row", name="web")).to_be_visible(timeout=SLOW_MS)
    sizes = page.evaluate(
        """() => performance.getEntriesByType('resource')
             .filter((entry) => entry.name.endsWith('.js'))
             .map((entry) => entry.encodedBodySize)"""
    )
    assert sizes
    assert 0 < sum(sizes) <= 200_000


SEEN = """
    // Drawn, and the page's thread has nothing left to do before it would take a click.
    new MutationObserver((_, watch) => {
        if (!document.querySelector('[role=table] .name a')) return;
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => (window.seen = performance.now())));
    }).observe(document, { childList: true, subtree: true });
"""


def test_first_view_is_interactive_within_a_second(page: Page) -> None:
    """From the request of the address to a table that answers clicks, nothing cached."""
    page.add_init_script(SEEN)
    session = page.context.new_cdp_session(page)
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    took = []
    for _ in range(5):  # other tests of this machine may have been in the way of one
        page.goto("/")
        page.get_by_role("button", name="Name").click()  # turns the order round
        expect(page.locator(".name a").first).to_have_text("web")
        took.append(float(page.evaluate("window.seen")))
        if took[-1] < 1000:
            break
    keep_figure("interactive_ms", min(took))
    assert min(took) < 1000, took


def test_event_is_seen_within_a_second(page: Page, server: Server) -> None:
    server.run("prompt", ["sleep", "1000"])
    page.goto("/")
    expect(page.get_by_role("row", name="prompt")).to_contain_text("running", timeout=SLOW_MS)
    wait = """(state) => new Promise((done) => {
        const look = () => {
            const link = document.querySelector('[href="/applications/prompt"]');
            const row = link.closest('[role=row]');
            if (row.innerText.includes(state)) done(Date.now() / 1000);
        };
        new MutationObserver(look).observe(document.body,
            { childList: true, subtree: true, characterData: true });
    })"""
    took = []
    for act, state, kind in 2 * [("stop", "stopped", "stopped"), ("start", "running", "started")]:
        page.evaluate(f"void (window.shown = ({wait})('{state}'))")
        server.api.post(f"/v1/applications/prompt/{act}", params={"wait": 30})
        shown = page.evaluate("window.shown")
        events = server.api.get("/v1/events?application=prompt&limit=20").json()["items"]
        event = [one for one in events if one["kind"] == kind][-1]
        took.append(shown - datetime.fromisoformat(event["time"]).timestamp())
    keep_figure("event_to_screen_s", took)
    server.api.delete("/v1/applications/prompt", params={"wait": 30})
    assert sorted(took)[len(took) // 2] < 1, took
