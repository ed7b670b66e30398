"""`cse serve` and `cse run` as real processes on the namespace runtime: kill -9 and back again."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from app.agent.local import LocalAgent
from app.agent.server import AgentServer
from app.domain.application import ApplicationSpec
from app.domain.launch import Launch
from app.runtimes.namespace.runtime import SHIM
from tests import subnets
from tests.integration.planes import until, write_elements

CSE = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main())"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _needs() -> None:
    if shutil.which("bwrap") is None or not SHIM.exists():
        pytest.skip("needs bubblewrap and the shim; run `make native`")


@contextmanager
def server(state: Path, socket: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    environment = {
        **os.environ,
        "CSE_STATE_DIR": str(state),
        "CSE_LISTEN": f"unix:{socket}",
        "CSE_ELEMENTS_DIR": str(write_elements(state / "elements")),
    }
    process = subprocess.Popen([*CSE, "serve"], env=environment, cwd=ROOT)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://cse") as api:

        def answers() -> bool:
            try:
                return bool(api.get("/v1/health").json()["status"] == "ok")
            except httpx.TransportError:
                return False

        try:
            until(answers, 20)
            yield process, api
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_killed_server_finds_its_applications_again(tmp_path: Path) -> None:
    state, socket = tmp_path / "state", tmp_path / "api.sock"
    with server(state, socket) as (process, api):
        body = {"name": "nap", "command": ["sleep", "600"]}
        first = api.post("/v1/applications", json=body).json()
        assert first["status"]["state"] == "running"
        ended = {"name": "job", "command": ["sh", "-c", "echo done; exit 3"]}
        api.post("/v1/applications", json=ended)
        until(lambda: api.get("/v1/applications/job").json()["status"]["state"] == "exited")
        process.kill()
        process.wait()
    os.kill(first["status"]["pid"], 0)
    with server(state, socket) as (_, api):
        again = api.get("/v1/applications/nap").json()
        assert again == first
        job = api.get("/v1/applications/job").json()["status"]
        assert (job["state"], job["exit_code"]) == ("exited", 3)
        assert '"text":"done"' in api.get("/v1/applications/job/logs").text
        for name in ("nap", "job"):
            assert api.delete(f"/v1/applications/{name}").status_code == 204
    assert not list((state / "apps").iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(first["status"]["pid"], 0)


def test_run_is_the_program_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "CSE_STATE_DIR": str(tmp_path / "state")}
    command = [*CSE, "run", "--env", "COLOUR=red", "--", "sh", "-c"]
    done = subprocess.run(
        [*command, "read word; echo $word $COLOUR; echo err >&2; exit 9"],
        input="typed\n",
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "typed red\n", "err\n")
    assert not list((tmp_path / "state" / "runs").iterdir())


def test_run_may_write_where_it_is_and_nowhere_else(tmp_path: Path) -> None:
    environment = {**os.environ, "CSE_STATE_DIR": str(tmp_path / "state")}
    here = tmp_path / "here"
    here.mkdir()
    script = "echo mine >note; echo not >/etc/cse-test || pwd"
    done = subprocess.run(
        [*CSE, "run", "--", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=here,
    )
    assert (done.returncode, done.stdout) == (0, f"{here}\n"), done.stderr
    assert (here / "note").read_text() == "mine\n"


def test_run_tells_why_it_did_not_start(tmp_path: Path) -> None:
    environment = {**os.environ, "CSE_STATE_DIR": str(tmp_path / "state")}
    for words, said in (
        (["--", "no-such-program"], "no-such-program"),
        (["--element", "netwrok", "--", "true"], "netwrok"),
        (["--mount", "/no/such:/x", "--", "true"], "/no/such"),
        (["--user", "no such user", "--", "true"], "/user"),
    ):
        done = subprocess.run(
            [*CSE, "run", *words], capture_output=True, text=True, env=environment, cwd=ROOT
        )
        assert done.returncode == 125, done.stderr
        assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.root
@pytest.mark.native
def test_a_program_keeps_its_address_however_long_it_runs(tmp_path: Path) -> None:
    """Also one whose command was killed, until the next command ends it."""
    state = tmp_path / "state"
    subnet = subnets.free()
    environment = {**os.environ, "CSE_STATE_DIR": str(state), "CSE_SUBNET": subnet}
    words = [*CSE, "run", "-e", "network-lwip", "--"]

    def holders(change: str = "") -> list[str]:
        with closing(sqlite3.connect(state / "store.sqlite")) as store:
            store.execute(change)
            store.commit()
            found = store.execute("select holder from addresses where holder is not null")
            return [holder for (holder,) in found]

    first = subprocess.Popen([*words, "sleep", "600"], env=environment, cwd=ROOT)
    try:
        until(lambda: list(state.glob("runs/*/apps/*/status")), 30)
        program = next(state.glob("runs/*/apps/*")).name
        # As if the clock had been set, or the program were old.
        holders("update addresses set taken = '2000-01-01T00:00:00.000000+00:00'")
        subprocess.run([*words, "true"], env=environment, cwd=ROOT, check=True)
        assert holders() == [program]
        first.kill()
        first.wait()
        assert holders() == [program]
        assert [one.name for one in (state / "runs").iterdir()] == [program]
    finally:
        first.kill()
        first.wait()
        subprocess.run([*words, "true"], env=environment, cwd=ROOT, check=True)
    assert holders() == [] and list((state / "runs").iterdir()) == []


def test_run_has_an_agent_of_its_own_whatever_the_settings_say(tmp_path: Path) -> None:
    """At the end it removes all that its agent has."""
    local, socket = LocalAgent(tmp_path / "state"), str(tmp_path / "agent.sock")
    server = AgentServer(local, socket)
    threading.Thread(target=server.run, daemon=True).start()
    spec = ApplicationSpec(name="stays", command=["sleep", "600"])
    local.create(Launch(id="id-1", spec=spec, elements=[], network=None, mounts=[]))
    try:
        pid = local.start("stays").pid
        more = {"CSE_STATE_DIR": str(tmp_path / "mine"), "CSE_AGENT": f"unix:{socket}"}
        environment = {**os.environ, **more}
        words = [*CSE, "run", "--", "echo", "ran"]
        done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
        assert [(one.name, one.pid) for one in local.observe()] == [("stays", pid)]
    finally:
        local.remove("stays")
        server.close()
        local.close()


@pytest.mark.native
def test_run_tells_what_elements_report(tmp_path: Path) -> None:
    """A damaged archive: the program sees an error of the system, its user the reason."""
    environment = {**os.environ, "CSE_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "site.zip").write_bytes(b"no archive")
    mount = f"filesystem.mounts=[{{path: /srv, source: archive, from: {tmp_path}/site.zip}}]"
    done = subprocess.run(
        [*CSE, "run", "-e", "filesystem", "--set", mount, "--", "ls", "/srv"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 2, done.stderr
    assert "cse: /srv: is damaged or no archive" in done.stderr
