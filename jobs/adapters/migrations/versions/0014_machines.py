"""Machines of pools that are started and stopped: their drains, what holds them, what was decided, what it cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "machines",
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("region", sa.String(32), nullable=False, server_default=""),
        sa.Column("account", sa.String(16), nullable=False, server_default=""),
        sa.Column("kind", sa.String(64), nullable=False, server_default=""),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_since", sa.Float(), nullable=False),
        sa.Column("host", sa.Text()),
        sa.Column("registered_at", sa.Float()),
        sa.Column("seen_at", sa.Float()),
        sa.Column("started_at", sa.Float()),
        sa.Column("why_on", sa.Text(), nullable=False, server_default=""),
        sa.Column("busy", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("drain_token", sa.String(32)),
        sa.Column("drain_since", sa.Float()),
        sa.Column("drain_reason", sa.Text()),
        sa.Column("drain_by", sa.String(255)),
        sa.Column("answer", sa.JSON()),
        sa.Column("kept_at", sa.Float()),
        sa.Column("disk", sa.JSON()),
        sa.Column("notice", sa.JSON()),
        sa.Column("refused", sa.Text()),
        sa.Column("price", sa.String(32)),
        sa.Column("notes", sa.JSON(), nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("instance", name="pk_machines"),
    )
    op.create_index("ix_machines_pool", "machines", ["pool"])
    op.create_index("ix_machines_host", "machines", ["host"])
    op.create_table(
        "holds",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(32)),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("released_at", sa.Float()),
        sa.Column("released_by", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_holds_pool_until", "holds", ["pool", "until"])
    op.create_table(
        "wishes",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(32)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("done_at", sa.Float()),
        sa.Column("outcome", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_wishes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_wishes_pool_kind_made_at", "wishes", ["pool", "kind", "made_at"])
    op.create_table(
        "decisions",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(32)),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_decisions_pool_instance_id", "decisions", ["pool", "instance", "id"])
    op.create_index("ix_decisions_pool_id", "decisions", ["pool", "id"])
    op.create_table(
        "intervals",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float()),
        sa.Column("price", sa.String(32)),
        sa.Column("cause", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_intervals"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_intervals_instance_started_at", "intervals", ["instance", "started_at"])
    op.create_index("ix_intervals_pool_started_at", "intervals", ["pool", "started_at"])
    op.create_table(
        "shortages",
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "name", name="pk_shortages"),
    )
    op.create_table(
        "controllers",
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("asked_at", sa.Float()),
        sa.Column("problem", sa.Text()),
        sa.PrimaryKeyConstraint("pool", name="pk_controllers"),
    )
    op.create_index("ix_attempts_host_ended_at", "attempts", ["host", "ended_at"])
