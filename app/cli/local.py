"""The parts that commands use where they work without a server: store, catalogue and agent.

Called by `run` (one program at once) and `doctor` (where no server answers).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.agent import identity
from app.catalog.catalog import Catalog
from app.domain.errors import CseError, HostLacks
from app.domain.observed import Finding
from app.domain.ports import Agent
from app.main import make_agent
from app.settings import Settings, load

_LOCK = "lock"


def findings_without_server() -> list[Finding]:
    """What `cse doctor` shows where no server answers."""
    settings = load()
    findings = list(make_agent(settings).doctor())
    names = [element.manifest.name for element in Catalog(settings.elements_dir).elements()]
    findings.append(
        Finding(
            check="elements",
            ok=bool(names),
            observation=", ".join(names) or f"none in {settings.elements_dir}",
            remedy="" if names else "build them: make native",
        )
    )
    return findings


@contextmanager
def private_agent(settings: Settings) -> Iterator[Agent]:
    """An agent with a state directory of its own, so that a server's is not disturbed.

    The directory is locked while this process lives. What a killed process left behind is found
    by its free lock, and removed by the next call.
    """
    parent = settings.state_dir / "runs"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(settings, parent)
        home = parent / secrets.token_hex(4)
        home.mkdir(mode=0o711)
    except OSError as error:
        raise HostLacks(
            f"{parent} cannot be used: {error.strerror}",
            remedy="choose another state directory with CSE_STATE_DIR",
        ) from error
    lock = os.open(home / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    identity.share_networks(settings.state_dir, home)
    agent = make_agent(settings.model_copy(update={"state_dir": home}))
    try:
        yield agent
    finally:
        _empty(agent, home)
        os.close(lock)


def server_is_there(settings: Settings) -> bool:
    """Whether an agent works in the state directory; `private_agent`'s networks are its own."""
    try:
        lock = os.open(settings.state_dir / "agent.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove_leftovers(settings: Settings, parent: Path) -> None:
    for home in parent.iterdir():
        with suppress(OSError):
            lock = os.open(home / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(make_agent(settings.model_copy(update={"state_dir": home})), home)
            finally:
                os.close(lock)


def _empty(agent: Agent, home: Path) -> None:
    """Remove the agent's applications, then its directory if nothing is left in use."""
    left = False
    for observed in agent.observe():
        try:
            agent.remove(observed.name)
        except CseError:
            left = True
    if close := getattr(agent, "close", None):
        close()
    if not left:
        shutil.rmtree(home, ignore_errors=True)
