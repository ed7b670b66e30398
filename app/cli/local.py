"""The parts that commands use where they work without a server: store, catalogue and agent.

Called by `run` (one program at once) and `doctor` (where no server answers).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app import runs
from app.agent import identity
from app.catalog.catalog import Catalog
from app.domain.errors import CseError, HostLacks
from app.domain.observed import Finding
from app.domain.ports import Agent
from app.main import make_agent
from app.settings import Settings, load


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
def private_agent(settings: Settings, name: str, gone: Callable[[str], object]) -> Iterator[Agent]:
    """An agent for the program of this name, with a state directory of its own, so that a server's
    is not disturbed (see `app/runs.py`).

    What killed processes left behind is removed first; `gone` is told their names before their
    directories go.
    """
    with ExitStack() as ending:
        try:
            for left in runs.gone(settings.state_dir):
                with suppress(OSError, CseError):
                    if _is_emptied(_agent_in(settings, left)):
                        gone(left.name)
                        shutil.rmtree(left, ignore_errors=True)
            home = ending.enter_context(runs.directory(settings.state_dir, name))
        except OSError as error:
            raise HostLacks(
                f"{settings.state_dir / 'runs'} cannot be used: {error.strerror}",
                remedy="choose another state directory with CSE_STATE_DIR",
            ) from error
        identity.share_networks(settings.state_dir, home)
        agent = _agent_in(settings, home)
        try:
            yield agent
        finally:
            if _is_emptied(agent):
                shutil.rmtree(home, ignore_errors=True)


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


def _agent_in(settings: Settings, home: Path) -> Agent:
    """Within this process, whatever the settings say: all that a server's has would be removed."""
    return make_agent(settings.model_copy(update={"state_dir": home, "agent": ""}))


def _is_emptied(agent: Agent) -> bool:
    """Remove the agent's applications, and let go of it."""
    left = False
    for observed in agent.observe():
        try:
            agent.remove(observed.name)
        except CseError:
            left = True
    if close := getattr(agent, "close", None):
        close()
    return not left
