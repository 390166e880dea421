"""The branch's fault that an execution ended with, for an attempt that was killed before it could end the task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("executions", sa.Column("reason_code", sa.String(64)))
    op.add_column("executions", sa.Column("reason_text", sa.Text()))
