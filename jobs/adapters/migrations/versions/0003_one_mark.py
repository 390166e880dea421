"""The mark of the installation, which all of its hosts have in common."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
