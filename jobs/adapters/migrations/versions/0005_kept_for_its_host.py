"""How long a container that stands is kept for the workers of its host, before others begin anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("executions", sa.Column("kept_until", sa.Float()))
