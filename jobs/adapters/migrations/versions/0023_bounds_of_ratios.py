"""Of a cause's ratios the least and the greatest again: those that 0022 wrote the other way round lie nowhere else."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute("UPDATE causes SET ratio_low = ratio_high, ratio_high = ratio_low WHERE ratio_low > ratio_high")
