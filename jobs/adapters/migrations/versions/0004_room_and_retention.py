"""What a slot lacks to take new work, and when the outputs of an old run were removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("workers", sa.Column("shortage", sa.Text()))
    op.add_column("runs", sa.Column("expired_at", sa.Float()))
    op.add_column("runs", sa.Column("outputs_removed_at", sa.Float()))
