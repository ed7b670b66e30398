"""Faults made to order: what happens to packets or files of one application, and for how long.

`FaultSpec` is what a user asks for, `FaultOrder` what the agent and the instance are told: names
are addresses there, and a duration is a moment.
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator, Field, field_validator, model_validator

from app.domain.application import Port
from app.domain.file_fault import FileFault, path_alone
from app.domain.model import Model, Name
from app.domain.quantities import Seconds, parse_percent

_BIT_UNITS = {"": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
MAX_FAULTS = 16
"""Of one application at a time: FAULTS_MAX of images/network-lwip/lwip/instruments.h, and
FS_FAULTS_MAX of images/filesystem/faults.h."""


def parse_bit_rate(text: object) -> object:
    """`"10mbit"` → 10000000."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?bit|)\s*(?:/s|ps)?\s*", text.lower())
    if not match:
        raise ValueError(f"'{text}' is not a rate; write for example 10mbit or 512kbit")
    return int(float(match[1]) * _BIT_UNITS[match[2]])


Percent = Annotated[
    float,
    BeforeValidator(parse_percent, json_schema_input_type=float | str),
    Field(ge=0, le=100, description="Percent of the packets, as a number or as in 5%."),
]
BitRate = Annotated[
    int,
    BeforeValidator(parse_bit_rate, json_schema_input_type=int | str),
    Field(ge=1000, le=10**12, description="Bits per second, or a string such as 10mbit."),
]
Counters = dict[str, int]
FaultTime = Annotated[Seconds, Field(le=3600)]


class FaultSpec(Model):
    """Each packet, or with `file` each operation on such files, meets all that is given here; what
    becomes of it follows from `seed`."""

    loss: Percent = 0.0
    delay: FaultTime = 0.0
    jitter: FaultTime = 0.0
    """The delay varies by so much in either direction; packets keep their order."""
    reorder: Percent = 0.0
    """This share lets the next packet pass first."""
    duplicate: Percent = 0.0
    corrupt: Percent = 0.0
    """A bit is turned: the receiver's checksum finds it and the packet is dropped there."""
    rate: BitRate | None = None
    """In each direction; what waits for more than a quarter of a second is dropped."""
    cut: Name | None = None
    """Nothing passes between this application and that one."""
    refuse: Port | None = None
    """TCP connects to this port, of this application or (going out) of others, are refused."""
    reset: Port | None = None
    """Established TCP connections of this port are reset, once, now."""
    direction: Literal["in", "out", "both"] = "both"
    to: str | None = Field(default=None, min_length=1, max_length=100)
    """Only packets to and from this peer: an address, a subnet or an application's name."""
    file: Annotated[
        FileFault | None, BeforeValidator(path_alone, json_schema_input_type=FileFault | str | None)
    ] = None
    """Files meet the fault in the place of packets; `delay` and `jitter` are theirs then."""
    duration: Annotated[Seconds, Field(gt=0, le=31_536_000)] | None = Field(
        default=None, alias="for"
    )
    """The fault reverts by itself after this time; `null`: when it is removed."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """The same seed and the same packets give the same faults; drawn where absent."""

    @field_validator("to")
    @classmethod
    def _is_a_peer(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", value):
            return value
        try:
            ip_network(value, strict=False)
        except ValueError as error:
            raise ValueError(
                f"'{value}' is neither an address, a subnet nor an application's name"
            ) from error
        return value

    @model_validator(mode="after")
    def _does_something(self) -> FaultSpec:
        if self.file is not None:
            self._is_about_files(self.file)
            return self
        chances = (self.loss, self.delay, self.jitter, self.reorder, self.duplicate, self.corrupt)
        if not any(chances) and not any((self.rate, self.cut, self.refuse, self.reset)):
            raise ValueError("the fault does nothing; give for example 'loss' or 'delay'")
        if self.cut is not None and self.to is not None:
            raise ValueError("'cut' names the peer itself; leave 'to' out")
        if self.jitter > self.delay:
            raise ValueError("'jitter' is more than 'delay': packets cannot leave before they come")
        return self

    def _is_about_files(self, file: FileFault) -> None:
        packets = (
            "loss",
            "reorder",
            "duplicate",
            "corrupt",
            "rate",
            "cut",
            "refuse",
            "reset",
            "to",
        )
        if given := [field for field in packets if getattr(self, field)]:
            said = "; the share of a file's operations is file.rate" if given[0] == "rate" else ""
            raise ValueError(f"'{given[0]}' is about packets, this fault is about files{said}")
        if self.direction != "both":
            raise ValueError("'direction' is about packets, this fault is about files")
        if not (self.delay or self.jitter or file.short or file.errno):
            if file.full_after is None:
                raise ValueError("the fault does nothing; give for example 'file.errno' or 'delay'")
            if file.rate != 100:
                raise ValueError("'file.rate' has no effect on 'full_after'; leave it out")
        if self.jitter > self.delay:
            raise ValueError(
                "'jitter' is more than 'delay': nothing can be done before it is asked"
            )

    @property
    def only_resets(self) -> bool:
        """Done at once: nothing is left to be kept."""
        rest = self.model_copy(update={"reset": None, "duration": None, "seed": None, "to": None})
        return self.reset is not None and rest == FaultSpec.model_construct(
            direction=self.direction
        )


_PLAIN_PACKETS = "the kernel can only drop, refuse and reset here"


def beyond_kernel(spec: FaultSpec) -> list[tuple[str, str]]:
    """(field, reason) of what the kernel's own stack cannot be ordered to do to packets."""
    netem = "the kernel holds no packet back without its network emulator, which is not relied on"
    reasons = {
        "delay": netem,
        "jitter": netem,
        "reorder": netem,
        "duplicate": _PLAIN_PACKETS,
        "corrupt": _PLAIN_PACKETS,
        "seed": "the kernel draws its own random numbers: no run can be repeated",
    }
    return [
        (field, reason)
        for field, reason in reasons.items()
        if getattr(spec, field) or (field == "seed" and spec.seed is not None)
    ]


class FaultOrder(Model):
    """One fault as an instance is told of it."""

    id: str
    spec: FaultSpec
    seed: int
    peers: list[str] = []
    """Subnets in CIDR notation; empty: everybody."""
    ends: datetime | None = None


class Fault(Model):
    """A fault that holds, or has just been done."""

    id: str
    application: str
    spec: FaultSpec
    seed: int
    created: datetime
    ends: datetime | None = None
    stack: str | None = None
    """The stack that declares it."""
    remaining: float | None = None
    """Seconds until it reverts."""
    counters: dict[str, int] = {}
    """What met it, and what became of that; absent while no instance runs."""


class FaultKeeping(Protocol):
    """What the API needs of the keeper of faults (`app/reconcile/faults.py`)."""

    def apply(self, application: str, once: Fault | None = None) -> dict[str, Counters]:
        """Tell the agent all faults of this application; again later where it cannot be reached.

        `once` is carried out and not kept. What each has done so far, by id, where it is known.
        """
