"""Faults that a stack declares."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add whose they are."""
    op.add_column("faults", sa.Column("stack", sa.String(40)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("faults", "stack")
