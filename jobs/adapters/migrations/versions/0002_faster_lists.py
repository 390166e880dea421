"""Indices for long lists and long unit lists; what is cleaned up now is marked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("cleaning_until", sa.Float()))
    op.drop_index("ix_runs_finished_at", "runs")
    op.create_index("ix_runs_ref_id", "runs", ["ref", "id"])
    op.create_index("ix_runs_verdict_id", "runs", ["verdict", "id"])
    op.create_index("ix_runs_cleaned_at_id", "runs", ["cleaned_at", "id"])
    op.drop_index("ix_units_run_leg_position", "units")
    op.drop_index("ix_units_run_state", "units")
    op.create_index("ix_units_run_position", "units", ["run", "position"])
    op.create_index("ix_units_run_state_position", "units", ["run", "state", "position"])
    op.create_index("ix_executions_host_state", "executions", ["host", "state"])
