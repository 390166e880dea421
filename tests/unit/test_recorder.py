"""The ledger of one attempt, on the records in memory."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hands import WORLD, Hands

from jobs.adapters.sql_store import Store
from jobs.recorder import LedgerRecorder
from runner.errors import Fenced


def test_who_renews_now_hears_at_once_that_another_attempt_has_the_task() -> None:
    hands = Hands(Store.in_memory())
    _, claim = hands.preparing()
    objects: Any = None
    recorder = LedgerRecorder(
        hands.store, objects, task=claim.task.id, attempt=1, lease=3600.0, drain=threading.Event()
    )
    recorder.renew()
    hands.store.tasks.revoke("w1", WORLD)
    hands.make_due()
    assert hands.take("w2").task.attempt == 2
    with pytest.raises(Fenced):
        recorder.renew()
    with pytest.raises(Fenced):
        recorder.log(b"too late\n")
    with pytest.raises(Fenced):
        recorder.check()
    assert recorder.refused[-2:] == ["the lease", "9 bytes of the log"]
    recorder.close()
