"""What a declaration would change, field by field, and what each change does to what runs.

Made by `app/catalog/effects.py` (which knows what may change while a program runs) and
`app/api/planning.py` (which knows what is there); shown by the CLI and the dashboard.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from app.domain.model import Model
from app.domain.observed import Coverage

Kind = Literal["network", "volume", "application", "fault"]


class Effect(StrEnum):
    """What happens to the program; later members include the earlier ones."""

    NONE = "none"
    """Nothing notices: labels, and what only the control plane reads."""
    LATER = "later"
    """What runs keeps what it has; what is created or replaced from now on has the new value."""
    LIVE = "live"
    """Changed while the program runs."""
    RESTART = "restart"
    """The program is stopped and started; its address and data stay."""
    RECREATE = "recreate"
    """Everything but its address and volumes is removed and made anew."""


ORDER = list(Effect)


class FieldChange(Model):
    """One field that differs."""

    pointer: str = Field(examples=["/elements/network-lwip/settings/ttl"])
    """JSON pointer into the resource's specification."""
    before: Any = None
    after: Any = None
    effect: Effect


class ResourceChange(Model):
    """One resource of a plan."""

    kind: Kind
    name: str
    action: Literal["create", "change", "remove", "unchanged"]
    effect: Effect = Effect.NONE
    """The strongest of its fields'; of a removal `recreate`: what runs ends."""
    fields: list[FieldChange] = []
    disrupts: list[str] = []
    """Other applications that notice: they depend on it, or are connected to it now."""
    coverage: Coverage | None = None
    """Of an application that will run: what preflight found out about its program."""


class Plan(Model):
    """What applying would do; nothing has been done."""

    name: str
    version: str
    """Names this declaration and the state it was compared with. Apply with it in `If-Match`:
    refused (412) where either has changed since."""
    changes: list[ResourceChange]


def strongest(effects: list[Effect]) -> Effect:
    """`none` where there are none."""
    return max(effects, key=ORDER.index, default=Effect.NONE)
