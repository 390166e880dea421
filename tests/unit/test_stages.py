"""The story of a task without Docker: containers run Python functions, databases are in memory."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_bench import BASE, Bench, FixedTree, Inside, MemoryRecorder, ScriptedEngine

from runner.adapters.postgres_memory import MemoryDatabases, MemoryServer
from runner.errors import DiskFull, EngineRefused, EngineUnavailable, Fenced, StoreUnavailable
from runner.model import Container, ContainerState, Known, Order, Output, Prepared, TaskKind, UnitState
from runner.outputs import Outputs
from runner.traces import Traces
from runner.workspace import Command, Workspace

Maker = Callable[[Callable[[Inside], int | None]], Bench]
UNITS = ("a", "b", "c")
SPEC = "units: [a, b, c]\nrun: bin/run\n"


def everything(inside: Inside) -> int:
    for unit in inside.units:
        inside.finish(unit)
    return 0


def fails_at(unit: str) -> Callable[[Inside], int]:
    def script(inside: Inside) -> int:
        for one in inside.units:
            if one == unit:
                inside.print("oh no\n")
                return 1
            inside.finish(one)
        return 0

    return script


def run(bench: Bench, spec: str = SPEC, units: tuple[str, ...] = UNITS) -> tuple[str, MemoryRecorder]:
    outcome, recorder = bench.verify(spec, units)
    return outcome.code, recorder


def test_all_units(scripted: Maker) -> None:
    bench = scripted(everything)
    code, recorder = run(bench)
    assert code == "done"
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert bench.left_over() == []
    assert recorder.executions == {1: ("ended", 0)}


def test_a_failing_unit_in_the_middle(scripted: Maker) -> None:
    code, recorder = run(scripted(fails_at("b")))
    assert code == "units_failed"
    assert [recorder.units[unit].value for unit in UNITS] == ["done", "failed", "done"]
    assert "oh no" in recorder.results["b"].text


def test_an_unfinished_unit_and_exit_0(scripted: Maker) -> None:
    code, recorder = run(scripted(lambda inside: inside.finish("b") or 0))
    assert code == "incomplete"
    assert recorder.executions == {1: ("ended", 0)}, "once is enough"


def test_a_unit_that_is_voided_is_not_blamed_for_an_error(scripted: Maker) -> None:
    """`a` is marked, then changed; the script breaks at `b`."""
    runs: list[list[str]] = []

    def script(inside: Inside) -> int:
        runs.append(inside.units)
        if len(runs) > 1:
            return everything(inside)
        inside.finish("a")
        return 1

    bench = scripted(script)
    order = bench.order(SPEC, UNITS)
    recorder = bench.recorder(order)
    changed = recorder.mark

    def mark_and_change(results: object, *, source: tuple[int, int] | None = None) -> None:
        changed(results, source=source)  # type: ignore[arg-type]
        if source is not None and len(runs) == 1:
            next((bench.root / "executions").glob("*/output/a.csv")).write_text("changed")

    recorder.mark = mark_and_change  # type: ignore[method-assign, assignment]
    outcome = bench.run(order, recorder)
    assert outcome.code == "units_failed"
    assert runs == [["a", "b", "c"], ["a", "c"]]
    assert [recorder.units[unit].value for unit in UNITS] == ["done", "failed", "done"]


def test_what_the_branch_did_wrong_is_recorded_with_the_container_that_it_ended(scripted: Maker) -> None:
    """For an attempt that is killed before it can end its task."""

    def script(inside: Inside) -> int:
        for unit in inside.units:
            inside.finish(unit)
        return 4

    code, recorder = run(scripted(script))
    assert code == "step_failed"
    assert recorder.executions == {1: ("ended", 4)}
    assert recorder.faults[1].code == "step_failed"
    assert "The script ended with exit code 4." in recorder.faults[1].text


def hangs_in_the_end(inside: Inside) -> None:
    everything(inside)


def test_a_limit_that_was_passed_is_recorded_with_the_container(scripted: Maker) -> None:
    code, recorder = run(scripted(hangs_in_the_end), SPEC + "timeouts: {run: 60s, stall: 1s}\n")
    assert code == "stalled"
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert recorder.faults[1].code == "stalled"


def test_a_limit_that_was_passed_is_on_record_before_the_script_is_asked_to_end(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker may be killed in the seconds that the script has for that."""
    bench = scripted(hangs_in_the_end)
    stopped: list[str] = []

    def stop(*_: object, **__: object) -> None:
        stopped.append(recorder.faults[1].code)
        raise EngineUnavailable("as if we were gone")

    monkeypatch.setattr(bench.engine, "stop", stop)
    order = bench.order(SPEC + "timeouts: {run: 60s, stall: 1s}\n", UNITS)
    recorder = bench.recorder(order)
    assert bench.run(order, recorder).code == "engine_unavailable"
    assert stopped == ["stalled"]


@pytest.mark.parametrize("code", [0, 75])
def test_a_script_that_did_nothing_wrong_leaves_no_fault(scripted: Maker, code: int) -> None:
    def script(inside: Inside) -> int:
        everything(inside)
        return code

    _, recorder = run(scripted(script))
    assert recorder.faults == {}


def test_resume_uses_its_own_command_and_token(scripted: Maker) -> None:
    seen: list[tuple[str, str | None]] = []

    def script(inside: Inside) -> int:
        seen.append((inside.commands[0], inside.container.env.get("SEATRIAL_RESUME_FROM")))
        inside.write("part", "1")
        inside.mark("page 2")
        return 75 if len(seen) == 1 else 0

    bench = scripted(script)
    order = bench.order("run: bin/run\nresume: bin/run --from")
    recorder = bench.recorder(order)
    assert bench.run(order, recorder).code == "resume_requested"
    assert bench.run(bench.again(order, recorder), recorder).code == "done"
    assert seen == [("bin/run", None), ("bin/run --from", "page 2")]


@pytest.mark.parametrize("code", [75, 1, None])
@pytest.mark.parametrize("error", [StoreUnavailable("away"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_resume_point_that_cannot_be_kept_is_kept_by_the_next_attempt(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int | None
) -> None:
    """What wrote it is gone; its files are not, and it has not ended by the records."""
    seen: list[str | None] = []

    def script(inside: Inside) -> int | None:
        seen.append(inside.container.env.get("SEATRIAL_RESUME_FROM"))
        if len(seen) > 1:
            return 0
        inside.write("part", "1")
        inside.mark("page 2")
        return code

    def put(*_: object, **__: object) -> None:
        raise error

    bench = scripted(script)
    order = bench.order("run: bin/run\nresume: bin/run --from\ntimeouts: {run: 60s, stall: 1s}\n")
    recorder = bench.recorder(order)
    monkeypatch.setattr(bench.objects, "put", put)
    expected = "store_unavailable" if isinstance(error, StoreUnavailable) else "disk_full"
    for _ in range(2):
        assert bench.run(order, recorder).code == expected
        assert (recorder.live(), recorder.resume) == (1, None)
        order = bench.again(order, recorder)
    monkeypatch.undo()
    outcome = bench.run(order, recorder)
    assert recorder.executions[1][0] == "ended"
    assert recorder.resume is not None
    assert recorder.resume[0] == "page 2"
    assert bench.left_over() == []
    if code == 75:
        assert outcome.code == "resume_requested"
        assert bench.run(bench.again(order, recorder), recorder).code == "done"
        assert seen == [None, "page 2"]
    else:
        assert seen == [None], "its one unit has failed"


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_a_script_without_units_has_written_waits_until_it_can_be_stored(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It may be the work of hours: it is stored by a later attempt, not made again."""
    runs: list[str] = []

    def script(inside: Inside) -> int:
        runs.append(inside.container.name)
        inside.write("report.csv", "1")
        return 0

    def put(*_: object, **__: object) -> None:
        raise error

    bench = scripted(script)
    order = bench.order("run: bin/run\n")
    recorder = bench.recorder(order)
    monkeypatch.setattr(bench.objects, "put", put)
    expected = "store_unavailable" if isinstance(error, StoreUnavailable) else "disk_full"
    for _ in range(2):
        assert bench.run(order, recorder).code == expected
        assert (recorder.live(), recorder.units["all"]) == (1, UnitState.TODO)
        order = bench.again(order, recorder)
    monkeypatch.undo()
    assert bench.run(order, recorder).code == "done"
    assert runs == [order.container(1)]
    assert recorder.executions == {1: ("ended", 0)}
    assert bench.left_over() == []


def half_done(inside: Inside) -> int:
    """Write a part, and ask to be resumed from there."""
    inside.write("part", "1")
    inside.mark("page 2")
    return 75


@pytest.mark.parametrize("why", ["cancelled", "drained", "fenced"])
def test_a_checkout_hears_that_it_is_called_off(scripted: Maker, why: str) -> None:
    bench = scripted(everything)
    order = bench.order(SPEC, units=UNITS)
    recorder = bench.recorder(order)

    class Slow(FixedTree):
        def layers(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> tuple[Path, ...]:
            getattr(recorder, why).set()
            return super().layers(project, sha, check=check)

    bench.runtime = replace(bench.runtime, trees=Slow(bench.tree))
    assert bench.run(order, recorder).code == why
    assert {name for name, *_ in recorder.steps} == {"checkout"}


def test_a_worker_that_is_to_end_keeps_the_resume_point_first(scripted: Maker) -> None:
    bench = scripted(half_done)
    order = bench.order("run: bin/run\n")
    recorder = bench.recorder(order)
    state = recorder.execution

    def drain_and_record(execution: int, **values: Any) -> None:
        state(execution, **values)
        if recorder.tokens:  # the container has ended
            recorder.drained.set()

    recorder.execution = drain_and_record  # type: ignore[method-assign]
    assert bench.run(order, recorder).code in ("resume_requested", "drained")
    assert recorder.resume is not None


def test_a_resume_point_whose_output_was_removed_from_the_store_is_an_interruption_that_says_so(
    scripted: Maker,
) -> None:
    bench = scripted(lambda inside: 0)
    kept = Output("output", "0" * 64, 7, tree=True)
    outcome, _ = bench.verify("run: bin/run\n", resume_from="page 2", resume_output=kept)
    assert outcome.code == "outputs_gone"
    assert "rerun begins anew" in outcome.why
    assert bench.left_over() == []


def test_a_stale_attempt_keeps_no_resume_point_and_takes_nothing_away(scripted: Maker) -> None:
    bench = scripted(half_done)
    order = bench.order("run: bin/run\n")
    recorder = bench.recorder(order)
    token = recorder.token

    def token_and_lose(text: str, *, source: tuple[int, int] | None = None) -> None:
        token(text, source=source)
        recorder.fenced.set()

    recorder.token = token_and_lose  # type: ignore[method-assign]
    assert bench.run(order, recorder).code == "fenced"
    assert bench.left_over() == [bench.container(), bench.container()], "container and directory"


def test_a_full_disk_is_the_worlds_fault(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = scripted(fails_at("a"))
    monkeypatch.setattr("runner.fullness.host_is_full", lambda path: True)
    code, recorder = run(bench)
    assert code == "disk_full"
    assert recorder.units["a"] is UnitState.TODO


def test_no_room_for_what_the_engine_has_to_make_is_a_full_disk(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = scripted(everything)

    def start(name: str) -> None:
        raise DiskFull("The disk of the Docker engine is full.")

    monkeypatch.setattr(bench.engine, "start", start)
    assert run(bench)[0] == "disk_full"
    assert bench.left_over() == []


def test_no_room_for_an_output_is_the_worlds_fault(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = scripted(everything)

    def put(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench.objects, "put", put)
    assert run(bench)[0] == "disk_full"


def test_an_engine_that_goes_away_leaves_the_container_for_later(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.follow.INSPECT_SECONDS", 0.02)
    monkeypatch.setattr("runner.follow.ENGINE_AWAY_SECONDS", 0.1)

    def script(inside: Inside) -> None:
        inside.print("begun\n")

    bench = scripted(script)
    assert isinstance(bench.engine, ScriptedEngine)
    order = bench.order(SPEC, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("begun")
    bench.engine.up = False
    assert running.end().code == "engine_unavailable"
    bench.engine.up = True
    assert recorder.live() == 1
    for unit in UNITS:
        Inside(bench.engine.described[0]).finish(unit)
    (bench.root / "executions" / bench.container() / "io" / "exit").write_text("0 \n")
    bench.engine.end(bench.container(), 0)
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done"
    assert recorder.executions == {1: ("ended", 0)}


def test_an_engine_that_comes_back_soon_is_no_interruption(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.follow.INSPECT_SECONDS", 0.02)
    bench = scripted(lambda inside: inside.print("begun\n"))
    assert isinstance(bench.engine, ScriptedEngine)
    order = bench.order(SPEC, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("begun")
    bench.engine.up = False
    running.wait_for("the Docker engine does not answer")
    for unit in UNITS:
        Inside(bench.engine.described[0]).finish(unit)
    running.wait_for(lambda: UnitState.TODO not in recorder.units.values())
    bench.engine.up = True
    (bench.root / "executions" / bench.container() / "io" / "exit").write_text("0 \n")
    assert running.end().code == "done"


# ---- databases --------------------------------------------------------------------------------------------


class World:
    """A bench with a blessed database in memory."""

    def __init__(self, scripted: Maker, script: Callable[[Inside], int | None], clone_per: str) -> None:
        self.bench = scripted(script)
        self.server = MemoryServer()
        self.source = MemoryDatabases("verification", self.server, installation=self.bench.installation)
        self.source.bless()
        self.bench.runtime = replace(self.bench.runtime, databases=lambda name: self.source)
        self.spec = (
            f"database: {{source: verification, clone_per: {clone_per}}}\nsetup: [set up]\n"
            "units: bin/list\nrun: bin/run\n"
        )

    def prepare(self) -> Prepared:
        order = self.bench.order(self.spec, kind=TaskKind.PREPARE)
        outcome = self.bench.run(order, self.bench.recorder(order))
        assert outcome.prepared is not None, outcome.why
        return outcome.prepared

    def batch(self, prepared: Prepared, task: int = 2, units: tuple[str, ...] = UNITS) -> tuple[Order, MemoryRecorder]:
        order = replace(self.bench.order(self.spec, units, template=prepared.template), task=task)
        return order, self.bench.recorder(order)

    def clones(self) -> list[str]:
        return [name for name in self.server.databases if not name.startswith("seatrial_base_")]


def listing(inside: Inside) -> int:
    if inside.commands == ["set up", "bin/list"]:
        (inside.place("/seatrial/io") / "units").write_text("a\nb\nc\n")
        return 0
    return everything(inside)


def test_each_execution_has_a_clone_of_the_frozen_template(scripted: Maker) -> None:
    world = World(scripted, listing, "execution")
    prepared = world.prepare()
    assert prepared.template is not None
    assert prepared.units == UNITS
    leg = prepared.template.database
    assert world.server.databases[leg].frozen
    assert world.server.roles == {}
    order, recorder = world.batch(prepared)
    assert world.bench.run(order, recorder).code == "done"
    opened = world.bench.door.opened
    assert [database for _, database, _ in opened] == [leg, order.execution_database(1)]
    assert opened[1][2] == order.execution_database(1)
    assert world.clones() == [leg], "the clone is dropped with its execution"


def test_an_attempt_that_was_succeeded_leaves_the_legs_database_alone(scripted: Maker) -> None:
    """It hangs right before the clone, until another attempt has made that: nothing but the records can tell it."""
    world = World(scripted, listing, "execution")
    order = world.bench.order(world.spec, kind=TaskKind.PREPARE)
    world.source.clone(world.source.base().database, order.leg_database())
    successors = world.server.databases[order.leg_database()]
    recorder = world.bench.recorder(order)

    def fenced() -> None:
        raise Fenced

    recorder.renew = fenced  # type: ignore[method-assign]
    assert world.bench.run(order, recorder).code == "fenced"
    assert world.server.databases[order.leg_database()] is successors
    assert not successors.frozen


def test_the_executions_of_a_leg_can_share_its_own_database(scripted: Maker) -> None:
    world = World(scripted, listing, "leg")
    prepared = world.prepare()
    assert prepared.template is not None
    leg = prepared.template.database
    assert not world.server.databases[leg].frozen
    for task in (2, 3):
        order, recorder = world.batch(prepared, task)
        outcome = world.bench.run(order, recorder)
        assert outcome.code == "done", outcome.why
        assert "clone" not in [name for name, *_ in recorder.steps]
    opened = world.bench.door.opened
    assert {database for _, database, _ in opened} == {leg}
    roles = [role for _, _, role in opened]
    assert len(set(roles)) == 3, "each its own role"
    assert world.clones() == [leg], "never dropped by an execution"


@pytest.mark.parametrize("clone_per", ["execution", "leg"])
def test_what_may_still_run_on_another_host_is_shut_out_before_a_new_container_starts(
    scripted: Maker, clone_per: str
) -> None:
    seen: list[tuple[list[str], set[str]]] = []

    def script(inside: Inside) -> int:
        seen.append((world.clones(), set(world.server.roles) - world.server.shut))
        return listing(inside)

    world = World(scripted, script, clone_per)
    prepared = world.prepare()
    assert prepared.template is not None
    leg = prepared.template.database
    order, recorder = world.batch(prepared)
    lost, ours = order.execution_database(1), order.execution_database(2)
    if clone_per == "execution":
        world.source.clone(leg, lost)
    world.source.login(leg if clone_per == "leg" else lost, role=lost, owner="app")
    recorder.number = 1
    outcome = world.bench.run(replace(order, attempt=2, elsewhere=(1,)), recorder)
    assert outcome.code == "done", outcome.why
    clones, roles = seen[-1]
    assert lost not in roles, "it comes in no more"
    assert ours in roles
    assert clones == ([leg, ours] if clone_per == "execution" else [leg])


@pytest.mark.parametrize("clone_per", ["execution", "leg"])
def test_what_could_not_be_taken_away_is_gone_before_the_next_container_starts(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, clone_per: str
) -> None:
    found: list[tuple[list[str], list[str], set[str]]] = []
    closed: list[str] = []

    def script(inside: Inside) -> int:
        if inside.commands[0] == "set up":
            return listing(inside)
        found.append((world.bench.left_over(), world.clones(), set(world.server.roles) - world.server.shut))
        return 75 if len(found) == 1 else listing(inside)

    def close(name: str) -> None:
        if len(found) == 1 and not closed:
            closed.append("")
            raise EngineRefused("no space left on device")
        closed.append(name)

    world = World(scripted, script, clone_per)
    prepared = world.prepare()
    assert prepared.template is not None
    order, recorder = world.batch(prepared)
    monkeypatch.setattr(world.bench.door, "close", close)
    assert world.bench.run(order, recorder).code == "resume_requested"
    first, second = order.container(1), order.container(2)
    assert set(world.bench.left_over()) == {first}
    assert world.bench.run(world.bench.again(order, recorder), recorder).code == "done"
    assert closed == ["", first, second]
    (standing, clones, roles) = found[1]
    assert set(standing) == {second}
    assert clones == [prepared.template.database] + [order.execution_database(2)] * (clone_per == "execution")
    assert roles == {order.execution_database(2)}
    assert world.bench.left_over() == []


def test_a_failing_execution_does_not_drop_the_shared_database(scripted: Maker) -> None:
    def script(inside: Inside) -> int:
        return listing(inside) if inside.commands[0] == "set up" else 1

    world = World(scripted, script, "leg")
    prepared = world.prepare()
    order, recorder = world.batch(prepared)
    assert world.bench.run(order, recorder).code == "units_failed"
    assert prepared.template is not None
    assert world.clones() == [prepared.template.database]


def test_a_dropped_link_is_an_interruption_only_when_the_probe_agrees(scripted: Maker) -> None:
    def script(inside: Inside) -> int:
        return listing(inside) if inside.commands[0] == "set up" else 1

    world = World(scripted, script, "execution")
    prepared = world.prepare()
    world.bench.door.lines = ["server conn crashed?"]
    order, recorder = world.batch(prepared)
    assert world.bench.run(order, recorder).code == "units_failed", "it ended its own session"
    world.server.stop()
    world.server.start()
    order, recorder = world.batch(prepared, 3)
    outcome = world.bench.run(order, recorder)
    assert outcome.code == "database_lost"
    assert "server conn crashed?" in outcome.why
    assert set(recorder.units.values()) == {UnitState.TODO}
    assert len(world.clones()) == 1


def test_a_script_that_leaves_out_what_the_link_broke_is_interrupted_too(scripted: Maker) -> None:
    world = World(scripted, listing, "execution")
    prepared = world.prepare()
    world.bench.engine.script = lambda inside: inside.finish("b") or 0  # type: ignore[attr-defined]
    world.bench.door.lines = ["server conn crashed?"]
    order, recorder = world.batch(prepared)
    assert world.bench.run(order, recorder).code == "incomplete", "it ended its own session"
    world.server.stop()
    world.server.start()
    order, recorder = world.batch(prepared, 3)
    assert world.bench.run(order, recorder).code == "database_lost"
    assert [recorder.units[unit].value for unit in UNITS] == ["todo", "done", "todo"]


def test_a_script_that_asks_to_be_resumed_after_a_link_dropped_is_told_with_it(scripted: Maker) -> None:
    said = ["server closed the connection unexpectedly", "\tThis probably means so.", "\tWhile processing.", "", "bye"]

    def script(inside: Inside) -> int:
        if inside.commands[0] == "set up":
            return listing(inside)
        inside.print("\n".join(said) + "\n")
        return 75

    world = World(scripted, script, "execution")
    prepared = world.prepare()
    world.bench.door.lines = ["server conn crashed?"]
    last = "Last lines:\n" + "\n".join(said)
    order, recorder = world.batch(prepared)
    outcome = world.bench.run(order, recorder)
    assert outcome.why == f"The script asked to be resumed (exit code 75). {last}", "it ended its own session"
    world.server.stop()
    world.server.start()
    order, recorder = world.batch(prepared, 3)
    outcome = world.bench.run(order, recorder)
    assert outcome.code == "resume_requested"
    dropped = "The connection to the database dropped: server conn crashed?"
    assert outcome.why == f"The script asked to be resumed (exit code 75). {dropped} {last}"


class Working:
    """A batch of a script that works until it is told to end, on a link that dropped when it is told so."""

    def __init__(self, scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drops: list[float] = []
        monkeypatch.setattr(
            "runner.adapters.postgres_memory.MemoryProbe.lost_between",
            lambda _, start, end: any(start <= at <= end for at in self.drops),
        )
        self.world = World(scripted, listing, "execution")
        prepared = self.world.prepare()
        self.bench = self.world.bench
        assert isinstance(self.bench.engine, ScriptedEngine)
        self.bench.engine.script = lambda inside: inside.print("begun\n")
        self.order, self.recorder = self.world.batch(prepared)
        self.running = self.bench.begin(self.order, self.recorder)
        self.running.wait_for("begun")
        self.inside = Inside(self.bench.engine.described[-1])

    def line(self) -> None:
        self.bench.door.lines = ["server conn crashed?"]

    def done(self, unit: str) -> None:
        self.inside.finish(unit)
        self.running.wait_for(lambda: self.recorder.units[unit] is UnitState.DONE)

    def leave(self) -> None:
        self.recorder.drained.set()
        assert self.running.end().code == "drained"

    def adopt(self) -> None:
        self.order = self.bench.again(self.order, self.recorder)
        self.running = self.bench.begin(self.order, self.recorder)
        self.running.wait_for("goes on with")

    def watch(self) -> None:
        """Wait until the attempt has seen it running."""
        before = self.recorder.checks
        self.running.wait_for(lambda: self.recorder.checks > before + 3)

    def fail(self, how: str, unit: str = "b") -> str:
        if how == "marks":
            self.inside.mark(f"{unit}\tfailed\tno database")
            self.running.wait_for(lambda: self.recorder.units[unit] is UnitState.FAILED or self.running.over())
        if not self.running.over():
            (self.inside.place("/seatrial/io") / "exit").write_text("1 \n")
            self.bench.engine.end(self.inside.container.name, 1)  # type: ignore[attr-defined]
        return self.running.end().code


@pytest.mark.parametrize("how", ["marks", "ends"])
def test_a_drop_counts_although_another_unit_was_finished_since(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A script may work on some at once."""
    working = Working(scripted, monkeypatch)
    working.drops.append(time.monotonic())
    working.line()
    working.done("a")
    working.done("c")
    assert working.fail(how) == "database_lost"
    assert working.recorder.units["b"] is UnitState.TODO


def test_a_link_that_stays_away_has_dropped(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke the script is told, and not that the server does not answer those who ask about it."""
    working = Working(scripted, monkeypatch)
    working.drops.append(time.monotonic())
    working.line()
    working.world.server.up = False
    assert working.fail("marks") == "database_lost"


@pytest.mark.parametrize("how", ["marks", "ends"])
def test_a_drop_that_nobody_watched_is_believed_by_the_door_alone(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    working = Working(scripted, monkeypatch)
    working.leave()
    working.line()
    working.inside.finish("a")
    working.adopt()
    working.running.wait_for(lambda: working.recorder.units["a"] is UnitState.DONE)
    working.watch()
    assert working.fail(how) == "database_lost"
    assert working.recorder.units["b"] is UnitState.TODO


def test_from_the_first_unit_on_that_was_finished_under_watch_the_probe_is_asked_again(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = Working(scripted, monkeypatch)
    working.leave()
    working.line()
    working.adopt()
    working.watch()
    working.done("a")
    working.fail("marks")
    assert working.recorder.units["b"] is UnitState.FAILED


def test_a_door_is_closed_also_by_an_attempt_that_took_it_over_and_cannot_use_it(scripted: Maker) -> None:
    world = World(scripted, lambda inside: inside.print("begun\n"), "execution")
    order = world.bench.order(world.spec, kind=TaskKind.PREPARE)
    recorder = world.bench.recorder(order)
    running = world.bench.begin(order, recorder)
    running.wait_for("begun")
    recorder.drained.set()
    assert running.end().code == "drained"
    assert world.bench.door.closed == []
    world.server.stop()
    assert world.bench.run(world.bench.again(order, recorder), recorder).code == "database_unavailable"
    assert world.bench.door.closed == [order.container(1)]


def test_a_batch_without_a_frozen_template_says_so(scripted: Maker, tmp_path: Path) -> None:
    world = World(scripted, listing, "execution")
    prepared = world.prepare()
    assert prepared.template is not None
    world.source.drop(prepared.template.database)
    order, recorder = world.batch(prepared)
    outcome = world.bench.run(order, recorder)
    assert outcome.code == "database_refused"
    assert recorder.steps[-1][0:2] == ("clone", "failed")
    assert world.bench.left_over() == []


# ---- a preparation that an earlier run's leg spares ----


def spared(world: World, known: Known, **more: object) -> tuple[Prepared, MemoryRecorder]:
    order = replace(world.bench.order(world.spec, kind=TaskKind.PREPARE, known=known), **more)  # type: ignore[arg-type]
    recorder = world.bench.recorder(order)
    outcome = world.bench.run(order, recorder)
    assert outcome.prepared is not None, outcome.why
    return outcome.prepared, recorder


def test_nothing_is_prepared_when_all_of_it_is_finished(scripted: Maker) -> None:
    world = World(scripted, listing, "execution")
    first = world.prepare()
    assert first.template is not None
    known = Known(7, "baseline", first.image_digest, first.template.data_id, first.units)
    world.source.drop(first.template.database)
    found, recorder = spared(world, known)
    assert (found.known, found.units, found.image_digest) == (known, first.units, first.image_digest)
    assert found.template == first.template, "the snapshot too"
    assert world.clones() == []
    assert recorder.executions == {}
    assert "take over" in {name for name, *_ in recorder.steps}
    assert "3 units of run #7 finished: nothing to prepare" in recorder.said()


@pytest.mark.parametrize("other", [{"image": "sha256:other"}, {"data": "other"}, {"data": None}])
def test_another_image_or_other_data_are_prepared(scripted: Maker, other: dict[str, str | None]) -> None:
    world = World(scripted, listing, "execution")
    first = world.prepare()
    assert first.template is not None
    world.source.drop(first.template.database)
    known = Known(7, "baseline", first.image_digest, first.template.data_id, ("a",))
    found, recorder = spared(world, replace(known, **other))  # type: ignore[arg-type]
    assert (found.known, found.units) == (None, UNITS)
    assert recorder.executions == {1: ("ended", 0)}


def test_what_an_earlier_attempt_left_is_followed_to_its_end(scripted: Maker) -> None:
    world = World(scripted, listing, "execution")
    first = world.prepare()
    assert first.template is not None
    world.source.drop(first.template.database)
    known = Known(7, "baseline", first.image_digest, first.template.data_id, first.units)
    found, _ = spared(world, known, elsewhere=(9,))
    assert found.known is None


# ---- the image --------------------------------------------------------------------------------------------


def test_a_batch_runs_in_the_image_of_its_leg_whatever_has_the_name_now(scripted: Maker) -> None:
    bench = scripted(everything)
    engine = bench.engine
    assert isinstance(engine, ScriptedEngine)
    first, second = engine.images[BASE], "sha256:" + "2" * 64
    engine.images |= {BASE: second, "untagged": first}
    batch = {"image": BASE, "image_digest": first}
    outcome, recorder = bench.verify(SPEC, UNITS, **batch)
    assert outcome.code == "done"
    assert engine.described[-1].image == first
    assert "another one" not in recorder.said()
    del engine.images["untagged"]
    outcome, recorder = bench.verify(SPEC, UNITS, **batch)
    assert outcome.code == "done", outcome.why
    assert engine.described[-1].image == second
    told = f"{BASE} is {'2' * 12}, the leg was prepared in {'1' * 12}, which is not here"
    assert f"seatrial: {told}: what differs may come from the image\n" in recorder.said()
    assert [detail for name, state, _, detail in recorder.steps if (name, state) == ("image", "done")] == [
        f"prepared (another one: {told.removeprefix(f'{BASE} is ')})"
    ]


def test_an_image_that_is_fetched_anew_is_held_against_the_legs(scripted: Maker) -> None:
    bench = scripted(everything)
    engine = bench.engine
    assert isinstance(engine, ScriptedEngine)
    first = engine.images.pop(BASE)
    engine.registry[BASE] = first
    _, recorder = bench.verify(SPEC, UNITS, image=BASE, image_digest=first)
    assert "which is not here" not in recorder.said()
    engine.images[BASE] = "sha256:" + "2" * 64
    _, recorder = bench.verify(SPEC, UNITS, image=BASE, image_digest="sha256:3")
    assert "the leg was prepared in 3, which is not here" in recorder.said()


@pytest.mark.parametrize("registry_up", [True, False])
def test_a_batch_whose_image_was_removed_from_its_host_is_no_failure(scripted: Maker, registry_up: bool) -> None:
    bench = scripted(everything)
    engine = bench.engine
    assert isinstance(engine, ScriptedEngine)
    first = engine.images.pop(BASE)
    engine.registry_up = registry_up
    bench.runtime = replace(bench.runtime, host="builder-2")
    order = bench.order(SPEC, UNITS, image=BASE, image_digest=first)
    recorder = bench.recorder(order)
    outcome = bench.run(order, recorder)
    assert outcome.code == "image_gone"
    assert f"{BASE} ({'1' * 12}), in which the leg was prepared, is not on builder-2" in outcome.why
    assert "Load or build it there" in outcome.why
    engine.images[BASE] = first
    assert bench.run(bench.again(order, recorder), recorder).code == "done"


def test_an_image_that_goes_right_before_its_container_is_made_is_no_failure(scripted: Maker) -> None:
    bench = scripted(everything)
    engine = bench.engine
    assert isinstance(engine, ScriptedEngine)
    made, images = engine.create, dict(engine.images)

    def create(container: Container) -> ContainerState:
        engine.images.clear()
        return made(container)

    engine.create = create  # type: ignore[method-assign]
    order = bench.order(SPEC, UNITS)
    recorder = bench.recorder(order)
    assert bench.run(order, recorder).code == "image_gone"
    assert bench.left_over() == []
    engine.create, engine.images = made, images  # type: ignore[method-assign]
    assert bench.run(bench.again(order, recorder), recorder).code == "done"


def test_what_the_registry_says_of_a_name_is_the_branchs_and_its_silence_is_not(scripted: Maker) -> None:
    bench = scripted(everything)
    engine = bench.engine
    assert isinstance(engine, ScriptedEngine)
    del engine.images[BASE]
    for answers, code in ((True, "image_missing"), (False, "registry_unavailable")):
        engine.registry_up = answers
        outcome, _ = bench.verify(SPEC, UNITS)
        assert outcome.code == code


# ---- the log ----------------------------------------------------------------------------------------------


def test_truncating_the_log_makes_no_room_in_it(scripted: Maker, tmp_path: Path) -> None:
    bench = scripted(everything)
    order = bench.order(f"run: x\nworkspace: {{image: '{BASE}', limits: {{log: 64k}}}}")
    workspace = Workspace(tmp_path / "x")
    workspace.lay_out([Command("run", "x")], None)
    recorder = bench.recorder(order)
    outputs = Outputs(workspace.output, bench.objects, (), file_limit=1)

    def traces() -> Traces:
        return Traces(order, 1, workspace, recorder, outputs, None, lambda *_: None, lambda *_: None)

    def printed(size: int) -> None:
        (workspace.io / "log").write_bytes(b"\0" * size)
        for _ in range(3):  # the first may only see that the file was cut
            followed.take()

    followed = traces()
    printed(60_000)
    printed(3_000)
    printed(0)
    printed(5_000)
    assert recorder.text.count(b"\0") == 65_536
    assert recorder.said().count("log: the file was truncated") == 2
    assert followed.log_room() == 0
    assert followed.log_left() == 5_000 - 2_536
    followed.close()
    followed = traces()
    assert followed.log_room() == 65_536 - 2_536, "whoever takes over knows the place in the file alone"
    followed.close()


def test_the_log_says_where_a_unit_failed(scripted: Maker) -> None:
    def script(inside: Inside) -> int:
        inside.print("cannot read b\n")
        inside.finish("a")
        inside.mark("b\tfailed\tno such table")
        return 0

    _, recorder = scripted(script).verify(SPEC, ("a", "b"))
    said = recorder.said()
    assert "cannot read b\nseatrial: unit b failed\n" in said
    assert "unit a failed" not in said


def test_the_log_says_at_which_unit_a_script_broke_before_another_container_goes_on(scripted: Maker) -> None:
    def script(inside: Inside) -> int:
        inside.print(f"at work on {inside.units[0]}")
        if "b" not in inside.units:
            inside.finish("c")
            return 0
        inside.finish("a")
        return 3

    outcome, recorder = scripted(script).verify(SPEC, UNITS)
    assert outcome.code == "units_failed"
    assert "at work on a\nseatrial: unit b failed\n" in recorder.said()
