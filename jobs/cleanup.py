"""Take away what runs left behind: containers, doors, clones, roles, directories. Only what carries our mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from jobs.adapters.sql_store import Store
from jobs.keeping import Done
from jobs.patience import Patience
from runner.errors import DatabaseUnavailable, Fenced, InfraError, SpecError
from runner.model import execution_database, leg_database
from runner.passing import remove_left
from runner.ports import Databases, Door, Engine
from runner.spec import parse_spec
from runner.workspace import Workspace


class Sweepable(Databases, Protocol):
    """A source that can find what was left on its server."""

    def made_for(self, run: int) -> list[str]: ...

    def sweep(self, wanted: Callable[[], set[str]]) -> list[str]: ...


class Cleanup:
    """What the sweeper may remove on this host and on the database servers."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        door: Door,
        sources: Mapping[str, Callable[[], Sweepable]],
        executions: Path,
        *,
        passing: Sequence[Path] = (),
        installation: str,
        host: str,
    ) -> None:
        """Take the parts. `sources`: by name, what opens one; `passing`: directories of passing files (runner.passing)."""
        self._store, self._engine, self._door, self._sources = store, engine, door, sources
        self._executions, self._installation, self._host = executions, installation, host
        self._passing = passing
        self._patience = Patience()

    def run(self, run: int, still: Callable[[], bool]) -> Iterator[str]:
        """Remove all that a final run has on this host, then the databases of its legs and executions; gives their names.

        `still` is asked before each of them, of a database while nobody else can make it anew: once it says no, the rest
        is left to others. What there is was looked for before, so that nothing is among it that was made later. Raises an
        InfraError when something of it has to wait.
        """

        def fence() -> None:
            if not still():
                raise Fenced

        found = self._engine.find(installation=self._installation, run=str(run), kind="workspace")
        here = {container.name for container in found} | set(self._left(f"seatrial-{self._installation}-r{run}-"))
        databases, away = self._databases_of(run)
        for name in sorted(here):
            if not still():
                return
            self._remove(name)
            yield name
        for source, database in databases:
            try:
                source.drop(database, role=database, fence=fence)
            except Fenced:
                return
            yield database
        if away is not None:
            raise away

    def _databases_of(self, run: int) -> tuple[list[tuple[Sweepable, str]], InfraError | None]:
        """Give the databases and roles of a run, each with its source, and the error of a source that does not answer."""
        found: list[tuple[Sweepable, str]] = []
        away = None
        for name in sorted(self._sources_of(run) & set(self._sources)):
            try:
                source = self._source(name)
                found += [(source, database) for database in source.made_for(run)]
            except InfraError as error:
                away = error
        return found, away

    def _source(self, name: str) -> Sweepable:
        try:
            return self._sources[name]()
        except (OSError, KeyError, ValueError):  # never the error's own words: they could hold the dsn
            raise DatabaseUnavailable(f"The dsn of the source {name} cannot be read.") from None

    def _sources_of(self, run: int) -> set[str]:
        """Name the sources of which a run's legs may have clones, whatever was recorded of them."""
        found = set()
        for text, where, chosen in self._store.inside.specs(run):
            try:
                spec = parse_spec(text, source=where)
            except SpecError:  # it was valid for the version that accepted it: it may have a clone of any source
                return set(self._sources)
            if spec.database is not None:
                found.add(chosen or spec.database.source)
        return found

    def orphans(self) -> Iterator[Done]:
        """Remove what stands here of tasks that are over or went on elsewhere, and databases that nothing refers to.

        Gives what was removed. Another host may have cleaned up after a run's end, and cannot reach what it has here. What
        cannot be removed is left for a while, and keeps nothing else from being removed. Raises StoreUnavailable.
        """
        parts = {"executions": self._unwanted, "given up": self._given_up, "volumes": self._volumes}
        for name in self._sources:
            parts[f"source {name}"] = partial(self._unwanted_databases, name)
        for folder in self._passing:
            parts[f"files in {folder}"] = partial(self._passed, folder)
        for what, part in parts.items():
            if self._patience.ready(what):
                with self._patience.guard(what):
                    yield from part()

    def _unwanted(self) -> Iterator[Done]:
        # In this order: what is there now had its task when it was made, so a task that begins meanwhile is safe.
        found = self._engine.find(installation=self._installation, kind="workspace")
        standing = {container.name: int(container.labels.get("task", "0")) for container in found}
        standing |= {name: _numbers(name)[1] or 0 for name in self._left(f"seatrial-{self._installation}-r")}
        live = self._store.inside.live_tasks() if standing else set()
        for name, task in standing.items():
            if task not in live and self._patience.ready(name):
                with self._patience.guard(name):
                    self._remove(name)
                    yield _done("execution", name, "its task is over")

    def _given_up(self) -> Iterator[Done]:
        for task, execution, name in self._store.workers.abandoned(host=self._host):
            if self._patience.ready(name):
                with self._patience.guard(name):
                    self._remove(name)
                    self._store.workers.removed(task, execution)
                    yield _done("execution", name, "it was given up: nobody goes on with it")

    def _volumes(self) -> Iterator[Done]:
        for name in self._engine.remove_volumes(installation=self._installation):
            yield Done("volume", name, "its container went without it")

    def _unwanted_databases(self, source: str) -> Iterator[Done]:
        for name in self._source(source).sweep(self._wanted):
            yield _done("database", name, f"nothing that lives refers to it; it was on the source {source}")

    def _passed(self, folder: Path) -> Iterator[Done]:
        for path in remove_left(folder):
            yield Done("file", f"{folder.name}/{path.name}", "whoever wrote it died")

    def _wanted(self) -> set[str]:
        """Name the databases of all legs and executions of runs that have not ended or not been cleaned up."""
        found = set()
        for run, leg, task, last in self._store.inside.live_orders():
            found.add(leg_database(self._installation, run, leg))
            found |= {execution_database(self._installation, run, task, number) for number in range(1, last + 1)}
        return found

    def _remove(self, name: str) -> None:
        self._engine.remove(name)
        self._door.close(name)
        Workspace(self._executions / name).remove()
        if (self._executions / name).exists():
            raise OSError(f"{self._executions / name} cannot be removed")

    def _left(self, prefix: str) -> list[str]:
        """Name the executions whose directory or door is here, their container or not."""
        found = self._door.standing()
        if self._executions.is_dir():
            found |= {path.name for path in self._executions.iterdir()}
        return sorted(name for name in found if name.startswith(prefix))


def _numbers(name: str) -> tuple[int | None, int | None]:
    """Read run and task out of the name of an execution or a database; None for what it does not tell."""
    found = re.fullmatch(r"seatrial[-_].*?[-_]r(\d+)[-_](?:t(\d+)[-_]e\d+|\w+)", name)
    if found is None:
        return None, None
    return int(found[1]), None if found[2] is None else int(found[2])


def _done(what: str, name: str, why: str) -> Done:
    run, task = _numbers(name)
    return Done(what, name, why, run, task)
