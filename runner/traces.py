"""What a container leaves in its files while it runs, steps, log and marks, taken over into the records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.checkpoint import CheckpointParser, Mark, failed_line
from runner.errors import EngineUnavailable, InfraError, LimitExceeded, OutputRefused
from runner.files import Tail
from runner.journal import Journal
from runner.model import Order, UnitResult, UnitState
from runner.outputs import Outputs
from runner.ports import Recorder
from runner.quantities import format_size
from runner.steps import StepReader
from runner.workspace import Workspace

LOG_READ = 1 << 20
MARKS_READ = 1 << 16  # some thousand marks: between two reads cancel and limits are looked at
WATCHED_SECONDS = 2.0  # a mark that stood there unread for longer tells no time
MARKS_AT_ONCE = 500  # in one transaction, after one round of syncing their outputs


@dataclass
class Traces:
    """The files of one execution. `units` are those it was given; None for a script without units.

    `on_failure` is asked before a unit that the script marked as failed counts as such: it raises an InfraError when the
    world broke it between two `time.monotonic()` values. `alive`, `last_mark` and `step_started` are such values too:
    when something was written last, when something was marked, and when the command began that runs, or ran last.
    `took`: seconds of the last command that was seen to end; None before.
    """

    order: Order
    execution: int
    workspace: Workspace
    recorder: Recorder
    outputs: Outputs
    units: tuple[str, ...] | None
    on_step: Callable[[str, str, float | None, int | None], None]
    on_failure: Callable[[float, float], None]
    last_token: str | None = None
    took: float | None = None
    finished: dict[str, UnitState] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        log_offset, mark_offset = self.recorder.offsets(self.execution)
        self._journal = Journal(self.workspace.journal)
        kept = self._journal.load()
        # What is still to do by the records was not taken, though the journal has it: its mark is read again.
        self.finished |= {unit: state for unit, state in kept.finished.items() if unit not in self.order.units}
        self.outputs.taken |= {unit: taken for unit, taken in kept.taken.items() if unit not in self.order.units}
        self.last_token = kept.token
        io = self.workspace.io
        self._log = Tail(io, "log", log_offset)
        self._log_taken = log_offset  # grows even when the branch cuts the file and begins anew
        self._marks = Tail(io, "checkpoint", mark_offset)
        self._steps = StepReader(io, self.workspace.commands(), kept.told, kept.position, kept.began)
        known = None if self.units is None else frozenset(self.units)
        self._parser = CheckpointParser(known, mark_offset)
        self._refused: set[str] = set()
        self._open_line = False
        # Whoever goes on with a container knows neither when it marked what stands there nor the mark before that.
        self._left = self.order.live == self.execution
        self._looked = -math.inf
        self._marked: float | None = None if self._left and mark_offset else -math.inf
        self.begin()

    def begin(self) -> None:
        """Count from now on: nothing was written before."""
        now = time.monotonic()
        self.alive = self.last_mark = now
        if not self._left:
            self._looked = now
        self.step_started = self._steps.began_at() if self.running else now

    @property
    def step(self) -> str:
        """Name the command that runs, or ran last."""
        return self._steps.name

    @property
    def running(self) -> bool:
        """Tell whether a command has begun and not ended."""
        return self._steps.began is not None

    def close(self) -> None:
        """Let go of the files; safe to call twice."""
        for tail in (self._log, self._marks, self._steps):
            tail.close()

    def say(self, text: str) -> None:
        """Write a line of ours into the log."""
        if self._open_line:  # one that the script left open
            self.recorder.log(b"\n")
            self._open_line = False
        self.recorder.log(f"seatrial: {text}\n".encode())

    def log_room(self) -> int:
        """Give how many bytes of log limits.log still allows."""
        return self.order.spec.workspace.limits.log - self._log_taken

    def log_left(self) -> int:
        """Give how many bytes of the log were not taken; below zero when the branch cut the file."""
        return self._log.left()

    def take(self) -> bool:
        """Take what is new in steps, log and checkpoint; tell whether there was anything."""
        try:
            events = self._steps.read()  # before the log: what a command printed comes before its end
        except OutputRefused as error:
            events = []
            self._refuse("steps", error)
        data = self._read(self._log, "log", min(LOG_READ, self.log_room()))
        if data:
            self.alive = time.monotonic()
            self._log_taken += len(data)
            self._open_line = not data.endswith(b"\n")
            self.recorder.log(data, source=(self.execution, self._log.offset))
        elif self.log_left() < 0:
            self.say("log: the file was truncated by the branch; what was printed before stays recorded")
            self._log.offset = 0
        for event in events:
            self.alive = time.monotonic()
            self.step_started = self._steps.began_at()
            self.on_step(event.name, event.state, event.seconds, event.code)
            self._journal.step(event.told, event.position, event.began)
            self.took = event.seconds
        looked = time.monotonic()
        marks = self._read(self._marks, "checkpoint", MARKS_READ)
        if marks:
            self.alive = time.monotonic()
            self._take_marks(marks)
        elif self._marks.left() < 0:
            self.say("checkpoint: the file was truncated by the branch; what was marked before stays recorded")
            self._restart_marks()
        if len(marks) < MARKS_READ:  # else there may be more, which stands there already
            self._looked = looked
        return bool(data or marks or events)

    def _read(self, tail: Tail, name: str, limit: int) -> bytes:
        try:
            return tail.read(limit)
        except OutputRefused as error:
            self._refuse(name, error)
            return b""

    def _refuse(self, name: str, error: OutputRefused) -> None:
        if name not in self._refused:
            self._refused.add(name)
            self.say(f"{name}: {error.text} It is not read.")

    def _restart_marks(self) -> None:
        self._marks.reopen()
        self._parser.restart()

    def look_for_replaced(self) -> None:
        """Tell of another file in the place of the checkpoint, and read that from its beginning."""
        if "checkpoint" not in self._refused and self._marks.replaced():
            self.say("checkpoint: the branch put another file in its place; what was marked before stays recorded")
            self._restart_marks()

    def _take_marks(self, data: bytes) -> None:
        found = self._parser.feed(data)
        for problem in self._parser.take_problems():
            self.say(problem)
        if not found:
            return
        now = time.monotonic()
        each = self._seconds_each(len(found), now)
        since, self.last_mark = self.last_mark, now
        if self.units is None:
            self.last_token = found[-1].unit
            self._journal.token(self.last_token)
            self.recorder.token(self.last_token, source=(self.execution, found[-1].end))
            return
        for start in range(0, len(found), MARKS_AT_ONCE):
            self._mark(found[start : start + MARKS_AT_ONCE], each, since)

    def _seconds_each(self, marks: int, now: float) -> float | None:
        """Share the time since the mark before them, or since their command began, among marks that are read now.

        None when nobody looked for a while: what they took is not known, nor when the mark after them begins.
        """
        watched = now - self._looked <= WATCHED_SECONDS
        since, self._marked = self._marked, now if watched else None
        if since is None or not watched:
            return None
        return max(0.0, now - max(since, self.step_started)) / marks

    def _mark(self, marks: list[Mark], seconds: float | None, since: float) -> None:
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
            for unit, found in results.items():
                if found.state is UnitState.FAILED:
                    self.say(failed_line(unit))
            self.recorder.mark(list(results.values()), source=(self.execution, marks[-1].end))
            self.finished |= {unit: found.state for unit, found in results.items()}
        if broken is not None:
            raise broken

    def _broken_by_the_world(self, marks: list[Mark], since: float) -> InfraError | None:
        """Tell what the world did when the script says that units failed; raises EngineUnavailable when nobody knows."""
        if all(mark.state is UnitState.DONE for mark in marks):
            return None
        try:
            self.on_failure(since, time.monotonic())
        except EngineUnavailable:
            raise
        except InfraError as error:
            self.say(f"units that the script marked as failed are to do again: {error.text}")
            return error
        return None

    def _result(self, mark: Mark, seconds: float | None) -> UnitResult | None:
        if mark.state is UnitState.FAILED:
            text = mark.text or "The script marked it as failed."
            return UnitResult(mark.unit, mark.state, text=text, seconds=seconds)
        try:
            return UnitResult(mark.unit, mark.state, self.outputs.take(mark.unit), seconds=seconds)
        except FileNotFoundError:
            self.say(f"checkpoint: {mark.unit} is marked, but it has no output; the mark does not count")
            return None
        except (OutputRefused, LimitExceeded) as error:
            self.say(f"{mark.unit}: {error.text}")
            return UnitResult(mark.unit, UnitState.FAILED, text=error.text, seconds=seconds)

    def take_rest(self) -> None:
        """Take all that it left, name what was wrong, void the marks whose outputs were changed."""
        while self.take():
            pass
        self.look_for_replaced()
        while self.take():
            pass
        self._parser.finish()
        for problem in self._parser.take_problems():
            self.say(problem)
        if self.log_left() > 0:
            limit = format_size(self.order.spec.workspace.limits.log)
            self.say(f"the log was cut at limits.log, {limit}: {self.log_left():,} bytes are left out")
        for unit in self.outputs.changed():
            del self.outputs.taken[unit]
            if self.finished.pop(unit, None) is not None:
                self.say(f"{unit}: its output was changed after its mark, so the mark is void; the unit is to do again")
                self.recorder.void(unit, "its output was changed after its mark")
                self.voided.add(unit)
