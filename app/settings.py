"""Every setting of the control plane, from `CSE_*` variables and command-line flags.

`docs/settings.md` is generated from the docstrings below (`make schemas`), and a test fails
where it is stale. Read by the composition root (`app/main.py`) and by the CLI only.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from app.domain.application import RuntimeName
from app.domain.explain import FieldError, InvalidFields, explain
from app.domain.model import Model

_PROJECT = Path(__file__).resolve().parent.parent
_PREFIX = "CSE_"

_CLIENT_VARIABLES = {
    "CSE_API": "Where the CLI finds the server: `http://HOST:PORT`, `https://…` or `unix:PATH`.",
    "CSE_TOKEN": "The CLI's token, or `@FILE` that holds it.",
    "CSE_CA": "File of the certificate authority (PEM) that the CLI trusts with `https`.",
}
"""Variables that are read elsewhere than here, documented beside the settings."""

_LIBRARY_PREFIXES = ("CSE_NETWORK_", "CSE_FILESYSTEM_", "CSE_CLOCK_", "CSE_NAME_SERVICE_")
_FOREIGN = ("CSE_RUN_DIR", "CSE_TRACE", *_CLIENT_VARIABLES)


def _default_state() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/cse")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "cse"


def _built(what: str) -> Path:
    built = _PROJECT / "build" / what
    installed = Path("/usr/share/cse") / what
    return installed if not built.is_dir() and installed.is_dir() else built


def _examples() -> Path:
    shipped = _PROJECT / "examples"
    return shipped if shipped.is_dir() else Path("/usr/share/cse/examples")


class Settings(Model):
    """The control plane's settings; each is also the variable `CSE_` + its name in capitals."""

    state_dir: Path = Field(default_factory=_default_state)
    """Where everything that lasts is kept: store, logs, run directories, volumes. By default
    `/var/lib/cse` as root, else `~/.local/state/cse`."""
    elements_dir: Path = Field(default_factory=lambda: _built("elements"))
    """The built elements: one folder each with `element.json` and `lib/`."""
    examples_dir: Path = Field(default_factory=_examples)
    """Stack files that the dashboard offers to begin from. Applications mount what lies beside
    them: this is the directory's name on the host that runs them."""
    dashboard_dir: Path = Field(default_factory=lambda: _built("dashboard"))
    """The built dashboard (`make dashboard`), served under `/`."""
    listen: str = "127.0.0.1:8420"
    """`HOST:PORT`, or `unix:PATH` for a Unix socket."""
    allow_remote: bool = False
    """Permit `listen` on an address that is not loopback without tokens. Whoever reaches the API
    can start programs with the agent's rights: put something that authenticates in front of it."""
    require_token: bool = False
    """Ask every client for a token, on loopback too. Elsewhere tokens are always asked for, unless
    `allow_remote` says that something in front of the server authenticates."""
    hosts: str = ""
    """Names, separated by commas, under which clients may call this server beside loopback ones."""
    tls_certificate: str = ""
    """File of the certificate (PEM, with its chain): HTTPS instead of HTTP."""
    tls_key: str = ""
    """File of its private key."""
    rate_limit: float = Field(default=0.0, ge=0)
    """Requests a second that one client address may make on the average; 0: no bound."""
    audit_history: int = Field(default=10_000, ge=100)
    """Entries of the audit log kept; older ones are deleted."""
    database: str = ""
    """URL of the store: `sqlite:///PATH` (by default in `state_dir`), or
    `postgresql://USER:PASSWORD@HOST/DATABASE`, `postgresql://USER@/DATABASE?host=SOCKET-DIRECTORY`."""
    agent: str = ""
    """`unix:PATH` of an agent that runs as a process of its own; empty: within this process."""
    runtime: RuntimeName = RuntimeName.NAMESPACE
    """For applications whose specification does not name a runtime."""
    subnet: IPv4Network = IPv4Network("10.210.0.0/16")
    """Of the network `default`, when it is first made."""
    workers: int = Field(default=8, ge=1, le=256)
    """Applications that are started, stopped or removed at the same time."""
    event_history: int = Field(default=10_000, ge=100)
    """Events kept; older ones are deleted."""
    check_host_paths: bool | None = None
    """Whether the API itself checks that host paths exist. By default only with the agent
    within this process; otherwise the agent, which sees the host, finds out at the start."""
    log_level: str = Field(default="warning", pattern=r"^(debug|info|warning|error)$")
    """Least severity of the control plane's own log on standard error; `info` has a line for each
    request and operation."""
    log_format: Literal["text", "json"] = "text"
    """Of that log: lines for people, or one JSON object a line, with request and operation ids."""

    @model_validator(mode="after")
    def _listen_is_safe(self) -> Settings:
        if self.unix_listen is None:
            host, _, port = self.listen.rpartition(":")
            if not host or not port.isdigit() or int(port) > 65535:
                raise ValueError(f"listen '{self.listen}': write HOST:PORT or unix:PATH")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("give both tls_certificate and tls_key, or neither")
        if self.agent and not self.agent.startswith("unix:"):
            raise ValueError(f"agent '{self.agent}': write unix:PATH")
        return self

    @property
    def unix_listen(self) -> str | None:
        """The path, where `listen` is a Unix socket."""
        return self.listen.removeprefix("unix:") if self.listen.startswith("unix:") else None

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port, where `listen` is TCP."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def on_loopback(self) -> bool:
        """Whether only this host reaches the API."""
        return self.unix_listen is not None or _is_loopback(self.listen_address[0])

    @property
    def asks_for_tokens(self) -> bool:
        """Whether a request without a token is refused."""
        return self.require_token or not (self.on_loopback or self.allow_remote)

    @property
    def agent_socket(self) -> str | None:
        """The path of the separate agent's socket; None: the agent is within this process."""
        return self.agent.removeprefix("unix:") or None

    @property
    def database_url(self) -> str:
        """Where the store is."""
        return self.database or f"sqlite:///{self.state_dir / 'store.sqlite'}"

    @property
    def paths_are_visible(self) -> bool:
        """See `check_host_paths`."""
        if self.check_host_paths is None:
            return self.agent_socket is None
        return self.check_host_paths


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def load(environment: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """Flags that are not None win over variables, variables over defaults.

    A variable that is nearly one of ours is refused: misspelt, it would silently do nothing.
    """
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in _FOREIGN:
            continue
        if variable.startswith(_LIBRARY_PREFIXES):
            continue
        field = variable.removeprefix(_PREFIX).lower()
        if field not in Settings.model_fields:
            known = [_PREFIX + name.upper() for name in Settings.model_fields]
            if near := get_close_matches(variable, known, n=1, cutoff=0.8):
                remedy = f"did you mean {near[0]}?"
                raise InvalidFields(
                    [FieldError(pointer=variable, detail="no such setting", remedy=remedy)]
                )
            continue
        if text != "":
            values[field] = text
    values.update({name: value for name, value in flags.items() if value is not None})
    try:
        return Settings(**values)
    except ValidationError as error:
        found = explain(error.errors(), Settings)
        raise InvalidFields(
            [
                item.model_copy(update={"pointer": _PREFIX + item.pointer.lstrip("/").upper()})
                if item.pointer
                else item
                for item in found
            ]
        ) from error


def product_version() -> str:
    """As in pyproject.toml."""
    try:
        return version("cse")
    except PackageNotFoundError:  # run from the source tree, not installed
        text = (_PROJECT / "pyproject.toml").read_bytes().decode()
        return str(tomllib.loads(text)["project"]["version"])


def reference() -> str:
    """The text of `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "<!-- generated from app/settings.py by `make schemas`; do not edit -->",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default is None else str(field.default)
        meaning = " ".join((field.description or "").split())
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{_PREFIX}{name.upper()}` | {shown} | {meaning} |")
    for variable, meaning in _CLIENT_VARIABLES.items():
        lines.append(f"| `{variable}` | | {meaning} |")
    lines += [
        "",
        "Libraries tried by hand also read `CSE_RUN_DIR` and `CSE_<KIND>_<KEY>`: ARCHITECTURE.md.",
        "",
    ]
    return "\n".join(lines)
