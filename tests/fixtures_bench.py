"""Fixtures: a bench that runs the pipeline on an engine, with a strict recorder in memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.adapters.file_objects import FileObjects
from runner import pipeline
from runner.adapters.engine_memory import MemoryEngine, Program
from runner.errors import Cancelled, Drained, Fenced, SeatrialError
from runner.execution import Runtime
from runner.images import BuildHost
from runner.model import Container, ContainerState, Order, Output, Prepared, Reason, TaskKind, UnitResult, UnitState
from runner.ports import Databases, Engine
from runner.quota import Used
from runner.spec import parse_spec
from runner.workspace import CONTROL, IO, OUTPUT, Workspace

BASE = "seatrial/base:bookworm"
# What a script's first container waits with, until the test lets it go on: it cannot end before the test comes to it.
GATE = "[ $SEATRIAL_ATTEMPT != 1 ] || until [ -e /seatrial/io/go ]; do sleep 0.02; done"
COMMIT = "a" * 40


@dataclass
class MemoryRecorder:
    """The ledger of one task in memory; strict about what a store would refuse. `attempt` fences older views."""

    units: dict[str, UnitState] = field(default_factory=dict)
    results: dict[str, UnitResult] = field(default_factory=dict)
    text: bytearray = field(default_factory=bytearray)
    steps: list[tuple[str, str, float | None, str]] = field(default_factory=list)
    voided: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    resume: tuple[str, Output] | None = None
    executions: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    faults: dict[int, Reason] = field(default_factory=dict)
    wrote: list[tuple[str, Used]] = field(default_factory=list)
    taken: dict[int, list[int]] = field(default_factory=dict)
    marks: int = 0
    checks: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    drained: threading.Event = field(default_factory=threading.Event)
    fenced: threading.Event = field(default_factory=threading.Event)
    number: int = 0

    def log(self, data: bytes, *, source: tuple[int, int] | None = None) -> None:
        self._refuse()
        assert data
        self.text += data
        if source is not None:
            self._advance(source, 0)

    def step(self, name: str, *, state: str, seconds: float | None = None, detail: str = "") -> None:
        self._refuse()
        assert state in ("running", "done", "failed", "ended")
        self.steps.append((name, state, seconds, detail))

    def mark(self, results: Sequence[UnitResult], *, source: tuple[int, int] | None = None) -> None:
        self._refuse()
        assert results
        self.marks += 1
        for result in results:
            assert result.unit in self.units, result
            if self.units[result.unit] is UnitState.TODO:
                self.units[result.unit] = result.state
                self.results[result.unit] = result
        if source is not None:
            self._advance(source, 1)

    def void(self, unit: str, reason: str) -> None:
        self._refuse()
        assert unit in self.units
        self.units[unit] = UnitState.TODO
        self.results.pop(unit, None)
        self.voided.append((unit, reason))

    def token(self, token: str, *, source: tuple[int, int] | None = None) -> None:
        self._refuse()
        self.tokens.append(token)
        if source is not None:
            self._advance(source, 1)

    def resume_point(self, token: str, output: Output) -> None:
        self._refuse()
        self.resume = (token, output)

    def offsets(self, execution: int) -> tuple[int, int]:
        log, marks = self.taken.get(execution, [0, 0])
        return log, marks

    def execution(
        self,
        execution: int,
        *,
        state: str,
        container: str,
        exit_code: int | None = None,
        fault: Reason | None = None,
        wrote: Used | None = None,
    ) -> None:
        self._refuse()
        assert execution <= self.number
        self.executions[execution] = (state, exit_code)
        if fault is not None:
            self.faults[execution] = fault
        if wrote is not None:
            self.wrote.append((state, wrote))

    def next_execution(self) -> int:
        self._refuse()
        self.number += 1
        return self.number

    def renew(self) -> None:
        self._refuse()

    def check(self) -> None:
        self.checks += 1
        self._refuse()
        if self.cancelled.is_set():
            raise Cancelled
        if self.drained.is_set():
            raise Drained

    def flush(self) -> None:
        self._refuse()

    def _refuse(self) -> None:
        if self.fenced.is_set():
            raise Fenced

    def _advance(self, source: tuple[int, int], which: int) -> None:
        execution, offset = source
        self.taken.setdefault(execution, [0, 0])[which] = offset

    def live(self) -> int | None:
        """Give the execution that was left running, as the store would."""
        return next((number for number, (state, _) in self.executions.items() if state == "running"), None)

    def said(self) -> str:
        return self.text.decode("utf-8", "replace")


class FixedTree:
    """Trees with one tree."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def get(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> Path:
        check()
        return self.tree

    def layers(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> tuple[Path, ...]:
        check()
        return (self.tree,)


class NoDoor:
    """A door for branches without a database; tells what was asked of it."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str, str]] = []
        self.closed: list[str] = []
        self.lines: list[str] = []
        self.root: Path | None = None

    def open(self, execution: str, login: Any, *, tcp_network: str | None = None) -> Path:
        assert self.root is not None
        self.opened.append((execution, login.database, login.role))
        return self.root

    def dropped(self, execution: str) -> list[str]:
        return self.lines

    def refusals(self, execution: str) -> list[str]:
        return []

    def alive(self, execution: str) -> bool:
        return True

    def close(self, execution: str) -> None:
        self.closed.append(execution)

    def standing(self) -> set[str]:
        return set()


def no_database(name: str) -> Databases:
    raise AssertionError(f"the database {name} was asked for")


@dataclass
class Outcome:
    """How an attempt ended: what it raised, or what it gave."""

    error: BaseException | None
    prepared: Prepared | None
    seconds: float

    @property
    def code(self) -> str:
        if self.error is None:
            return "done"
        return self.error.code if isinstance(self.error, SeatrialError) else type(self.error).__name__

    @property
    def why(self) -> str:
        return str(self.error)


@dataclass
class Inside:
    """What a script sees of its workspace: the container as it was described, and the directories behind it."""

    container: Container

    def place(self, target: str) -> Path:
        return next(mount.source for mount in self.container.mounts if mount.target == target)

    @property
    def units(self) -> list[str]:
        return (self.place(CONTROL) / "units").read_text().split("\n")[:-1]

    @property
    def commands(self) -> list[str]:
        return [path.read_text() for path in sorted((self.place(CONTROL) / "commands").iterdir())]

    def write(self, unit: str, text: str = "output", extension: str = ".csv") -> None:
        path = self.place(OUTPUT) / f"{unit}{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mark(self, line: str) -> None:
        with (self.place(IO) / "checkpoint").open("a") as file:
            file.write(f"{line}\n")

    def print(self, text: str) -> None:
        with (self.place(IO) / "log").open("a") as file:
            file.write(text)

    def finish(self, unit: str) -> None:
        self.write(unit, f"output of {unit}")
        self.mark(unit)


class ScriptedEngine(MemoryEngine):
    """An engine whose containers run a Python function to its end when they are started.

    It gives the exit code; None leaves the container running, or as it left it, without an exit file.
    """

    def __init__(self, script: Callable[[Inside], int | None]) -> None:
        super().__init__({BASE: "sha256:" + "1" * 64})
        self.script = script
        self.described: list[Container] = []

    def create(self, container: Container) -> ContainerState:
        self.described.append(container)
        self.programs = {container.command[-1]: Program(None)}
        return super().create(container)

    def start(self, name: str) -> None:
        super().start(name)
        inside = Inside(next(found for found in reversed(self.described) if found.name == name))
        io = inside.place(IO)
        names = sorted(path.name for path in (inside.place(CONTROL) / "commands").iterdir())
        code = self.script(inside)
        if code is None:
            return
        with (io / "steps").open("a") as file:
            for command in names:
                file.write(f"begin\t{command}\t1.00\nend\t{command}\t2.50\t{code}\n")
        (io / "exit").write_text(f"{code} \n")
        self.end(name, code)


class Bench:
    """Run orders on one engine, each test with names and directories of its own."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.installation = secrets.token_hex(4)
        self.engine = engine
        self.root = root
        self.tree = root / "tree"
        self.tree.mkdir()
        (root / "executions").mkdir()
        self.objects = FileObjects(root / "objects")
        self.door = NoDoor()
        self.door.root = root / "door"
        self.door.root.mkdir()
        self.runtime = Runtime(
            engine=engine,
            trees=FixedTree(self.tree),
            objects=self.objects,
            databases=no_database,
            door=self.door,
            executions=root / "executions",
            build_host=BuildHost(),
        )

    def order(self, spec: str, units: Sequence[str] = (), **values: Any) -> Order:
        """Make an order; a spec without `workspace` gets the base image, and ends in 60 s."""
        text = "version: 1\n" + spec
        if "workspace:" not in spec:
            text += f"\nworkspace: {{image: '{BASE}'}}"
        if "timeouts:" not in spec:
            text += "\ntimeouts: {run: 60s, stall: 60s, setup: 60s}"
        parsed = parse_spec(text, source="a test")
        if parsed.units is None and not units:
            units = ("all",)
        values = {"kind": TaskKind.VERIFY, "attempt": 1} | values
        return Order(
            run=1,
            leg="candidate",
            task=1,
            project="p",
            commit=COMMIT,
            spec=parsed,
            units=tuple(units),
            installation=self.installation,
            **values,
        )

    def recorder(self, order: Order) -> MemoryRecorder:
        return MemoryRecorder(dict.fromkeys(order.units, UnitState.TODO))

    def run(self, order: Order, recorder: MemoryRecorder, runtime: Runtime | None = None) -> Outcome:
        start = time.monotonic()
        try:
            prepared = pipeline.run(order, runtime or self.runtime, recorder)
        except SeatrialError as error:
            return Outcome(error, None, time.monotonic() - start)
        return Outcome(None, prepared, time.monotonic() - start)

    def verify(self, spec: str, units: Sequence[str] = (), **values: Any) -> tuple[Outcome, MemoryRecorder]:
        """Run a spec's units, or the one of a script without any, to the end of the attempt."""
        order = self.order(spec, units, **values)
        recorder = self.recorder(order)
        return self.run(order, recorder), recorder

    def verify_gated(
        self, spec: str, when: Callable[[MemoryRecorder], bool], units: Sequence[str] = ()
    ) -> tuple[Outcome, MemoryRecorder]:
        """Run a spec's units; the `GATE` of each container opens when it is recorded what the script did before it."""
        order = self.order(spec, units)
        recorder = self.recorder(order)
        running = self.begin(order, recorder)
        opened = 0
        while not running.over():
            if opened < recorder.number and when(recorder):
                with suppress(FileNotFoundError):  # the next one is not there yet
                    self.open_gate(recorder.number)
                    opened = recorder.number
            time.sleep(0.01)
        return running.end(), recorder

    def begin(self, order: Order, recorder: MemoryRecorder) -> Running:
        return Running(self, order, recorder)

    def again(self, order: Order, recorder: MemoryRecorder) -> Order:
        """Give the order that the next attempt would get."""
        todo = tuple(unit for unit, state in recorder.units.items() if state is UnitState.TODO)
        failed = tuple(unit for unit, state in recorder.units.items() if state is UnitState.FAILED)
        for event in (recorder.cancelled, recorder.drained, recorder.fenced):
            event.clear()
        point = (
            {} if recorder.resume is None else {"resume_from": recorder.resume[0], "resume_output": recorder.resume[1]}
        )
        return replace(order, attempt=order.attempt + 1, units=todo, failed=failed, live=recorder.live(), **point)

    def bytes_of(self, result: UnitResult) -> bytes:
        assert result.output is not None
        with self.objects.open(result.output.digest) as file:
            return file.read()

    def container(self, number: int = 1) -> str:
        return f"seatrial-{self.installation}-r1-t1-e{number}"

    def open_gate(self, number: int = 1) -> None:
        """Let a container of a script with the `GATE` go on."""
        (Workspace(self.runtime.executions / self.container(number)).io / "go").touch()

    def left_over(self) -> list[str]:
        """Name what an ended attempt must not leave: containers and directories."""
        return [state.name for state in self.engine.find(installation=self.installation)] + [
            path.name for path in (self.root / "executions").iterdir()
        ]


class Running:
    """An attempt in a thread of its own."""

    def __init__(self, bench: Bench, order: Order, recorder: MemoryRecorder) -> None:
        self.recorder = recorder
        self._outcome: list[Outcome] = []
        self._thread = threading.Thread(target=lambda: self._outcome.append(bench.run(order, recorder)))
        self._thread.start()

    def wait_for(self, what: str | Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until the log holds a text, or something is true."""
        until = time.monotonic() + seconds
        test = what if callable(what) else lambda: what in self.recorder.said()
        while not test():
            assert time.monotonic() < until, f"{what} did not come; the log is:\n{self.recorder.said()}"
            assert self._thread.is_alive() or test(), f"it ended: {self._outcome}\n{self.recorder.said()}"
            time.sleep(0.01)

    def over(self) -> bool:
        return not self._thread.is_alive()

    def end(self, seconds: float = 60.0) -> Outcome:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it goes on"
        assert self._outcome, "it broke; the thread's exception tells"
        return self._outcome[0]


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[Callable[[Inside], int | None]], Bench]:
    """Give a maker of benches whose containers run a Python function, without Docker."""
    return lambda script: Bench(ScriptedEngine(script), tmp_path)
