"""The pictures of README.md, of the real thing: `make pictures` writes docs/pictures/*.png.

Starts a server of its own with the example's stack, a visitor and a fault, waits until there is
something to see, and takes what a browser shows.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml
from playwright.sync_api import Page, sync_playwright

from tests.acceptance.world import ROOT, free_port, until
from tests.browser.conftest import launch
from tests.browser.server import NETWORK, Server

OUT = ROOT / "docs/pictures"
MOST_BYTES = 150_000
COURSE_S = 60.0
"""So much of the courses is to be seen."""
VISIT = "while :; do curl -s -o /dev/null http://web-a/ http://web-b/; sleep 0.4; done"


def example() -> dict[str, Any]:
    """The example's stack on our network, with ports that nobody has."""
    text = (ROOT / "examples/two-webs.yaml").read_text()
    stack: dict[str, Any] = yaml.safe_load(text.replace("two-webs/", f"{ROOT}/examples/two-webs/"))
    for spec in stack["applications"].values():
        spec["network"] = {"name": NETWORK}
        if "ports" in spec:
            spec["ports"] = [f"{free_port()}:80"]
    network: dict[str, dict[str, Any]] = {"network-lwip": {}}
    stack["applications"]["visitor"] = {
        "command": ["sh", "-c", VISIT],
        "elements": network,
        "network": {"name": NETWORK},
        "depends_on": ["web-a", "web-b"],
    }
    return stack


def running(api: httpx.Client) -> bool:
    items = api.get("/v1/applications").json()["items"]
    return all(item["status"]["state"] == "running" for item in items)


def take(page: Page, path: str, name: str, colours: str, wait: str) -> None:
    page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
    page.evaluate("(path) => { history.pushState(null, '', path); }", path)
    page.evaluate("() => dispatchEvent(new PopStateEvent('popstate'))")
    page.get_by_role("main").get_by_text(wait).first.wait_for()
    page.wait_for_timeout(4000)
    file = OUT / f"{name}.png"
    page.screenshot(path=file)
    size = file.stat().st_size
    assert size < MOST_BYTES, f"{name}.png has {size} bytes"
    print(f"{file.relative_to(ROOT)}: {size} bytes")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        server = Server(Path(state))
        server.start()
        try:
            answer = server.api.put("/v1/stacks/two-webs", json=example())
            assert answer.is_success, answer.text
            until(lambda: running(server.api), 60)
            fault = {"loss": "2%", "delay": "15ms", "jitter": "5ms", "for": "10m", "seed": 7}
            assert server.api.post("/v1/applications/web-b/faults", json=fault).is_success
            browser = launch(playwright)
            page = browser.new_page(base_url=server.url, viewport={"width": 1200, "height": 640})
            page.goto("/")
            time.sleep(COURSE_S)  # the courses grow in the page: it stays open throughout
            take(page, "/", "overview", "light", "web-a")
            take(page, "/?view=graph", "topology", "dark", "wire: shared memory")
            take(page, "/applications/web-a/evidence", "evidence", "light", "claims hold")
            take(page, "/applications/web-b/faults", "faults", "dark", "lost")
            take(page, "/applications/web-b/charts", "charts", "light", "Round trip")
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
