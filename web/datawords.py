"""What a run's data is called on pages and in reports: one source, or one for each leg."""

from __future__ import annotations

from dataclasses import dataclass

from jobs import two_databases
from jobs.run import Leg, Run
from runner.model import BASELINE_AGAIN


@dataclass(frozen=True)
class Data:
    """The data of one leg, or of all (`leg` is empty); `id` is empty until the leg is prepared.

    `snapshot`: its name, empty when it has none but its data id.
    """

    leg: str
    source: str
    id: str
    snapshot: str = ""


def of(run: Run) -> list[Data]:
    """Give the data of a run: one entry when all legs have the same source, else one a leg, the candidate's first.

    A second run of the baseline has the data of the first.
    """
    legs = [leg for leg in reversed(run.legs) if leg.database is not None and leg.name != BASELINE_AGAIN]
    if run.two_databases:
        return [Data(leg.name, leg.database or "", leg.data_id or "", named(leg)) for leg in legs]
    if run.database is None:
        return []
    settled = next((leg for leg in legs if leg.data_id), None)
    return [Data("", run.database, *(("", "") if settled is None else (settled.data_id or "", named(settled))))]


def named(leg: Leg) -> str:
    """Give the name of a leg's snapshot; empty when it is the data id."""
    return leg.snapshot if leg.snapshot and leg.snapshot != leg.data_id else ""


def alike(run: Run) -> str:
    """Say what holds of the data of a run with two sources; empty for any other."""
    return two_databases.alike(run)
