"""Which snapshot a leg is made from, which are used, and which may go. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.settings_model import KeptSnapshots
from runner.errors import RequestError
from runner.model import Base


class SnapshotKept(RequestError):
    """The snapshot cannot be removed."""

    code = "snapshot_kept"


@dataclass(frozen=True)
class Uses:
    """Who uses a source's snapshots: the newest runs by data id, those of them that go on, and names that are wanted.

    `wanted`: names (or data ids) that a run which goes on was submitted with, and that run.
    """

    runs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    live: Mapping[str, Sequence[int]] = field(default_factory=dict)
    wanted: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def live_runs(self, base: Base) -> list[int]:
        """List the runs that have not ended and need this snapshot."""
        found = {*self.live.get(base.data_id, ()), *self.wanted.get(base.name, ()), *self.wanted.get(base.data_id, ())}
        return sorted(found)


def wanted_snapshot(options: Mapping[str, Any], leg: str) -> str | None:
    """Name the snapshot that a leg was submitted with; None for the newest.

    With two databases each leg has its own; else the baseline has the candidate's.
    """
    if leg != "candidate" and options.get("baseline_database") is not None:
        return options.get("baseline_snapshot")
    return options.get("snapshot")


def find(found: Sequence[Base], name: str) -> Base | None:
    """Find a snapshot by its name or its data id."""
    return next((base for base in found if name in (base.name, base.data_id)), None)


def refuse_to_remove(base: Base, found: Sequence[Base], uses: Uses) -> None:
    """Raise SnapshotKept for the newest snapshot, and for one that a run needs which has not ended."""
    if base == found[0]:
        remedy = "Take another one first: runs use the newest."
        text = f"{base.name} is the newest snapshot of {base.source}."
        raise SnapshotKept(text, field="snapshot", value=base.name, remedy=remedy)
    if live := uses.live_runs(base):
        named = ", ".join(map(str, live[:10]))
        remedy = "Wait for their end, or cancel them."
        text = f"{base.name} is used by runs that have not ended: {named}."
        raise SnapshotKept(text, field="snapshot", value=base.name, remedy=remedy)


def past(found: Sequence[Base], keep: KeptSnapshots, uses: Uses, now: datetime) -> list[Base]:
    """Choose the snapshots (newest first) that are past their time: never the newest, nor one that a live run needs."""
    chosen = []
    for place, base in enumerate(found):
        over = keep.count is not None and place >= keep.count
        over |= keep.seconds is not None and (now - base.blessed_at).total_seconds() > keep.seconds
        if over and place > 0 and not uses.live_runs(base):
            chosen.append(base)
    return chosen
