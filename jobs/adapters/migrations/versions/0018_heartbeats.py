"""When sweeper and comparer were last heard of, and what the comparer has put off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("put_off", sa.JSON(), nullable=False),
    )
