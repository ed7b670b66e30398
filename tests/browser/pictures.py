"""The pictures of README.md, of the real thing: `make pictures` writes docs/pictures/*.png.

Starts a server of its own with the example's stack, a visitor and a fault, waits until there is
something to see, and takes what a browser shows.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

from tests.acceptance.world import ROOT, free_port, until
from tests.browser.conftest import launch
from tests.browser.server import Server

OUT = ROOT / "docs/pictures"
MOST_BYTES = 150_000
COURSE_S = 60.0
"""So much of the courses is to be seen."""
VISIT = (
    "while :; do for web in a b; do curl -s -o /dev/null http://web-$web/; done; sleep 0.4; done"
)
EDIT = """cd /srv/notes
echo and this >> tuesday.txt; rm monday.txt; mkdir -p drafts; echo new > drafts/wednesday.txt
exec sleep 1000"""


def example(server: Server, notes: Path) -> dict[str, Any]:
    """The example's stack with ports that nobody has, somebody who visits it, and changed files."""
    items = server.api.get("/v1/templates").json()["items"]
    stack: dict[str, Any] = next(one["content"] for one in items if one["name"] == "two-webs")
    for spec in stack["applications"].values():
        if "ports" in spec:
            spec["ports"] = [f"{free_port()}:80"]
    stack["applications"]["visitor"] = {
        "command": ["sh", "-c", VISIT],
        "elements": {"network-lwip": {}},
        "depends_on": ["web-a", "web-b"],
    }
    notes.mkdir()
    for day in ("monday", "tuesday"):
        (notes / f"{day}.txt").write_text(f"what was done on {day}\n")
    mount = {"path": "/srv/notes", "source": "cow", "from": str(notes)}
    stack["applications"]["notes"] = {
        "command": ["sh", "-c", EDIT],
        "elements": {"filesystem": {"settings": {"mounts": [mount]}}},
    }
    return stack


def running(api: httpx.Client) -> bool:
    items = api.get("/v1/applications").json()["items"]
    return all(item["status"]["state"] == "running" for item in items)


def shown(page: Page, path: str, colours: str, wait: str) -> None:
    page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
    page.evaluate("(path) => { history.pushState(null, '', path); }", path)
    page.evaluate("() => dispatchEvent(new PopStateEvent('popstate'))")
    page.get_by_role("main").get_by_text(wait).first.wait_for()


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(4000)
    file = OUT / f"{name}.png"
    page.screenshot(path=file)
    size = file.stat().st_size
    assert size < MOST_BYTES, f"{name}.png has {size} bytes"
    print(f"{file.relative_to(ROOT)}: {size} bytes")


def visit(page: Page) -> None:
    """Every picture, in one page: what its charts show has grown in it."""
    page.goto("/")
    time.sleep(COURSE_S)
    for name, path, colours, wait in (
        ("overview", "/", "light", "web-a"),
        ("topology", "/?view=graph", "dark", "wire: shared memory"),
        ("evidence", "/applications/web-a/evidence", "light", "claims hold"),
        ("faults", "/applications/web-b/faults", "dark", "lost"),
        ("charts", "/applications/web-a/charts", "light", "Round trip"),
    ):
        shown(page, path, colours, wait)
        take(page, name)
    shown(page, "/applications/notes/files?path=/srv/notes", "light", "tuesday.txt")
    page.get_by_role("button", name="tuesday.txt").click()
    take(page, "files")
    shown(page, "/create", "dark", "What would happen")
    page.get_by_role("button", name="fleet").click()
    page.get_by_role("main").get_by_text("linked with its own services").first.wait_for()
    take(page, "create")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cse-") as place, sync_playwright() as playwright:
        home = Path(place)
        # Not where this checkout happens to lie: the pictures show paths.
        examples = shutil.copytree(ROOT / "examples", home / "examples")
        (home / "state").mkdir()
        for path in (home, home / "state"):
            path.chmod(0o755)  # the programs of the example run as other users
        server = Server(home / "state", plain=True, examples=examples)
        server.start()
        try:
            answer = server.api.put("/v1/stacks/two-webs", json=example(server, home / "notes"))
            assert answer.is_success, answer.text
            until(lambda: running(server.api), 60)
            fault = {"loss": "2%", "delay": "15ms", "jitter": "5ms", "for": "10m", "seed": 7}
            assert server.api.post("/v1/applications/web-b/faults", json=fault).is_success
            browser = launch(playwright)
            visit(browser.new_page(base_url=server.url, viewport={"width": 1200, "height": 640}))
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
