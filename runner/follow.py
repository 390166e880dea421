"""Follow one container to its end: limits, signals, how it ended. Truth is its files and the engine's word."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.disk import DiskLimit
from runner.errors import (
    BranchError,
    Cancelled,
    ContainerFoundDead,
    ContainerLost,
    EngineUnavailable,
    HostOutOfMemory,
    InfraError,
    LimitExceeded,
    OutOfMemory,
    OutputRefused,
    SeatrialError,
    Stalled,
    TimedOut,
)
from runner.files import open_inside
from runner.model import Order, Reason
from runner.outputs import Outputs
from runner.ports import Engine, Recorder, Watch
from runner.quantities import format_duration, format_size
from runner.quota import Used
from runner.steps import Ending
from runner.traces import Traces
from runner.workspace import Workspace

POLL_SECONDS = 0.05
INSPECT_SECONDS = 1.0
GRACE_SECONDS = 5.0
GONE_SECONDS = 1.0  # the wrapper ends within milliseconds after it wrote the exit file
ENGINE_AWAY_SECONDS = 60.0  # a restart of dockerd takes seconds, and with live-restore the containers run on
# Without an exit file: killed by a signal, or (255) gone with an engine that does not restore. Nothing inside can do
# that to the container's first process (see wrapper.sh).
KILLED = 128
_EXIT = re.compile(rb"(\d{1,3}) (stopped)?\n")


@dataclass(frozen=True)
class Ended:
    """How a container ended; `since`, when its watch began, and `at` are `time.monotonic()` values.

    `seconds`: what its last command took; None when nobody saw that end.
    `watched`: whether it was seen running and marked something then; what broke one that was left may lie before.
    """

    exit_code: int
    since: float
    at: float
    seconds: float | None
    watched: bool = True


@dataclass
class Follower:
    """One execution being followed. `units` are those it was given; None for a script without units.

    `on_failure` is asked before a unit that the script marked as failed counts as such: it raises an InfraError when the
    world broke something between two `time.monotonic()` values; the last one tells whether another was marked under watch.
    `on_limit` is asked so before it counts that it took too long or stalled, from when it was last heard.
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
    on_limit: Callable[[float, float, bool], None]

    def __post_init__(self) -> None:
        self.name = self.order.container(self.execution)
        self.traces = Traces(
            self.order,
            self.execution,
            self.workspace,
            self.recorder,
            self.outputs,
            self.units,
            self.on_step,
            lambda since, until: self.on_failure(self.started, until, self._since_seen(since)),
        )
        self._disk = DiskLimit(self.workspace.root, self.order.spec.workspace.limits.disk, self.workspace.quota())
        self._away: float | None = None
        self._watch: Watch | None = None
        self._over = False
        self.dead = False
        self._seen: float | None = None
        self._told: Used | None = None
        self._begin()

    def _begin(self) -> None:
        self.traces.begin()
        self.started = self._next_look = time.monotonic()

    @property
    def step(self) -> str:
        """Name the command that runs, or ran last."""
        return self.traces.step

    @property
    def wrote(self) -> Used | None:
        """Give what its workspace took at most, as far as it was seen; None when it was not yet."""
        return None if self._disk.peak == Used() else self._disk.peak

    def follow(self) -> Ended:
        """Follow to the end. Raises a BranchError when a limit was passed, an InfraError when the world broke it,
        Cancelled after stopping it, Fenced or Drained while it goes on running."""
        self._begin()
        if self.traces.running:
            self.recorder.step(self.step, state="running")
        self.outputs.check = self.recorder.check
        try:
            while True:
                looked = time.monotonic()  # all that follows may wait for the records or the object store
                ending = self._ending()
                busy = self.traces.take()
                if ending is not None:
                    return self._ended(ending)
                self._seen = self._seen or time.monotonic()
                self.recorder.check()
                self._limits(looked)
                self._tell_peak()
                if not busy:
                    self._pause()
        except Cancelled:
            self.traces.say("cancelled: asking the script to end")
            self._stop()
            raise

    def close(self) -> None:
        """Let go of its files; safe to call twice."""
        self._disk.close()
        if self._watch is not None:
            self._watch.close()
        self.traces.close()

    def _pause(self) -> None:
        """Wait a moment, or until it has ended."""
        if self._watch is None or self._over:
            time.sleep(POLL_SECONDS)
        else:
            self._over = self._watch.gone(POLL_SECONDS)

    # ---- how it ended ---------------------------------------------------------------------------------

    def _ending(self) -> Ending | None:
        """Tell how it ended, by the file that the wrapper left or else by the engine's word; None while it runs."""
        found = self._exit_file()
        now = time.monotonic()
        if found is not None or now < self._next_look:
            return found
        self._next_look = now + INSPECT_SECONDS
        self.traces.look_for_replaced()
        try:
            state = self.engine.inspect(self.name)
        except EngineUnavailable:
            if self._away is None:
                self._away = now
                self.traces.say("the Docker engine does not answer; going on by the container's files meanwhile")
            if now - self._away > ENGINE_AWAY_SECONDS:
                raise
            return None
        self._away = None
        if state is not None and state.running:
            self._watch = self._watch or self.engine.watch(state)
            if self._watch is not None:
                self._watch.look()
            return None
        self.outputs.check = lambda: None
        found = self._exit_file()  # it may have been written while we asked
        if found is not None:
            return found
        memory = self._out_of_memory() if state is not None and state.oom_killed else None
        self.traces.take_rest()
        if state is None:
            raise self._lost("The workspace's container was removed from outside.")
        if memory is not None:
            raise memory
        if (passed := self._disk.over()) is not None:
            raise passed  # with no room for an exit file
        code = state.exit_code
        if code is None or code >= KILLED or state.error:
            told = state.error or "nothing in it can do that"
            raise self._lost(f"The workspace was killed from outside (exit code {code}; {told}).")
        self.traces.say(f"there is no exit file to read; the engine tells exit code {code}")
        return Ending(code)

    def _lost(self, text: str) -> ContainerLost:
        found_so = self.order.live == self.execution and self._seen is None
        return ContainerFoundDead(text) if found_so else ContainerLost(text)

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
        memory = self._out_of_memory() if ending.code != 0 and self._ran_out_of_memory() else None
        passed = self._disk.over()
        # From here on nothing writes any more: what a background process left is taken, and nothing changes behind it.
        self.dead = self._has_gone()
        if not self.dead:
            self.engine.remove(self.name)
        self.traces.take_rest()
        self._disk.ended()
        if memory is not None:
            raise memory
        if ending.stopped:
            self.recorder.check()  # it was an attempt before this one that asked
            raise self._lost("The workspace was stopped from outside.")
        if self.traces.log_left() > 0:
            raise self._log_limit()
        if passed is not None:
            raise passed  # also when the script did not mind that a write was refused: its outputs may be cut
        watched = self._since_seen(self.traces.last_mark)
        return Ended(ending.code, self.started, at, self.traces.took, watched)

    def _since_seen(self, last: float) -> bool:
        """Tell whether that was under watch: after it was first seen running."""
        return self._seen is not None and last > self._seen

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

    def _out_of_memory(self) -> OutOfMemory | HostOutOfMemory:
        """Blame the world only where the workspace certainly did not reach its limit; to be asked at once."""
        limit = f"limits.memory, {format_size(self.order.spec.workspace.limits.memory)}"
        ended = "the kernel ended a process of the workspace for want of memory"
        if self._watch is not None and self._watch.kept_its_memory():
            return HostOutOfMemory(f"The host ran out of memory: {ended}, and not because of {limit}.")
        return OutOfMemory(f"Out of memory: {ended}, of which it may use {limit}.")

    def _log_limit(self) -> LimitExceeded:
        return LimitExceeded(f"The log passed limits.log, {format_size(self.order.spec.workspace.limits.log)}.")

    # ---- signals and limits ---------------------------------------------------------------------------

    def _stop(self, world: InfraError | None = None) -> None:
        """Stop it and take what it left. With a fault of the world, what it marks as failed meanwhile is to do again."""

        def blame(*_: object) -> None:
            if world is not None:
                raise world

        self.outputs.check = lambda: None  # what is there is taken, whatever else is asked of us
        self.traces.on_failure = blame
        self.engine.stop(self.name, grace=GRACE_SECONDS)
        while True:  # each round takes some marks, so that it ends
            try:
                return self.traces.take_rest()
            except InfraError as error:
                if error is not world:
                    raise

    def _limits(self, looked: float) -> None:
        error = self._passed_limit(looked)
        if error is not None:
            if isinstance(error, (TimedOut, Stalled)):
                self._blame_the_world_first(error, looked)
            self.traces.say(error.text)
            if isinstance(error, BranchError):  # on record before the grace, in which we may be killed
                self._note(fault=Reason(error.code, error.text))
            self._stop(error if isinstance(error, InfraError) else None)
            raise error

    def _blame_the_world_first(self, error: BranchError, looked: float) -> None:
        """Raise what the world did since it was last heard: it may have waited for its database."""
        heard = self.traces.alive
        try:
            self.on_limit(heard, looked, self._since_seen(heard))
        except EngineUnavailable:
            raise
        except InfraError as world:
            self.traces.say(f"{error.text} That is not its fault: {world.text}")
            self._stop(world)
            raise

    def _note(self, *, fault: Reason | None = None, wrote: Used | None = None) -> None:
        """Record what is known of it while it runs."""
        self.recorder.execution(self.execution, state="running", container=self.name, fault=fault, wrote=wrote)

    def _passed_limit(self, looked: float) -> SeatrialError | None:
        """Tell which limit it had passed when this look at it began, a `time.monotonic()` value.

        What it did while the look waited for the records or the object store is seen by the next one.
        """
        if self.traces.log_room() <= 0 and self.traces.log_left() > 0:  # first: beyond it, nothing is heard any more
            return self._log_limit()
        timeouts = self.timeouts
        limit = timeouts.get(self.step, timeouts["run"])
        if looked - self.traces.step_started > limit:
            return TimedOut(f"The step {self.step or 'run'} did not end within {format_duration(limit)} (timeouts).")
        if looked - self.traces.alive > timeouts["stall"]:
            stall = format_duration(timeouts["stall"])
            return Stalled(f"Nothing was printed and nothing finished for {stall} (timeouts.stall).")
        return self._disk.passed()

    def _tell_peak(self) -> None:
        """Record what it wrote when that has grown: whoever kills us, it is known, and so is what is yet to come."""
        if self.wrote is not None and self.wrote != self._told:
            self._told = self.wrote
            self._note(wrote=self.wrote)
