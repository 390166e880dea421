"""Whose clean-up of a run it is, so that one that was overtaken takes nothing more away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("runs", sa.Column("cleaning_token", sa.String(32)))
