"""Every page in dark, light and phone width: no serious finding of axe, and a picture to look at.

The pictures are in build/browser.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.world import ROOT
from tests.browser.conftest import SLOW_MS, Watch, picture
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]

AXE = ROOT / "app/dashboard/node_modules/axe-core/axe.min.js"
PAGES = {
    "overview": ("/", "network-lwip"),
    "summary": ("/applications/web", "Executable"),
    "evidence": ("/applications/web/evidence", "claims hold"),
    "logs": ("/applications/talk/logs", "warning"),
    "settings": ("/applications/web/settings", "keepalive"),
    "faults": ("/applications/ask/faults", "New fault"),
    "sockets": ("/applications/web/sockets", "LISTEN"),
    "charts": ("/applications/web/charts", "Round trip"),
    "terminal": ("/applications/web/terminal", "with web’s own services"),
    "files": ("/applications/web/files?path=/etc", "surroundings"),
    "capture": ("/applications/web/capture", "Look at its packets"),
    "compare": ("/compare/web/ask", "text-shared"),
    "operations": ("/operations", "Operations"),
    "access": ("/access", "Who changed what"),
    "topology": ("/?view=graph", "wire: shared memory"),
    "create": ("/create", "What would happen"),
    "change": ("/create?from=web", "unchanged"),
    "networks": ("/networks", "everybody with everybody"),
    "volumes": ("/volumes", "Volumes"),
    "secrets": ("/secrets", "No secrets"),
    "catalogue": ("/catalogue", "network-lwip"),
    "events": ("/events", "started, pid"),
    "doctor": ("/doctor", "bubblewrap"),
    "nothing": ("/nowhere", "There is no such page"),
}
LOOKS = {
    "light": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def findings(page: Page) -> list[str]:
    """Serious and critical ones, each with its place.

    Without `preload`: axe copies style sheets into the page, which its policy forbids.
    """
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "async () => (await axe.run({resultTypes: ['violations'], preload: false})).violations"
        ".filter((one) => ['serious', 'critical'].includes(one.impact))"
    )
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(browser: Browser, server: Server, name: str, look: str) -> None:
    path, text = PAGES[name]
    context = browser.new_context(base_url=server.url, **LOOKS[look])  # type: ignore[arg-type]
    try:
        page = context.new_page()
        watch = Watch(page, server.url)
        page.goto(path)
        expect(page.get_by_role("main")).to_contain_text(text, timeout=SLOW_MS)
        picture(page, f"{name}-{look}")
        assert findings(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{wide} pixels wider than the screen"
        watch.check()
    finally:
        context.close()
