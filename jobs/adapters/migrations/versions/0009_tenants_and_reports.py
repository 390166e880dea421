"""The two halves of a compared unit's name, and what maps and lists of differences are read from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for name in ("tenant", "report"):
        op.add_column("comparisons", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    table = sa.table("comparisons", *(sa.column(name) for name in ("run", "unit", "tenant", "report")))
    connection = op.get_bind()
    found = connection.execute(sa.select(table.c.run, table.c.unit)).all()
    here = (table.c.run == sa.bindparam("of_run"), table.c.unit == sa.bindparam("of_unit"))
    halves: dict[str, Any] = {"tenant": sa.bindparam("new_tenant"), "report": sa.bindparam("new_report")}
    values = [
        {"of_run": run, "of_unit": unit, "new_tenant": unit.rpartition("/")[0], "new_report": unit.rpartition("/")[2]}
        for run, unit in found
    ]
    if values:
        connection.execute(sa.update(table).where(*here).values(halves), values)
    op.create_index("ix_comparisons_run_kind_tenant", "comparisons", ["run", "kind", "tenant", "report"])
    op.create_index("ix_comparisons_run_largest", "comparisons", ["run", "largest", "position"])
