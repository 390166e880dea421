"""Take back what dead slots of a worker held, so that others need not wait for their leases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import structlog

from jobs.run import WORKER_LOST
from jobs.settings import Settings
from runner.errors import Drained, StoreUnavailable
from runner.model import Reason

HAND_OVER_SECONDS = 1.5  # that the records have at the end for what a killed slot held

log = structlog.get_logger(__name__)


def beside(give: Callable[[], None], tidy: Callable[[], None]) -> None:
    """Hand over beside `tidy`, which may raise: what a slot hung on may hold up one of them, and all is to end soon."""
    giving = threading.Thread(target=give, daemon=True)
    giving.start()
    try:
        tidy()
    finally:
        giving.join(HAND_OVER_SECONDS)


@dataclass(frozen=True)
class Dead:
    """A slot that is dead, and why what it held is taken back; `free`: at no cost."""

    name: str
    reason: Reason
    free: bool = False


def died_by_itself(settings: Settings, name: str) -> Dead:
    """Give one that nobody had asked to end: what it held costs an attempt."""
    from jobs.host import host_name

    return Dead(name, Reason(WORKER_LOST, f"The worker process {name} on {host_name(settings)} died."))


def _ended_too_late(settings: Settings, name: str) -> Dead:
    from jobs.host import host_name

    text = f"The worker process {name} on {host_name(settings)} was to end, and did not hand the task over in time."
    return Dead(name, Reason(Drained.code, text), free=True)


def hand_over(settings: Settings, cut_off: Sequence[str], crashed: Sequence[str]) -> None:
    """Take back what slots held at the end: at no cost from those that were to end and could not hand it over in time."""
    cut = [_ended_too_late(settings, name) for name in cut_off]
    take_back(settings, cut + [died_by_itself(settings, name) for name in crashed])


def take_back(settings: Settings, dead: Sequence[Dead]) -> None:
    """Take back what dead slots held; while the store does not answer, their leases have to run out instead."""
    from jobs.adapters.sql_store import Store
    from jobs.compose import build_doorbell

    if not dead:
        return
    try:
        with closing(Store.open(settings.server.database_url)) as store:
            lost = [
                (task, one.name) for one in dead for task in store.tasks.revoke(one.name, one.reason, free=one.free)
            ]
            for task, name in lost:
                log.warning("task.revoked", task=task, worker=name)
            if lost:  # its container goes on: another slot may follow it now, and not when the sweeper comes by
                store.tasks.requeue_due()
                with closing(build_doorbell(settings)) as doorbell:
                    for task, where in store.tasks.to_ring(every=0.0):
                        doorbell.ring(where, task)
    except StoreUnavailable as error:
        log.error("worker.store_away", error=error.text)
