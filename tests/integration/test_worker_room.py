"""A slot on a host below its floor: it takes nothing new, says so, and goes on when there is room."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hands import Hands

import jobs.worker as worker_module
from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_store import Store
from jobs.floor import HostRoom
from jobs.run import NO_FIT, RunState, Worker
from jobs.settings import load_settings
from jobs.worker import Place, Slot
from runner.errors import EngineUnavailable
from runner.quota import Used
from runner.room import Floor, Reserve, Room, Spare


class Bell:
    """Rings that were heard."""

    heard = 0

    def listen(self, pool: str, *, seconds: int, stop: Any) -> bool:
        Bell.heard += 1
        return not stop.wait(0.02)

    def ring(self, pool: str, task: int | None = None) -> bool:
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


@contextmanager
def working(slot: Slot) -> Iterator[None]:
    thread = threading.Thread(target=slot.work)
    thread.start()
    try:
        yield
    finally:
        slot.drain.set()
        thread.join()


def until(true: Any, what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_slot_below_its_floor_takes_nothing_says_so_and_goes_on_when_there_is_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SHORT_SECONDS", 0.02)
    monkeypatch.setattr(worker_module.pipeline, "run", lambda order, runtime, recorder: None)
    lacks = ["12 MiB free for home (/srv), the reserve is 1 GiB"]

    class Runtime:
        objects = FileObjects(tmp_path / "objects")

    place = Place("w1", "h1", "local", os.getpid(), 1, "test", 5.0)
    slot = Slot(place, store, Bell(), Runtime(), lacking=lambda: lacks[0] if lacks else None)  # type: ignore[arg-type]
    hands = Hands(store)
    run = hands.submit()

    def shown() -> list[Worker]:
        return store.workers.workers()

    with working(slot):
        until(lambda: [one.shortage for one in shown()] == lacks, "the slot's row tells what it lacks")
        time.sleep(0.3)
        assert hands.run(run).state is RunState.QUEUED
        assert Bell.heard == 0  # the ring is left to whoever has room
        lacks.clear()
        until(lambda: hands.run(run).attempts == 1, "the run is taken")
        assert [one.shortage for one in shown()] == [None]


def test_a_slot_with_too_little_room_leaves_what_is_queued_to_others_and_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SHORT_SECONDS", 0.02)
    monkeypatch.setattr(worker_module.pipeline, "run", lambda order, runtime, recorder: None)
    gib = 1 << 30
    room = [Room("home", "/srv", 1, free=6 * gib, total=100 * gib, inodes=0, inodes_total=0)]

    class Runtime:
        objects = FileObjects(tmp_path / "objects")

    hands = Hands(store)
    _, claim = hands.preparing()
    hands.store.ledger.execution(
        claim.task.id, 1, 1, state="ended", container="c", exit_code=0, wrote=Used(6 * gib, 1_200)
    )
    hands.prepared(claim)
    hands.finish(claim.task.run)
    run = hands.submit()
    place = Place("w1", "h1", "local", os.getpid(), 1, "test", 5.0)
    floor = Floor(Reserve.parse("1g"), Reserve.parse("0"))
    slot = Slot(place, store, Bell(), Runtime(), spare=lambda: Spare(room[0], floor))  # type: ignore[arg-type]

    def shown() -> list[str | None]:
        return [one.shortage for one in store.workers.workers()]

    lacks = f"{NO_FIT}: 6 GiB are free for home (/srv), the reserve is 1 GiB"
    with working(slot):
        until(lambda: shown() == [lacks], "the slot's row tells how little room there is")
        assert hands.run(run).state is RunState.QUEUED
        [waits] = [task.need for task in hands.tasks(run)]
        assert waits == Used(6 * gib, 1_200)
        other = hands.submit(project="other")
        until(lambda: hands.run(other).attempts == 1, "what needs no room is taken meanwhile")
        room[0] = replace(room[0], free=7 * gib)
        until(lambda: hands.run(run).attempts == 1, "the run is taken")
        until(lambda: shown() == [None], "and the row says so")


def test_the_room_of_a_host_is_that_of_home_objects_and_engine(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "SEATRIAL_SERVER__OBJECT_STORE": str(tmp_path / "elsewhere")}
    asked: list[str] = []

    def info() -> dict[str, Any]:
        asked.append("")
        return {"DockerRootDir": str(tmp_path)}

    room = HostRoom(load_settings(None, environ), info)
    assert [one.what for one in room.rooms()] == ["home", "the object store", "the Docker engine"]
    room.rooms()
    assert len(asked) == 1
    assert room.lacking() is None
    spare = room.spare()
    assert spare is not None
    assert spare.room.what == "home"
    short = HostRoom(load_settings(None, environ | {"SEATRIAL_SERVER__DISK_RESERVE": "60000t"}), info)
    text = short.lacking()
    assert text is not None
    assert "the reserve is 60000 TiB" in text
    objects = short.short_of_objects()
    assert objects is not None
    assert objects.text.startswith(text.partition(" free")[0])
    assert room.short_of_objects() is None
    assert ";" not in text  # all three are on one file system


def test_an_engine_that_is_away_or_elsewhere_has_no_room_to_be_looked_at(tmp_path: Path) -> None:
    def away() -> dict[str, Any]:
        raise EngineUnavailable("The Docker engine does not answer.")

    for info in (away, lambda: {"DockerRootDir": "/nowhere/on/this/host"}, dict):
        room = HostRoom(load_settings(None, {"HOME": str(tmp_path)}), info)
        assert [one.what for one in room.rooms()] == ["home", "the object store"]
