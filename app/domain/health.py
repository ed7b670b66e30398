"""Whether a program does its work: what is asked of it, how often, and what follows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from app.domain.model import Model
from app.domain.quantities import Seconds

ProbePort = Annotated[int, Field(ge=1, le=65535)]


class TcpProbe(Model):
    """A connection can be made."""

    port: ProbePort


class HttpProbe(Model):
    """A GET is answered with a status below 400."""

    port: ProbePort = 80
    path: str = Field(default="/", pattern=r"^/[!-~]*$", max_length=2000)
    host: str | None = Field(default=None, max_length=253, pattern=r"^[!-~]+$")
    """The `Host` of the request; the application's name where absent."""


class Probe(Model):
    """One of three ways to ask."""

    command: list[str] | None = Field(default=None, min_length=1)
    """Executed beside the program; healthy is a status of 0."""
    tcp: TcpProbe | None = None
    http: HttpProbe | None = None
    timeout: Seconds = Field(default=5.0, gt=0, le=600)

    @model_validator(mode="after")
    def _one_way(self) -> Probe:
        if sum(way is not None for way in (self.command, self.tcp, self.http)) != 1:
            raise ValueError("give exactly one of 'command', 'tcp' and 'http'")
        return self


class HealthCheck(Probe):
    """A probe that is repeated while the program runs."""

    interval: Seconds = Field(default=10.0, ge=0.1, le=86_400)
    """Between the end of one probe and the next."""
    retries: int = Field(default=3, ge=1, le=1000)
    """So many failures in a row make it unhealthy."""
    start_period: Seconds = Field(default=0.0, le=86_400)
    """After a start failures do not count for so long; a success ends that at once."""
    on_failure: Literal["report", "restart"] = "report"
    """`restart`: a program that has become unhealthy is started anew."""

    @property
    def probe(self) -> Probe:
        """What the agent is to do."""
        return Probe(command=self.command, tcp=self.tcp, http=self.http, timeout=self.timeout)


class Probed(Model):
    """What a probe found."""

    ok: bool
    detail: str


class Health(Model):
    """What the last probes of this run of the program found."""

    state: Literal["starting", "healthy", "unhealthy"]
    since: datetime
    detail: str = ""
    failures: int = 0
    """In a row, up to now."""


class HealthKeeping(Protocol):
    """What the API needs of the keeper (`app/reconcile/health.py`)."""

    def status(self, application: str) -> Health | None:
        """None where nothing is asked of it, or it does not run."""
