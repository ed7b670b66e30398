"""Applications as the JSON that clients get, kept as long as nothing of them changes.

Listing a thousand applications is what dashboards and scripts do all the time, and making their
JSON takes a hundred times as long as sending it. What it is made of is immutable (record,
observation, condition, health), so that the same objects mean the same text. Called by
`applications.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.api.resources import application
from app.domain.health import Health, HealthKeeping
from app.domain.observed import Observed
from app.domain.status import Condition, Convergence, Status
from app.store.records import ApplicationRecord

_FEW = 1000
"""So many are kept before a look who of them is gone."""


@dataclass(frozen=True, slots=True)
class _Kept:
    record: ApplicationRecord
    observed: Observed | None
    condition: Condition | None
    busy: bool
    activity: str | None
    health: Health | None
    text: bytes


class Rendered:
    """By name. Of two threads that make the same text, one is thrown away: no lock."""

    def __init__(self, convergence: Convergence, health: HealthKeeping) -> None:
        self._convergence = convergence
        self._health = health
        self._kept: dict[str, _Kept] = {}
        self._most = _FEW

    def texts(self, records: Sequence[ApplicationRecord]) -> list[bytes]:
        """Several applications as JSON, in their order."""
        statuses = self._convergence.statuses([record.name for record in records])
        return list(map(self.text, records, statuses))

    def text(self, record: ApplicationRecord, status: Status | None = None) -> bytes:
        """One application as JSON; `status` where the caller has looked already."""
        name = record.name
        if status is None:
            status = self._convergence.status(name)
        health = self._health.status(name)
        kept = self._kept.get(name)
        if (
            kept is not None
            and kept.record is record
            and kept.observed is status.observed
            and kept.condition is status.condition
            and kept.busy == status.busy
            and kept.activity == status.activity
            and kept.health is health
        ):
            return kept.text
        shown = application(record, status, health)
        text = shown.model_dump_json(exclude_none=True).encode()
        if kept is None and len(self._kept) >= self._most:
            self._forget_gone()
        self._kept[name] = _Kept(
            record,
            status.observed,
            status.condition,
            status.busy,
            status.activity,
            health,
            text,
        )
        return text

    def _forget_gone(self) -> None:
        """What is not on the host may be made again when it is asked for; most are removed."""
        here = {
            name: kept
            for name, kept in self._kept.copy().items()
            if self._convergence.status(name).observed is not None
        }
        self._kept, self._most = here, max(_FEW, 2 * len(here))
