"""What the store returns: the resources with what the control plane knows about them."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address

from app.domain.application import ApplicationSpec
from app.domain.model import Model
from app.domain.network import NetworkSpec
from app.domain.observed import Coverage
from app.domain.resources import Desired


class ApplicationRecord(Model):
    """One application as its user wants it."""

    name: str
    id: str
    """New with every change of the specification; what runs under another id is replaced."""
    generation: int
    """Counts changes of the specification and of the desired state."""
    spec: ApplicationSpec
    desired: Desired
    run_wanted: int
    """Counts requested starts; more than `run_done` means that a start is still to be made."""
    run_done: int
    coverage: Coverage | None
    address: IPv4Address | None
    network: NetworkSpec | None = None
    """That the address is of."""
    created: datetime
    updated: datetime
