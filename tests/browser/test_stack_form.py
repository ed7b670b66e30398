"""A stack by its form: copies, networks of its own, a change with removals, and its end."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.world import until
from tests.browser.conftest import SLOW_MS, Watch, picture
from tests.browser.server import Server
from tests.browser.test_looks import findings

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]


def tick(page: Page, label: str, value: str) -> None:
    """Fill a field and leave it."""
    page.get_by_role("textbox", name=label, exact=True).fill(value)
    page.get_by_role("textbox", name=label, exact=True).press("Tab")


def names(server: Server) -> list[str]:
    items = server.api.get("/v1/applications?label=cse.stack=crew").json()["items"]
    return sorted(item["name"] for item in items)


def test_stack_with_copies_is_made_changed_and_removed(
    page: Page, server: Server, watch: Watch
) -> None:
    watch.allow("422|404")  # while it is not whole; what was removed is looked for once
    watch.allow("Applying inline style")
    page.goto("/create")
    tick(page, "Name", "crew")
    tick(page, "Command", "sleep 1000")
    page.get_by_role("button", name="Make it a stack").click()
    members = page.get_by_role("group", name="Applications of the stack")
    member = page.get_by_role("region", name="Application crew")
    page.get_by_text("Life", exact=True).click()
    tick(page, "replicas", "2")
    expect(members.get_by_role("button", name="crew")).to_contain_text("× 2")
    members.get_by_role("button", name="Add an application").click()
    tick(page, "Name", "last")
    tick(page, "Command", "sleep 2000")
    page.get_by_text("Life", exact=True).click()
    page.get_by_role("button", name="Add to depends_on").click()
    tick(page, "depends_on 1", "nobody")
    outcome = page.get_by_role("region", name="What would happen")
    expect(outcome.get_by_role("alert")).to_contain_text("nobody", timeout=SLOW_MS)
    expect(members.get_by_role("button", name="last")).to_contain_text("something is wrong")
    tick(page, "depends_on 1", "crew")
    page.get_by_text("Networks of the stack").click()
    page.get_by_role("button", name="Add a network").click()
    tick(page, "Name of the network", "deck")
    tick(page, "subnet", "10.139.77.0/24")
    for name in ("crew", "last"):
        members.get_by_role("button", name=name).click()
        tick(page, "name", "deck")
    for name in ("network deck", "application crew-1", "application crew-2", "application last"):
        expect(outcome.get_by_role("listitem").filter(has_text=name)).to_contain_text(
            "create", timeout=SLOW_MS
        )
    # The same from the other side: what is typed is in the form.
    yaml = page.get_by_role("textbox", name="YAML")
    expect(yaml).to_contain_text("replicas: 2")
    yaml.get_by_text("replicas: 2").click()
    page.keyboard.press("End")
    page.keyboard.press("Backspace")
    page.keyboard.type("3")
    expect(members.get_by_role("button", name="crew")).to_contain_text("× 3")
    expect(outcome).to_contain_text("crew-3", timeout=SLOW_MS)
    picture(page, "stack-form")
    assert findings(page) == []
    outcome.get_by_role("button", name="Create").click()
    bar = page.get_by_role("region", name="Stack crew")
    expect(bar).to_contain_text("4 applications, all running", timeout=SLOW_MS)
    assert names(server) == ["crew-1", "crew-2", "crew-3", "last"]
    last = server.api.get("/v1/applications/last").json()["spec"]
    assert last["depends_on"] == ["crew-1", "crew-2", "crew-3"]
    assert last["network"]["name"] == "deck"

    bar.get_by_role("link", name="Change stack").click()
    expect(outcome).to_contain_text("unchanged application last", timeout=SLOW_MS)
    members.get_by_role("button", name="last").click()
    page.get_by_role("button", name="Take last out of the stack").click()
    expect(outcome).not_to_contain_text("last")
    page.get_by_label("Remove what it lists no more").check()
    expect(outcome).to_contain_text("remove application last", timeout=SLOW_MS)
    outcome.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("3 applications, all running", timeout=SLOW_MS)
    bar.get_by_role("button", name="Remove stack").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove all of it").click()
    until(lambda: names(server) == [], 30)
    expect(page.get_by_role("row", name=re.compile("^crew"))).to_have_count(0, timeout=SLOW_MS)
    assert member.count() == 0
    server.api.delete("/v1/networks/deck").raise_for_status()


def test_template_of_one_application(page: Page) -> None:
    page.goto("/create")
    page.get_by_role("button", name="other-date").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("past")
    expect(page.get_by_role("textbox", name="offset")).to_have_value("-30d")
    expect(page.get_by_role("region", name="What would happen")).to_contain_text(
        "linked with its own services", timeout=SLOW_MS
    )


def test_secret_is_set_and_removed_and_never_shown(
    page: Page, server: Server, watch: Watch
) -> None:
    watch.allow("404")  # what was removed is looked for once
    page.goto("/secrets")
    page.get_by_label("Name of the secret").fill("door")
    page.get_by_label("Value").fill("sesame-4711")
    page.get_by_role("button", name="New secret").click()
    expect(page.get_by_role("cell", name="door", exact=True)).to_be_visible(timeout=SLOW_MS)
    server.run("keeper", ["sleep", "1000"], environment={"KEY": {"secret": "door"}})
    told = server.api.post("/v1/applications/keeper/exec", json={"command": ["env"]}).json()
    assert "KEY=sesame-4711" in told["stdout"]
    page.reload()
    expect(page.get_by_role("link", name="keeper")).to_be_visible(timeout=SLOW_MS)
    assert "sesame" not in page.content()
    page.get_by_role("link", name="keeper").click()
    page.get_by_role("link", name="Change").click()
    variables = page.get_by_role("textbox", name="environment")
    expect(variables).to_have_value('KEY={"secret":"door"}', timeout=SLOW_MS)
    variables.fill('OTHER={"a": 1}\nKEY={"secret":"door"}')
    variables.press("Tab")
    outcome = page.get_by_role("region", name="What would happen")
    expect(outcome).to_contain_text("/environment/OTHER", timeout=SLOW_MS)
    expect(outcome).not_to_contain_text("/environment/KEY")
    page.goto("/secrets")
    server.api.delete("/v1/applications/keeper", params={"wait": 30})
    page.get_by_role("button", name="Remove door").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No secrets")).to_be_visible(timeout=SLOW_MS)
    assert server.api.get("/v1/secrets").json()["items"] == []
