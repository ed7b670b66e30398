"""A capture of packets: what is asked for, and the parts of the file that come."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from app.domain.model import Model
from app.domain.quantities import Seconds

PCAPNG = "application/x-pcapng"


class CaptureRequest(Model):
    """All packets of one application's private stack, or those that a filter takes."""

    filter: str | None = Field(default=None, min_length=1, max_length=4000)
    """In tcpdump's language, as in `tcp port 80 and host 10.210.0.3`."""
    count: int | None = Field(default=None, ge=1)
    """End after so many packets."""
    snaplen: int = Field(default=262_144, ge=64, le=262_144)
    """Bytes of each packet that are kept."""
    duration: Annotated[Seconds, Field(gt=0)] | None = None
    """End after this time."""


class Pcapng(Model):
    """Whole blocks of the file, in order."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes
