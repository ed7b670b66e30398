"""Terminal, capture, files and two applications side by side."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.world import until
from tests.browser.conftest import SLOW_MS, picture
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]


def test_terminal_has_the_applications_own_services(page: Page) -> None:
    """Its clock is thirty days back, its colours are shown although no inline style is allowed."""
    page.goto("/applications/web/terminal")
    page.get_by_label("Command").fill("sh")
    page.get_by_role("button", name="Run").click()
    screen = page.locator(".xterm-rows")
    expect(screen).to_contain_text("#", timeout=SLOW_MS)
    page.keyboard.type('printf "\\033[38;2;255;100;0m%s\\033[0m\\n" or""ange; date +%F\n')
    orange = screen.locator("span", has_text=re.compile("^orange$"))
    expect(orange).to_have_css("color", "rgb(255, 100, 0)", timeout=SLOW_MS)
    then = page.evaluate("new Date(Date.now() - 30 * 864e5).toISOString().slice(0, 7)")
    expect(screen).to_contain_text(then)
    page.keyboard.type("exit 3\n")
    expect(page.get_by_text("exit code 3")).to_be_visible(timeout=SLOW_MS)


def test_command_that_is_not_there_is_said(page: Page) -> None:
    page.goto("/applications/talk/terminal")
    page.get_by_label("Command").fill("no-such-command")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("button", name="Run")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_role("region", name="Terminal")).to_contain_text(
        re.compile("no-such-command|exit code"), timeout=SLOW_MS
    )


def test_packets_are_listed_as_they_pass_and_saved(page: Page, tmp_path: Path) -> None:
    page.goto("/applications/web/capture")
    page.get_by_label("Filter").fill("tcp port 80")
    page.get_by_role("button", name="Capture", exact=True).click()
    request = page.get_by_role("option", name=re.compile("GET . HTTP")).first
    expect(request).to_be_visible(timeout=SLOW_MS)
    request.click()
    expect(page.get_by_role("region", name="Bytes of packet")).to_contain_text("GET")
    page.get_by_role("button", name="Stop", exact=True).last.click()
    expect(page.get_by_role("button", name="Capture", exact=True)).to_be_visible(timeout=SLOW_MS)
    with page.expect_download() as saved:
        page.get_by_role("button", name="pcapng").click()
    path = tmp_path / "web.pcapng"
    saved.value.save_as(path)
    assert path.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert b"GET / HTTP/1.1" in path.read_bytes()


def test_bad_filter_is_refused_with_its_reason(page: Page) -> None:
    page.goto("/applications/web/capture")
    page.get_by_label("Filter").fill("no such filter")
    page.get_by_role("button", name="Capture", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("filter", timeout=SLOW_MS)


def test_files_as_the_application_sees_them(page: Page, server: Server, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("hello from the host\n")
    (tmp_path / "old.txt").write_text("old\n")
    mounts = [{"path": "/srv/own", "source": "cow", "from": str(tmp_path)}]
    server.run("tree", ["sleep", "1000"], elements={"filesystem": {"settings": {"mounts": mounts}}})
    change = "cd /srv/own; rm old.txt; echo more >> hello.txt; mkdir 'a b'; echo x > 'a b/100%'"
    body = {"command": ["sh", "-c", change]}
    assert server.api.post("/v1/applications/tree/exec", json=body).json()["exit_code"] == 0
    page.goto("/applications/tree/files")
    page.get_by_role("button", name="/srv/own").click()
    row = page.get_by_role("row", name=re.compile("hello.txt"))
    expect(row).to_contain_text("changed", timeout=SLOW_MS)
    expect(row).to_contain_text("upper")
    expect(page.get_by_role("row", name=re.compile("old.txt"))).to_contain_text("removed")
    page.get_by_role("button", name="hello.txt").click()
    expect(page.get_by_role("region", name="Content")).to_contain_text("hello from the host")
    explained = page.get_by_role("region", name="Explanation")
    expect(explained).to_contain_text("Copied up from layer 1")
    expect(explained.get_by_role("list")).to_contain_text(str(tmp_path))
    with page.expect_download() as loading:
        explained.get_by_role("link", name="Download").click()
    assert Path(loading.value.path()).read_text() == "hello from the host\nmore\n"
    assert loading.value.suggested_filename == "hello.txt"
    page.get_by_role("button", name="a b").click()
    page.get_by_role("button", name="100%").click()
    expect(page.get_by_role("region", name="Content")).to_contain_text("x")
    page.get_by_role("button", name="/srv/own").click()
    page.get_by_label("Changed only").check()
    expect(page.get_by_role("row", name=re.compile("a b.100%"))).to_contain_text("added")
    expect(page.get_by_role("row", name=re.compile("hello.txt"))).to_contain_text("content")
    picture(page, "files-changed")
    with page.expect_download() as loading:
        page.get_by_role("link", name="Only changes").click()
    with tarfile.open(loading.value.path()) as tar:
        assert {".wh.old.txt", "hello.txt", "a b/100%"} <= set(tar.getnames())
    page.get_by_label("Changed only").uncheck()
    page.get_by_role("button", name="hello.txt").click()
    expect(explained).to_contain_text("Copied up", timeout=SLOW_MS)
    picture(page, "files-explained")


def test_files_of_a_stopped_application(page: Page, server: Server) -> None:
    server.api.post("/v1/applications/tree/stop", params={"wait": 30}).raise_for_status()
    page.goto("/applications/tree/files?path=/srv/own")
    row = page.get_by_role("row", name=re.compile("hello.txt"))
    expect(row).to_contain_text("changed", timeout=SLOW_MS)
    server.api.delete("/v1/applications/tree", params={"wait": 30})


def test_side_by_side_shares_text_and_nothing_else(page: Page, server: Server) -> None:
    command = ["python3", "-m", "http.server", "80"]
    server.run("twin", command, elements={"network-lwip": {}})
    until(lambda: server.api.get("/v1/applications/twin/sockets").json()["items"], 30)
    page.goto("/compare/web/twin")
    row = page.locator(".pair", has_text="network-lwip · text-shared")
    expect(row.locator("mark.same").first).to_have_text(re.compile(r"inode \d+"), timeout=SLOW_MS)
    arena = page.locator(".pair", has_text="network-lwip · own-arena")
    expect(arena.locator("mark.own").first).to_be_visible()
    expect(arena.locator("mark.same")).to_have_count(0)
    server.api.delete("/v1/applications/twin", params={"wait": 30})


def test_log_faults_and_captures_are_on_one_timeline(page: Page, server: Server) -> None:
    fault = server.api.post("/v1/applications/web/faults", json={"delay": "5ms"}).json()
    with server.api.stream("GET", "/v1/applications/web/capture", params={"for": "300ms"}) as parts:
        parts.read()
    page.goto("/applications/web")
    page.get_by_role("link", name="On the timeline").click()
    timeline = page.get_by_role("region", name="Timeline")
    expect(timeline.locator(".fault").first).to_be_attached(timeout=SLOW_MS)
    expect(timeline.locator(".capture").last).to_have_attribute("title", re.compile("all packets"))
    server.api.delete(f"/v1/applications/web/faults/{fault['id']}")
    page.goto("/events?q=talk")
    log = timeline.get_by_label("Lines that talk wrote")
    expect(log.locator(".bin.bad").first).to_be_attached(timeout=SLOW_MS)
    picture(page, "timeline")
