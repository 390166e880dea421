"""What became of each unit of a compare run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("runs", sa.Column("units_different", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("compared_at", sa.Float()))
    op.create_table(
        "comparisons",
        sa.Column("run", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("largest", sa.Float()),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("rows", sa.String(64)),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("run", "unit", name="pk_comparisons"),
    )
    op.create_index("ix_comparisons_run_position", "comparisons", ["run", "position"])
    op.create_index("ix_comparisons_run_kind_position", "comparisons", ["run", "kind", "position"])
