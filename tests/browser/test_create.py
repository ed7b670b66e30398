"""New applications and changes of old ones, by the form, by YAML, and what is said before."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.world import until
from tests.browser.conftest import SLOW_MS, Watch
from tests.browser.server import NETWORK, Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]


def test_by_form_with_private_services(page: Page, server: Server) -> None:
    page.goto("/")
    page.get_by_role("main").get_by_role("link", name="Create").click()
    page.get_by_label("Name", exact=True).fill("made")
    page.get_by_label("Command").fill("sh -c 'date; sleep 1000'")
    page.get_by_role("checkbox", name="clock-faketime").check()
    page.get_by_role("textbox", name="offset").fill("-30d")
    page.get_by_role("textbox", name="offset").press("Tab")
    page.get_by_label("name", exact=True).fill(NETWORK)
    page.get_by_label("name", exact=True).press("Tab")
    outcome = page.get_by_role("region", name="What would happen")
    expect(outcome).to_contain_text("create application made", timeout=SLOW_MS)
    outcome.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1, name="made")).to_be_visible(timeout=SLOW_MS)
    made = server.api.get("/v1/applications/made").json()
    assert made["spec"]["command"] == ["sh", "-c", "date; sleep 1000"]
    assert set(made["spec"]["elements"]) == {"network-lwip", "clock-faketime"}
    assert made["status"]["state"] == "running"
    server.api.delete("/v1/applications/made", params={"wait": 30})


def test_form_and_yaml_are_kept_in_step(page: Page, watch: Watch) -> None:
    # Chromium's own editing gives what replaces a selection a style; the policy takes it away.
    watch.allow("Applying inline style")
    page.goto("/create")
    page.get_by_label("Name", exact=True).fill("both")
    page.get_by_label("Name", exact=True).press("Tab")
    yaml = page.get_by_role("textbox", name="YAML")
    expect(yaml).to_contain_text("name: both", timeout=SLOW_MS)
    yaml.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("name: typed\ncommand: [sleep, '1000']\nuser: nobody\n")
    expect(page.get_by_label("Name", exact=True)).to_have_value("typed")
    expect(page.get_by_label("Command")).to_have_value("sleep 1000")
    page.keyboard.press("Control+A")
    page.keyboard.type("name: typed: twice")
    expect(page.get_by_role("alert").first).to_be_visible()
    expect(page.get_by_role("button", name="Create", exact=True)).to_be_disabled()


def test_what_cannot_start_is_refused_before(page: Page, watch: Watch) -> None:
    watch.allow("422")
    page.goto("/create")
    page.get_by_label("Name", exact=True).fill("nope")
    page.get_by_label("Command").fill("no-such-program-anywhere")
    page.get_by_label("Command").press("Tab")
    expect(page.get_by_label("Command")).to_have_attribute("aria-invalid", "true", timeout=SLOW_MS)
    outcome = page.get_by_role("region", name="What would happen")
    expect(outcome).to_contain_text("no-such-program-anywhere")
    expect(outcome.get_by_role("button")).to_be_disabled()


def test_change_shows_each_field_before_it_is_done(page: Page, server: Server) -> None:
    server.run("older", ["sleep", "1000"], environment={"A": "1"})
    page.goto("/applications/older")
    page.get_by_role("link", name="Change").click()
    expect(page.get_by_text("unchanged application")).to_be_visible(timeout=SLOW_MS)
    page.get_by_label("environment").fill("A=2")
    page.get_by_label("environment").press("Tab")
    outcome = page.get_by_role("region", name="What would happen")
    expect(outcome).to_contain_text("/environment/A", timeout=SLOW_MS)
    expect(outcome).to_contain_text(re.compile("1 → 2"))
    outcome.get_by_role("button", name="Apply").click()
    until(
        lambda: server.api.get("/v1/applications/older").json()["spec"]["environment"]["A"] == "2",
        30,
    )
    server.api.delete("/v1/applications/older", params={"wait": 30})


def test_networks_and_volumes_are_made_and_removed(page: Page, server: Server) -> None:
    page.goto("/volumes")
    page.get_by_label("Name of a new volume").fill("kept")
    page.get_by_role("button", name="New volume").click()
    expect(page.get_by_role("cell", name="kept", exact=True)).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Remove kept").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove with its files").click()
    expect(page.get_by_role("cell", name="kept", exact=True)).to_have_count(0, timeout=SLOW_MS)
    first = {"name": "first", "subnet": "10.120.0.0/20"}
    assert server.api.put("/v1/networks/first", json=first).status_code == 200
    page.add_init_script("Math.random = () => 0")
    page.goto("/networks")
    expect(page.get_by_role("region", name="Network first")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="New network").click()
    expect(page.get_by_label("subnet", exact=True)).to_have_value("10.121.0.0/20")
    page.get_by_label("name", exact=False).first.fill("spare")
    page.get_by_label("name", exact=False).first.press("Tab")
    page.get_by_role("button", name="Make").click()
    expect(page.get_by_role("region", name="Network spare")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Remove spare").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("region", name="Network spare")).to_have_count(0, timeout=SLOW_MS)
    assert server.api.get("/v1/networks/spare").status_code == 404
    assert server.api.delete("/v1/networks/first").status_code < 300
