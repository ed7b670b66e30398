"""What a user asks for: an application, the elements it uses and the limits it runs in."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from app.domain.explain import pointer_to
from app.domain.health import HealthCheck
from app.domain.model import Model, Name, ShortForm
from app.domain.quantities import Bytes, Seconds
from app.domain.secret import SecretRef

AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00\n]*$", max_length=4095)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class RuntimeName(StrEnum):
    """How a process is put into its surroundings."""

    NAMESPACE = "namespace"
    """bubblewrap on this host's own root file system; needs no Docker and no image."""
    DOCKER = "docker"
    """A container of `image`, with an empty network namespace and no capabilities."""


class ElementUse(Model):
    """One element in one application."""

    settings: dict[str, Any] = {}
    """Checked against the `settings` schema in the element's manifest."""
    variant: Literal["release", "debug", "asan"] = "release"
    """Which build of the element's libraries to link."""
    path: AbsolutePath | None = None
    """A directory of the host with another build of the element: its `element.json` and `lib`."""
    link: Literal["preload", "bundled"] = "preload"
    """`preload`: LD_PRELOAD. `bundled`: the program names the libraries itself (DT_NEEDED, or an
    image that sets LD_PRELOAD); only settings and files are delivered."""


class PublishedPort(ShortForm):
    """A port of the host that leads to a port of the application's private stack."""

    short_forms = [
        {
            "type": "string",
            "pattern": r"^(\d+\.\d+\.\d+\.\d+:)?\d+:\d+(/(tcp|udp))?$",
            "examples": ["8081:80", "127.0.0.1:5353:53/udp"],
        }
    ]

    container_port: Port
    host_port: Port
    host_address: IPv4Address = IPv4Address("0.0.0.0")
    protocol: Literal["tcp", "udp"] = "tcp"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        """Docker's short form: `[ADDRESS:]HOST:PORT[/udp]`."""
        if not isinstance(value, str):
            return value
        pattern = r"(?:(\d+\.\d+\.\d+\.\d+):)?(\d+):(\d+)(?:/(tcp|udp))?"
        match = re.fullmatch(pattern, value)
        if not match:
            raise ValueError(f"'{value}' is not a published port; write HOST:PORT, as in 8081:80")
        return {
            "host_address": match[1] or "0.0.0.0",
            "host_port": int(match[2]),
            "container_port": int(match[3]),
            "protocol": match[4] or "tcp",
        }


class NetworkUse(Model):
    """Where the application's private stack is plugged in."""

    name: Name = "default"
    address: IPv4Address | None = None
    """A fixed address out of the network's subnet; the next free one where absent."""
    aliases: list[Name] = []
    """Further names under which peers of the same network find this application."""


class MountUse(Model):
    """A file or directory of the host, or a volume, that the application sees at `path`."""

    path: AbsolutePath
    volume: Name | None = None
    source: str | None = Field(default=None, alias="from", min_length=1)
    """A path of the host; relative ones are relative to the stack file."""
    read_only: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> MountUse:
        if (self.volume is None) == (self.source is None):
            raise ValueError("give exactly one of 'from' (a path of the host) and 'volume'")
        return self


class Limits(Model):
    """Enforced with control groups; `null` means no limit."""

    memory: Bytes | None = Field(default=None, ge=4 * 2**20)
    cpus: float | None = Field(default=None, gt=0, le=1024)
    pids: int | None = Field(default=None, ge=1)


class Restart(ShortForm):
    """What happens when the program ends by itself; never after a `stop`."""

    short_forms = [
        {"enum": [False], "title": "no (read as false by YAML 1.1)"},
        {
            "type": "string",
            "pattern": r"^(no|always|on-failure(:[1-9][0-9]*)?)$",
            "examples": ["always", "on-failure:3"],
        },
    ]

    policy: Literal["no", "on-failure", "always"] = "no"
    max_retries: int | None = Field(default=None, ge=1)
    """Give up after so many restarts in a row; only with `on-failure`."""
    delay: Seconds = 0.1
    """Before the first restart; doubles each time up to 30 s, starts anew after 10 s of running."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        """`on-failure:3`, as Docker writes it."""
        if value is False:  # YAML 1.1 reads a bare `no` as false
            return {"policy": "no"}
        if not isinstance(value, str):
            return value
        policy, _, retries = value.partition(":")
        return {"policy": policy, **({"max_retries": retries} if retries else {})}


class StopRule(Model):
    """How `stop` ends the application: the signal, then SIGKILL after the grace time."""

    signal: Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"] = (
        "SIGTERM"
    )
    grace: Seconds = Field(default=10.0, le=3600)


Condition = Literal["started", "healthy", "completed"]
Dependency = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?(:(started|healthy|completed))?$",
        description="NAME, NAME:healthy or NAME:completed.",
        examples=["db", "db:healthy"],
    ),
]


def _null_is_default(value: object) -> object:
    """In YAML `network-lwip:` with nothing behind it is null and means: all defaults."""
    if isinstance(value, dict):
        return {key: {} if use is None else use for key, use in value.items()}
    return value


def _text_or_secret(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """One error for the two forms."""
    try:
        return handler(value)
    except ValidationError as error:
        raise ValueError("a variable is a text, or {secret: NAME}") from error


EnvironmentValue = Annotated[str | SecretRef, WrapValidator(_text_or_secret)]


class ApplicationSpec(Model):
    """One unmodified program and the private services it is to have."""

    name: Name
    command: list[Annotated[str, Field(max_length=131_071)]] = Field(min_length=1)
    """Program and arguments; the program is looked up in PATH as the runtime sees it."""
    runtime: RuntimeName = RuntimeName.NAMESPACE
    image: str | None = Field(default=None, min_length=1)
    """The container image; required by, and only for, the docker runtime."""
    elements: Annotated[
        dict[Name, ElementUse],
        BeforeValidator(_null_is_default, json_schema_input_type=dict[Name, ElementUse | None]),
    ] = {}
    """Element name → how it is used; earlier entries are linked first."""
    network: NetworkUse = NetworkUse()
    ports: list[PublishedPort] = []
    environment: dict[EnvironmentName, EnvironmentValue] = {}
    """Texts, or `{secret: NAME}`: the program gets the secret's value, nobody else sees it here."""
    secrets: list[Name] = []
    """Secrets that the program finds as files, `/run/secrets/NAME`."""
    working_directory: AbsolutePath | None = None
    user: str | None = Field(
        default=None, pattern=r"^[a-z_0-9][a-z0-9_.-]*(:[a-z_0-9][a-z0-9_.-]*)?$"
    )
    """`USER`, `UID` or `UID:GID`."""
    mounts: list[MountUse] = []
    tmpfs: list[AbsolutePath] = []
    """Empty, private, writable directories in memory."""
    limits: Limits = Limits()
    restart: Restart = Restart()
    stop: StopRule = StopRule()
    depends_on: list[Dependency] = []
    """Applications that come before this one: `NAME` is started by then, `NAME:healthy` has passed
    its health check, `NAME:completed` has ended with status 0."""
    health: HealthCheck | None = None
    """How to find out whether the program does its work."""
    priority: int = Field(default=0, ge=-100, le=100)
    """Of what has to be started at the same time, the higher ones are first."""
    fallback: Literal["refuse", "kernel"] = "refuse"
    """When the program cannot be linked with its network element: refuse to start it, or
    give it the kernel's own stack in a private network namespace."""
    labels: dict[str, str] = {}
    project: Name = "default"
    """Whose quotas it counts for, and whose tokens may see and change it."""

    @field_validator(
        "depends_on", mode="before", json_schema_input_type=list[Dependency] | dict[Name, Any]
    )
    @classmethod
    def _conditions_by_name(cls, value: object) -> object:
        """Compose's form: `{db: {condition: service_healthy}}`, or `{db: healthy}`."""
        if not isinstance(value, dict):
            return value
        found = []
        for name, how in value.items():
            word = how.get("condition", "started") if isinstance(how, dict) else how
            plain = str(word or "started").removeprefix("service_")
            plain = {"completed_successfully": "completed"}.get(plain, plain)
            found.append(name if plain == "started" else f"{name}:{plain}")
        return found

    @property
    def dependencies(self) -> dict[str, Condition]:
        """Name → what it has to be before this one is started."""
        return {
            name: cast(Condition, condition or "started")
            for name, _, condition in (word.partition(":") for word in self.depends_on)
        }

    @property
    def path(self) -> str | None:
        """Where programs are looked up, if that is said."""
        found = self.environment.get("PATH")
        return found if isinstance(found, str) else None

    @property
    def named_secrets(self) -> dict[str, str]:
        """Secret → pointer to where it is named."""
        variables = {
            value.secret: pointer_to(["environment", name, "secret"])
            for name, value in self.environment.items()
            if isinstance(value, SecretRef)
        }
        return variables | {
            name: pointer_to(["secrets", index]) for index, name in enumerate(self.secrets)
        }

    @field_validator("environment")
    @classmethod
    def _no_preload(cls, value: dict[str, EnvironmentValue]) -> dict[str, EnvironmentValue]:
        if isinstance(value.get("PATH"), SecretRef):
            raise ValueError("PATH says which program is started; it cannot be a secret")
        for name in ("LD_PRELOAD", "LD_AUDIT"):
            if name in value:
                raise ValueError(f"{name} is set from 'elements'; remove it here")
        return value

    @field_validator("ports")
    @classmethod
    def _ports_once(cls, value: list[PublishedPort]) -> list[PublishedPort]:
        seen: set[tuple[object, ...]] = set()
        for port in value:
            key = (port.host_address, port.host_port, port.protocol)
            if key in seen:
                raise ValueError(f"host port {port.host_port}/{port.protocol} is listed twice")
            seen.add(key)
        return value

    @model_validator(mode="after")
    def _image_fits_runtime(self) -> ApplicationSpec:
        if self.runtime is RuntimeName.DOCKER and self.image is None:
            raise ValueError("runtime 'docker' needs 'image', for example debian:trixie-slim")
        if self.name in self.dependencies:
            raise ValueError("'depends_on' names the application itself")
        return self
