"""A thousand applications: only what is in view exists, everything is reachable, events stream.

On the fake agent, which starts programs at once; the API and the page are the real ones. Frame
times are written to build/browser/frames.json and not judged here, as they are the machine's too;
what the page itself does for each frame must leave room in it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.agent.fake import FakeAgent
from tests.browser.conftest import PICTURES, SLOW_MS, Watch, picture
from tests.integration.planes import served, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MANY = 1000
FRAME_MS = 1000 / 60
MEASURE = """async () => {
    const box = document.querySelector('[role=table] [role=rowgroup][tabindex]');
    const deltas = [];
    let last = await new Promise(requestAnimationFrame);
    for (let i = 0; i < 240; i++) {
        box.scrollTop += 97 * (i < 120 ? 1 : -1);
        const now = await new Promise(requestAnimationFrame);
        deltas.push(now - last);
        last = now;
    }
    return deltas;
}"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("m")
    with served(home, FakeAgent()) as url, httpx.Client(base_url=url, timeout=120) as api:
        for part in ("shop", "mail"):
            names = [f"{part}-{i:03}" for i in range(MANY) if (i % 2 == 1) == (part == "shop")]
            spec = {"command": ["nginx"], "elements": {"net-a": {}}}
            body = {"name": part, "applications": dict.fromkeys(names, spec)}
            answer = api.put(f"/v1/stacks/{part}", json=body)
            assert answer.status_code == 202, answer.text
        until(lambda: states(api) == {"running"}, 120)
        yield api


def states(api: httpx.Client) -> set[str]:
    items = api.get("/v1/applications", params={"limit": MANY}).json()["items"]
    return {item["status"]["state"] for item in items}


@pytest.fixture
def page(browser: Browser, crowd: httpx.Client) -> Iterator[Page]:
    context = browser.new_context(
        base_url=str(crowd.base_url), viewport={"width": 1440, "height": 900}
    )
    context.set_default_timeout(SLOW_MS)
    page = context.new_page()
    watch = Watch(page, str(crowd.base_url).rstrip("/"))
    yield page
    watch.check()
    context.close()


def test_only_rows_in_view_exist_and_all_are_reachable(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(MANY + 1))
    assert page.locator("[role=table] [role=row]").count() < 80
    page.locator("[role=table] [role=rowgroup][tabindex]").focus()
    page.keyboard.press("End")
    expect(page.get_by_role("link", name="shop-999")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("shop-5")
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "51")
    picture(page, "many-found")


def test_topology_is_clustered_until_opened(page: Page) -> None:
    page.goto("/?view=graph")
    expect(page.get_by_text("wire: shared memory")).to_be_visible()
    until(lambda: page.evaluate("localStorage.getItem('graph-positions')"), 30)
    places = json.loads(page.evaluate("localStorage.getItem('graph-positions')"))
    assert {"group:shop", "group:mail", "network:default"} <= set(places)
    assert len(places) < 10
    picture(page, "many-topology")


def last_event(api: httpx.Client) -> int:
    return int(api.get("/v1/events", params={"limit": 1}).json()["items"][-1]["id"])


def test_frames_while_events_stream(page: Page, crowd: httpx.Client) -> None:
    page.goto("/")
    expect(page.get_by_role("link", name="mail-000")).to_be_visible()
    page.wait_for_load_state("networkidle")
    browser = page.context.new_cdp_session(page)
    browser.send("Performance.enable", {"timeDomain": "threadTicks"})

    def work_s() -> float:
        """Processor time that the page's own thread has used for whatever it did."""
        metrics = browser.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

    figures = {}
    for name, streaming in (("scrolling", False), ("scrolling while events stream", True)):
        first, before, began = last_event(crowd), work_s(), time.monotonic()
        page.evaluate("void (window.measured = (" + MEASURE + ")())")
        for i in range(0, 120 if streaming else 0, 2):
            crowd.post(f"/v1/applications/mail-{i:03}/stop", params={"wait": 0})
        deltas = page.evaluate("window.measured")
        figures[name] = {
            "median_ms": statistics.median(deltas),
            "p95_ms": statistics.quantiles(deltas, n=20)[-1],
            "worst_ms": max(deltas),
            "own_work_ms_per_frame": (work_s() - before) * 1000 / len(deltas),
            "events_per_s": (last_event(crowd) - first) / (time.monotonic() - began),
        }
    expect(page.get_by_role("row", name="mail-000")).to_contain_text("stopped")
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "frames.json").write_text(json.dumps(figures, indent=2))
    busy = figures["scrolling while events stream"]
    assert busy["events_per_s"] > 10
    assert busy["own_work_ms_per_frame"] < FRAME_MS
