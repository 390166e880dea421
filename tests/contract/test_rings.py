"""Rings that get lost on a real Valkey: what was accepted is taken all the same, because the records say so."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import Valkey
from hands import Hands
from redis import Redis

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.rq_doorbell import RqDoorbell, connect
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.sweeper import Sweeper
from jobs.worker import Place, Slot


@pytest.fixture
def hands() -> Hands:
    """A store in memory, with an idle slot."""
    found = Hands(Store.in_memory())
    found.worker()
    return found


def sweeper(hands: Hands, valkey: Valkey) -> Sweeper:
    return Sweeper(hands.store, valkey.bell(), None, lease=60.0)  # type: ignore[arg-type]  # nothing is over


def test_b10_a_run_that_was_accepted_without_redis(valkey: Valkey, hands: Hands) -> None:
    """Its submission's ring came to nobody: the sweeper rings when Redis is back, whatever that has kept."""
    valkey.end()
    run = hands.submit()
    assert valkey.bell().ring("local") is False
    valkey.start()
    sweeper(hands, valkey).sweep()
    assert valkey.bell().listen("local", seconds=1) is True
    assert hands.take().task.run == run


def test_b11_rings_that_were_taken_away(valkey: Valkey, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    hands.submit()
    one = sweeper(hands, valkey)
    one.sweep()
    redis = Redis.from_url(valkey.url)
    assert redis.delete(*redis.keys("rq:*")) > 0  # type: ignore[misc, operator]  # so in the stubs
    one.sweep()
    assert valkey.bell().listen("local", seconds=1) is False, "it has just been rung for"
    monkeypatch.setattr("jobs.sweeper.RING_AGAIN_SECONDS", 0.0)
    one.sweep()
    assert valkey.bell().listen("local", seconds=1) is True


class Listening(RqDoorbell):
    """A doorbell that tells when somebody listens."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url))
        self.listens = threading.Event()

    def listen(self, *args: Any, **more: Any) -> bool:
        self.listens.set()
        return super().listen(*args, **more)


def test_b04_a_ring_that_died_with_its_hearer(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it in Redis, and no sweeper is about: an idle slot finds the task by itself."""

    class Runtime:
        objects = FileObjects(tmp_path / "objects")

    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    bell = Listening(valkey.url)
    place = Place("w1", "h1", "local", os.getpid(), 1, "test", 60.0)
    slot = Slot(place, store, bell, Runtime())  # type: ignore[arg-type]
    claims: list[Claim] = []
    monkeypatch.setattr(slot, "do", claims.append)
    monkeypatch.setattr("jobs.worker.LISTEN_SECONDS", 1)
    thread = threading.Thread(target=slot.work)
    thread.start()
    try:
        assert bell.listens.wait(20)
        run = Hands(store).submit()
        deadline = time.monotonic() + 20
        while not claims:
            assert time.monotonic() < deadline, "nobody claims it"
            time.sleep(0.02)
        assert [claim.task.run for claim in claims] == [run]
    finally:
        slot.drain.set()
        thread.join()
        store.close()
