"""The main job by clicks alone: the example's stack, from the template to its end.

Two unmodified nginx on port 80 with trees from a .tar.gz and a .zip, one clock thirty days back,
redis-server and redis-cli by name. What the pages say is compared with what this host shows.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.world import curl, free_port, until
from tests.browser.conftest import SLOW_MS, Watch, picture
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.native, pytest.mark.root]

NAMES = ("web-a", "web-b", "store", "client")
PIXELS = """([canvas, colour]) => {
    const { width, height } = canvas;
    const copy = Object.assign(document.createElement('canvas'), { width, height });
    const pen = copy.getContext('2d', { willReadFrequently: true });
    pen.fillStyle = getComputedStyle(canvas).getPropertyValue(colour).match(/#\\w+/)[0];
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
    pen.clearRect(0, 0, 1, 1);
    pen.drawImage(canvas, 0, 0);
    const data = pen.getImageData(0, 0, width, height).data;
    const near = (i) =>
        Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
    let found = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200 && near(i) < 60) found++;
    return found;
}"""
"""How many pixels of a canvas have a colour of the page, which is light."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with nothing on it."""
    server = Server(tmp_path_factory.mktemp("s"), plain=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def user(browser: Browser, own: Server) -> Iterator[Page]:
    context = browser.new_context(
        base_url=own.url, viewport={"width": 1440, "height": 900}, color_scheme="light"
    )
    context.set_default_timeout(SLOW_MS)
    page = context.new_page()
    watch = Watch(page, own.url)
    watch.allow("404")  # what was removed is looked for once
    yield page
    watch.check()
    context.close()


@contextmanager
def visited(urls: list[str]) -> Iterator[None]:
    """Somebody asks these, over and over."""
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.1):
            for url in urls:
                subprocess.run(["curl", "-s", "-m2", "-o/dev/null", url], check=False)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        over.set()
        visitor.join()


def opened(page: Page, name: str, tab: str) -> None:
    """The tab of an application, by clicks from wherever the page is."""
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Applications").click()
    page.get_by_role("row", name=re.compile(f"^{name} ")).get_by_role("link", name=name).click()
    page.get_by_role("navigation", name=f"Views of {name}").get_by_role("link", name=tab).click()


def made(page: Page) -> dict[str, int]:
    """The stack from its template, with ports that are free; answers with these."""
    ports = {"web-a": free_port(), "web-b": free_port()}
    page.goto("/")
    page.get_by_role("main").get_by_role("link", name="Create").last.click()
    page.get_by_role("button", name="two-webs").click()
    members = page.get_by_role("group", name="Applications of the stack")
    yaml = page.get_by_role("region", name="The same as YAML")
    for name, port in ports.items():
        members.get_by_role("button", name=name).click()
        page.get_by_role("textbox", name="ports 1").fill(f"{port}:80")
        page.get_by_role("textbox", name="ports 1").press("Tab")
        expect(yaml).to_contain_text(f"{port}:80")
    outcome = page.get_by_role("region", name="What would happen")
    for name in NAMES:
        change = outcome.get_by_role("listitem").filter(has_text=f"application {name}")
        expect(change).to_contain_text("create", timeout=SLOW_MS)
        expect(change).to_contain_text("linked with its own services")
    picture(page, "story-plan")
    outcome.get_by_role("button", name="Create").click()
    for name in NAMES:
        row = page.get_by_role("row", name=re.compile(f"^{name} "))
        expect(row).to_contain_text("running", timeout=SLOW_MS)
    expect(page.get_by_role("region", name="Stack two-webs")).to_contain_text("all running")
    return ports


def served(page: Page, ports: dict[str, int]) -> dict[str, str]:
    """Each web at its published port, by its link, and at its own address; the addresses."""
    addresses = {}
    for name, port in ports.items():
        row = page.get_by_role("row", name=re.compile(f"^{name} "))
        with page.context.expect_page() as opening:
            row.get_by_role("link", name=f":{port}").click()
        expect(opening.value.get_by_text(f"This is {name}")).to_be_visible(timeout=SLOW_MS)
        opening.value.close()
        address = row.locator(".address").inner_text()
        addresses[name] = f"http://{address}/"
        assert f"This is {name}" in until(partial(curl, addresses[name]))
    for name, days in (("web-a", 0), ("web-b", 30)):
        date = re.search(r"^Date: (.*?)\r?$", curl(addresses[name], "-I"), re.M | re.I)
        assert date is not None
        behind = (time.time() - parsedate_to_datetime(date[1]).timestamp()) / 86400
        assert abs(behind - days) < 0.01, (name, behind)
    return addresses


def proved(page: Page) -> None:
    """All claims of all four hold; the two webs share text and nothing else."""
    for name in NAMES:
        opened(page, name, "Evidence")
        words = page.get_by_text(re.compile(r"\d+ of \d+ claims hold"))
        expect(words).to_be_visible(timeout=SLOW_MS)
        holding, claims = map(int, re.findall(r"\d+", words.inner_text())[:2])
        # Of the clock there is one alone: that several run at once cannot be shown.
        alone = page.get_by_text("no other application uses this element now").count()
        assert claims - holding == alone == (1 if name == "web-b" else 0), name
        expect(page.get_by_text("fails", exact=True)).to_have_count(0)
        expect(page.get_by_text("The kernel has no IP socket of this application")).to_be_visible()
    picture(page, "story-evidence")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Side by side").click()
    page.get_by_label("First application").select_option("web-a")
    page.get_by_label("Second application").select_option("web-b")
    for element in ("network-lwip", "filesystem"):
        text = page.locator(".pair", has_text=f"{element} · text-shared")
        expect(text.locator("mark.same").first).to_have_text(re.compile(r"inode \d+"))
    arena = page.locator(".pair", has_text="network-lwip · own-arena")
    expect(arena.locator("mark.own").first).to_be_visible()
    expect(arena.locator("mark.same")).to_have_count(0)
    picture(page, "story-compare")


def looked_into(page: Page, tmp_path: Path, url: str) -> None:
    """Logs, a command beside the program, sockets, packets, charts, files."""
    opened(page, "client", "Logs")
    lines = page.get_by_role("log")
    texts = lines.locator(".text")
    expect(texts.first).to_have_text(re.compile(r"\d+"))
    last = int(re.findall(r"\d+", texts.last.inner_text())[-1])
    expect(texts.last).to_have_text(re.compile(rf"\b{last + 2}$"), timeout=SLOW_MS)

    opened(page, "web-b", "Terminal")
    page.get_by_label("Command").fill("date +%F")
    page.get_by_role("button", name="Run").click()
    then = page.evaluate("new Date(Date.now() - 30 * 864e5).toISOString().slice(0, 10)")
    expect(page.locator(".xterm-rows")).to_contain_text(then, timeout=SLOW_MS)
    expect(page.get_by_text("exit code 0")).to_be_visible(timeout=SLOW_MS)

    opened(page, "store", "Sockets")
    expect(page.get_by_role("row", name=re.compile("LISTEN.*:6379"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("ESTAB.*:6379"))).to_be_visible()

    opened(page, "store", "Capture")
    page.get_by_label("Filter").fill("tcp port 6379")
    page.get_by_role("button", name="Capture", exact=True).click()
    packets = page.get_by_role("option")
    expect(packets.nth(4)).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Stop", exact=True).last.click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="pcapng").click()
    saving.value.save_as(tmp_path / "store.pcapng")
    content = (tmp_path / "store.pcapng").read_bytes()
    assert content[:4] == b"\x0a\x0d\x0d\x0a" and b"INCR" in content

    opened(page, "web-a", "Charts")
    with visited([url, f"{url}style.css"]):
        chart = page.get_by_role("figure", name="File operations")
        expect(chart.locator(".key", has_text="opened")).to_contain_text(
            re.compile(r"[1-9][\d.]*k?/s"), timeout=SLOW_MS
        )
        canvas = chart.locator("canvas").element_handle()
        until(lambda: page.evaluate(PIXELS, [canvas, "--filesystem"]) > 20, 20, 0.5)
        picture(page, "story-charts")

    opened(page, "web-a", "Files")
    page.get_by_role("button", name="/srv/www").click()
    expect(page.get_by_role("row", name=re.compile("style.css"))).to_contain_text("archive")
    page.get_by_role("button", name="index.html").click()
    expect(page.get_by_role("region", name="Content")).to_contain_text("This is web-a")
    page.get_by_role("button", name="style.css").click()
    expect(page.get_by_role("region", name="Content")).to_contain_text("font:")
    explained = page.get_by_role("region", name="Explanation")
    expect(explained).to_contain_text("site-a.tar.gz")
    with page.expect_download() as saving:
        explained.get_by_role("link", name="Download").click()
    assert Path(saving.value.path()).read_text() == curl(f"{url}style.css")
    picture(page, "story-files")


def spoiled(page: Page, url: str) -> None:
    """A slow line by slider: it is felt, counted down, and over by itself."""
    opened(page, "web-b", "Faults")
    page.get_by_role("slider", name="Delay").focus()
    for _ in range(100):
        page.keyboard.press("ArrowRight")  # an eighth of the two seconds that there are
    page.get_by_label("For seconds").fill("12")
    page.get_by_role("button", name="Begin").click()
    held = page.get_by_role("region", name="Faults that hold")
    expect(held).to_contain_text("250 ms later", timeout=SLOW_MS)
    expect(held).to_contain_text(re.compile(r"\d+ s left"))
    before = time.monotonic()
    curl(url)
    assert time.monotonic() - before > 0.4
    left = int(re.findall(r"(\d+) s left", held.inner_text())[0])
    expect(held).to_contain_text(f"{left - 3} s left")
    expect(page.get_by_text("The line is clean")).to_be_visible(timeout=SLOW_MS)
    before = time.monotonic()
    curl(url)
    assert time.monotonic() - before < 0.4


def removed(page: Page, own: Server) -> None:
    """The stack, then what it leaves empty on the host; no trace of either."""
    mark = (own.state / "network-mark").read_text().strip()
    assert marked(mark)  # what is to be gone is what is looked for
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Applications").click()
    page.get_by_role("row", name=re.compile("^web-a ")).get_by_role("link", name="web-a").click()
    page.get_by_role("link", name="cse.stack=two-webs").click()
    page.get_by_role("button", name="Remove stack").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove all of it").click()
    expect(page.get_by_text("No applications yet")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Doctor").click()
    left = page.get_by_role("region", name="Left behind")
    expect(left).to_contain_text("default", timeout=SLOW_MS)
    left.get_by_role("button", name="Remove").click()
    expect(left).to_contain_text("Nothing", timeout=SLOW_MS)
    assert marked(mark) == []
    assert not list((own.state / "apps").glob("*"))
    apps = str(own.state / "apps")
    assert apps not in subprocess.check_output(["ps", "axww"], text=True)
    assert apps not in Path("/proc/mounts").read_text()


def marked(mark: str) -> list[str]:
    """Interfaces and tables of this server."""
    links = subprocess.check_output(["ip", "-o", "link"], text=True).splitlines()
    tables = subprocess.check_output(["nft", "list", "tables"], text=True).splitlines()
    return [line for line in [*links, *tables] if mark in line]


def test_the_main_job_by_clicks(user: Page, own: Server, tmp_path: Path) -> None:
    ports = made(user)
    urls = served(user, ports)
    proved(user)
    looked_into(user, tmp_path, urls["web-a"])
    spoiled(user, urls["web-b"])
    removed(user, own)
