"""The only file that speaks to the Docker SDK; everything it raises is a `CseError`.

Called by the other files of this package. One `Engine` serves all threads. It connects at its
first use, so that a host without Docker can make the object and do everything else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import docker
import requests

from app.domain.errors import CseError, HostLacks, NotFound, RuntimeFailure, TimedOut

API_TIMEOUT_S = 60


class Refused(RuntimeFailure):
    """The runtime could not carry out the step."""

    def __init__(self, detail: str, status: int, **more: Any) -> None:
        super().__init__(detail, **more)
        self.status = status
        """HTTP status of the Docker API."""


class Engine:
    """The daemon that `DOCKER_HOST` names, by default the one of this host."""

    def __init__(self) -> None:
        self._api: Any = None
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        """The SDK's low-level client; HostLacks where no daemon answers."""
        with self._lock:
            if self._api is None:
                try:
                    self._api = docker.from_env(
                        version="auto", timeout=API_TIMEOUT_S, max_pool_size=64
                    ).api
                except (docker.errors.DockerException, requests.RequestException) as error:
                    raise _no_daemon(error) from error
            return self._api

    def get(self, path: str, params: dict[str, Any]) -> Any:
        """GET with a streamed answer and no time limit; for endpoints the SDK only half covers."""
        api = self()
        answer = api.get(f"{api.base_url}/v{api._version}{path}", params=params, stream=True)
        try:
            answer.raise_for_status()
        except requests.HTTPError as error:
            try:
                docker.errors.create_api_error_from_http_exception(error)
            finally:
                answer.close()
        return answer

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Translates what the SDK raises; `what` completes "Docker could not …"."""
        try:
            yield
        except CseError:
            raise
        except docker.errors.ImageNotFound as error:
            raise NotFound(f"Docker could not {what}: {_said(error)}") from error
        except docker.errors.NotFound as error:
            raise NotFound(f"Docker could not {what}: {_said(error)}") from error
        except docker.errors.APIError as error:
            raise Refused(
                f"Docker could not {what}: {_said(error)}", int(error.status_code or 500)
            ) from error
        except requests.ReadTimeout as error:
            raise TimedOut(f"Docker could not {what} in time") from error
        except (requests.ConnectionError, ConnectionError) as error:
            if "Read timed out" in str(error):
                raise TimedOut(f"Docker could not {what} in time") from error
            raise _no_daemon(error) from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise RuntimeFailure(f"Docker could not {what}: {error}") from error


def _said(error: Any) -> str:
    """The daemon's own words, without the HTTP status around them."""
    return str(error.explanation or error).strip().rstrip(".")


def _no_daemon(error: Exception) -> HostLacks:
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return HostLacks(
            "this user may not speak to the Docker daemon",
            remedy="run as root, or join the group 'docker'",
        )
    return HostLacks(
        "no Docker daemon answers on this host",
        remedy="start it ('images/docker.sh daemon', or 'systemctl start docker'), "
        "or use 'runtime: namespace'",
    )
