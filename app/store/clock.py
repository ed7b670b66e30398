"""The store's times, UTC in ISO 8601 with microseconds, and the clock that they are by.

Whoever compares such a time with the present has to know that the clock may have been set since it
was written. So the store keeps, for each kind of times that matter, how the clock stood when these
were right (`StoredClock`); when it stands otherwise, they are moved by the difference.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select

from app.store.tables import meta

_JUMP_S = 0.1
_READ = select(meta.c.value).where(meta.c.key == bindparam("wanted"))


class WallClock:
    """This host's, as something that may be set. Tests give one of their own."""

    def offset(self) -> float:
        """Seconds that the wall clock is ahead of the time since boot; constant until it is set.

        Time asleep counts on both, and corrections of their speed apply to both.
        """
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        """By the wall clock."""
        return datetime.now(UTC)

    def boot(self) -> str:
        """What an offset belongs to."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""


class StoredClock(NamedTuple):
    """How a clock stood."""

    boot: str
    offset: float

    @classmethod
    def of(cls, clock: WallClock) -> StoredClock:
        """As it stands now."""
        return cls(clock.boot(), clock.offset())

    @classmethod
    def read(cls, connection: Connection, key: str) -> StoredClock | None:
        """What `write` wrote last."""
        text = connection.execute(_READ, {"wanted": key}).scalar()
        boot, _, offset = str(text or "").rpartition(" ")
        return cls(boot, float(offset)) if text else None

    def write(self, connection: Connection, key: str) -> None:
        """The times of which `key` speaks are right by a clock that stands so."""
        connection.execute(delete(meta).where(meta.c.key == key))
        row = {"key": key, "value": f"{self.boot} {self.offset:.3f}"}
        connection.execute(insert(meta).values(row))

    def set_since(self, known: StoredClock | None) -> timedelta | None:
        """By how much it was set since it stood as `known`; None: not at all. Nothing after another
        boot: the times are all there is to go by then."""
        if known is None or known.boot != self.boot:
            return timedelta()
        moved = self.offset - known.offset
        return timedelta(seconds=moved) if abs(moved) >= _JUMP_S else None


def now() -> str:
    """The present moment as the tables hold it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A moment as the tables hold it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
