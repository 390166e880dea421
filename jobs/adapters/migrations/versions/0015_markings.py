"""What is left to mark of units that somebody accepted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "markings",
        sa.Column("run", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=False),
        sa.Column("causes", sa.JSON(), nullable=False),
        sa.Column("key", sa.String(16)),
        sa.Column("unit", sa.Text()),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("event", sa.JSON()),
        sa.PrimaryKeyConstraint("run", name="pk_markings"),
    )
