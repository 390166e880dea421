"""What a slot lacks to take new work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("workers", sa.Column("shortage", sa.Text()))
