"""An agent of its own process, served on a Unix socket: the only part with privilege.

Called by `cse agent` (app/cli) through `app/main.py`; `remote` is the other end. The socket's
mode says who may connect: the owner and its group. Whoever may can start programs as root.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from app import tracing
from app.agent import wire
from app.domain.errors import Conflict, CseError, HostLacks
from app.domain.ports import Agent
from app.logs import NONE, request_id

_log = logging.getLogger(__name__)
_SOCKET_MODE = 0o660


class AgentServer:
    """One thread for each connection; a connection carries one call at a time."""

    def __init__(self, agent: Agent, path: str) -> None:
        self._agent = agent
        self._path = Path(path)
        self._listener = _listen(self._path)
        self._closed = False

    def run(self) -> None:
        """Until `close` is called from elsewhere."""
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stop accepting; the socket's file goes away."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, CseError):
            while (request := wire.receive(connection)) is not None:
                told = {str(key): str(value) for key, value in request.get("context", {}).items()}
                request_id.set(told.pop("request_id", NONE))
                with tracing.incoming(f"agent {request.get('method')}", told):
                    self._answer(connection, request)

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        try:
            method = wire.methods().get(str(request.get("method")))
            if method is None:
                raise HostLacks(
                    f"this agent has no method '{request.get('method')}'",
                    remedy="run the same version of agent and server",
                )
            arguments = method.load(dict(request.get("arguments") or {}))
            result = getattr(self._agent, method.name)(**arguments)
            if method.streams:
                wire.send(connection, {"begin": True})
                for item in result:
                    wire.send(connection, {"item": method.result.dump_python(item, mode="json")})
                wire.send(connection, {"end": True})
            else:
                wire.send(connection, {"result": method.result.dump_python(result, mode="json")})
        except CseError as error:
            wire.send(connection, {"error": wire.dump_error(error)})
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - answered, not swallowed
            _log.exception("agent: %s", request.get("method"))
            text = f"the agent failed: {type(error).__name__}: {error}"
            wire.send(connection, {"error": wire.dump_error(CseError(text))})


def serve(agent: Agent, path: str) -> None:
    """Serve until SIGINT or SIGTERM; applications go on."""
    server = AgentServer(agent, path)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.close())
    try:
        agent.observe()  # take the state directory and find what runs, before anyone asks
        server.run()
    finally:
        server.close()
        if close := getattr(agent, "close", None):
            close()


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"/proc/self/fd/{place}/{path.name}"  # the path may be longer than a socket's may
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if path.exists():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(name) == 0:
                    raise Conflict(f"another agent serves {path}", remedy="stop it first")
            path.unlink()
        listener.bind(name)
        path.chmod(_SOCKET_MODE)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise HostLacks(f"the socket {path} cannot be made: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(place)
    return listener
