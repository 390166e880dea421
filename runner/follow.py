"""Follow one container to its end: log, marks, limits, signals. Truth is its files and the engine's word."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runner.checkpoint import CheckpointParser, Mark
from runner.errors import (
    BranchError,
    Cancelled,
    ContainerLost,
    LimitExceeded,
    OutOfMemory,
    OutputRefused,
    Stalled,
    TimedOut,
)
from runner.files import Tail, open_inside
from runner.model import Order, UnitResult, UnitState
from runner.outputs import Outputs
from runner.ports import Engine, Recorder
from runner.quantities import format_duration, format_size
from runner.workspace import Workspace

POLL_SECONDS = 0.05
INSPECT_SECONDS = 1.0
DISK_SECONDS = 5.0
LOG_READ = 1 << 20
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """How a container ended; `last_mark` and `at` are `time.monotonic()` values."""

    exit_code: int
    last_mark: float
    at: float
    seconds: float


@dataclass
class Follower:
    """One execution being followed. `units` are those it was given; None for a script without units."""

    order: Order
    execution: int
    workspace: Workspace
    engine: Engine
    recorder: Recorder
    outputs: Outputs
    units: tuple[str, ...] | None
    timeouts: dict[str, float]
    on_step: Callable[[str, str, float | None, int | None], None]
    step: str = ""
    last_token: str | None = None
    finished: dict[str, UnitState] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.name = self.order.container(self.execution)
        log_offset, mark_offset = self.recorder.offsets(self.execution)
        io = self.workspace.io
        self._log = Tail(io, "log", log_offset)
        self._marks = Tail(io, "checkpoint", mark_offset)
        self._steps = Tail(io, "steps")
        known = None if self.units is None else frozenset(self.units)
        self._parser = CheckpointParser(known, mark_offset)
        now = time.monotonic()
        self.started = self._step_started = self._alive = self.last_mark = now
        self._next_inspect = now + INSPECT_SECONDS
        self._next_disk = now + DISK_SECONDS
        self._steps_rest = b""
        self._step_uptime = 0.0

    def follow(self) -> Ended:
        """Follow to the end. Raises a BranchError when a limit was passed, an InfraError when the world broke it,
        Cancelled after stopping it, Fenced or Drained while it goes on running."""
        try:
            while True:
                code = self._exit_code()
                busy = self._take()
                if code is not None and not busy:
                    return self._ended(code)
                self._signals()
                self._limits()
                if not busy:
                    time.sleep(POLL_SECONDS)
        finally:
            for tail in (self._log, self._marks, self._steps):
                tail.close()

    # ---- what it wrote --------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Take what is new in log, steps and checkpoint; tell whether there was anything."""
        steps = self._steps.read(65_536)  # before the log: what a command printed comes before its end
        data = self._log.read(LOG_READ)
        if data:
            self._alive = time.monotonic()
            self.recorder.log(data, source=(self.execution, self._log.offset))
        self._take_steps(steps)
        marks = self._marks.read(LOG_READ)
        if marks:
            self._alive = time.monotonic()
            found = self._parser.feed(marks)
            for problem in self._parser.take_problems():
                self._say(problem)
            if found:
                self._mark(found)
        elif self._marks.shrunk():
            self._say("checkpoint: the file was truncated by the branch; what was marked before stays recorded")
            self._marks.offset = self._parser.offset = 0
        return bool(data or marks)

    def _mark(self, found: list[Mark]) -> None:
        now = time.monotonic()
        each = (now - max(self.last_mark, self._step_started)) / len(found)
        self.last_mark = now
        source = (self.execution, found[-1].end)
        if self.units is None:
            self.last_token = found[-1].unit
            self.recorder.token(self.last_token, source=source)
            return
        results = [self._result(mark, each) for mark in found]
        fresh = [result for result in results if result is not None]
        self.finished |= {result.unit: result.state for result in fresh}
        self.recorder.mark(fresh, source=source)

    def _result(self, mark: Mark, seconds: float) -> UnitResult | None:
        if mark.state is UnitState.FAILED:
            return UnitResult(
                mark.unit, mark.state, text=mark.text or "The script marked it as failed.", seconds=seconds
            )
        try:
            return UnitResult(mark.unit, mark.state, self.outputs.take(mark.unit), seconds=seconds)
        except FileNotFoundError:
            self._say(f"checkpoint: {mark.unit} is marked, but it has no output; the mark does not count")
            return None
        except (OutputRefused, LimitExceeded) as error:
            self._say(f"{mark.unit}: {error.text}")
            return UnitResult(mark.unit, UnitState.FAILED, text=error.text, seconds=seconds)

    def _take_steps(self, data: bytes) -> None:
        self._steps_rest += data
        *lines, self._steps_rest = self._steps_rest.split(b"\n")
        for line in lines:
            parts = line.decode("utf-8", "replace").split("\t")
            name = parts[1].split("-", 1)[-1] if len(parts) > 2 else ""
            uptime = _number(parts[2]) if len(parts) > 2 else 0.0
            if parts[0] == "begin" and len(parts) == 3:
                self.step, self._step_started, self._step_uptime = name, time.monotonic(), uptime
                self._alive = self._step_started
                self.on_step(name, "running", None, None)
            elif parts[0] == "end" and len(parts) == 4:
                code = int(_number(parts[3]))
                seconds = max(0.0, uptime - self._step_uptime)
                self.on_step(name, "done" if code == 0 else "failed", seconds, code)

    def _say(self, text: str) -> None:
        self.recorder.log(f"seatrial: {text}\n".encode())

    # ---- how it stands --------------------------------------------------------------------------------

    def _exit_code(self) -> int | None:
        """Give the exit code that the wrapper left, or that the engine tells; None while it runs."""
        try:
            with open_inside(self.workspace.io, "exit") as file:
                return int(_number(file.read(16).decode("ascii", "replace")))
        except (FileNotFoundError, OutputRefused):
            pass
        now = time.monotonic()
        if now < self._next_inspect:
            return None
        self._next_inspect = now + INSPECT_SECONDS
        state = self.engine.inspect(self.name)
        if state is None:
            raise ContainerLost("The workspace's container was removed from outside.")
        if state.running:
            return None
        if (self.workspace.io / "exit").exists():
            return None  # it was written while we asked: the next look finds it
        if state.oom_killed:
            raise self._out_of_memory()
        raise ContainerLost(
            f"The workspace was killed from outside (exit code {state.exit_code}, no exit file; {state.error or 'no error'})."
        )

    def _ended(self, code: int) -> Ended:
        while self._take():
            pass
        self._parser.finish()
        for problem in self._parser.take_problems():
            self._say(problem)
        self._check_unchanged()
        if code != 0:
            state = self.engine.inspect(self.name)
            if state is not None and state.oom_killed:
                raise self._out_of_memory()
        now = time.monotonic()
        return Ended(code, self.last_mark, now, now - self.started)

    def _check_unchanged(self) -> None:
        for unit in self.outputs.changed():
            self._say(f"{unit}: its output was changed after its mark, so the mark is void; the unit is to do again")
            self.recorder.void(unit, "its output was changed after its mark")
            del self.finished[unit]
            self.voided.add(unit)

    def _out_of_memory(self) -> OutOfMemory:
        limit = format_size(self.order.spec.workspace.limits.memory)
        return OutOfMemory(f"Out of memory: the workspace used more than limits.memory, {limit}.")

    # ---- signals and limits ---------------------------------------------------------------------------

    def _signals(self) -> None:
        try:
            self.recorder.check()
        except Cancelled:
            self._say("cancelled: asking the script to end")
            self._stop()
            raise

    def _stop(self) -> None:
        self.engine.stop(self.name, grace=GRACE_SECONDS)
        while self._take():
            pass

    def _limits(self) -> None:
        error = self._passed_limit()
        if error is not None:
            self._say(error.text)
            self._stop()
            raise error

    def _passed_limit(self) -> BranchError | None:
        now, limits, timeouts = time.monotonic(), self.order.spec.workspace.limits, self.timeouts
        limit = timeouts.get(self.step, timeouts["run"])
        if now - self._step_started > limit:
            return TimedOut(f"The step {self.step or 'run'} did not end within {format_duration(limit)} (timeouts).")
        if now - self._alive > timeouts["stall"]:
            stall = format_duration(timeouts["stall"])
            return Stalled(f"Nothing was printed and nothing finished for {stall} (timeouts.stall).")
        if self._log.offset > limits.log:
            return LimitExceeded(f"The log passed limits.log, {format_size(limits.log)}.")
        if now >= self._next_disk:
            used = disk_used(self.workspace.root)
            # A large tree is asked more rarely, so that the asking stays below a twentieth of the time.
            self._next_disk = time.monotonic() + max(DISK_SECONDS, 20 * (time.monotonic() - now))
            if used > limits.disk:
                return LimitExceeded(
                    f"The workspace wrote {format_size(used)}; limits.disk is {format_size(limits.disk)}."
                )
        return None


def disk_used(root: Path) -> int:
    """Sum the bytes that the files below a directory take on disk; links are not followed, hard links count once."""
    total, seen = 0, set()
    for _, directories, files, descriptor in os.fwalk(root, follow_symlinks=False, onerror=None):
        for name in (*files, *directories):
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_nlink > 1 and name in files:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_blocks * 512
    return total


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
