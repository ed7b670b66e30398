"""The Python client against a real server over the fake host: as a program would use it."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.agent.fake import FakeAgent
from app.client import (
    Client,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    OperationFailed,
    PreconditionFailed,
    PreconditionRequired,
    ProblemError,
    Unauthenticated,
    Unreachable,
)
from app.domain.application import ApplicationSpec, RuntimeName
from app.domain.network import NetworkSpec
from app.domain.resources import Event
from tests.integration.planes import served

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("client"), FakeAgent()) as place:
        yield place


@pytest.fixture
def cse(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client
        for one in list(client.each_application()):
            client.delete_application(one.name)


def spec(name: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, "command": ["nginx"], **rest}


def test_results_are_the_domains_models(cse: Client) -> None:
    made = cse.create_application(ApplicationSpec(name="web", command=["nginx"]))
    assert made.status.state == "running"
    assert made.spec.runtime is RuntimeName.NAMESPACE
    assert cse.get_application("web") == made
    network = cse.create_network({"name": "back", "subnet": "10.99.0.0/24"})
    assert isinstance(network, NetworkSpec) and network.subnet.prefixlen == 24
    cse.delete_application("web")
    with pytest.raises(NotFound):
        cse.get_application("web")


def test_errors_have_the_problems_fields(cse: Client) -> None:
    with pytest.raises(Invalid) as caught:
        cse.create_application(spec("web", colour="red"))
    error = caught.value
    assert (error.status, error.type) == (422, "urn:cse:problem:invalid-specification")
    assert [field.pointer for field in error.errors] == ["/colour"]
    assert error.request_id and error.request_id == cse.last.request_id
    cse.create_application(spec("web"))
    with pytest.raises(Conflict, match="web"):
        cse.create_application(spec("web"))


def test_an_iterator_reads_page_after_page(cse: Client) -> None:
    names = [f"v{number}" for number in range(7)]
    for name in names:
        cse.create_volume({"name": name})
    assert cse.list_volumes(limit=3).next == "v2"
    assert [one.name for one in cse.each_volume(limit=3)] == names
    assert [one.name for one in cse.each_element(limit=1)] == ["files", "net-a", "net-b"]
    assert len({one.id for one in cse.each_audit(limit=2)}) >= 7


def test_etags_guard_changes(cse: Client) -> None:
    cse.create_application(spec("web"))
    cse.get_application("web")
    etag = cse.last.etag
    with pytest.raises(PreconditionRequired):
        cse.replace_application("web", spec("web", priority=1))
    cse.replace_application("web", spec("web", priority=1), if_match=etag)
    with pytest.raises(PreconditionFailed):
        cse.replace_application("web", spec("web", priority=2), if_match=etag)


def test_two_clients_that_change_one_application_lose_nothing(url: str, cse: Client) -> None:
    cse.create_application(spec("web"))
    start = threading.Barrier(2)

    def label(who: str) -> None:
        with Client(url) as own:
            start.wait()
            for number in range(5):
                key = f"{who}{number}"
                own.update_application(
                    "web",
                    lambda old, key=key: old.model_copy(  # type: ignore[misc]
                        update={"labels": {**old.labels, key: "x"}}
                    ),
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(label, ["a", "b"]))
    assert len(cse.get_application("web").spec.labels) == 10


def test_of_two_clients_that_want_the_same_one_is_told(url: str, cse: Client) -> None:
    def both(act: Callable[[Client, int], object]) -> list[str]:
        start = threading.Barrier(2)

        def one(number: int) -> str:
            with Client(url) as own:
                start.wait()
                try:
                    act(own, number)
                except ProblemError as error:
                    return error.kind
                return "done"

        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(one, [1, 2]))

    for _ in range(5):
        made = both(lambda own, number: own.create_application(spec("web", priority=number)))
        assert made == ["conflict", "done"]
        cse.get_application("web")
        etag = cse.last.etag
        assert both(
            lambda own, number: own.replace_application(
                "web",
                spec("web", priority=number + 5),
                if_match=etag,  # noqa: B023
            )
        ) == ["done", "precondition-failed"]
        deleted = both(lambda own, number: own.delete_application("web"))
        assert "done" in deleted and set(deleted) <= {"done", "not-found"}


def test_a_request_with_a_key_is_done_once(cse: Client) -> None:
    first = cse.create_application(spec("web"), idempotency_key="k1")
    assert not cse.last.replayed
    assert cse.create_application(spec("web"), idempotency_key="k1") == first
    assert cse.last.replayed
    with pytest.raises(Invalid, match="another request"):
        cse.create_application(spec("other"), idempotency_key="k1")


def test_operations_are_waited_for(cse: Client) -> None:
    cse.create_application({"name": "init", "command": ["sleep", "0.3"]})
    cse.create_application(spec("web", depends_on=["init:completed"]), wait=0)
    assert cse.last.status == 202
    done = cse.wait()
    assert done is not None and (done.state, done.done) == ("succeeded", 1)
    cse.get_application("web")
    assert cse.wait() is None, "that answer named no operation"
    cse.create_application(spec("late", depends_on=["web:completed"]), wait=0)
    identity = cse.last.operation
    assert identity
    with pytest.raises(TimeoutError):
        cse.wait(identity, timeout_s=0.1)
    cse.cancel_operation(identity)
    with pytest.raises(OperationFailed, match="late"):
        cse.wait(identity)


def test_events_go_on_across_a_restart_of_the_server(tmp_path: Path) -> None:
    agent, seen = FakeAgent(), list[Event]()
    began, ended = threading.Event(), threading.Event()

    def follow(url: str) -> None:
        for event in Client(url).events(after=0):
            seen.append(event)
            began.set()
            if event.application == "two" and event.kind == "started":
                break
        ended.set()

    with served(tmp_path, agent) as url:
        Client(url).create_application(spec("one"))
        threading.Thread(target=follow, args=(url,), daemon=True).start()
        assert began.wait(5)
    port = url.rpartition(":")[2]
    with served(tmp_path, agent, f"127.0.0.1:{port}") as url:
        Client(url).create_application(spec("two"))
        assert ended.wait(20)
    ids = [event.id for event in seen]
    assert ids == list(range(1, len(ids) + 1)), "none is left out, none comes twice"


def test_events_that_are_not_kept_are_gone(tmp_path: Path) -> None:
    with served(tmp_path, FakeAgent(), event_history=100) as url, Client(url) as cse:
        for number in range(4 * 64):
            cse.create_volume({"name": f"v{number}"})
        with pytest.raises(Gone):
            next(cse.events(after=1))
        with pytest.raises(Gone):
            next(cse.events(after=10**6))


def test_logs_and_captures_are_streams(cse: Client) -> None:
    cse.create_application(spec("web"))
    assert [line.stream for line in cse.read_logs("web", tail=1)] in (["stdout"], [])
    assert "cse_applications" in cse.read_metrics()
    with pytest.raises(NotFound):
        next(cse.read_logs("nobody"))


def test_fields_of_a_newer_server_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"status": "ok", "version": "9.0", "agent": "ok", "applications": 1, "mood": "good"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    client = Client("http://newer")
    monkeypatch.setattr(client, "_http", httpx.Client(transport=transport, base_url="http://newer"))
    assert client.health().version == "9.0"


def test_what_is_no_cse_server_is_said() -> None:
    with pytest.raises(Unreachable, match="no server answers"):
        Client("http://127.0.0.1:1").health()


def test_a_unix_socket_and_tokens(tmp_path: Path) -> None:
    with served(tmp_path, FakeAgent(), f"unix:{tmp_path}/api.sock") as url:
        with Client(url) as cse:
            made = cse.create_token({"name": "ci", "scope": "read"})
        with Client(url, token=made.token) as cse:
            assert cse.get_session().principal == "token ci"
        with Client(url, token="cse_wrong") as cse, pytest.raises(Unauthenticated):
            cse.list_applications()


def test_tls_with_a_certificate_authority_of_ones_own(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    with served(tmp_path, FakeAgent(), **settings) as url:
        with Client(url, ca=str(certificate)) as cse:
            assert cse.health().status == "ok"
        with pytest.raises(Unreachable):
            Client(url).health()


def test_the_example_of_the_documentation_runs(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/api.md").read_text()
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.setenv("CSE_API", url)
    exec(compile(example, "docs/api.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "nap running" in shown and "invalid-specification" in shown and "started" in shown
