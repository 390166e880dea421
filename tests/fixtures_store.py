"""Fixtures: the store on SQLite (file and memory) and PostgreSQL, with hands to move runs; a Valkey of one's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.adapters.rq_doorbell import RqDoorbell, connect
from jobs.adapters.sql_runs import NewLeg, NewRun
from jobs.adapters.sql_schema import metadata
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.cli_server import valkey_command
from jobs.run import Event, Run, Task, TaskState, Unit
from runner.model import Output, Prepared, Reason, TaskKind, Template, UnitResult, UnitState

OUTPUT = Output("x.csv", "ab" * 32, 12)
SPEC = "version: 1\nworkspace: {image: debian}\nunits: bin/list\nrun: bin/export\n"
WORLD = Reason("database_lost", "The link dropped.")


class Hands:
    """Do to a store what people, workers and sweepers do, with as few words as a test can bear."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # ---- people ----

    def new(self, user: str = "mio", *, priority: int = 0, pool: str = "local", **more: Any) -> NewRun:
        leg = NewLeg(
            more.pop("name", "candidate"),
            more.pop("ref", "main"),
            "c" * 40,
            "subject",
            "author",
            "f",
            SPEC,
            "d",
        )
        return NewRun(
            project=more.pop("project", "accounts"),
            pool=pool,
            user=user,
            note=more.pop("note", ""),
            priority=priority,
            units_filter=more.pop("units_filter", None),
            database=None,
            options={},
            legs=(leg, *more.pop("legs", ())),
        )

    def submit(self, user: str = "mio", **more: Any) -> int:
        return self.store.runs.add(self.new(user, **more), key=None, body="")[0].id

    def run(self, run: int) -> Run:
        return self.store.runs.get(run)

    def tasks(self, run: int) -> list[Task]:
        return self.store.inside.tasks(run)

    def units(self, run: int, **more: Any) -> list[Unit]:
        wanted = {"leg": None, "state": None, "text": None, "task": None, "after": None, "limit": 1_000_000} | more
        return self.store.inside.units(run, **wanted)

    def done(self, run: int) -> set[str]:
        return {unit.unit for unit in self.units(run, state=UnitState.DONE)}

    def events(self, run: int, kind: str | None = None) -> list[Event]:
        return [e for e in self.store.inside.events(run, after=0, limit=10_000) if kind in (None, e.kind)]

    # ---- a worker ----

    def worker(self, name: str = "w1", host: str = "h1", pool: str = "local") -> None:
        self.store.workers.register(name=name, host=host, pool=pool, pid=1)

    def claim(self, worker: str = "w1", *, host: str = "h1", pool: str = "local") -> Claim | None:
        return self.store.tasks.claim(pool=pool, host=host, worker=worker, lease=60.0)

    def take(self, worker: str = "w1", *, host: str = "h1", pool: str = "local") -> Claim:
        claim = self.claim(worker, host=host, pool=pool)
        assert claim is not None, "nothing to claim"
        return claim

    def prepared(
        self,
        claim: Claim,
        units: Sequence[str] = ("a", "b", "c", "d"),
        *,
        batches: int = 2,
        image: str = "sha256:1",
        data: str | None = None,
    ) -> None:
        def divide(names: Sequence[str]) -> list[tuple[str, ...]]:
            size = max(1, -(-len(names) // batches))
            return [tuple(names[at : at + size]) for at in range(0, len(names), size)]

        template = None if data is None else Template("verification", "leg", "app", data)
        result = Prepared("image", image, tuple(units), template)
        self.store.plan.prepared(claim.task.id, claim.task.attempt, result, divide)

    def mark(self, claim: Claim, *units: str, failed: bool = False, source: tuple[int, int] | None = None) -> None:
        state = UnitState.FAILED if failed else UnitState.DONE
        results = [UnitResult(unit, state, None if failed else OUTPUT, "no" if failed else "", 1.5) for unit in units]
        self.store.ledger.mark(claim.task.id, claim.task.attempt, results, source)

    def log(self, claim: Claim, data: bytes, *, at: int | None = None, source: tuple[int, int] | None = None) -> int:
        return self.store.ledger.append_log(
            claim.task.id, claim.task.attempt, data, object_digest=None, source=source, at=at
        )

    def end(self, claim: Claim, state: TaskState = TaskState.DONE, reason: Reason | None = None) -> TaskState:
        return self.store.tasks.end(claim.task.id, claim.task.attempt, state, reason)

    def interrupt(self, claim: Claim, reason: Reason = WORLD, *, free: bool = False) -> TaskState:
        return self.store.tasks.interrupt(claim.task.id, claim.task.attempt, reason, free=free)

    # ---- a sweeper ----

    def make_due(self) -> list[int]:
        """Let the time pass that interrupted tasks wait, and queue them."""
        with self.store.database.write() as connection:
            connection.execute(text("UPDATE tasks SET due_at = 0 WHERE state = 'interrupted'"))
        return self.store.tasks.requeue_due()

    def clean(self, run: int) -> None:
        assert self.store.runs.begin_cleaning(run)
        self.store.runs.cleaned(run)

    # ---- from here to there ----

    def preparing(self, **more: Any) -> tuple[int, Claim]:
        run = self.submit(**more)
        return run, self.take()

    def verifying(self, units: Sequence[str] = ("a", "b", "c", "d"), *, batches: int = 1) -> tuple[int, Claim]:
        """Give a run whose first batch is claimed."""
        run, claim = self.preparing()
        self.prepared(claim, units, batches=batches)
        return run, self.take()

    def finish(self, run: int) -> Run:
        """Do all that is left of a run."""
        while not self.run(run).state.final:
            claim = self.take()
            if claim.task.kind is TaskKind.PREPARE:
                self.prepared(claim)
            else:
                self.mark(claim, *claim.units)
                self.end(claim)
        return self.run(run)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store in a file, to copy."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgres_store_url(postgres18: EmbeddedPostgres) -> str:
    """A database for records on the embedded server."""
    with psycopg.connect(postgres18.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE seatrial_records")
    return postgres18.dsn("seatrial_records")


@pytest.fixture(scope="session")
def postgres_store(postgres_store_url: str) -> Iterator[Store]:
    store = Store.open(postgres_store_url)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """The store on each of its backends."""
    yield from make_hands(request, request.param)


@pytest.fixture(params=["sqlite", "postgres"])
def shared_hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """The stores that several processes can share."""
    yield from make_hands(request, request.param)


def make_hands(request: pytest.FixtureRequest, backend: str) -> Iterator[Hands]:
    if backend == "memory":
        store = Store.in_memory()
    elif backend == "sqlite":
        path = request.getfixturevalue("tmp_path") / "seatrial.db"
        shutil.copy(request.getfixturevalue("migrated"), path)
        store = Store.open(f"sqlite:///{path}")
    else:
        store = request.getfixturevalue("postgres_store")
        with store.database.write() as connection:
            for table in metadata.tables.values():
                connection.execute(table.delete())
    yield Hands(store)
    if backend != "postgres":
        store.close()


class Valkey:
    """An embedded Valkey as `seatrial up` starts it, that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._options: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [*valkey_command(self.socket), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while self.bell().ping() is None:
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(0.02)

    def bell(self) -> RqDoorbell:
        return RqDoorbell(connect(self.url))

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            os.kill(self.process.pid, number)
            self.process.wait(10)
            self.process = None


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A running Valkey."""
    home = Path(tempfile.mkdtemp(prefix="seatrial-valkey-"))
    server = Valkey(home)
    server.start()
    yield server
    server.end()
    shutil.rmtree(home)
