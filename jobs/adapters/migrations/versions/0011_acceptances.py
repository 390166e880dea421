"""Groups of differences that a project accepts, and which of them hold for a run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for name in ("units_accepted", "groups_accepted"):
        op.add_column("runs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("comparisons", sa.Column("accepted", sa.Boolean(), nullable=False, server_default=sa.false()))
    columns = ["run", "kind", "accepted", "position"]
    op.create_index("ix_comparisons_run_kind_accepted_position", "comparisons", columns)
    op.create_table(
        "acceptances",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("column", sa.Text()),
        sa.Column("sign", sa.String(8)),
        sa.Column("ratio", sa.Float()),
        sa.Column("offset", sa.Float()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("run", number, nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("withdrawn_at", sa.Float()),
        sa.Column("withdrawn_by", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name="pk_acceptances"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_acceptances_project_key", "acceptances", ["project", "key"])
    op.create_table(
        "accepted",
        sa.Column("run", number, nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("acceptance", number, nullable=False),
        sa.PrimaryKeyConstraint("run", "key", "acceptance", name="pk_accepted"),
    )
