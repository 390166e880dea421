"""What executions took of a disk, and what a task is expected to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("executions", sa.Column("peak_bytes", sa.BigInteger()))
    op.add_column("executions", sa.Column("peak_files", sa.BigInteger()))
    op.add_column("tasks", sa.Column("need_bytes", sa.BigInteger()))
    op.add_column("tasks", sa.Column("need_files", sa.BigInteger()))
    op.add_column("legs", sa.Column("disk_limit", sa.BigInteger()))
