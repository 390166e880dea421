"""The warden of a machine: it tells the server of it, answers whether it may be stopped, hands over before the cloud
takes it away, and shuts it down when nobody needs it and nobody could say so. A child of the worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from jobs.adapters.imds import Identity, Imds, MetadataUnavailable
from jobs.adapters.sql_store import Store
from jobs.closing import Closing
from jobs.dead_man import DeadMan
from jobs.flag import Flag
from jobs.machines import Disk, Drain, Machine, MachineState, Notice
from runner.errors import InfraError, StoreUnavailable

TICK_SECONDS = 1.0  # a drain waits for its answer
BEAT_SECONDS = 15.0
NOTICE_SECONDS = 5.0  # as often as AWS recommends: two minutes are left after a notice
HEARD_SECONDS = 5.0
ANSWER_AGAIN_SECONDS = 2.0  # the answer that counts is the one that came last
BEHAVIOUR_SECONDS = 3_600.0
# A task that is handed over ends within seconds; this leaves the others time to take it up before the machine goes.
HAND_OVER_BEFORE = timedelta(minutes=5)
# Two leases, so that a claim that was on its way is seen.
SETTLE_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Post:
    """Where a warden stands: what it must find there, and how long it waits for a word."""

    host: str
    pool: str
    region: str | None
    account: str | None
    dead_man: float | None
    settle: float = SETTLE_SECONDS


@dataclass(frozen=True)
class Senses:
    """What a warden can find out about its machine and do to it, each replaceable.

    `busy`: what the machine does beside its tasks, in words; what cannot be told is busy. `on_shutdown`: what becomes of
    an instance that shuts itself down, `stop` or `terminate`; raises InfraError. `shut_down` raises OSError.
    """

    imds: Imds
    busy: Callable[[], tuple[str, ...]]
    disk: Callable[[], Disk | None]
    on_shutdown: Callable[[str], str]
    shut_down: Callable[[str], None]
    siblings: Callable[[], Sequence[int]]
    grow: Callable[[Disk], None] = lambda disk: None
    clock: Callable[[], float] = time.monotonic


class Warden:
    """Watch over one machine until told to stop."""

    def __init__(self, post: Post, store: Store, closing: Closing, senses: Senses) -> None:
        self._post, self._store, self._closing, self._senses = post, store, closing, senses
        self.stop = Flag()  # a signal handler may raise it
        self._identity: Identity | None = None
        self._registered = False
        self._dead_man = DeadMan(post.dead_man, senses.clock())
        self._due: dict[str, float] = {}
        self._notice: Notice | None = None
        self._noted = False  # whether the records have it
        self._handed_over = self._ended = False
        self._controller: datetime | None = None
        self._held_until = 0.0
        self._behaviour: str | None = None
        self._closing.open()  # what an earlier boot left

    def work(self) -> None:
        """Go round every second until stopped."""
        while not self.stop.is_set():
            self.go_round()
            self.stop.wait(TICK_SECONDS)
        if not (
            self._handed_over or self._ended
        ):  # else the machine goes: its slots take up nothing in its last moments
            self._closing.open()

    def go_round(self) -> None:
        """Do what is due; nothing that fails keeps the rest from being done."""
        if self._identity is None and self._is_due("identity", NOTICE_SECONDS):
            self._identify()
        if self._identity is None:
            return
        if self._is_due("notices", NOTICE_SECONDS):
            self._look_for_notices()
        if self._is_due("behaviour", BEHAVIOUR_SECONDS):
            self._look_at_behaviour(self._identity.instance)
        heard = False
        try:
            heard = self._report(self._identity)
        except StoreUnavailable as error:
            log.error("warden.store_away", error=error.text)
        self._think_of_the_end(self._identity.instance, heard=heard)

    def _is_due(self, what: str, every: float) -> bool:
        now = self._senses.clock()
        if now < self._due.get(what, now):
            return False
        self._due[what] = now + every
        return True

    # ---- who this is ----------------------------------------------------------------------------------------

    def _identify(self) -> None:
        try:
            found = self._senses.imds.identity()
        except MetadataUnavailable as error:
            log.error("warden.no_identity", error=error.text)
            return
        post = self._post
        for what, is_, wanted in (
            ("account", found.account, post.account), ("region", found.region, post.region),
        ):  # fmt: skip
            if wanted is not None and is_ != wanted:
                log.error(
                    "warden.foreign", instance=found.instance, what=what, found=is_, wanted=wanted, pool=post.pool
                )
                return
        self._identity = found
        log.info("warden.ready", instance=found.instance, host=post.host, pool=post.pool)

    # ---- what the server is told ----------------------------------------------------------------------------

    def _report(self, identity: Identity) -> bool:
        """Show that this machine lives, and answer what is asked; tells whether the server was heard of."""
        machines, instance = self._store.machines, identity.instance
        if not self._registered:
            machines.register(
                instance, host=self._post.host, pool=self._post.pool,
                region=identity.region, account=identity.account, kind=identity.kind,
            )  # fmt: skip
            self._registered, self._noted = True, self._notice is None
            log.info("machine.registered", instance=instance, host=self._post.host, pool=self._post.pool)
        machine = self._beat(instance) if self._is_due("beat", BEAT_SECONDS) else machines.machine(instance)
        if machine is None:
            self._registered = False  # its record is gone: it is made anew on the next round
            return False
        if not self._noted:
            self._noted = machines.notice(instance, self._notice)
        if machine.drain is not None and machine.state is not MachineState.STOPPING:
            self._answer(instance, machine.drain)
        return self._hear(instance)

    def _beat(self, instance: str) -> Machine | None:
        disk = self._senses.disk()
        machine = self._store.machines.seen(instance, busy=self._senses.busy(), disk=disk)
        now = self._store.machines.time()
        holds = self._store.machines.holds(self._post.pool)
        left = [(hold.until - now).total_seconds() for hold in holds if hold.holds(instance, now)]
        self._held_until = self._senses.clock() + max(left, default=0.0)
        if disk is not None:
            self._senses.grow(disk)
        return machine

    def _answer(self, instance: str, drain: Drain) -> None:
        """Say, again and again while it drains, what this machine does."""
        if drain.answer is not None and drain.answer.token == drain.token and not self._is_due(
            "answer", ANSWER_AGAIN_SECONDS
        ):  # fmt: skip
            return
        self._due["answer"] = self._senses.clock() + ANSWER_AGAIN_SECONDS
        busy = self._busy()
        if self._store.machines.answer(instance, drain.token, busy):
            log.info("machine.answered", instance=instance, busy=busy, because=drain.reason)

    def _busy(self) -> tuple[str, ...]:
        """Tell what this machine does, its tasks first; raises StoreUnavailable."""
        tasks = self._store.workers.doing(host=self._post.host)
        return (*(f"task {task}" for task in tasks), *self._senses.busy())

    def _hear(self, instance: str) -> bool:
        """Tell whether the controller gave a sign since it was last looked for; no clock is compared with another."""
        if not self._is_due("hear", HEARD_SECONDS):
            return False
        seen = self._store.machines.controller_seen_at(self._post.pool)
        heard = seen is not None and self._controller is not None and seen != self._controller
        self._controller = seen
        return heard

    # ---- what the cloud announces ---------------------------------------------------------------------------

    def _look_for_notices(self) -> None:
        try:
            found = next(iter(self._senses.imds.notices()), None)
        except MetadataUnavailable as error:
            log.error("warden.no_notices", error=error.text)
            return
        if found != self._notice:
            self._notice, self._noted = found, False
            log.warning("machine.notice", kind=found.kind if found else None, at=str(found.at) if found else None)
        if found is not None and found.at - datetime.now(UTC) <= HAND_OVER_BEFORE:
            self._hand_over(found)
        elif self._handed_over:
            self._handed_over = False
            self._closing.open()  # it was called off

    def _hand_over(self, notice: Notice) -> None:
        """Let the slots end what they do, so that it goes on elsewhere, and take nothing more."""
        if self._handed_over:
            return
        self._handed_over = True
        self._closing.close(f"EC2 announced {notice.kind} for {notice.at:%H:%M} UTC")
        for pid in self._senses.siblings():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        log.warning("machine.handed_over", kind=notice.kind, at=str(notice.at))

    # ---- the dead man's switch ------------------------------------------------------------------------------

    def _look_at_behaviour(self, instance: str) -> None:
        """Learn while it can be learnt whether a shutdown would stop this machine or terminate it."""
        try:
            self._behaviour = self._senses.on_shutdown(instance)
        except InfraError as error:
            log.error("warden.behaviour_unknown", error=error.text, known=self._behaviour)
            return
        if self._behaviour != "stop" and self._post.dead_man is not None:
            log.error("warden.never_shuts_down", instance=instance, behaviour=self._behaviour)

    def _think_of_the_end(self, instance: str, *, heard: bool) -> None:
        if not heard and not self._is_due("end", HEARD_SECONDS):
            return
        reason = self._dead_man.look(self._senses.clock(), busy=self._local_busy(), heard=heard)
        if reason is None:
            return
        self._look_at_behaviour(instance)
        if self._behaviour != "stop":
            log.error(
                "machine.stays_on", why=f"a shutdown would {self._behaviour or 'do what is not known'}", but=reason
            )
        else:
            self._ended = self._end(instance, reason)
        self._dead_man.again(self._senses.clock())  # if it is still there then, it tries once more

    def _local_busy(self) -> tuple[str, ...]:
        """Tell what this machine does as far as it can be told; without the store its tasks are known by containers."""
        if self._senses.clock() < self._held_until:
            return ("somebody keeps it awake",)
        try:
            return self._busy()
        except StoreUnavailable:
            return self._senses.busy()

    def _end(self, instance: str, reason: str) -> bool:
        """Shut down, if nothing keeps this machine on at the last look; tells whether that was asked for."""
        self._closing.close("this machine shuts itself down")
        self.stop.wait(self._post.settle)
        token = None
        why = self._local_busy()
        if not why:
            try:
                why, token = self._confirm(instance, reason)
            except StoreUnavailable:
                why = ()  # then no claim can be granted either
        if not why and not self.stop.is_set():
            log.warning("machine.shuts_down", instance=instance, why=reason)
            try:
                self._senses.shut_down(instance)
            except OSError as error:
                why = (str(error),)
            else:
                return True
        log.warning("machine.stays_on", why=why or "the worker ends", but=reason)
        self._closing.open()
        self._take_back(instance, token)
        return False

    def _confirm(self, instance: str, reason: str) -> tuple[tuple[str, ...], str | None]:
        """Take the last look in the records, as a stop does; gives what keeps it on, and the token of its drain."""
        machines = self._store.machines
        machine = machines.machine(instance)
        if machine is not None and machine.refused is not None:
            return (f"Seatrial leaves this machine alone: {machine.refused}",), None
        if machine is None or machine.state is not MachineState.RUNNING:
            # What EC2 said was never recorded, or long ago, or its stop is decided: then this look is all there is.
            queued = machines.now(self._post.pool).queued
            return ((f"{queued} tasks of its pool are waiting",) if queued else ()), None
        drain = machine.drain or machines.begin_drain(instance, reason=reason, asked_by="dead man's switch")
        if drain is not None:
            machines.answer(instance, drain.token, ())
            if machines.confirm_stop(instance, drain.token):
                return (), drain.token
            machines.cancel_drain(instance, drain.token)
        keeps = machines.keeps_on(instance)
        return ((keeps[1] if keeps else "it is needed"),), None

    def _take_back(self, instance: str, token: str | None) -> None:
        if token is not None:
            try:
                self._store.machines.stop_failed(instance, token)
            except StoreUnavailable as error:
                log.error("warden.store_away", error=error.text)


def siblings(parent: int, own: int, proc: Path = Path("/proc")) -> list[int]:
    """List the other children of a process."""
    found: set[int] = set()
    for path in (proc / str(parent) / "task").glob("*/children"):
        try:
            found.update(int(word) for word in path.read_text().split())
        except OSError:
            continue  # a thread that ended
    return sorted(found - {own})
