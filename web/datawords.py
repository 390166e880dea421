"""What a run's data is called on pages and in reports: one source, or one for each leg."""

from __future__ import annotations

from dataclasses import dataclass

from jobs import two_databases
from jobs.run import Run


@dataclass(frozen=True)
class Data:
    """The data of one leg, or of all (`leg` is empty); `id` is empty until the leg is prepared."""

    leg: str
    source: str
    id: str


def of(run: Run) -> list[Data]:
    """Give the data of a run: one entry when all legs have the same source, else one a leg, the candidate's first."""
    legs = [leg for leg in reversed(run.legs) if leg.database is not None]
    if run.two_databases:
        return [Data(leg.name, leg.database or "", leg.data_id or "") for leg in legs]
    if run.database is None:
        return []
    return [Data("", run.database, next((leg.data_id for leg in legs if leg.data_id), ""))]


def alike(run: Run) -> str:
    """Say what holds of the data of a run with two sources; empty for any other."""
    return two_databases.alike(run)
