"""What can be asked about a compare run: classes, counts, the differences of a unit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.adapters.sql_store import Store
from jobs.comparing import Compared, UnitClass
from jobs.run import Run
from runner.errors import Conflict, NotFound
from runner.ports import Objects


@dataclass(frozen=True)
class Tally:
    """How many units each class has, and how many `left` have none yet."""

    counts: Mapping[UnitClass, int]
    left: int


class Differences:
    """The inside of a compare run; every method raises NotFound, and Conflict for a run of one branch."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    def compared(
        self, run: int, *, kinds: Sequence[UnitClass] = (), text: str = "", after: int | None = None, limit: int = 200
    ) -> list[Compared]:
        """List units that have a class, after a position, in the order of their lists."""
        self._check(run)
        after = -1 if after is None else after
        return self._store.compare.list(run, kinds=kinds, text=text, after=after, limit=limit)

    def comparison(self, run: int) -> Tally:
        """Count a run's units by class."""
        self._check(run)
        return Tally(*self._store.compare.tally(run))

    def differences(self, run: int, unit: str) -> tuple[Compared, list[dict[str, Any]]]:
        """Give what became of a unit, and its stored differences, largest first (see runner.comparison).

        Of a run whose outputs were removed none are left: see `Run.removed`.
        """
        removed = self._check(run).removed is not None
        found = self._store.compare.one(run, unit)
        if found.rows is None or removed:
            return found, []
        try:
            with self._objects.open(found.rows) as file:
                return found, json.loads(file.read())
        except KeyError:
            raise NotFound(
                f"The differences of {unit!r} are not in the object store any more.",
                field="unit",
                value=unit[:80],
                remedy="Submit the run again.",
            ) from None

    def _check(self, run: int) -> Run:
        found = self._store.runs.get(run)
        if found.baseline is None:
            raise Conflict(
                f"Run {run} compares nothing: it verifies one branch.",
                field="run",
                value=str(run),
                remedy="Submit with a baseline.",
            )
        return found
