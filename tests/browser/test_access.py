"""A server that asks for tokens: login, scopes, tokens made and revoked, pages of other sites."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import SLOW_MS, Watch
from tests.browser.server import Server

pytestmark = [pytest.mark.browser]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Made with a first token; its API client uses that."""
    server = Server(tmp_path_factory.mktemp("a"), require_token=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def visitor(browser: Browser, locked: Server) -> Iterator[Page]:
    context = browser.new_context(base_url=locked.url)
    context.set_default_timeout(SLOW_MS)
    page = context.new_page()
    watch = Watch(page, locked.url)
    watch.allow("401|403")
    yield page
    watch.check()
    context.close()


def log_in(page: Page, token: str) -> None:
    page.goto("/")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_token_is_asked_for_and_kept_from_scripts(visitor: Page, locked: Server) -> None:
    log_in(visitor, "cse_wrong")
    expect(visitor.get_by_role("alert")).to_contain_text("token", timeout=SLOW_MS)
    visitor.get_by_label("Token").fill(locked.token)
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor.get_by_role("heading", level=1, name="Applications")).to_be_visible()
    expect(visitor.get_by_role("navigation")).to_contain_text("Live", timeout=SLOW_MS)
    assert visitor.evaluate("document.cookie") == ""
    visitor.reload()
    expect(visitor.get_by_role("heading", level=1, name="Applications")).to_be_visible()
    visitor.get_by_role("button", name="Log out").click()
    expect(visitor.get_by_label("Token")).to_be_visible(timeout=SLOW_MS)


def test_tokens_are_made_shown_once_and_revoked(visitor: Page, locked: Server) -> None:
    log_in(visitor, locked.token)
    visitor.get_by_role("link", name="Access").click()
    visitor.get_by_label("Name of a new token").fill("reader")
    visitor.get_by_role("button", name="New token").click()
    tokens = visitor.get_by_role("region", name="Tokens")
    shown = visitor.get_by_text("This is shown once").locator("..")
    expect(shown).to_contain_text("cse_", timeout=SLOW_MS)
    secret = shown.locator(".mono").inner_text()
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=locked.url, headers=headers) as reader:
        assert reader.get("/v1/applications").status_code == 200
        assert reader.get("/v1/tokens").status_code == 403
        tokens.get_by_role("row", name="reader").get_by_role("button", name="Revoke").click()
        visitor.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(tokens.get_by_role("row", name="reader")).to_contain_text("revoked")
        assert reader.get("/v1/applications").status_code == 401
    visitor.reload()
    expect(tokens.get_by_role("row", name="reader")).to_be_visible()
    assert secret not in visitor.content()


def test_project_bounds_what_its_token_may_have(visitor: Page, locked: Server) -> None:
    log_in(visitor, locked.token)
    visitor.get_by_role("link", name="Access").click()
    projects = visitor.get_by_role("region", name="Projects")
    projects.get_by_label("Name of the project").fill("small")
    projects.get_by_label("At most: applications").fill("0")
    projects.get_by_role("button", name="New project").click()
    expect(projects.get_by_role("row", name="small")).to_contain_text("0 of 0", timeout=SLOW_MS)
    projects.get_by_label("Name of the project").fill("small")
    projects.get_by_label("At most: memory").fill("1GiB")
    projects.get_by_role("button", name="Change project").click()
    expect(projects.get_by_role("row", name="small")).to_contain_text("1 GiB", timeout=SLOW_MS)
    visitor.reload()
    visitor.get_by_label("Name of a new token").fill("tenant")
    visitor.get_by_label("Scope").select_option("operate")
    visitor.get_by_label("For which project").select_option("small")
    visitor.get_by_role("button", name="New token").click()
    shown = visitor.get_by_text("This is shown once").locator("..")
    expect(shown).to_contain_text("cse_", timeout=SLOW_MS)
    headers = {"Authorization": f"Bearer {shown.locator('.mono').inner_text()}"}
    with httpx.Client(base_url=locked.url, headers=headers) as tenant:
        assert tenant.get("/v1/session").json()["project"] == "small"
        spec = {"name": "one", "command": ["sleep", "9"], "project": "small"}
        refused = tenant.post("/v1/applications", json=spec)
        assert refused.status_code == 422, refused.text
    row = visitor.get_by_role("row", name="tenant")
    row.get_by_role("button", name="Revoke").click()
    visitor.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked", timeout=SLOW_MS)
    projects.get_by_role("button", name="Remove project small").click()
    expect(projects.get_by_role("row", name="small")).to_have_count(0, timeout=SLOW_MS)


def test_reader_is_offered_nothing_that_changes_something(visitor: Page, locked: Server) -> None:
    spec = {"name": "seen", "command": ["sleep", "600"]}
    assert locked.api.post("/v1/applications", json=spec).status_code in (201, 202)
    made = locked.api.post("/v1/tokens", json={"name": "looker", "scope": "read"}).json()
    log_in(visitor, made["token"])
    seen = visitor.get_by_role("main")
    expect(seen.get_by_role("link", name="seen")).to_be_visible(timeout=SLOW_MS)
    expect(visitor.get_by_role("link", name="Create")).to_have_count(0)
    seen.get_by_role("link", name="seen").click()
    expect(seen.get_by_text("read only")).to_be_visible()
    for name in ("Stop", "Restart", "Remove"):
        expect(seen.get_by_role("button", name=name)).to_have_count(0)
    expect(seen.get_by_role("link", name="Terminal")).to_have_count(0)
    expect(seen.get_by_role("link", name="Logs")).to_be_visible()
    visitor.goto("/applications/seen/terminal")
    expect(seen.get_by_role("region", name="Program")).to_be_visible(timeout=SLOW_MS)
    visitor.get_by_role("link", name="Volumes").click()
    expect(seen.get_by_text("No volumes")).to_be_visible(timeout=SLOW_MS)
    expect(seen.get_by_role("button", name="New volume")).to_have_count(0)
    visitor.get_by_role("link", name="Access").click()
    expect(seen.get_by_text("want the scope admin")).to_be_visible(timeout=SLOW_MS)
    locked.api.delete("/v1/applications/seen")


def test_page_of_another_site_gets_nothing(browser: Browser, locked: Server) -> None:
    """A form or script elsewhere, in the same browser that is logged in here."""
    context = browser.new_context(base_url=locked.url)
    try:
        page = context.new_page()
        log_in(page, locked.token)
        expect(page.get_by_role("heading", level=1, name="Applications")).to_be_visible(
            timeout=SLOW_MS
        )
        other = context.new_page()
        other.goto("about:blank")
        result = other.evaluate(
            """async (url) => {
                try {
                    const answer = await fetch(url + '/v1/volumes', {
                        method: 'POST', mode: 'no-cors', credentials: 'include',
                        body: '{"name": "planted"}', headers: {'Content-Type': 'text/plain'}});
                    return answer.type;
                } catch (error) { return 'refused'; }
            }""",
            locked.url,
        )
        assert result in ("opaque", "refused")
        assert locked.api.get("/v1/volumes").json()["items"] == []
    finally:
        context.close()
