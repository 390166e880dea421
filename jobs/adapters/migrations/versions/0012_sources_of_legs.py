"""The database source of each leg, and the snapshot that it was made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("legs", sa.Column("database", sa.Text()))
    op.add_column("legs", sa.Column("snapshot", sa.Text()))
    op.execute("UPDATE legs SET database = (SELECT runs.database FROM runs WHERE runs.id = legs.run)")
