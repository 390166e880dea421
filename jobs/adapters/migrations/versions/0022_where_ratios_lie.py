"""Of a cause's ratios no longer the least and the greatest, but where the one lies that explains them: from, to."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    # Those that were taken for one number, so near were they, go on as where it lies; the others as nowhere.
    op.execute(
        "UPDATE causes SET ratio_low = ratio_high, ratio_high = ratio_low"
        " WHERE ratio_high - ratio_low > 0.01 * abs(ratio_low + ratio_high) / 2 OR (ratio_low < 1 AND ratio_high > 1)"
    )
