"""What moves in a unit between two runs of one baseline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("comparisons", sa.Column("noisy", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "noise",
        sa.Column("run", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("moves", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", "unit", name="pk_noise"),
    )
    op.create_index("ix_noise_run_position", "noise", ["run", "position"])
