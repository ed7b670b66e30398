"""One application: evidence, logs, settings, faults and sockets, by clicks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.world import until
from tests.browser.conftest import SLOW_MS
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]


def test_evidence_is_a_readable_proof(page: Page) -> None:
    page.goto("/applications/web/evidence")
    proof = page.get_by_role("region", name="Evidence of network-lwip")
    expect(proof).to_contain_text(
        "The kernel has no IP socket of this application", timeout=SLOW_MS
    )
    expect(proof).to_contain_text("tcp 0, tcp6 0, udp 0")
    expect(page.get_by_text(re.compile(r"\d+ of \d+ claims hold"))).to_be_visible()
    expect(page.get_by_text("fails", exact=True)).to_have_count(0)


def test_logs_follow_with_colours_and_search(page: Page) -> None:
    page.goto("/applications/talk/logs")
    lines = page.get_by_role("log")
    expect(lines).to_contain_text(re.compile(r"line \d+"), timeout=SLOW_MS)
    green = lines.locator(".c2").first
    expect(green).to_have_text("line")
    last = int(re.findall(r"warning (\d+)", lines.inner_text())[-1])
    expect(lines).to_contain_text(f"warning {last + 3}", timeout=SLOW_MS)
    page.get_by_role("button", name="stderr").click()
    expect(lines).not_to_contain_text("line")
    page.get_by_role("searchbox", name="Find").fill(f"warning {last}")
    expect(lines).to_contain_text(f"warning {last}")
    expect(lines).not_to_contain_text(f"warning {last - 1}")


def test_live_setting_changes_while_the_program_runs(page: Page, server: Server) -> None:
    pid = server.api.get("/v1/applications/web").json()["status"]["pid"]
    page.goto("/applications/web/settings")
    ttl = page.get_by_label("ttl", exact=False)
    ttl.fill("33")
    ttl.press("Tab")
    page.get_by_role("button", name="Change now").click()
    expect(page.get_by_text("changed while web runs")).to_be_visible(timeout=SLOW_MS)
    found = server.api.get("/v1/applications/web/instances").json()["items"]
    settings = next(one["settings"] for one in found if one["element"] == "network-lwip")
    assert settings["ttl"] == 33
    assert server.api.get("/v1/applications/web").json()["status"]["pid"] == pid


def test_bad_setting_is_refused_at_its_field(page: Page) -> None:
    page.goto("/applications/web/settings")
    ttl = page.get_by_label("ttl", exact=False)
    ttl.fill("999")
    ttl.press("Tab")
    page.get_by_role("button", name="Change now").click()
    expect(ttl).to_have_attribute("aria-invalid", "true", timeout=SLOW_MS)
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("button", name="Change now")).to_have_count(0)
    page.watch.allow("422")  # type: ignore[attr-defined]


def test_fault_by_sliders_counts_down_and_ends(page: Page, server: Server) -> None:
    page.goto("/applications/web/faults")
    expect(page.get_by_text("The line is clean")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("textbox", name="Loss in %").fill("20")
    page.get_by_role("slider", name="Delay").focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    page.get_by_label("For seconds").fill("300")
    page.get_by_role("button", name="Begin").click()
    held = page.get_by_role("region", name="Faults that hold")
    expect(held).to_contain_text("20 % lost", timeout=SLOW_MS)
    expect(held).to_contain_text(re.compile(r"4 min \d+ s left"))
    expect(held).to_contain_text(re.compile(r"seen\s+\d+"), timeout=SLOW_MS)
    fault = server.api.get("/v1/applications/web/faults").json()["items"][0]
    assert fault["spec"]["loss"] == 20
    assert fault["spec"]["delay"] == pytest.approx(0.016, abs=0.001)
    page.goto("/")
    expect(page.get_by_role("row", name="web").get_by_label("A fault holds")).to_be_visible(
        timeout=SLOW_MS
    )
    page.goto("/applications/web/faults")
    page.get_by_role("button", name="End now").click()
    expect(page.get_by_text("The line is clean")).to_be_visible(timeout=SLOW_MS)
    assert server.api.get("/v1/applications/web/faults").json()["items"] == []


def test_fault_of_files_by_form(page: Page, server: Server, tmp_path: Path) -> None:
    mount = {"path": "/srv/data", "source": "cow", "from": str(tmp_path)}
    elements = {"filesystem": {"settings": {"mounts": [mount]}}}
    server.run("disk", ["sleep", "600"], elements=elements)
    page.goto("/applications/disk/faults")
    expect(page.get_by_text("The disk is sound")).to_be_visible(timeout=SLOW_MS)
    form = page.get_by_role("form", name="New fault of files")
    expect(page.get_by_role("form")).to_have_count(1)  # it has no packets
    form.get_by_role("button", name="Lost fsync").click()
    expect(form.get_by_label("Files", exact=True)).to_have_value("/srv/data/**")
    form.get_by_role("checkbox", name="write", exact=True).check()
    form.get_by_label("Share in %").fill("50")
    form.get_by_label("Share in %").press("Tab")
    form.get_by_label("Seconds", exact=True).fill("300")
    form.get_by_role("button", name="Order").click()
    held = page.get_by_role("region", name="Faults that hold")
    expect(held).to_contain_text("EIO, write, fsync on /srv/data/**, 50 % of them", timeout=SLOW_MS)
    expect(held).to_contain_text(re.compile(r"4 min \d+ s left"))
    fault = server.api.get("/v1/applications/disk/faults").json()["items"][0]
    assert fault["spec"]["file"] == {
        "path": "/srv/data/**",
        "op": ["write", "fsync"],
        "errno": "EIO",
        "rate": 50.0,
        "short": False,
        "full_after": None,
    }
    form.get_by_label("Files", exact=True).fill("srv")
    form.get_by_role("button", name="Order").click()
    expect(form.get_by_text("is not absolute")).to_be_visible(timeout=SLOW_MS)
    page.watch.allow("422")  # type: ignore[attr-defined]
    held.get_by_role("button", name="End now").click()
    expect(page.get_by_text("The disk is sound")).to_be_visible(timeout=SLOW_MS)
    server.api.delete("/v1/applications/disk")


def test_sockets_of_the_private_stack(page: Page) -> None:
    page.goto("/applications/web/sockets")
    expect(page.get_by_role("row", name=re.compile("LISTEN.*:80"))).to_be_visible(timeout=SLOW_MS)


def test_stop_start_and_remove_by_clicks(page: Page, server: Server, tmp_path: Path) -> None:
    server.run("victim", ["sleep", "1000"])
    page.goto("/applications/victim")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("heading", level=1, name="Applications")).to_be_visible(timeout=SLOW_MS)
    until(lambda: server.api.get("/v1/applications/victim").status_code == 404, 30)


def test_unknown_application_says_so(page: Page) -> None:
    page.goto("/applications/nobody")
    expect(page.get_by_text("There is no application “nobody”")).to_be_visible(timeout=SLOW_MS)
