"""Tokens, scopes, projects, quotas, strangers and the audit log, over the fake agent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import WebSocketDenialResponse

from app.agent.fake import FakeAgent
from app.api.access import needed
from app.api.peers import PeerProtocol
from app.domain.access import Scope
from app.domain.errors import HostLacks
from app.main import ControlPlane, listen, require_tokens
from app.settings import load
from tests.integration.planes import Plane, served, until, write_elements

SOCKET = "/v1/applications/web/exec?command=true"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent(), require_token=True)
    yield made
    made.stop()


def token(plane: Plane, name: str, scope: str, **more: Any) -> dict[str, str]:
    """The headers of a client with a new token."""
    body = {"name": name, "scope": scope, **more}
    with plane.plane.store.write() as transaction:
        from app.domain.access import TokenSpec

        made = transaction.tokens.create(TokenSpec.model_validate(body))
    plane.plane.authenticator.forget()
    return {"Authorization": f"Bearer {made.token}"}


NGINX = {"name": "web", "command": ["nginx"]}


def test_without_a_token_nothing_but_health_is_answered(plane: Plane) -> None:
    for path in ("/metrics", "/v1/applications", "/v1", "/v1/tokens", "/v1/events", "/v1/session"):
        answer = plane.http.get(path)
        assert answer.status_code == 401, path
        assert answer.json()["type"] == "urn:cse:problem:unauthenticated"
    assert plane.http.get("/v1/applications").headers["www-authenticate"].startswith("Bearer")
    assert plane.http.get("/v1/health").status_code == 200
    for bad in ("cse_00000000_x", "x" * 5000):
        wrong = {"Authorization": f"Bearer {bad}"}
        assert plane.http.get("/v1/applications", headers=wrong).status_code == 401


def test_scopes(plane: Plane) -> None:
    read, operate = token(plane, "r", "read"), token(plane, "o", "operate")
    admin = token(plane, "a", "admin")
    post = plane.http.post
    assert post("/v1/applications", json=NGINX, headers=read).status_code == 403
    assert post("/v1/applications", json=NGINX, headers=operate).status_code == 201
    assert plane.http.get("/v1/applications/web", headers=read).status_code == 200
    assert post("/v1/applications/web/plan", json=NGINX, headers=read).status_code == 200
    assert plane.http.get("/v1/tokens", headers=operate).status_code == 403
    assert plane.http.get("/v1/tokens", headers=admin).status_code == 200
    assert plane.http.get("/v1/applications/web/capture", headers=read).status_code == 403
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        plane.http.websocket_connect(SOCKET, headers={"Host": "127.0.0.1", **read}),
    ):
        pass
    assert refused.value.status_code == 403
    with plane.http.websocket_connect(SOCKET, headers={"Host": "127.0.0.1", **operate}) as terminal:
        assert json.loads(terminal.receive_text()) == {"exit_code": 0}


def test_a_token_is_shown_once_and_kept_as_a_hash(plane: Plane, tmp_path: Path) -> None:
    admin = token(plane, "a", "admin")
    made = plane.http.post("/v1/tokens", json={"name": "ci", "scope": "read"}, headers=admin)
    secret = made.json()["token"]
    assert made.status_code == 201 and secret.startswith("cse_") and len(secret) > 50
    assert secret not in plane.http.get("/v1/tokens", headers=admin).text
    assert plane.http.get("/v1", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    again = plane.http.post("/v1/tokens", json={"name": "ci"}, headers=admin)
    assert again.status_code == 409
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("store.sqlite*"))
    assert secret.encode() not in stored and secret.rpartition("_")[2].encode() not in stored


def test_revoked_and_expired_tokens_are_refused_at_once(plane: Plane) -> None:
    admin, read = token(plane, "a", "admin"), token(plane, "r", "read")
    short = token(plane, "s", "read", expires_in=0.05)
    assert plane.http.get("/v1", headers=read).status_code == 200
    assert plane.http.delete("/v1/tokens/r", headers=admin).json()["revoked"]
    assert plane.http.get("/v1", headers=read).status_code == 401
    until(lambda: plane.http.get("/v1", headers=short).status_code == 401)
    listed = plane.http.get("/v1/tokens", headers=admin).json()["items"]
    used = {item["name"]: item.get("last_used") for item in listed}
    assert used["a"] and used["r"]


def test_a_name_that_was_revoked_means_the_token_that_has_it_now(plane: Plane) -> None:
    admin = token(plane, "a", "admin")
    token(plane, "r", "read")
    assert plane.http.delete("/v1/tokens/r", headers=admin).status_code == 200
    read = token(plane, "r", "read")
    assert plane.http.get("/v1", headers=read).status_code == 200
    assert plane.http.delete("/v1/tokens/r", headers=admin).status_code == 200
    assert plane.http.get("/v1", headers=read).status_code == 401


def test_a_browser_keeps_the_token_in_a_cookie(plane: Plane) -> None:
    read = token(plane, "r", "operate")
    secret = read["Authorization"].split()[1]
    assert plane.http.post("/v1/session", json={"token": "cse_no"}).status_code == 401
    login = plane.http.post("/v1/session", json={"token": secret})
    cookie = login.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert plane.http.get("/v1/session").json()["principal"] == "token r"
    plane.create("web")
    browser = {"Host": "127.0.0.1", "Cookie": f"cse_token={secret}"}
    with plane.http.websocket_connect(SOCKET, headers=browser) as terminal:
        assert json.loads(terminal.receive_text()) == {"exit_code": 0}
    assert plane.http.delete("/v1/session").status_code == 204
    assert plane.http.get("/v1/session").status_code == 401
    protocols = ["cse.v1", f"cse.token.{secret}"]
    with plane.http.websocket_connect(SOCKET, protocols, headers={"Host": "127.0.0.1"}) as one:
        assert one.accepted_subprotocol == "cse.v1"
        assert json.loads(one.receive_text()) == {"exit_code": 0}


STRANGERS = [
    {"Host": "evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", STRANGERS, ids=str)
def test_pages_of_strangers_change_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    plane = Plane(tmp_path, FakeAgent())
    answer = plane.http.post("/v1/applications", json=NGINX, headers=headers)
    assert answer.status_code == 403
    assert plane.names() == []
    plane.stop()


def test_a_link_from_elsewhere_may_be_followed(tmp_path: Path) -> None:
    plane = Plane(tmp_path, FakeAgent())
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert plane.http.get("/", headers=headers).status_code == 200
    plane.stop()


def test_a_confined_token_sees_and_changes_its_project_only(plane: Plane) -> None:
    admin = token(plane, "a", "admin")
    put = plane.http.put("/v1/projects/ci", json={"name": "ci"}, headers=admin)
    assert put.status_code == 200
    mine = token(plane, "ci", "operate", project="ci")
    post = plane.http.post
    assert post("/v1/applications", json=NGINX, headers=admin).status_code == 201
    outside = post("/v1/applications", json={**NGINX, "name": "x"}, headers=mine)
    assert outside.json()["errors"][0]["pointer"] == "/project"
    own = {**NGINX, "name": "own", "project": "ci"}
    assert post("/v1/applications", json=own, headers=mine).status_code == 201
    listed = plane.http.get("/v1/applications", headers=mine).json()["items"]
    assert [item["name"] for item in listed] == ["own"]
    for method, path in (
        ("GET", "/v1/applications/web"),
        ("DELETE", "/v1/applications/web"),
        ("POST", "/v1/applications/web/stop"),
        ("GET", "/v1/applications/web/logs"),
        ("PATCH", "/v1/instances/web.net-a"),
    ):
        body: dict[str, Any] | None = {"settings": {}} if method == "PATCH" else None
        answer = plane.http.request(method, path, headers=mine, json=body)
        assert answer.status_code == 404, path
    with plane.http.websocket_connect(SOCKET, headers={"Host": "127.0.0.1", **mine}) as terminal:
        assert "no application" in terminal.receive_text()
    assert post("/v1/networks", json={"name": "n"}, headers=mine).status_code == 403
    stack = {"name": "s", "volumes": {"v": None}, "applications": {}}
    assert plane.http.put("/v1/stacks/s", json=stack, headers=mine).status_code == 403
    seen = {
        event["application"] for event in plane.http.get("/v1/events", headers=mine).json()["items"]
    }
    assert seen == {"own"}
    place = {}
    for name, headers in (("own", mine), ("web", admin)):
        removing = {**headers, "Prefer": "respond-async"}
        gone = plane.http.delete(f"/v1/applications/{name}", headers=removing)
        place[name] = gone.headers["operation-location"]
    until(lambda: plane.http.get(place["own"], headers=mine).json()["state"] == "succeeded")
    assert plane.http.get(place["web"], headers=mine).status_code == 404
    told = plane.http.get("/v1/operations", headers=mine).json()["items"]
    assert place["own"].endswith(told[0]["id"]) and {one["kind"] for one in told} == {"delete"}
    assert plane.http.delete("/v1/projects/ci", headers=admin).status_code == 409


def test_quotas(plane: Plane) -> None:
    admin = token(plane, "a", "admin")
    quotas = {"applications": 2, "memory": "100M"}
    body: dict[str, Any] = {"name": "ci", "quotas": quotas}
    assert plane.http.put("/v1/projects/ci", json=body, headers=admin).status_code == 200

    def create(name: str, **limits: Any) -> Any:
        spec = {**NGINX, "name": name, "project": "ci", "limits": limits}
        return plane.http.post("/v1/applications", json=spec, headers=admin)

    unlimited = create("a")
    assert unlimited.json()["errors"][0]["pointer"] == "/limits/memory"
    assert create("a", memory="60M").status_code == 201
    over = create("b", memory="60M")
    assert over.status_code == 422 and "quota" in over.json()["detail"]
    assert create("b", memory="40M").status_code == 201
    assert create("c", memory="4M").json()["errors"][0]["pointer"] == "/project"
    stack = {"name": "s", "applications": {"d": {"command": ["nginx"], "project": "ci"}}}
    refused = plane.http.put("/v1/stacks/s", json=stack, headers=admin)
    assert refused.json()["errors"][0]["pointer"].startswith("/applications/d/")
    unknown = plane.http.post(
        "/v1/applications", json={**NGINX, "project": "co"}, headers=admin
    ).json()
    assert unknown["errors"][0]["pointer"] == "/project"
    names = [
        item["name"] for item in plane.http.get("/v1/applications", headers=admin).json()["items"]
    ]
    assert names == ["a", "b"]


def test_the_audit_log_has_who_did_what(plane: Plane) -> None:
    admin, read = token(plane, "a", "admin"), token(plane, "r", "read")
    headers = {**admin, "X-Request-ID": "my-request"}
    made = plane.http.post("/v1/applications", json=NGINX, headers=headers)
    assert made.headers["x-request-id"] == "my-request"
    plane.http.post("/v1/applications", json=NGINX, headers=read)
    plane.http.get("/v1/applications")
    plane.http.get("/v1/applications", headers=read)
    log = plane.http.get("/v1/audit", headers=admin).json()["items"]
    rows = [(item["principal"], item["method"], item["path"], item["status"]) for item in log]
    assert rows == [
        ("token a", "POST", "/v1/applications", 201),
        ("token r", "POST", "/v1/applications", 403),
        ("nobody", "GET", "/v1/applications", 401),
    ]
    assert log[0]["request_id"] == "my-request"


def test_guessing_tokens_is_slow(plane: Plane) -> None:
    wrong = {"Authorization": "Bearer cse_no"}
    codes = [plane.http.get("/v1", headers=wrong).status_code for _ in range(40)]
    assert codes[0] == 401 and 429 in codes


def test_requests_have_a_rate(tmp_path: Path) -> None:
    plane = Plane(tmp_path, FakeAgent(), rate_limit=1.0)
    answers = [plane.http.get("/v1") for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200 and refused
    assert refused[0].headers["retry-after"] == "1"
    plane.stop()


def test_bodies_have_a_size(plane: Plane) -> None:
    large = {**NGINX, "environment": {"A": "x" * (5 * 2**20)}}
    answer = plane.http.post("/v1/applications", json=large, headers=token(plane, "o", "operate"))
    assert answer.status_code == 413


def test_every_route_needs_the_scope_that_it_should(plane: Plane) -> None:
    """Looks at all of them: a new route must not be open by mistake."""
    document = plane.plane.api.openapi()
    for path, operations in document["paths"].items():
        for method in operations:
            need = needed(method.upper(), path, is_socket=False)
            changes = method in ("post", "put", "patch", "delete")
            if path in ("/v1/health", "/v1/session"):
                assert need is None
            elif path.startswith(("/v1/tokens", "/v1/audit", "/v1/gc")):
                assert need is Scope.ADMIN
            elif changes and not path.endswith("/plan"):
                assert need in (Scope.OPERATE, Scope.ADMIN), path
            else:
                assert need is not None, path


def test_no_listening_elsewhere_without_tokens(tmp_path: Path) -> None:
    settings = load({}, state_dir=tmp_path, listen="0.0.0.0:0")
    assert settings.asks_for_tokens
    plane = ControlPlane(settings, FakeAgent())
    with pytest.raises(HostLacks, match="no token") as caught:
        require_tokens(settings, plane.store)
    assert "cse token create" in str(caught.value.remedy)
    environment = {"CSE_STATE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    code = "import sys; from app.cli import main; sys.exit(main())"
    words = ["token", "create", "first", "--scope", "admin", "--offline"]
    made = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True
    )
    assert made.stdout.startswith("cse_"), made.stderr
    require_tokens(settings, plane.store)
    plane.store.close()
    assert not load({}, state_dir=tmp_path, listen="0.0.0.0:0", allow_remote=True).asks_for_tokens


def test_the_owner_needs_no_token_on_the_unix_socket(tmp_path: Path) -> None:
    elements = write_elements(tmp_path / "elements")
    path = tmp_path / "api.sock"
    settings = load(
        {},
        state_dir=tmp_path / "s",
        elements_dir=elements,
        listen=f"unix:{path}",
        require_token=True,
    )
    plane, listener = ControlPlane(settings, FakeAgent()), listen(settings)
    server = uvicorn.Server(uvicorn.Config(plane.api, http=PeerProtocol, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    plane.start()
    thread.start()
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://cse") as c:
            who = c.get("/v1/session").json()
        assert who["principal"].startswith("uid ") and who["scope"] == "admin"
    finally:
        server.should_exit = True
        thread.join()
        plane.stop()


def test_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "CSE_STATE_DIR": str(tmp_path / "state"),
        "CSE_LISTEN": f"127.0.0.1:{port}",
        "CSE_TLS_CERTIFICATE": str(certificate),
        "CSE_TLS_KEY": str(key),
        "CSE_API": f"https://localhost:{port}",
        "CSE_CA": str(certificate),
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    }
    code = "import sys; from app.cli import main; sys.exit(main())"
    cse = [sys.executable, "-c", code]
    server = subprocess.Popen([*cse, "serve"], env=environment, stdout=subprocess.DEVNULL)
    try:
        listed = [*cse, "ps", "--json"]
        until(
            lambda: subprocess.run(listed, env=environment, capture_output=True).stdout == b"[]\n",
            60,
        )
        without = {key: value for key, value in environment.items() if key != "CSE_CA"}
        assert subprocess.run(listed, env=without, capture_output=True).returncode == 4
    finally:
        server.terminate()
        server.wait()


def test_cse_token_project_and_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.cli.root import run

    def cse(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cse", *words])
        status = run()
        said = capsys.readouterr()
        return status, said.out, said.err

    with served(tmp_path, FakeAgent()) as url:
        monkeypatch.setenv("CSE_API", url)
        assert cse("project", "set", "ci", "--applications", "3")[0] == 0
        assert cse("project", "set", "ci", "--applications", "2")[0] == 0
        status, out, _ = cse("token", "create", "ci", "--project", "ci", "--expires", "1d")
        assert status == 0
        (tmp_path / "token").write_text(out)
        monkeypatch.setenv("CSE_TOKEN", f"@{tmp_path / 'token'}")
        status, _, err = cse("token", "ls")
        assert status == 7 and "scope 'read'" in err
        assert cse("ps")[0] == 0
        monkeypatch.delenv("CSE_TOKEN")
        assert "ci" in cse("token", "ls")[1]
        assert "403" in cse("audit")[1]
        assert cse("token", "revoke", "ci")[0] == 0
        assert "ci" in cse("project", "ls")[1]
        assert cse("project", "rm", "ci")[0] == 0
