"""Applications, networks, volumes, addresses, ports, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    for name in ("networks", "volumes"):
        op.create_table(
            name,
            sa.Column("name", sa.String(40), primary_key=True),
            sa.Column("spec", sa.Text, nullable=False),
            sa.Column("created", sa.String(32), nullable=False),
        )
    op.create_table(
        "applications",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("desired", sa.String(10), nullable=False),
        sa.Column("run_wanted", sa.Integer, nullable=False),
        sa.Column("run_done", sa.Integer, nullable=False),
        sa.Column("coverage", sa.Text),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("updated", sa.String(32), nullable=False),
    )
    op.create_table(
        "addresses",
        sa.Column("network", sa.String(40), sa.ForeignKey("networks.name"), primary_key=True),
        sa.Column("value", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.String(40), index=True),
        sa.Column("taken", sa.String(32), nullable=False),
    )
    op.create_table(
        "ports",
        sa.Column("host_address", sa.String(15), primary_key=True),
        sa.Column("port", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("protocol", sa.String(3), primary_key=True),
        sa.Column("holder", sa.String(40), nullable=False, index=True),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("application", sa.String(40), index=True),
        sa.Column("message", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop every table."""
    for name in ("events", "ports", "addresses", "applications", "volumes", "networks", "meta"):
        op.drop_table(name)
