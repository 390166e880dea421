"""What is counted since the records began, whatever of it was removed since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "counts",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
