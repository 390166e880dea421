"""A store that goes away in the middle of an attempt: nothing is lost, nothing is written twice, nobody is failed."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from fixtures_postgres import Proxy, end_server, start_server
from fixtures_s3 import S3Server
from hands import OUTPUT, Hands

from jobs import worker as worker_module
from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.adapters.file_objects import FileObjects
from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
from jobs.adapters.sql_schema import metadata
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.flag import Flag
from jobs.recorder import LedgerRecorder
from jobs.run import RunState, TaskState, Verdict
from jobs.service import Service
from jobs.sweeper import Sweeper
from jobs.worker import Place, Slot
from runner.errors import (
    Cancelled,
    ContainerFoundDead,
    ContainerLost,
    DatabaseLost,
    Drained,
    Fenced,
    SeatrialError,
    StepFailed,
    StoreUnavailable,
)
from runner.model import Order, Prepared, UnitResult, UnitState

LEASE = 4.0


class Road:
    """A store on a PostgreSQL server of its own, by a road that can be cut; `direct` reaches it always."""

    def __init__(self, server: EmbeddedPostgres, proxy: Proxy) -> None:
        self.server, self.proxy = server, proxy
        self.url = proxy.through(server.dsn("records"))
        self.store = Store.open(self.url)
        self.direct = Hands(Store.open(server.dsn("records")))

    def close(self) -> None:
        self.proxy.mend()
        self.store.close()
        self.direct.store.close()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    server = start_server("pg-outage")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE records")
    yield server
    end_server(server)


@pytest.fixture
def road(own_postgres: EmbeddedPostgres) -> Iterator[Road]:
    with Proxy(own_postgres.port) as proxy:
        one = Road(own_postgres, proxy)
        with one.direct.store.database.write() as connection:
            for table in metadata.tables.values():
                connection.execute(table.delete())
        yield one
        one.close()


def recorder(road: Road, tmp_path: Path, claim: Claim, **more: Any) -> LedgerRecorder:
    values: dict[str, Any] = {"drain": Flag(), "lease": LEASE, "log_size": claim.task.log_size} | more
    objects = FileObjects(tmp_path / "objects")
    return LedgerRecorder(road.store, objects, task=claim.task.id, attempt=claim.task.attempt, **values)


def whole_log(hands: Hands, tmp_path: Path, task: int) -> bytes:
    site = Service(None, hands.store, FileObjects(tmp_path / "objects"), None, None)  # type: ignore[arg-type]
    return b"".join(site.open_log(task))


class Watch:
    """A sweeper on the direct road, in a thread: it must find nothing to take away."""

    def __init__(self, store: Store) -> None:
        self.sweeper = Sweeper(store, None, None, lease=LEASE)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.sweeper.stop.wait(0.2):
            try:
                self.sweeper.sweep()
            except StoreUnavailable:
                self.sweeper._seen = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.sweeper.stop.set()
        self.thread.join()


# ---- the recorder ----


def until_told(one: LedgerRecorder, news: type[SeatrialError]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            one.check()
        except news:
            return
        time.sleep(0.02)
    raise AssertionError(f"{news.__name__} was not told")


def scribble(one: LedgerRecorder, stop: threading.Event, *, seed: int) -> tuple[bytes, list[str]]:
    """Write log, marks and steps as the pipeline does, until told to stop; gives what was written."""
    generator, wrote, marked, offset = random.Random(seed), bytearray(), [], 0
    for number in itertools.count():
        if stop.is_set() or number == 2_000:
            break
        data = b"%06d " % number + generator.randbytes(generator.choice([10, 1_000, 30_000]))
        offset += len(data)
        one.log(data, source=(1, offset))
        wrote += data
        if number % 3 == 0:
            unit = f"u{number:04}"
            one.mark([UnitResult(unit, UnitState.DONE, OUTPUT)], source=(1, number))
            marked.append(unit)
        if number % 10 == 0:
            one.step("run", state="running" if number % 20 else "done", seconds=float(number))
        one.check()
        time.sleep(0.005)
    one.flush()
    return bytes(wrote), marked


def test_a_restart_of_postgresql_in_mid_run_costs_nothing(road: Road, tmp_path: Path) -> None:
    hands = road.direct
    run, claim = hands.verifying([f"u{n:04}" for n in range(2_000)])
    hands.store.ledger.execution(claim.task.id, 1, 1, state="running", container="c", exit_code=None)
    watch = Watch(hands.store)
    one = recorder(road, tmp_path, claim)
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(scribble(one, stop, seed=1)))
    thread.start()
    for pause in (0.2, 1.5 * LEASE):
        time.sleep(0.5)
        road.server.stop(immediate=True)
        time.sleep(pause)
        road.server.start()
    time.sleep(1.0)
    stop.set()
    thread.join(60)
    one.close()
    watch.end()
    ((wrote, marked),) = found
    assert whole_log(hands, tmp_path, claim.task.id) == wrote
    assert hands.done(run) == set(marked)
    assert hands.run(run).units.done == len(marked)
    assert hands.store.ledger.offsets(claim.task.id, 1)[0] == len(wrote)
    assert hands.events(run, "refused") == []
    assert [a.outcome for a in hands.store.inside.attempts(run)] == ["done", None]


def test_answers_that_get_lost_write_nothing_twice(road: Road, tmp_path: Path) -> None:
    hands = road.direct
    run, claim = hands.verifying([f"u{n:04}" for n in range(2_000)])
    hands.store.ledger.execution(claim.task.id, 1, 1, state="running", container="c", exit_code=None)
    one = recorder(road, tmp_path, claim)
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(scribble(one, stop, seed=2)))
    thread.start()
    generator = random.Random(3)
    for _ in range(25):
        time.sleep(generator.uniform(0.0, 0.25))
        road.proxy.blink()
    stop.set()
    thread.join(60)
    one.close()
    ((wrote, marked),) = found
    assert whole_log(hands, tmp_path, claim.task.id) == wrote
    assert hands.run(run).units.done == len(marked) == len(hands.done(run))


def test_a_road_that_hangs_holds_calls_up_and_no_longer(road: Road, tmp_path: Path) -> None:
    _, claim = road.direct.verifying(["a"])
    one = recorder(road, tmp_path, claim)
    one.log(b"before\n")
    one.flush()
    road.proxy.cut()
    begin = time.monotonic()
    threading.Timer(1.0, road.proxy.mend).start()
    one.mark([UnitResult("a", UnitState.DONE, OUTPUT)])
    assert 0.8 < time.monotonic() - begin < 30
    one.close()
    assert road.direct.done(claim.task.run) == {"a"}


def test_patience_has_an_end_and_a_drain_does_not_wait_for_it(road: Road, tmp_path: Path) -> None:
    _, claim = road.direct.verifying(["a"])
    drain = Flag()
    short, draining = recorder(road, tmp_path, claim, patience=0.5), recorder(road, tmp_path, claim, drain=drain)
    road.proxy.cut()
    with pytest.raises(StoreUnavailable):
        short.token("one")
    drain.set()
    with pytest.raises(Drained):
        draining.token("one")
    short.log(b"not written")
    with structlog.testing.capture_logs() as logs:
        short.close()
    assert ("recorder.not_written", 11) in [(event["event"], event.get("bytes")) for event in logs]
    draining.close()
    road.proxy.mend()


def test_a_recorder_that_lost_its_task_refuses_everything(road: Road, tmp_path: Path) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])
    one = recorder(road, tmp_path, claim)
    one.log(b"mine\n")
    one.flush()
    hands.interrupt(claim)
    hands.make_due()
    hands.take("w2")
    with suppress(Fenced):  # it may have heard of it already
        one.log(b"late\n")
    until_told(one, Fenced)
    for write in (
        one.check,
        one.flush,
        lambda: one.log(b"late"),
        lambda: one.mark([UnitResult("a", UnitState.DONE, OUTPUT)]),
        lambda: one.execution(1, state="running", container="c"),
        one.next_execution,
    ):
        with pytest.raises(Fenced):
            write()
    one.close()
    one.close()
    assert whole_log(hands, tmp_path, claim.task.id) == b"mine\n"
    assert hands.done(run) == set()


def test_a_cancellation_is_told_within_a_third_of_the_lease(road: Road, tmp_path: Path) -> None:
    run, claim = road.direct.verifying(["a"])
    one = recorder(road, tmp_path, claim)
    one.check()
    road.direct.store.runs.cancel(run, "mio")
    begin = time.monotonic()
    until_told(one, Cancelled)
    assert time.monotonic() - begin < LEASE  # before that, the call to write it is due
    one.close()


def test_what_is_held_back_is_written_soon_and_a_disk_that_is_full_is_said_to_be(road: Road, tmp_path: Path) -> None:
    _, claim = road.direct.verifying(["a"])
    one = recorder(road, tmp_path, claim)
    one.log(b"soon\n")
    deadline = time.monotonic() + 20
    while whole_log(road.direct, tmp_path, claim.task.id) != b"soon\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    full = OSError(28, os.strerror(28))

    def put(*_: object, **__: object) -> tuple[str, int]:
        raise full

    one._objects.put = put  # type: ignore[method-assign]
    one.log(b"x" * 50_000)
    with pytest.raises(SeatrialError) as raised:
        one.flush()
    assert raised.value.code == "disk_full"
    del one._objects.put
    one.close()
    assert whole_log(road.direct, tmp_path, claim.task.id) == b"soon\n" + b"x" * 50_000


def test_an_object_store_that_hangs_costs_no_lease_and_no_byte(road: Road, s3_server: S3Server, s3_bucket: str) -> None:
    run, claim = road.direct.verifying(["a"])
    with Watch(road.direct.store), Proxy(s3_server.port) as proxy:
        objects = S3Objects(Bucket(s3_bucket, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
        one = LedgerRecorder(
            road.store, objects, task=claim.task.id, attempt=1, drain=Flag(), lease=LEASE, log_size=claim.task.log_size
        )
        one.log(b"a" * 50_000)
        one.flush()
        proxy.hang()
        one.log(b"b" * 50_000)
        time.sleep(1.5 * LEASE)
        one.check()
        one.mark([UnitResult("a", UnitState.DONE, OUTPUT)])
        assert road.direct.tasks(run)[-1].log_size == 50_000
        proxy.cut()
        proxy.mend()
        one.log(b"c" * 50_000)
        one.flush()
        one.close()
        site = Service(None, road.direct.store, objects, None, None)  # type: ignore[arg-type]
        assert b"".join(site.open_log(claim.task.id)) == b"a" * 50_000 + b"b" * 50_000 + b"c" * 50_000
    assert [attempt.outcome for attempt in road.direct.store.inside.attempts(run)] == ["done", None]


# ---- the slot: what a task does is a function here, what is recorded of it is real ----

Work = Callable[[Order, LedgerRecorder], Prepared | None]


class SilentBell:
    def ring(self, pool: str, task: int | None = None) -> bool:
        return True

    def listen(self, pool: str, *, seconds: int, stop: Flag) -> bool:
        return not stop.wait(0.02)


@pytest.fixture
def slot(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], Slot]:
    def make(work: Work) -> Slot:
        class Runtime:
            objects = FileObjects(tmp_path / "objects")

        monkeypatch.setattr(worker_module.pipeline, "run", lambda order, _runtime, recorder: work(order, recorder))
        place = Place("w1", "h1", "local", os.getpid(), 2, "test", LEASE)
        return Slot(place, road.store, SilentBell(), Runtime())  # type: ignore[arg-type]

    return make


def fail(error: BaseException) -> Work:
    def work(_order: Order, recorder: LedgerRecorder) -> None:
        recorder.log(b"last words\n")
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (StepFailed("no"), TaskState.FAILED, "step_failed"),
        (DatabaseLost("gone"), TaskState.INTERRUPTED, "database_lost"),
        (Drained(), TaskState.INTERRUPTED, "drained"),
        (Cancelled("…"), TaskState.CANCELLED, "cancelled"),
        (ZeroDivisionError("ours"), TaskState.INTERRUPTED, "internal"),
        (OSError("the disk is gone"), TaskState.INTERRUPTED, "internal"),
    ],
)
def test_each_end_is_recorded_with_all_that_was_printed(
    road: Road, tmp_path: Path, slot: Callable[[Work], Slot], error: BaseException, state: TaskState, code: str
) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])
    slot(fail(error)).do(claim)
    task = hands.store.inside.task(claim.task.id)
    assert task.reason is not None
    assert (task.state, task.reason.code) == (state, code)
    assert whole_log(hands, tmp_path, task.id) == b"last words\n"
    assert hands.store.inside.attempts(run)[-1].outcome == state.value


@pytest.mark.parametrize(("error", "again"), [(ContainerLost("killed"), False), (ContainerFoundDead("killed"), True)])
def test_a_container_that_was_found_dead_is_not_counted_once_more(
    road: Road, slot: Callable[[Work], Slot], error: SeatrialError, again: bool
) -> None:
    """Its worker was lost with it, which counted; the last try of three is still to be made."""
    hands = road.direct
    _, claim = hands.verifying(["a"])
    for _ in range(2):
        hands.interrupt(claim)
        hands.make_due()
        claim = hands.take()
    slot(fail(error)).do(claim)
    waits = hands.store.inside.task(claim.task.id).state is TaskState.INTERRUPTED
    assert waits is again


def test_a_preparation_and_its_batches(road: Road, slot: Callable[[Work], Slot]) -> None:
    hands = road.direct
    run = hands.submit()

    def work(order: Order, recorder: LedgerRecorder) -> Prepared | None:
        if not order.units:
            return Prepared("image", "sha256:1", ("a", "b", "c"), None)
        recorder.mark([UnitResult(unit, UnitState.DONE, OUTPUT) for unit in order.units])
        return None

    one = slot(work)
    thread = threading.Thread(target=one.work)
    thread.start()
    deadline = time.monotonic() + 30
    while not hands.run(run).state.final and time.monotonic() < deadline:
        time.sleep(0.05)
    one.drain.set()
    thread.join(20)
    assert not thread.is_alive()
    assert hands.run(run).verdict is Verdict.PASSED
    assert hands.store.workers.workers() == []


def test_a_stale_slot_notes_the_refusal_and_goes_on(road: Road, slot: Callable[[Work], Slot]) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])

    def work(_order: Order, recorder: LedgerRecorder) -> None:
        hands.interrupt(claim)
        recorder.mark([UnitResult("a", UnitState.DONE, OUTPUT)])

    slot(work).do(claim)
    assert [(event.task, event.attempt) for event in hands.events(run, "refused")] == [(claim.task.id, 1)]
    assert hands.done(run) == set()


@pytest.mark.parametrize("ending", [None, StepFailed("no"), DatabaseLost("gone")])
def test_an_end_that_is_refused_does_not_end_the_slot(
    road: Road, slot: Callable[[Work], Slot], ending: SeatrialError | None
) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])

    def work(_order: Order, recorder: LedgerRecorder) -> None:
        recorder.mark([UnitResult("a", UnitState.DONE, OUTPUT)])
        hands.interrupt(claim)
        if ending is not None:
            raise ending

    slot(work).do(claim)
    assert len(hands.events(run, "refused")) == 1
    assert hands.run(run).state is RunState.INTERRUPTED


@pytest.mark.parametrize("ending", [None, StepFailed("no"), DatabaseLost("gone"), Cancelled("…")])
def test_an_end_waits_for_a_store_that_is_away_and_is_never_lost(
    road: Road, slot: Callable[[Work], Slot], ending: SeatrialError | None
) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])

    def work(_order: Order, recorder: LedgerRecorder) -> None:
        recorder.mark([UnitResult("a", UnitState.DONE, OUTPUT)])
        road.proxy.cut()
        threading.Timer(1.0, road.proxy.mend).start()
        if ending is not None:
            raise ending

    one = slot(work)
    one.do(claim)
    expected = {None: "done", "step_failed": "failed", "database_lost": "interrupted", "cancelled": "cancelled"}
    outcome = hands.store.inside.attempts(run)[-1].outcome
    assert outcome == expected[ending.code if ending is not None else None]
    assert hands.events(run, "refused") == []


def test_an_end_whose_answer_got_lost_is_no_refusal(
    road: Road, slot: Callable[[Work], Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])
    end = road.store.tasks.end
    asked: list[int] = []

    def end_and_lose_the_answer(*words: Any) -> TaskState:
        asked.append(1)
        state = end(*words)
        if len(asked) == 1:
            raise StoreUnavailable("the answer got lost")
        return state

    monkeypatch.setattr(road.store.tasks, "end", end_and_lose_the_answer)
    slot(lambda _order, recorder: recorder.mark([UnitResult("a", UnitState.DONE, OUTPUT)])).do(claim)
    assert len(asked) == 2
    assert hands.run(run).verdict is Verdict.PASSED
    assert hands.events(run, "refused") == []


def test_a_batch_whose_units_are_all_done_ends_without_a_container(road: Road, slot: Callable[[Work], Slot]) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    hands.mark(claim, "b", failed=True)
    hands.interrupt(claim)
    hands.make_due()
    slot(fail(AssertionError("nothing is to be run"))).do(hands.take())
    found = hands.run(run)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (RunState.FAILED, "units_failed")


def test_a_slot_starts_and_works_when_the_store_comes_late(road: Road, slot: Callable[[Work], Slot]) -> None:
    hands = road.direct
    run, claim = hands.verifying(["a"])
    hands.interrupt(claim)
    hands.make_due()
    road.proxy.cut()
    one = slot(lambda _order, recorder: recorder.mark([UnitResult("a", UnitState.DONE, OUTPUT)]))
    thread = threading.Thread(target=one.work)
    thread.start()
    time.sleep(1.0)
    road.proxy.mend()
    deadline = time.monotonic() + 30
    while not hands.run(run).state.final and time.monotonic() < deadline:
        time.sleep(0.05)
    road.proxy.cut()
    one.drain.set()
    thread.join(20)
    assert not thread.is_alive()
    road.proxy.mend()
    assert hands.run(run).verdict is Verdict.PASSED


def test_a_long_list_is_written_under_a_lease_that_is_kept(road: Road, slot: Callable[[Work], Slot]) -> None:
    hands = road.direct
    run, claim = hands.preparing()
    names = tuple(f"u{n:06}" for n in range(60_000))
    watch = Watch(hands.store)
    slot(lambda _order, _recorder: Prepared("image", "sha256:1", names, None)).do(claim)
    watch.end()
    assert hands.run(run).units.total == 60_000
    assert [attempt.outcome for attempt in hands.store.inside.attempts(run)] == ["done"]
