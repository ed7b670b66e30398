"""An application in a container, made by clicks and looked at like any other."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.world import until
from tests.browser.conftest import SLOW_MS, Watch, picture
from tests.browser.server import NETWORK, Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root, pytest.mark.docker]


def test_container_is_made_and_looked_at_like_any_other(
    page: Page, server: Server, watch: Watch
) -> None:
    # Chromium's own editing gives what replaces a selection a style; the policy takes it away.
    watch.allow("Applying inline style")
    page.goto("/create")
    form = page.get_by_role("main")
    form.get_by_role("textbox", name="YAML").click()
    page.keyboard.press("Control+A")
    page.keyboard.type(
        "name: boxed\ncommand: [python3, -u, -m, http.server, '80']\nruntime: docker\n"
        f"image: cse/example\nelements: {{network-lwip: {{}}}}\nnetwork: {{name: {NETWORK}}}\n"
    )
    form.get_by_role("button", name="Create", exact=True).click()
    expect(form.get_by_text("cse/example")).to_be_visible(timeout=SLOW_MS)
    until(lambda: server.api.get("/v1/applications/boxed/sockets").json().get("items"), 30)
    try:
        page.goto("/applications/boxed/evidence")
        proof = page.get_by_role("region", name="Evidence of network-lwip")
        expect(proof).to_contain_text("The kernel has no IP socket", timeout=SLOW_MS)
        expect(page.get_by_text("fails", exact=True)).to_have_count(0)
        page.goto("/applications/boxed/sockets")
        expect(page.get_by_role("row", name=re.compile("listen", re.I))).to_be_visible(
            timeout=SLOW_MS
        )
        page.goto("/applications/boxed/terminal")
        page.get_by_label("Command").fill("cat /proc/1/cmdline")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text("exit code 0")).to_be_visible(timeout=SLOW_MS)
        page.goto("/applications/boxed/files")
        expect(page.get_by_role("row", name=re.compile(r"\.dockerenv"))).to_be_visible(
            timeout=SLOW_MS
        )
        picture(page, "docker-files")
    finally:
        server.api.delete("/v1/applications/boxed", params={"wait": 30})
