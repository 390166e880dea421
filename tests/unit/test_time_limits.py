"""Limits of time: what the records, the object store or the database took of it is not a script's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fixtures_bench import BASE, Bench, Inside, MemoryRecorder, Running, ScriptedEngine

from runner.adapters.postgres_memory import MemoryDatabases, MemoryServer
from runner.follow import Follower
from runner.model import Order, Template, UnitState
from runner.traces import Traces

Maker = Callable[[Callable[[Inside], int | None]], Bench]
RUN, STALL = "run: 4s, stall: 20s", "run: 20s, stall: 4s"
LONGER = 6.0  # than the shorter of the two
CODES = {RUN: "timed_out", STALL: "stalled"}
each_limit = pytest.mark.parametrize("timeouts", [RUN, STALL], ids=["run", "stall"])
each_write = pytest.mark.parametrize("what", ["log", "mark", "put"])


class Clock:
    """The clocks that a follower looks at; they go on by themselves, and further when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monotonic, uptime = time.monotonic, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
        monkeypatch.setattr("runner.follow.time.monotonic", lambda: monotonic() + self._ahead)
        monkeypatch.setattr("runner.steps._uptime", lambda: uptime() + self._ahead)

    def forward(self, seconds: float = LONGER) -> None:
        self._ahead += seconds


class Script:
    """A script of two units that does what the test says, and how its attempts end."""

    def __init__(self, scripted: Maker, timeouts: str, clock: Clock) -> None:
        self.bench = scripted(self._start)
        self.clock = clock
        self.order = self._order(f"units: [a, b]\nrun: x\nworkspace: {{image: '{BASE}'}}\ntimeouts: {{{timeouts}}}")
        self.recorder = self.bench.recorder(self.order)
        self.inside: Inside

    def _order(self, spec: str) -> Order:
        return self.bench.order(spec, ("a", "b"))

    def _start(self, inside: Inside) -> None:
        self.inside = inside
        with (inside.place("/seatrial/io") / "steps").open("a") as file:
            file.write(f"begin\t00-run\t{time.clock_gettime(time.CLOCK_BOOTTIME):.2f}\n")

    def begin(self) -> Running:
        """Begin an attempt, and wait until it watches the script."""
        running = self.bench.begin(self.order, self.recorder)
        self.watched(running)
        return running

    def watched(self, running: Running) -> None:
        """Wait until the attempt has looked at it a few times."""
        before = self.recorder.checks
        running.wait_for(lambda: self.recorder.checks > before + 3)

    def leave(self, running: Running) -> None:
        """Drain an attempt; the next one will go on with the container."""
        self.recorder.drained.set()
        assert running.end().code == "drained"
        self.order = self.bench.again(self.order, self.recorder)

    def say(self, running: Running, text: str) -> None:
        """Print something, and wait until it is recorded."""
        self.inside.print(f"{text}\n")
        running.wait_for(text)

    def end(self, *units: str) -> None:
        """Finish some units, and end well."""
        assert isinstance(self.bench.engine, ScriptedEngine)
        for unit in units:
            self.inside.finish(unit)
        (self.inside.place("/seatrial/io") / "exit").write_text("0 \n")
        self.bench.engine.end(self.inside.container.name, 0)

    def away(self, what: str, *meanwhile: Callable[[], None]) -> None:
        """Have the next writes of a kind wait for longer than the limit, one for each thing that happens meanwhile."""
        place: Any = self.bench.objects if what == "put" else self.recorder
        write, left = getattr(place, what), list(meanwhile)

        def waits(*args: Any, **more: Any) -> Any:
            if left:
                happens = left.pop(0)
                self.clock.forward()
                happens()
            return write(*args, **more)

        setattr(place, what, waits)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# ---- the records or the object store are away -------------------------------------------------------------


@each_write
@each_limit
def test_a_script_that_ends_while_a_write_waits_has_ended(
    scripted: Maker, clock: Clock, what: str, timeouts: str
) -> None:
    script = Script(scripted, timeouts, clock)
    running = script.begin()
    script.away(what, lambda: script.end("b"))
    script.inside.print("at work\n")
    script.inside.finish("a")
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert set(script.recorder.units.values()) == {UnitState.DONE}


@each_write
@pytest.mark.parametrize("sign", ["prints", "marks"])
def test_a_script_that_is_heard_while_writes_wait_again_and_again_does_not_stall(
    scripted: Maker, clock: Clock, what: str, sign: str
) -> None:
    script = Script(scripted, STALL.replace("20s", "60s"), clock)

    def heard() -> None:
        if sign == "prints" or what == "log":
            script.inside.print("still at work\n")
        else:
            script.inside.finish("b")

    running = script.begin()
    script.away(what, heard, heard)
    script.inside.print("at work\n")
    script.inside.finish("a")
    running.wait_for(lambda: script.recorder.units["a"] is UnitState.DONE)
    if sign == "prints" or what == "log":
        running.wait_for("still at work")
        script.inside.finish("b")
    running.wait_for(lambda: script.recorder.units["b"] is UnitState.DONE)
    script.end()
    assert running.end().code == "done"


@each_limit
def test_one_that_another_attempt_goes_on_with_is_heard_first_too(scripted: Maker, clock: Clock, timeouts: str) -> None:
    script = Script(scripted, timeouts, clock)
    script.leave(script.begin())
    script.away("step", lambda: script.end("a", "b"))
    outcome = script.bench.run(script.order, script.recorder)
    assert outcome.code == "done", outcome.why


@each_write
@each_limit
def test_who_is_too_slow_after_a_write_has_waited_is_told_so(
    scripted: Maker, clock: Clock, what: str, timeouts: str
) -> None:
    script = Script(scripted, timeouts, clock)
    running = script.begin()
    script.away(what, lambda: script.inside.print("still at work\n"))
    script.inside.print("at work\n")
    script.inside.finish("a")
    if timeouts == STALL:
        running.wait_for("still at work")
        running.wait_for(lambda: script.recorder.units["a"] is UnitState.DONE)
        clock.forward()
    outcome = running.end()
    assert outcome.code == CODES[timeouts]
    assert script.recorder.units == {"a": UnitState.DONE, "b": UnitState.FAILED}


def test_who_printed_too_much_while_a_write_waited_has_not_stalled(scripted: Maker, clock: Clock) -> None:
    script = Script(scripted, STALL, clock)
    limit = 2_000
    workspace = script.order.spec.workspace
    limits = workspace.limits.model_copy(update={"log": limit})
    workspace = workspace.model_copy(update={"limits": limits})
    script.order = replace(script.order, spec=script.order.spec.model_copy(update={"workspace": workspace}))
    running = script.begin()
    script.away("log", lambda: script.inside.print("more\n"))
    script.inside.print("x" * (limit - 1) + "\n")
    assert running.end().code == "limit_exceeded"


def test_a_server_that_was_slow_to_answer_a_moment_ago_is_no_excuse(scripted: Maker, clock: Clock) -> None:
    script = Asking(scripted, "run: 120s, stall: 60s", clock)
    running = script.begin()
    clock.forward(59.0)
    script.server.stop()
    script.server.start()
    clock.forward(1.5)
    assert running.end().code == "stalled"


@each_limit
@pytest.mark.parametrize("heard", [False, True])
def test_a_disk_that_was_full_before_a_script_was_heard_excuses_no_silence(
    scripted: Maker, clock: Clock, timeouts: str, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [True]
    monkeypatch.setattr("runner.fullness.host_is_full", lambda path: bool(left) and left.pop())
    script = Script(scripted, timeouts.replace("4s", "60s").replace("20s", "120s"), clock)
    running = script.begin()
    running.wait_for(lambda: not left)
    script.watched(running)
    if heard:
        clock.forward()
        script.say(running, "at work again")
    clock.forward(61.0)
    assert running.end().code == (CODES[timeouts] if heard else "disk_full")


# ---- the database is away ---------------------------------------------------------------------------------


class Asking(Script):
    """One that has a database; its door tells of what the test says."""

    def __init__(self, scripted: Maker, timeouts: str, clock: Clock) -> None:
        self.server = MemoryServer()
        super().__init__(scripted, timeouts, clock)

    def _order(self, spec: str) -> Order:
        source = MemoryDatabases("books", self.server, installation=self.bench.installation)
        base = source.bless()
        self.bench.runtime = replace(self.bench.runtime, databases=lambda _: source)
        template = Template(base.source, base.database, base.owner, base.data_id)
        return self.bench.order(f"database: {{source: books}}\n{spec}", ("a", "b"), template=template)

    def cut(self) -> None:
        self.server.stop()
        self.bench.door.lines = ["connect failed"]

    def disturb(self) -> None:
        """Cut the link for a while that is longer than the limits."""
        self.cut()
        self.clock.forward()
        self.server.start()


def todo(recorder: MemoryRecorder) -> bool:
    return set(recorder.units.values()) == {UnitState.TODO}


@each_limit
@pytest.mark.parametrize("how", ["cut", "hang"])
def test_a_script_that_waits_for_its_database_is_interrupted(
    scripted: Maker, clock: Clock, timeouts: str, how: str
) -> None:
    script = Asking(scripted, timeouts, clock)
    running = script.begin()
    if how == "cut":
        script.cut()
    else:
        script.server.stop()  # the door hears nothing of it
    clock.forward()
    outcome = running.end()
    assert outcome.code == "database_lost"
    assert ("connect failed" if how == "cut" else "does not answer") in outcome.why
    assert todo(script.recorder)
    assert script.recorder.faults == {}
    assert f"That is not its fault: {outcome.why}" in script.recorder.said()


@each_limit
def test_a_drop_since_it_was_heard_last_may_be_why_it_is_silent(scripted: Maker, clock: Clock, timeouts: str) -> None:
    script = Asking(scripted, timeouts, clock)
    running = script.begin()
    script.disturb()
    assert running.end().code == "database_lost"
    assert todo(script.recorder)


@each_limit
@pytest.mark.parametrize("door", ["told", "silent"])
def test_a_script_that_was_heard_since_its_database_was_disturbed_is_told_of_its_limit(
    scripted: Maker, clock: Clock, timeouts: str, door: str
) -> None:
    script = Asking(scripted, timeouts.replace("4s", "60s").replace("20s", "120s"), clock)
    running = script.begin()
    script.disturb()
    clock.forward(10.0)
    script.say(running, "at work again")
    if door == "silent":
        script.bench.door.lines = []
    clock.forward(61.0)
    assert running.end().code == CODES[timeouts]
    assert script.recorder.units["a"] is UnitState.FAILED


def test_a_disturbance_that_the_door_did_not_notice_is_over_when_the_server_answers(
    scripted: Maker, clock: Clock
) -> None:
    script = Asking(scripted, "run: 120s, stall: 60s", clock)
    running = script.begin()
    script.disturb()
    script.bench.door.lines = []
    clock.forward(61.0)
    assert running.end().code == "stalled"


@each_limit
@pytest.mark.parametrize("heard", [False, True])
def test_what_nobody_watched_may_be_why_a_script_is_silent_until_it_is_heard(
    scripted: Maker, clock: Clock, timeouts: str, heard: bool
) -> None:
    script = Asking(scripted, timeouts, clock)
    script.leave(script.begin())
    script.bench.door.lines = ["connect failed"]
    running = script.begin()
    if heard:
        script.say(running, "at work")
    clock.forward()
    assert running.end().code == (CODES[timeouts] if heard else "database_lost")


# ---- what is taken of a script that ends so -----------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["stalled", "cut"])
def test_whoever_is_to_blame_what_a_script_left_is_taken(scripted: Maker, clock: Clock, cut: bool) -> None:
    script = Asking(scripted, "run: 120s, stall: 60s", clock)
    running = script.begin()
    script.inside.finish("a")
    running.wait_for(lambda: script.recorder.units["a"] is UnitState.DONE)
    for path in script.inside.place("/seatrial/output").iterdir():
        path.write_text("changed after its mark")
    stop = script.bench.engine.stop

    def last_words(name: str, *, grace: float) -> None:
        script.inside.print("last words\n")
        script.inside.finish("b")
        stop(name, grace=grace)

    script.bench.engine.stop = last_words  # type: ignore[method-assign]
    if cut:
        script.cut()
    clock.forward(61.0)
    assert running.end().code == ("database_lost" if cut else "stalled")
    assert "last words" in script.recorder.said()
    assert [unit for unit, _ in script.recorder.voided] == ["a"]
    assert script.recorder.units["b"] is UnitState.DONE


def test_a_unit_that_fails_while_a_full_disk_ends_the_script_is_to_do_again(
    scripted: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: list[bool] = []
    monkeypatch.setattr("runner.disk.host_is_full", lambda _: bool(full))
    script = Script(scripted, "run: 120s, stall: 60s", clock)
    running = script.begin()
    stop = script.bench.engine.stop

    def break_down(name: str, *, grace: float) -> None:
        with (script.inside.place("/seatrial/io") / "checkpoint").open("a") as file:
            file.write("a\tfailed\tNo space left on device\n")
        stop(name, grace=grace)

    script.bench.engine.stop = break_down  # type: ignore[method-assign]
    full.append(True)
    clock.forward()
    assert running.end().code == "disk_full"
    assert todo(script.recorder)


def test_whose_memory_it_was_is_asked_before_anything_else_is_waited_for(
    scripted: Maker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def tell(place: type, name: str) -> None:
        whole = getattr(place, name)
        monkeypatch.setattr(place, name, lambda self: (told.append(name), whole(self))[1])

    tell(Traces, "take_rest")
    tell(Follower, "_out_of_memory")
    monkeypatch.setattr(Follower, "_ran_out_of_memory", lambda _: True)
    script = Script(scripted, STALL, clock)
    running = script.begin()
    script.inside.print("at work\n")
    (script.inside.place("/seatrial/io") / "exit").write_text("1 \n")
    assert isinstance(script.bench.engine, ScriptedEngine)
    script.bench.engine.end(script.inside.container.name, 1)
    assert running.end().code == "out_of_memory"
    assert told[:2] == ["_out_of_memory", "take_rest"]
