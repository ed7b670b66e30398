"""Faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "faults",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("application", sa.String(40), nullable=False, index=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("ends", sa.String(32)),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("faults")
