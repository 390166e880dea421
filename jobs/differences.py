"""What can be asked about a compare run: classes, counts, the differences of a unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

from jobs.adapters.sql_noise import NoiseTally, Unstable
from jobs.adapters.sql_store import Store
from jobs.comparing import Compared, UnitClass
from jobs.grouping import Group
from jobs.latency import Latency, Timed
from jobs.noise import Noise
from jobs.overview import EVERY_UNIT, HeatMap, Overview, Wanted
from jobs.run import Run
from runner.errors import Conflict, NotFound
from runner.ports import Objects
from runner.spec import parse_spec

MAP_TENANTS = 60
KEPT = 64  # answers about runs, until something of the run changes

T = TypeVar("T")


@dataclass(frozen=True)
class Tally:
    """How many units each class has, and how many `left` have none yet; `noisy` ones are different by noise alone."""

    counts: Mapping[UnitClass, int]
    left: int
    noisy: int


class Differences:
    """The inside of a compare run; every method raises NotFound, and Conflict for a run of one branch."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects
        self._threshold = lru_cache(256)(self._read_threshold)
        self._kept: dict[Hashable, tuple[Hashable, Any]] = {}
        self._keeping = Lock()

    def comparison(self, run: int) -> Tally:
        """Count a run's units by class."""
        self._check(run)
        return Tally(*self._store.compare_views.counts(run), self._store.compare_views.noisy(run))

    # ---- the run from above ---------------------------------------------------------------------------

    def overview(self, run: int) -> Overview:
        """Sum a run up: its classes, the worst reports, tenants and columns, the largest deltas."""
        return self._keep(self._check(run), ("overview",), lambda: self._store.compare_views.overview(run))

    def heat_map(self, run: int, *, first: int = 0, limit: int = MAP_TENANTS) -> HeatMap:
        """Give a page of tenants, those with the most differing units first, and the classes of their units."""
        read = self._store.compare_views.heat_map
        return self._keep(self._check(run), ("map", first, limit), lambda: read(run, first=first, limit=limit))

    def latency(self, run: int, *, limit: int = 200) -> Latency:
        """Compare how long units took on both legs, by the rule of the candidate's specification."""
        found = self._check(run)
        ratio, floor = self._threshold(run)
        read = self._store.latency.of
        return self._keep(found, ("latency", limit), lambda: read(run, ratio=ratio, floor=floor, limit=limit))

    def timed(self, run: int, units: int) -> list[Timed]:
        """Give the durations of some of the units that both legs finished, for a picture of all `units`."""
        read = self._store.latency.some
        return self._keep(self._check(run), ("timed", units), lambda: read(run, units))

    def by_position(
        self, run: int, wanted: Wanted = EVERY_UNIT, *, after: int | None = None, limit: int = 100
    ) -> list[Compared]:
        """List compared units after a position, in the order of their lists."""
        self._check(run)
        return self._store.compare_views.by_position(
            run,
            self._whole(run, wanted),
            after=-1 if after is None else after,
            limit=limit,
        )

    def by_delta(
        self, run: int, wanted: Wanted = EVERY_UNIT, *, after: tuple[float, int] | None = None, limit: int = 100
    ) -> list[Compared]:
        """List compared units with a difference of numbers, the largest first, after a delta and a position."""
        self._check(run)
        return self._store.compare_views.by_delta(
            run,
            self._whole(run, wanted),
            after=after,
            limit=limit,
        )

    def count_compared(self, run: int, wanted: Wanted = EVERY_UNIT) -> int:
        """Count compared units."""
        self._check(run)
        return self._store.compare_views.count(run, self._whole(run, wanted))

    def _groups(self, run: Run) -> list[Group]:
        return self._keep(run, ("groups",), lambda: self._store.groups.list(run.id))

    def _whole(self, run: int, wanted: Wanted) -> Wanted:
        """Name the causes of a group that several were put together in."""
        if wanted.group is None:
            return wanted
        named = [one.keys for one in self._groups(self._check(run)) if one.key == wanted.group]
        return replace(wanted, causes=named[0]) if named else wanted

    def beside(
        self, run: int, position: int, kinds: Iterable[UnitClass], *, noisy: bool | None = None
    ) -> tuple[str | None, str | None]:
        """Name the units of some classes before and after a position; `noisy`: only those, or only the others."""
        return self._store.compare_views.beside(run, position, kinds, noisy=noisy)

    def _keep(self, run: Run, what: tuple[Hashable, ...], read: Callable[[], T]) -> T:
        """Give an answer that was read before, as long as nothing of the run has changed since."""
        counts, left = self._store.compare_views.counts(run.id)
        stamp = (tuple(sorted(counts.items())), left, run.finished_at, run.attempts, run.units.done, run.units_accepted)
        key = (run.id, *what)
        with self._keeping:
            kept = self._kept.get(key)
        if kept is not None and kept[0] == stamp:
            answer: T = kept[1]
            return answer
        answer = read()
        with self._keeping:
            self._kept.pop(key, None)
            self._kept[key] = (stamp, answer)
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return answer

    def _read_threshold(self, run: int) -> tuple[float, float]:
        text, source = self._store.runs.spec_of(run, "candidate")
        latency = parse_spec(text, source=source).compare.latency
        return latency.ratio, latency.floor

    # ---- one unit -------------------------------------------------------------------------------------

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

    def noise(self, run: int) -> NoiseTally | None:
        """Count what moves between two runs of the baseline; None when it runs once."""
        self._check(run)
        return self._store.noise.tally(run)

    def unstable(self, run: int, *, after: int | None = None, limit: int = 200) -> list[Unstable]:
        """List the units that move between two runs of the baseline, after a position."""
        self._check(run)
        return self._store.noise.list(run, after=-1 if after is None else after, limit=limit)

    def noise_of(self, run: int, unit: str) -> Noise | None:
        """Give what moves in a unit; None when nothing does, or it was made once."""
        return self._store.noise.one(run, unit)

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
