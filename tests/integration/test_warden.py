"""The warden of a machine, with a store, a metadata service over HTTP, and a clock of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_imds import EVENTS, IDENTITY, SPOT, FakeImds
from hands import Hands

from jobs.adapters.imds import Imds
from jobs.adapters.sql_store import Store
from jobs.closing import Closing
from jobs.cloud import CloudAway
from jobs.machines import Disk, Machine, MachineState
from jobs.warden import Post, Senses, Warden, siblings
from runner.errors import StoreUnavailable

INSTANCE = "i-0123456789abcdef0"
POST = Post("h1", "trial", "eu-central-1", "123456789012", dead_man=60.0, settle=0.01)


class Away:
    """A store that can go away."""

    def __init__(self, store: Store) -> None:
        self._store, self.away = store, False

    def __getattr__(self, name: str) -> object:
        if self.away:
            raise StoreUnavailable
        return getattr(self._store, name)


@dataclass
class Machinery:
    """A machine: its warden, and all that the warden sees of it."""

    store: Store
    service: FakeImds
    link: Away
    home: Path
    hands: Hands
    warden: Warden = field(init=False)
    imds: Imds = field(init=False)
    now: float = 1_000.0
    busy: tuple[str, ...] = ()
    behaviour: str | Exception = "stop"
    downs: list[str] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    down_fails: bool = False
    before_down: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.imds = Imds(self.service.url)
        self.post(POST)

    def post(self, post: Post) -> None:
        senses = Senses(
            imds=self.imds,
            busy=self._busy,
            disk=lambda: Disk(10, 100, 5, 50, "/data", "vol-1"),
            on_shutdown=self._on_shutdown,
            shut_down=self._down,
            siblings=lambda: self.slots,
            clock=lambda: self.now,
        )
        self.warden = Warden(post, self.link, self.closing, senses)  # type: ignore[arg-type]

    @property
    def closing(self) -> Closing:
        return Closing(self.home, "trial")

    def _busy(self) -> tuple[str, ...]:
        self.before_down()
        return self.busy

    def _on_shutdown(self, instance: str) -> str:
        if isinstance(self.behaviour, Exception):
            raise self.behaviour
        return self.behaviour

    def _down(self, instance: str) -> None:
        if self.down_fails:
            raise OSError("shutdown: permission denied")
        self.downs.append(instance)

    def go(self, seconds: float = 1.0, *, controller: bool = True) -> None:
        """Let so much time pass, second by second, or in longer steps where it is much."""
        step = 1.0 if seconds <= 60 else 2.0
        for _ in range(int(seconds / step)):
            self.now += step
            if controller and not self.link.away:
                self.store.machines.controller_seen("trial")
            self.warden.go_round()

    def machine(self) -> Machine:
        found = self.store.machines.machine(INSTANCE)
        assert found is not None
        return found

    def running(self) -> None:
        """Let EC2 say that the machine runs."""
        self.store.machines.upsert(INSTANCE, pool="trial", state=MachineState.RUNNING)


@pytest.fixture
def machinery(tmp_path: Path) -> Iterator[Machinery]:
    store = Store.in_memory()
    with closing(FakeImds(INSTANCE)) as service:
        made = Machinery(store, service, Away(store), tmp_path, Hands(store))
        yield made
        made.imds.close()
    store.close()


# ---- who this is, and signs of life ---------------------------------------------------------------------------


def test_a_machine_registers_by_its_own_identity(machinery: Machinery) -> None:
    machinery.go()
    found = machinery.machine()
    assert (found.host, found.pool, found.region, found.account, found.kind) == (
        "h1", "trial", "eu-central-1", "123456789012", "m7i.xlarge",
    )  # fmt: skip
    assert found.state is MachineState.UNKNOWN  # that is for EC2 to say
    assert found.disk == Disk(10, 100, 5, 50, "/data", "vol-1")


@pytest.mark.parametrize("change", [{"region": "us-east-1"}, {"accountId": "999999999999"}])
def test_a_machine_of_another_account_or_region_never_registers(machinery: Machinery, change: dict[str, str]) -> None:
    machinery.service.documents[IDENTITY] |= change
    machinery.go(30)
    assert machinery.store.machines.machines() == []


def test_a_metadata_service_that_comes_late_is_waited_for(machinery: Machinery) -> None:
    document = machinery.service.documents.pop(IDENTITY)
    machinery.go(8)
    assert machinery.store.machines.machines() == []
    machinery.service.documents[IDENTITY] = document
    machinery.go(6)
    assert machinery.machine().host == "h1"


def test_signs_of_life_tell_what_the_machine_does(machinery: Machinery) -> None:
    machinery.go()
    first = machinery.machine().seen_at
    machinery.busy = ("mio is logged in on pts/0",)
    machinery.go(16)
    assert machinery.machine().seen_at > first  # type: ignore[operator]
    [now] = machinery.store.machines.now("trial").machines
    assert now.busy == ("mio is logged in on pts/0",)


def test_a_machine_whose_record_is_gone_registers_again(machinery: Machinery) -> None:
    from jobs.adapters.sql_schema import machines

    machinery.go()
    with machinery.store.database.write() as connection:
        connection.execute(machines.delete())
    machinery.go(3)
    assert machinery.machine().host == "h1"


# ---- may it be stopped? ---------------------------------------------------------------------------------------


def test_an_idle_machine_answers_a_drain_within_a_second_and_goes_on_answering(machinery: Machinery) -> None:
    machinery.go()
    machinery.running()
    drain = machinery.store.machines.begin_drain(INSTANCE, reason="idle")
    assert drain is not None
    machinery.go()
    first = machinery.machine().drain
    assert first is not None
    assert first.answer is not None
    assert (first.answer.token, first.answer.busy) == (drain.token, ())
    time.sleep(0.01)
    machinery.go(3)
    again = machinery.machine().drain
    assert again is not None
    assert again.answer is not None
    assert again.answer.at > first.answer.at
    assert machinery.store.machines.confirm_stop(INSTANCE, drain.token)


def test_a_busy_machine_says_what_it_does(machinery: Machinery) -> None:
    machinery.go()
    machinery.running()
    drain = machinery.store.machines.begin_drain(INSTANCE, reason="idle")
    assert drain is not None
    machinery.busy = ("container run-2",)
    machinery.go()
    said = machinery.machine().drain
    assert said is not None
    assert said.answer is not None
    assert said.answer.busy == ("container run-2",)
    assert not machinery.store.machines.confirm_stop(INSTANCE, drain.token)


def test_a_task_on_the_machine_is_busy_whatever_else_is_seen(machinery: Machinery) -> None:
    machinery.go()
    machinery.hands.submit(pool="trial")
    claim = machinery.hands.take(host="h1", pool="trial")
    assert machinery.warden._busy() == (f"task {claim.task.id}",)


# ---- the cloud announces something ----------------------------------------------------------------------------


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def spot(at: datetime) -> dict[str, str]:
    return {"action": "stop", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}


def test_an_interruption_is_told_and_the_slots_hand_over_once(machinery: Machinery) -> None:
    machinery.go()
    with sleeper() as slot:
        machinery.slots = [slot.pid]
        machinery.service.documents[SPOT] = spot(datetime.now(UTC) + timedelta(seconds=110))
        machinery.go(6)
        assert slot.wait(10) == -15
    why = machinery.closing.why()
    assert why is not None
    assert "spot-stop" in why
    notice = machinery.machine().notice
    assert notice is not None
    assert notice.kind == "spot-stop"
    with sleeper() as next_one:
        machinery.slots = [next_one.pid]  # it was started again, and is closed: nothing more is asked of it
        machinery.go(20)
        assert next_one.poll() is None
        next_one.kill()


def test_an_event_of_next_week_is_told_and_nothing_is_handed_over_yet(machinery: Machinery) -> None:
    at = datetime.now(UTC) + timedelta(days=7)
    event = {"NotBefore": f"{at:%d %b %Y %H:%M:%S} GMT", "Code": "instance-retirement", "Description": "old host"}
    machinery.service.documents[EVENTS] = [event]
    machinery.go(6)
    notice = machinery.machine().notice
    assert notice is not None
    assert (notice.kind, notice.text) == ("instance-retirement", "old host")
    assert machinery.closing.why() is None


def test_what_was_called_off_lets_work_in_again(machinery: Machinery) -> None:
    machinery.service.documents[SPOT] = spot(datetime.now(UTC) + timedelta(seconds=60))
    machinery.go(6)
    assert machinery.closing.why() is not None
    del machinery.service.documents[SPOT]
    machinery.go(6)
    assert machinery.closing.why() is None
    assert machinery.machine().notice is None


def test_a_notice_is_handed_over_while_the_store_is_away_and_told_when_it_is_back(machinery: Machinery) -> None:
    machinery.go()
    machinery.link.away = True
    machinery.service.documents[SPOT] = spot(datetime.now(UTC) + timedelta(seconds=60))
    machinery.go(6)
    assert machinery.closing.why() is not None
    machinery.link.away = False
    machinery.go()
    assert machinery.machine().notice is not None


# ---- the dead man's switch ------------------------------------------------------------------------------------


def test_a_machine_that_is_looked_after_stays_on(machinery: Machinery) -> None:
    machinery.go(200)
    assert machinery.downs == []


def test_without_a_controller_an_idle_machine_shuts_itself_down(machinery: Machinery) -> None:
    machinery.go(20)
    machinery.running()
    machinery.go(58, controller=False)
    assert machinery.downs == []
    machinery.go(10, controller=False)
    assert machinery.downs == [INSTANCE]
    assert machinery.machine().state is MachineState.STOPPING  # so that no claim is granted meanwhile
    assert machinery.closing.why() is not None


def test_without_the_store_an_idle_machine_shuts_itself_down(machinery: Machinery) -> None:
    machinery.go(20)
    machinery.link.away = True
    machinery.go(70)
    assert machinery.downs == [INSTANCE]


def test_a_machine_that_never_heard_of_anybody_shuts_itself_down(machinery: Machinery) -> None:
    machinery.go(70, controller=False)
    assert machinery.downs == [INSTANCE]


def test_a_busy_machine_stays_on_however_long_nobody_is_heard(machinery: Machinery) -> None:
    machinery.busy = ("container run-2",)
    machinery.link.away = True
    machinery.go(200)
    assert machinery.downs == []
    machinery.busy = ()
    machinery.go(50)
    assert machinery.downs == []  # it has to be idle for as long, too
    machinery.go(20)
    assert machinery.downs == [INSTANCE]


def test_a_task_of_the_records_keeps_it_on(machinery: Machinery) -> None:
    machinery.go()
    machinery.hands.submit(pool="trial")
    machinery.hands.take(host="h1", pool="trial")
    machinery.go(150, controller=False)
    assert machinery.downs == []


def test_a_hold_is_kept_also_while_the_store_is_away(machinery: Machinery) -> None:
    machinery.go()
    machinery.store.machines.hold("trial", seconds=200, reason="look at it", made_by="mio")
    machinery.go(16)
    machinery.link.away = True
    machinery.go(150)
    assert machinery.downs == []
    machinery.go(150)
    assert machinery.downs == [INSTANCE]


@pytest.mark.parametrize("behaviour", ["terminate", CloudAway("gone")])
def test_what_a_shutdown_would_terminate_is_not_shut_down(machinery: Machinery, behaviour: str | Exception) -> None:
    machinery.behaviour = behaviour
    machinery.go(150, controller=False)
    assert machinery.downs == []
    assert machinery.closing.why() is None


def test_what_a_shutdown_does_is_remembered_when_it_cannot_be_asked_any_more(machinery: Machinery) -> None:
    machinery.go()
    machinery.behaviour = CloudAway("gone")
    machinery.link.away = True
    machinery.go(70)
    assert machinery.downs == [INSTANCE]


def test_never_is_never(machinery: Machinery) -> None:
    machinery.post(replace(POST, dead_man=None))
    machinery.go(200, controller=False)
    assert machinery.downs == []


def test_a_task_that_arrives_at_the_last_moment_keeps_it_on(machinery: Machinery) -> None:
    machinery.go(20)
    machinery.running()

    def arrive() -> None:
        if machinery.closing.why() is not None:
            machinery.before_down = lambda: None
            machinery.hands.submit(pool="trial")

    machinery.before_down = arrive
    machinery.go(70, controller=False)
    assert machinery.downs == []
    assert machinery.closing.why() is None
    assert machinery.machine().state is MachineState.RUNNING
    assert machinery.hands.claim(host="h1", pool="trial") is not None


def test_a_machine_that_seatrial_leaves_alone_is_not_shut_down(machinery: Machinery) -> None:
    machinery.go()
    machinery.store.machines.upsert(
        INSTANCE, pool="trial", state=MachineState.RUNNING, refused="its tag env says production"
    )
    machinery.go(200, controller=False)
    assert machinery.downs == []


def test_the_drain_of_a_controller_that_died_is_taken_up(machinery: Machinery) -> None:
    machinery.go(20)
    machinery.running()
    assert machinery.store.machines.begin_drain(INSTANCE, reason="idle") is not None
    machinery.go(70, controller=False)
    assert machinery.downs == [INSTANCE]


def test_a_shutdown_that_fails_lets_work_in_again_and_is_tried_after_as_long(machinery: Machinery) -> None:
    machinery.go(20)
    machinery.running()
    machinery.down_fails = True
    machinery.go(70, controller=False)
    assert machinery.closing.why() is None
    assert machinery.machine().state is MachineState.RUNNING
    assert machinery.hands.submit(pool="trial")
    claim = machinery.hands.take(host="h1", pool="trial")
    machinery.hands.end(claim)
    machinery.down_fails = False
    machinery.go(90, controller=False)
    assert machinery.downs == [INSTANCE]


def test_what_an_earlier_boot_closed_is_open_again(machinery: Machinery) -> None:
    machinery.closing.close("this machine shuts itself down")
    machinery.post(POST)
    assert machinery.closing.why() is None


def test_siblings_are_the_other_children_of_the_worker() -> None:
    with sleeper() as one, sleeper() as other:
        assert other.pid in siblings(os.getpid(), one.pid)
        assert one.pid not in siblings(os.getpid(), one.pid)
        one.kill()
        other.kill()
