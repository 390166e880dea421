"""Follow one container to its end: log, marks, limits, signals. Truth is its files and the engine's word."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.checkpoint import CheckpointParser, Mark
from runner.disk import DiskLimit
from runner.errors import (
    Cancelled,
    ContainerLost,
    EngineUnavailable,
    InfraError,
    LimitExceeded,
    OutOfMemory,
    OutputRefused,
    SeatrialError,
    Stalled,
    TimedOut,
)
from runner.files import Tail, open_inside
from runner.journal import Journal
from runner.model import Order, UnitResult, UnitState
from runner.outputs import Outputs
from runner.ports import Engine, Recorder, Watch
from runner.quantities import format_duration, format_size
from runner.steps import Ending, StepReader
from runner.workspace import Workspace

POLL_SECONDS = 0.05
INSPECT_SECONDS = 1.0
LOG_READ = 1 << 20
MARKS_READ = 1 << 16  # some thousand marks: between two reads cancel and limits are looked at
MARKS_AT_ONCE = 500  # in one transaction, after one round of syncing their outputs
GRACE_SECONDS = 5.0
GONE_SECONDS = 1.0  # the wrapper ends within milliseconds after it wrote the exit file
ENGINE_AWAY_SECONDS = 60.0  # a restart of dockerd takes seconds, and with live-restore the containers run on
# Without an exit file: killed by a signal, or (255) gone with an engine that does not restore. Nothing inside can do
# that to the container's first process (see wrapper.sh).
KILLED = 128
_EXIT = re.compile(rb"(\d{1,3}) (stopped)?\n")


@dataclass(frozen=True)
class Ended:
    """How a container ended; `last_mark` and `at` are `time.monotonic()` values.

    `watched`: whether it was seen running; one that was left may have ended between two attempts.
    """

    exit_code: int
    last_mark: float
    at: float
    seconds: float
    watched: bool = True


@dataclass
class Follower:
    """One execution being followed. `units` are those it was given; None for a script without units.

    `on_failure` is asked before a unit that the script marked as failed counts as such: it raises an InfraError when the
    world broke it between two `time.monotonic()` values; the last argument tells whether it was watched meanwhile.
    """

    order: Order
    execution: int
    workspace: Workspace
    engine: Engine
    recorder: Recorder
    outputs: Outputs
    units: tuple[str, ...] | None
    timeouts: dict[str, float]
    on_step: Callable[[str, str, float | None, int | None], None]
    on_failure: Callable[[float, float, bool], None]
    last_token: str | None = None
    finished: dict[str, UnitState] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.name = self.order.container(self.execution)
        log_offset, mark_offset = self.recorder.offsets(self.execution)
        self._journal = Journal(self.workspace.journal)
        kept = self._journal.load()
        # What is still to do by the records was not taken, though the journal has it: its mark is read again.
        self.finished |= {unit: state for unit, state in kept.finished.items() if unit not in self.order.units}
        self.outputs.taken |= {unit: taken for unit, taken in kept.taken.items() if unit not in self.order.units}
        self.last_token = kept.token
        io = self.workspace.io
        self._log = Tail(io, "log", log_offset)
        self._marks = Tail(io, "checkpoint", mark_offset)
        self._steps = StepReader(io, self.workspace.commands(), kept.told, kept.position, kept.began)
        known = None if self.units is None else frozenset(self.units)
        self._parser = CheckpointParser(known, mark_offset)
        self._disk = DiskLimit(self.workspace.root, self.order.spec.workspace.limits.disk, self.workspace.quota())
        self._refused: set[str] = set()
        self._open_line = False
        self._away: float | None = None
        self._watch: Watch | None = None
        self._over = False
        self.dead = False
        self._watched = False
        self._begin()

    def _begin(self) -> None:
        now = time.monotonic()
        self.started = self._alive = self.last_mark = now
        self._step_started = now if self._steps.began is None else self._steps.began_at()
        self._next_look = now

    @property
    def step(self) -> str:
        """Name the command that runs, or ran last."""
        return self._steps.name

    def follow(self) -> Ended:
        """Follow to the end. Raises a BranchError when a limit was passed, an InfraError when the world broke it,
        Cancelled after stopping it, Fenced or Drained while it goes on running."""
        self._begin()
        if self._steps.began is not None:
            self.recorder.step(self.step, state="running")
        self.outputs.check = self.recorder.check
        try:
            while True:
                ending = self._ending()
                busy = self._take()
                if ending is not None:
                    return self._ended(ending)
                self._watched = True
                self.recorder.check()
                self._limits()
                if not busy:
                    self._pause()
        except Cancelled:
            self._say("cancelled: asking the script to end")
            self._stop()
            raise

    def close(self) -> None:
        """Let go of its files; safe to call twice."""
        self._disk.close()
        if self._watch is not None:
            self._watch.close()
        for tail in (self._log, self._marks, self._steps):
            tail.close()

    def _pause(self) -> None:
        """Wait a moment, or until it has ended."""
        if self._watch is None or self._over:
            time.sleep(POLL_SECONDS)
        else:
            self._over = self._watch.gone(POLL_SECONDS)

    # ---- what it wrote --------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Take what is new in steps, log and checkpoint; tell whether there was anything."""
        try:
            events = self._steps.read()  # before the log: what a command printed comes before its end
        except OutputRefused as error:
            events = []
            self._refuse("steps", error)
        data = self._read(self._log, "log", min(LOG_READ, self._log_room()))
        if data:
            self._alive = time.monotonic()
            self._open_line = not data.endswith(b"\n")
            self.recorder.log(data, source=(self.execution, self._log.offset))
        elif self._log.left() < 0:
            self._say("log: the file was truncated by the branch; what was printed before stays recorded")
            self._log.offset = 0
        for event in events:
            self._alive = time.monotonic()
            self._step_started = self._steps.began_at()
            self.on_step(event.name, event.state, event.seconds, event.code)
            self._journal.step(event.told, event.position, event.began)
        marks = self._read(self._marks, "checkpoint", MARKS_READ)
        if marks:
            self._alive = time.monotonic()
            self._take_marks(marks)
        elif self._marks.left() < 0:
            self._say("checkpoint: the file was truncated by the branch; what was marked before stays recorded")
            self._restart_marks()
        return bool(data or marks or events)

    def _fresh_line(self) -> None:
        """End a line that the script left open, so that ours begins one."""
        if self._open_line:
            self.recorder.log(b"\n")
            self._open_line = False

    def _read(self, tail: Tail, name: str, limit: int) -> bytes:
        try:
            return tail.read(limit)
        except OutputRefused as error:
            self._refuse(name, error)
            return b""

    def _refuse(self, name: str, error: OutputRefused) -> None:
        if name not in self._refused:
            self._refused.add(name)
            self._say(f"{name}: {error.text} It is not read.")

    def _log_room(self) -> int:
        return self.order.spec.workspace.limits.log - self._log.offset

    def _restart_marks(self) -> None:
        self._marks.reopen()
        self._parser.restart()

    def _look_for_replaced(self) -> None:
        if "checkpoint" not in self._refused and self._marks.replaced():
            self._say("checkpoint: the branch put another file in its place; what was marked before stays recorded")
            self._restart_marks()

    def _take_marks(self, data: bytes) -> None:
        found = self._parser.feed(data)
        for problem in self._parser.take_problems():
            self._say(problem)
        if not found:
            return
        now = time.monotonic()
        each = max(0.0, now - max(self.last_mark, self._step_started)) / len(found)
        since, self.last_mark = self.last_mark, now
        if self.units is None:
            self.last_token = found[-1].unit
            self._journal.token(self.last_token)
            self.recorder.token(self.last_token, source=(self.execution, found[-1].end))
            return
        for start in range(0, len(found), MARKS_AT_ONCE):
            self._mark(found[start : start + MARKS_AT_ONCE], each, since)

    def _mark(self, marks: list[Mark], seconds: float, since: float) -> None:
        broken = self._broken_by_the_world(marks, since)
        if broken is not None:
            marks = [mark for mark in marks if mark.state is UnitState.DONE]
        results: dict[str, UnitResult] = {}
        for mark in marks:
            # A second mark of a unit is named and changes nothing; one that did not count may be made good.
            if mark.unit not in self.finished and mark.unit not in results:
                result = self._result(mark, seconds)
                if result is not None:
                    results[mark.unit] = result
        if results:
            self.outputs.settle()
            self._journal.finished((unit, found.state, self.outputs.taken.get(unit)) for unit, found in results.items())
            self.recorder.mark(list(results.values()), source=(self.execution, marks[-1].end))
            self.finished |= {unit: found.state for unit, found in results.items()}
        if broken is not None:
            raise broken

    def _broken_by_the_world(self, marks: list[Mark], since: float) -> InfraError | None:
        """Tell what the world did when the script says that units failed; raises EngineUnavailable when nobody knows."""
        if all(mark.state is UnitState.DONE for mark in marks):
            return None
        try:
            self.on_failure(since, time.monotonic(), self._watched)
        except EngineUnavailable:
            raise
        except InfraError as error:
            self._say(f"units that the script marked as failed are to do again: {error.text}")
            return error
        return None

    def _result(self, mark: Mark, seconds: float) -> UnitResult | None:
        if mark.state is UnitState.FAILED:
            text = mark.text or "The script marked it as failed."
            return UnitResult(mark.unit, mark.state, text=text, seconds=seconds)
        try:
            return UnitResult(mark.unit, mark.state, self.outputs.take(mark.unit), seconds=seconds)
        except FileNotFoundError:
            self._say(f"checkpoint: {mark.unit} is marked, but it has no output; the mark does not count")
            return None
        except (OutputRefused, LimitExceeded) as error:
            self._say(f"{mark.unit}: {error.text}")
            return UnitResult(mark.unit, UnitState.FAILED, text=error.text, seconds=seconds)

    def _say(self, text: str) -> None:
        self._fresh_line()
        self.recorder.log(f"seatrial: {text}\n".encode())

    # ---- how it ended ---------------------------------------------------------------------------------

    def _ending(self) -> Ending | None:
        """Tell how it ended, by the file that the wrapper left or else by the engine's word; None while it runs."""
        found = self._exit_file()
        now = time.monotonic()
        if found is not None or now < self._next_look:
            return found
        self._next_look = now + INSPECT_SECONDS
        self._look_for_replaced()
        try:
            state = self.engine.inspect(self.name)
        except EngineUnavailable:
            if self._away is None:
                self._away = now
                self._say("the Docker engine does not answer; going on by the container's files meanwhile")
            if now - self._away > ENGINE_AWAY_SECONDS:
                raise
            return None
        self._away = None
        if state is not None and state.running:
            self._watch = self._watch or self.engine.watch(state)
            return None
        self.outputs.check = lambda: None
        found = self._exit_file()  # it may have been written while we asked
        if found is not None:
            return found
        self._take_rest()
        if state is None:
            raise ContainerLost("The workspace's container was removed from outside.")
        if state.oom_killed:
            raise self._out_of_memory()
        if (passed := self._disk.over()) is not None:
            raise passed  # with no room for an exit file
        code = state.exit_code
        if code is None or code >= KILLED or state.error:
            told = state.error or "nothing in it can do that"
            raise ContainerLost(f"The workspace was killed from outside (exit code {code}; {told}).")
        self._say(f"there is no exit file to read; the engine tells exit code {code}")
        return Ending(code)

    def _exit_file(self) -> Ending | None:
        try:
            with open_inside(self.workspace.io, "exit") as file:
                found = _EXIT.fullmatch(file.read(16))
        except (FileNotFoundError, OutputRefused):
            return None
        if found is None or int(found[1]) > 255:
            return None
        return Ending(int(found[1]), stopped=found[2] is not None)

    def _ended(self, ending: Ending) -> Ended:
        at = time.monotonic()
        memory = ending.code != 0 and self._ran_out_of_memory()
        passed = self._disk.over()
        # From here on nothing writes any more: what a background process left is taken, and nothing changes behind it.
        self.dead = self._has_gone()
        if not self.dead:
            self.engine.remove(self.name)
        self._take_rest()
        if memory:
            raise self._out_of_memory()
        if ending.stopped:
            self.recorder.check()  # it was an attempt before this one that asked
            raise ContainerLost("The workspace was stopped from outside.")
        if self._log.left() > 0:
            raise self._log_limit()
        if passed is not None:
            raise passed  # also when the script did not mind that a write was refused: its outputs may be cut
        return Ended(ending.code, self.last_mark, at, at - self.started, self._watched)

    def _has_gone(self) -> bool:
        """Tell whether nothing of it runs any more; its engine says so some 0.1 s after it is true."""
        if self._watch is None:
            state = self.engine.inspect(self.name)
            if state is None or not state.running:
                return True
            self._watch = self.engine.watch(state)
        return self._watch is not None and self._watch.gone(GONE_SECONDS)

    def _ran_out_of_memory(self) -> bool:
        """Ask once the container has ended: the kernel's word may come after the exit file."""
        until = time.monotonic() + 2.0
        while (state := self.engine.inspect(self.name)) is not None:
            if state.oom_killed:
                return True
            if not state.running or time.monotonic() > until:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def _take_rest(self) -> None:
        """Take all that it left, name what was wrong, void the marks whose outputs were changed."""
        while self._take():
            pass
        self._look_for_replaced()
        while self._take():
            pass
        self._parser.finish()
        for problem in self._parser.take_problems():
            self._say(problem)
        if self._log.left() > 0:
            limit = format_size(self.order.spec.workspace.limits.log)
            self._say(f"the log was cut at limits.log, {limit}: {self._log.left():,} bytes are left out")
        for unit in self.outputs.changed():
            del self.outputs.taken[unit]
            if self.finished.pop(unit, None) is not None:
                self._say(
                    f"{unit}: its output was changed after its mark, so the mark is void; the unit is to do again"
                )
                self.recorder.void(unit, "its output was changed after its mark")
                self.voided.add(unit)

    def _out_of_memory(self) -> OutOfMemory:
        limit = format_size(self.order.spec.workspace.limits.memory)
        return OutOfMemory(f"Out of memory: the workspace used more than limits.memory, {limit}.")

    def _log_limit(self) -> LimitExceeded:
        return LimitExceeded(f"The log passed limits.log, {format_size(self.order.spec.workspace.limits.log)}.")

    # ---- signals and limits ---------------------------------------------------------------------------

    def _stop(self) -> None:
        self.outputs.check = lambda: None  # what is there is taken, whatever else is asked of us
        self.on_failure = lambda *_: None
        self.engine.stop(self.name, grace=GRACE_SECONDS)
        self._take_rest()

    def _limits(self) -> None:
        error = self._passed_limit()
        if error is not None:
            self._say(error.text)
            self._stop()
            raise error

    def _passed_limit(self) -> SeatrialError | None:
        now, timeouts = time.monotonic(), self.timeouts
        limit = timeouts.get(self.step, timeouts["run"])
        if now - self._step_started > limit:
            return TimedOut(f"The step {self.step or 'run'} did not end within {format_duration(limit)} (timeouts).")
        if now - self._alive > timeouts["stall"]:
            stall = format_duration(timeouts["stall"])
            return Stalled(f"Nothing was printed and nothing finished for {stall} (timeouts.stall).")
        if self._log_room() <= 0 and self._log.left() > 0:
            return self._log_limit()
        return self._disk.passed()
