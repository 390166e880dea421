"""Why a compare run was stopped, what its legs took over, and why units differ."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("runs", sa.Column("stop_code", sa.String(64)))
    op.add_column("runs", sa.Column("stop_text", sa.Text()))
    op.add_column("legs", sa.Column("reused", sa.JSON()))
    op.create_table(
        "causes",
        sa.Column("run", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("column", sa.Text()),
        sa.Column("sign", sa.String(8)),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("ratio_low", sa.Float()),
        sa.Column("ratio_high", sa.Float()),
        sa.Column("offset_low", sa.Float()),
        sa.Column("offset_high", sa.Float()),
        sa.PrimaryKeyConstraint("run", "key", "unit", name="pk_causes"),
    )
    op.create_index("ix_causes_run_unit", "causes", ["run", "unit"])
