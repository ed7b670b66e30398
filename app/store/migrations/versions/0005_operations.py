"""Operations, and the answers of requests with an Idempotency-Key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "operations",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(60), nullable=False),
        sa.Column("state", sa.String(10), nullable=False, index=True),
        sa.Column("created", sa.String(32), nullable=False, index=True),
        sa.Column("finished", sa.String(32)),
        sa.Column("principal", sa.String(60)),
        sa.Column("targets", sa.Text, nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("created", sa.String(32), nullable=False, index=True),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("answers")
    op.drop_table("operations")
