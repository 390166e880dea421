"""Part with what is past its time: outputs and logs of old runs, runs themselves, and objects that nothing refers to.

Deciding about a run is one short transaction; its rows and its objects go later, in small pieces. So a process that is
killed leaves garbage, which the next round takes, and never a reference without its object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import structlog

from jobs.adapters.sql_store import Store
from jobs.compose import build_objects
from jobs.floor import HostRoom
from jobs.keeping import DAY, MARK, Done
from jobs.retention import Ended, Over, Rule, Rules, for_want_of_room, over, rules_of
from jobs.settings import Settings
from jobs.shelf import GRACE_SECONDS, OWNER, Shelf
from runner.adapters.docker_engine import DockerEngine
from runner.errors import InfraError
from runner.quantities import format_duration, format_size
from runner.quota import Used
from runner.room import Short

OBJECTS_SECONDS = DAY
PRESSED_SECONDS = 600.0  # so often where the host runs short: nothing has become older by much in between
RUNS_AT_ONCE = 100  # of a project, in one round
PAUSE = 0.01  # between two transactions, in which others get their turn
CANDIDATES = 250_000  # held in memory at once: some 40 MB; the references are read once for each so many
AT_ONCE = 1_000
# A machine that slept, or whose clock was set, makes everything look old. Whoever was about to record an object has done
# so when both clocks have gone together for this long.
STEADY_SECONDS = 3600.0
_JUMP_SECONDS = 60.0
# References are read at the beginning. What takes longer than this begins anew, far from the end of the grace.
LONGEST_SECONDS = 3 * 3600.0

log = structlog.get_logger(__name__)


class Steady:
    """Tells for how long the clock of the wall and that of the machine's uptime have gone together."""

    def __init__(self, wall: Callable[[], float] = time.time, uptime: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._uptime = wall, uptime
        self._apart = wall() - uptime()
        self._since = uptime()

    def seconds(self) -> float:
        """Give the seconds since they did not, or since the beginning."""
        apart, now = self._wall() - self._uptime(), self._uptime()
        if abs(apart - self._apart) > _JUMP_SECONDS:
            self._since = now
        self._apart = apart
        return now - self._since


class Pruning:
    """What goes when its time is over; safe to do twice at once."""

    def __init__(
        self,
        store: Store,
        objects: Shelf,
        rules: Callable[[str], Rules],
        stamp: Path,
        *,
        lacking: Callable[[], str | None] = lambda: None,
        short: Callable[[], Short | None] = lambda: None,
        at_least: float | None = None,
        grace: float = GRACE_SECONDS,
        steady: float = STEADY_SECONDS,
    ) -> None:
        """Take the parts. `stamp`: the file whose time tells when the objects were looked through last.

        `lacking`: what the host has too little of, None when it has room; `short`: what the file system of the objects has.
        `at_least`: how many seconds after its run's end an output may go for want of room; None: never. `grace`: for how
        many seconds an object stays that nothing refers to. `steady`: for how long the clocks must have gone together.
        """
        self._store, self._objects, self._rules, self._stamp = store, objects, rules, stamp
        self._lacking, self._grace, self._steady_seconds = lacking, grace, steady
        self._short, self._at_least = short, at_least
        self._steady = Steady()

    def tidy(self) -> Iterator[Done]:
        """Part with what is past its time; each part goes on when another's world is away."""
        for part in (self._part_with_runs, self._shred, self._part_with_objects):
            try:
                yield from part()
            except InfraError as error:
                log.warning("pruning.postponed", part=part.__name__.strip("_"), code=error.code, error=error.text)
            except OSError as error:
                log.warning("pruning.postponed", part=part.__name__.strip("_"), error=str(error))

    def preview(self) -> Iterator[Done]:
        """Tell what would go now, and change nothing."""
        for _, one in self._over():
            yield Done(one.what, str(one.run), one.rule.why)
        for run, _, why in self._for_room():
            yield Done("outputs", str(run), why)
        if (problem := self._not_ours(claim=False)) is not None:
            yield Done("objects", "stay", problem)
            return
        count = size = 0
        for found in self._garbage(time.time() - self._grace):
            count, size = count + len(found), size + sum(found.values())
        if count:
            yield Done("objects", f"{count:,}, {format_size(size)}", self._why())

    # ---- runs -----------------------------------------------------------------------------------------------

    def _over(self) -> Iterator[tuple[float, Over]]:
        """Give what is over, with the time before which its run has ended."""
        now = self._store.retention.now()
        for project in self._store.retention.projects():
            rules = self._rules(project)
            ends = [end for rule in (rules.outputs, rules.runs) if (end := rule.before(now)) is not None]
            if not ends:
                continue
            ended = self._store.retention.ended(project, before=max(ends), outputs_left=True, limit=RUNS_AT_ONCE)
            if (end := rules.runs.before(now)) is not None:
                ended += self._store.retention.ended(project, before=end, outputs_left=False, limit=RUNS_AT_ONCE)
            for one in over(ended, rules, now):
                before = one.rule.before(now)
                assert before is not None
                yield before, one

    def _part_with_runs(self) -> Iterator[Done]:
        for before, one in self._over():
            remove = self._store.retention.remove_outputs if one.what == "outputs" else self._store.retention.remove_run
            if remove(one.run, before=before, why=one.rule.why):
                yield Done(one.what, str(one.run), one.rule.why)
            time.sleep(PAUSE)

    def _for_room(self) -> Iterator[tuple[int, float, str]]:
        """Give the runs whose outputs go for want of room, the time before which they ended, and why they go.

        What they take is counted as if nothing else had the same, so rather few go at once; another round sees what came
        of it.
        """
        if self._at_least is None or (short := self._short()) is None:
            return
        retention, left = self._store.retention, short.used
        before = retention.now() - self._at_least
        ended: list[Ended] = []
        for project in retention.projects():
            if not self._rules(project).pinned:
                ended += retention.ended(project, before=before, outputs_left=True, limit=RUNS_AT_ONCE)
        why = f"for want of room ({short.text}), {Rule(self._at_least, 'server.keep_outputs_at_least').why}"
        for run in for_want_of_room(ended, retention.last_used()):
            if left == Used():
                return
            yield run, before, why
            left = left.less(retention.holds(run))

    def _make_room(self) -> Iterator[Done]:
        """Part with outputs while there is too little room for others; their objects go right after."""
        for run, before, why in self._for_room():
            if self._store.retention.remove_outputs(run, before=before, why=why):
                yield Done("outputs", str(run), why)
            time.sleep(PAUSE)

    def _shred(self) -> Iterator[Done]:
        while self._store.retention.shred():
            time.sleep(PAUSE)
        yield from ()

    # ---- objects --------------------------------------------------------------------------------------------

    def _part_with_objects(self) -> Iterator[Done]:
        steady = self._steady.seconds() >= self._steady_seconds
        if not steady or not self._is_due(PRESSED_SECONDS if self._lacking() is not None else OBJECTS_SECONDS):
            return
        if (problem := self._not_ours(claim=True)) is not None:
            log.error("pruning.not_ours", error=problem)
            return
        yield from self._make_room()
        count = size = 0
        before = time.time() - self._grace
        for found in self._garbage(before):
            digests = list(found)
            for start in range(0, len(digests), AT_ONCE):
                if self._steady.seconds() < self._steady_seconds:
                    return  # the machine slept: the references are read anew
                gone = self._objects.remove(digests[start : start + AT_ONCE], untouched_since=before)
                count, size = count + len(gone), size + sum(found[digest] for digest in gone)
        self._stamp.touch()
        if count:
            yield Done("objects", f"{count:,}, {format_size(size)}", self._why())

    def _not_ours(self, *, claim: bool) -> str | None:
        """Tell why no object may go: new or other records know nothing of them, and would take all for garbage."""
        ours = self._store.retention.archive()
        if (owner := self._objects.owner(ours, claim=claim)) == ours:
            return None
        return f"they belong to other records ({OWNER}: {owner}, ours are {ours}); see docs/troubleshooting.md"

    def _why(self) -> str:
        return f"nothing refers to them, and nobody stored them for {format_duration(self._grace)}"

    def _garbage(self, before: float) -> Iterator[dict[str, int]]:
        """Give objects that were last touched before a time and that nothing refers to: digest and size, some at once.

        They are found first and the references read afterwards: what is recorded later was stored, and so touched, not
        long before that.
        """
        began = time.monotonic()
        old = (one for one in self._objects.walk() if one.touched_at < before)
        while found := {one.digest: one.size for one in islice(old, CANDIDATES)}:
            for digest, tree in self._store.keeping.references():
                found.pop(digest, None)
                if tree:
                    for entry in self._entries(digest):
                        found.pop(entry, None)
            # A power cut takes the last moments of a SQLite store, and must not bring back what referred to them.
            self._store.database.write_back()
            if found:
                yield found
            if time.monotonic() - began > LONGEST_SECONDS:
                return

    def _entries(self, manifest: str) -> list[str]:
        """Give the objects that a manifest names; raises OSError for one that cannot be read, none for one that is gone."""
        try:
            with self._objects.open(manifest) as file:
                return [entry["digest"] for entry in json.load(file).values()]
        except KeyError:
            return []
        except ValueError as error:
            raise OSError(f"the manifest {manifest} is damaged, so that nobody knows which objects it names") from error

    def _is_due(self, every: float) -> bool:
        """Tell whether the last time lies so many seconds back; an installation that is new has nothing to part with."""
        try:
            return abs(time.time() - self._stamp.stat().st_mtime) > every
        except FileNotFoundError:
            self._stamp.parent.mkdir(parents=True, exist_ok=True)
            self._stamp.touch()
            return False


def build_pruning(settings: Settings, store: Store) -> Pruning:
    """Put together what goes when its time is over. Only a host's own disk can make it hurry."""
    room = HostRoom(settings, DockerEngine(settings.server.docker_url).info)
    return Pruning(
        store,
        build_objects(settings),
        lambda project: rules_of(settings, project),
        settings.server.home / ".objects.swept",
        lacking=(lambda: room.lacking(times=MARK)) if settings.objects is None else lambda: None,
        short=lambda: room.short_of_objects(times=MARK),
        at_least=settings.server.keep_outputs_at_least,
    )
