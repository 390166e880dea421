"""One container from its beginning to its end, with its clone, its door and its directories."""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.disk import disk_limit_passed
from runner.errors import (
    BranchError,
    ContainerLost,
    DatabaseLost,
    DiskFull,
    Drained,
    EngineUnavailable,
    Fenced,
    InfraError,
    LimitExceeded,
    OutputRefused,
    OutputsGone,
    ResumeRequested,
    StoreUnavailable,
)
from runner.files import open_inside
from runner.follow import Ended, Follower
from runner.fullness import RoomWatch
from runner.images import BuildHost
from runner.model import Order, Output, Reason, TaskKind, UnitResult, UnitState
from runner.outputs import Outputs
from runner.ports import PROBE_SLACK, Databases, Door, Engine, Objects, Recorder, Trees
from runner.quantities import format_size
from runner.workspace import Command, Workspace, container, workspace_ids

ONE_UNIT = "all"
LAST_LINES = 20
LINES_OF_A_RESUME = 8  # what a client says of a link that dropped takes some
LAST_BYTES = 4_096
_WRAPPER_LINE = re.compile(r"── \w+(?: ended after .*)?")


def _at_once(action: Callable[[], None]) -> None:
    action()


@dataclass(frozen=True)
class Runtime:
    """The world of one worker slot. `network`: the namespace its containers join (a pause container's, or `none`).
    `host`: the name that people know it by.

    `aside` does what nobody has to wait for; what it raises, the sweeper makes good.
    """

    engine: Engine
    trees: Trees
    objects: Objects
    databases: Callable[[str], Databases]
    door: Door
    executions: Path
    network: str = "none"
    build_host: BuildHost = field(default_factory=BuildHost)
    host: str = "this host"
    aside: Callable[[Callable[[], None]], None] = _at_once


@dataclass(frozen=True)
class WayOut:
    """Where a workspace's door leads to: a clone, the role for it, and the role that owns what is in it."""

    source: Databases
    database: str
    role: str
    owner: str


class Execution:
    """A container of a task. Leaving it takes away all that it had, unless it is to go on without us."""

    def __init__(self, order: Order, runtime: Runtime, recorder: Recorder, number: int) -> None:
        self.order, self.runtime, self.recorder, self.number = order, runtime, recorder, number
        self.name = order.container(number)
        self.workspace = Workspace(runtime.executions / self.name)
        self.last_step = ""
        self.finished: dict[str, UnitState] = {}
        self.voided: set[str] = set()
        self._way_out: WayOut | None = None
        self._tree: tuple[Path, ...] = ()
        self._room: RoomWatch | None = None
        self._probe_close: Callable[[], None] | None = None
        self._lost_between: Callable[[float, float], bool] | None = None
        self._outputs: Outputs | None = None
        self._follower: Follower | None = None
        self._exit_code: int | None = None
        self._fault: Reason | None = None
        self.resume_point: tuple[str, Output] | None = None
        self._kept = self._unstored = False
        self.left_before: tuple[int, ...] = ()
        self.stands = False
        self._closed = False
        self.gone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        to_be_stored = self._unstored and isinstance(error, (InfraError, OSError))
        if to_be_stored or isinstance(error, (Drained, Fenced, EngineUnavailable, StoreUnavailable)):
            self._stop_watching()  # it goes on running, or its files wait, for whoever claims the task next
            return
        if isinstance(error, BranchError):
            self._fault = Reason(error.code, error.text)
        self._keep_resume_point()
        if error is None:
            self.close()
            return
        with contextlib.suppress(InfraError):  # the sweeper takes away what could not be taken away now
            self.close()

    @classmethod
    def standing(cls, order: Order, runtime: Runtime, recorder: Recorder) -> Self | None:
        """Give the execution that an earlier attempt left on this host; None when there is none to go on with.

        One whose container is gone has files that are still to be taken: marks of a batch, or how it ended.
        """
        if order.live is None:
            return None
        left = cls(order, runtime, recorder, order.live)
        state = runtime.engine.inspect(left.name)
        left.gone = state is None
        began = state is None or state.status != "created"
        worth = not left.gone or order.kind is TaskKind.VERIFY or left.has_ended()
        if left.workspace.complete() and began and worth:
            left.stands = True
            return left
        runtime.door.close(left.name)
        left.close()
        return None

    @classmethod
    def next(cls, order: Order, runtime: Runtime, recorder: Recorder) -> Self:
        """Give the execution that an earlier attempt left on this host, else a new one."""
        left = cls.standing(order, runtime, recorder)
        if left is not None:
            return left
        execution = cls(order, runtime, recorder, recorder.next_execution())
        execution._end_those_before()
        return execution

    def _end_those_before(self) -> None:
        """Take away the task's containers and doors that an end which broke off left here: two never run at once.

        Their databases and directories follow before this one starts.
        """
        for number in range(1, self.number):
            name = self.order.container(number)
            if Workspace(self.runtime.executions / name).complete():
                self.runtime.engine.remove(name)
                self.runtime.door.close(name)
                self.left_before += (number,)

    def has_ended(self) -> bool:
        """Tell whether its wrapper left an exit file."""
        try:
            open_inside(self.workspace.io, "exit").close()
        except (FileNotFoundError, OutputRefused):
            return False
        return True

    # ---- the run itself -------------------------------------------------------------------------------

    def run(
        self,
        commands: Sequence[Command],
        *,
        image: str,
        tree: tuple[Path, ...],
        way_out: WayOut | None,
        units: tuple[str, ...] | None = None,
    ) -> Ended:
        """Run the commands in a new container, or go on with the one that stands; follow it to its end."""
        self._way_out, self._tree = way_out, tree
        spec = self.order.spec
        if way_out is not None:
            probe = way_out.source.probe()
            self._probe_close, self._lost_between = probe.close, probe.lost_between
        if self.stands:
            self.recorder.log(f"seatrial: attempt {self.order.attempt} goes on with {self.name}\n".encode())
            units = self._given_units() if units is not None else None
        else:
            for number in self.left_before:
                Workspace(self.runtime.executions / self.order.container(number)).remove()
            self.workspace.lay_out(commands, units, tree)
            means = self.workspace.limit_disk(spec.workspace.limits.disk)
            limit = format_size(spec.workspace.limits.disk)
            self.recorder.log(f"seatrial: {self.name}; limits.disk, {limit}, is {means}\n".encode())
        self._room = RoomWatch(self.workspace.root)
        self._outputs = Outputs(
            self.workspace.output, self.runtime.objects, units or (), file_limit=spec.workspace.limits.file
        )
        # Before the container starts: the follower opens its files while nobody can have put others in their place.
        follower = self._follower = Follower(
            order=self.order,
            execution=self.number,
            workspace=self.workspace,
            engine=self.runtime.engine,
            recorder=self.recorder,
            outputs=self._outputs,
            units=units,
            timeouts={
                "setup": spec.timeouts.setup,
                "migrate": spec.timeouts.migrate,
                "run": spec.timeouts.run,
                "stall": spec.timeouts.stall,
            },
            on_step=self._on_step,
            on_failure=self._blame_the_world,
            on_limit=self._blame_the_world_for_silence,
        )
        self.finished, self.voided = follower.traces.finished, follower.traces.voided
        try:
            if not self.stands:
                self._start(image, tree, units)
            ended = follower.follow()
            self._blame_removals()
        except FileNotFoundError:  # of our own files: what the branch leaves out is its fault, and told otherwise
            self._blame_removals()
            raise
        finally:
            follower.close()
            self.last_step = follower.step
        self._exit_code = ended.exit_code
        return ended

    def _start(self, image: str, tree: tuple[Path, ...], units: tuple[str, ...] | None) -> None:
        self._restore_output()
        database = self._open_door()
        described = container(
            self.order,
            self.number,
            self.workspace,
            image=image,
            tree=tree,
            network=self.runtime.network,
            database=database,
            units=units is not None,
        )
        self.recorder.execution(self.number, state="running", container=self.name)
        self.runtime.engine.create(described)
        self.runtime.engine.start(self.name)

    def _restore_output(self) -> None:
        """Put back what the script had written by its resume point."""
        kept = self.order.resume_output
        if kept is None or self._outputs is None:
            return
        try:
            self._outputs.restore(kept, workspace_ids())
        except KeyError as error:
            text = "What the script had written by its resume point was removed from the store; rerun begins anew."
            raise OutputsGone(text) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            limit = self.order.spec.workspace.limits.disk
            if self.workspace.quota() is not None and kept.size > limit:
                raise disk_limit_passed(kept.size, limit) from error
            raise DiskFull("The host's disk is full.") from error

    def _open_door(self) -> Path | None:
        out = self._way_out
        if out is None:
            return None
        login = out.source.login(out.database, role=out.role, owner=out.owner, fence=self.recorder.renew)
        tcp = self.order.spec.database is not None and self.order.spec.database.tcp
        network = self.runtime.network.removeprefix("container:") if tcp else None
        return self.runtime.door.open(self.name, login, tcp_network=network)

    def _on_step(self, name: str, state: str, seconds: float | None, code: int | None) -> None:
        detail = f"exit code {code}" if code else ""
        self.recorder.step(name, state=state, seconds=seconds, detail=detail)

    def _given_units(self) -> tuple[str, ...]:
        text = (self.workspace.control / "units").read_text("utf-8")
        return tuple(text.split("\n")[:-1])

    # ---- what its end means ---------------------------------------------------------------------------

    def resume_requested(self, ended: Ended) -> ResumeRequested:
        """Give the interruption that exit 75 asks for, with what the world did to it, if it did anything."""
        text = "The script asked to be resumed (exit code 75)."
        try:
            self.blame_the_world_first(ended)
        except EngineUnavailable:  # so nobody knows
            pass
        except InfraError as world:
            text += f" {world.text}"
        return ResumeRequested(f"{text} {self.last_lines(LINES_OF_A_RESUME)}".strip())

    def blame_the_world_first(self, ended: Ended) -> None:
        """Raise what the world did to a script that ended with an error or left units out, if it did anything."""
        self._blame_the_world(ended.since, ended.at, ended.watched)

    def _blame_the_world(self, since: float, until: float, watched: bool) -> None:
        """Raise ContainerLost when directories of it were removed, DiskFull when the host has no room left, DatabaseLost
        when the door's gateway or the database did not live through it, or when door and probe agree that the link
        dropped between two `time.monotonic()` values.

        These are the whole watch: a script may notice late, and finish other units meanwhile. The gateway logs the same
        line when branch code ends its own session, so its word alone is no evidence. Nobody can tell of the time in which
        a container was left: until something was marked under watch, what broke may have broken then, and is run again.
        """
        self._blame_removals()
        if self._room is not None and self._room.was_full(since):
            raise DiskFull("The host's disk is full.")
        if self._way_out is None or self._lost_between is None:
            return
        if not self.runtime.door.alive(self.name):
            raise DatabaseLost("The connection to the database dropped: the door's gateway was ended from outside.")
        dropped = self.runtime.door.dropped(self.name)
        unwatched = self.stands and not watched
        if dropped and (unwatched or self._lost_between(since, until)):
            raise DatabaseLost(f"The connection to the database dropped: {dropped[-1]}")
        out = self._way_out
        if dropped and not out.source.stands(out.database, role=out.role):
            raise DatabaseLost(f"The database {out.database}, or its role, was dropped from outside.")

    def _blame_the_world_for_silence(self, since: float, until: float, watched: bool) -> None:
        """Raise what the world did since a script was last heard; also DatabaseLost while the server does not answer.

        A session that hangs tells the door nothing for as long as somebody on the way acknowledges what it sends.
        """
        self._blame_the_world(since, until, watched)
        if self._lost_between is not None and all(self._is_lost() for _ in range(2)):  # and not slow for once
            raise DatabaseLost("The database server does not answer.")

    def _is_lost(self) -> bool:
        """Tell whether the link is down from now on, and not only a moment ago."""
        assert self._lost_between is not None
        later = time.monotonic() + PROBE_SLACK
        return self._lost_between(later, later)

    def _blame_removals(self) -> None:
        """Raise ContainerLost when directories that the container works in are gone: nothing in it can remove these."""
        workspace = self.workspace
        for path in (workspace.control, workspace.io, workspace.output, *self._tree):
            if not path.is_dir():
                raise ContainerLost(f"{path} was removed from {self.runtime.host} while the container ran.")

    def say(self, text: str) -> None:
        """Write a line of ours into the log."""
        if self._follower is not None:
            self._follower.traces.say(text)
        else:
            self.recorder.log(f"seatrial: {text}\n".encode())

    def last_lines(self, count: int = LAST_LINES) -> str:
        """Give the last lines that the script printed."""
        try:
            with open_inside(self.workspace.io, "log") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - LAST_BYTES))
                found = file.read(LAST_BYTES).decode("utf-8", "replace").splitlines()
                lines = [line for line in found if not _WRAPPER_LINE.fullmatch(line)]
        except (FileNotFoundError, OutputRefused):
            return ""
        return "Last lines:\n" + "\n".join(lines[-count:]) if lines else ""

    def whole_output(self, ended: Ended) -> UnitResult:
        """Store everything in the output directory as the output of a script without units.

        Hours of work are in it: when there is no room for it now, it stays until the next attempt.
        """
        assert self._outputs is not None
        self._unstored = True
        result = UnitResult(ONE_UNIT, UnitState.DONE, self._outputs.take_all(), seconds=ended.seconds)
        self._unstored = False
        self.finished[ONE_UNIT] = result.state
        return result

    # ---- the end --------------------------------------------------------------------------------------

    def _stop_watching(self) -> None:
        if self._room is not None:
            self._room.close()
        if self._probe_close is not None:
            self._probe_close()
            self._probe_close = None

    def close(self) -> None:
        """Take away container, door, clone and directories, in this order; safe to call twice.

        What it says of its end comes first: an attempt that is no longer the current one takes nothing away.
        """
        if self._closed:
            return
        self._stop_watching()
        self._keep_resume_point()
        dead = self._follower is not None and self._follower.dead
        if self.workspace.root.exists():
            self._record("ended")
        if not dead:
            self.runtime.engine.remove(self.name)
        if self.order.spec.database is not None:  # not only when this attempt opened it: it may have taken it over
            self.runtime.door.close(self.name)
        out = self._way_out
        if out is not None:
            if out.database == self.order.leg_database():  # the template, or the leg's own: others use it
                out.source.shut(out.role)  # what hangs on there would hold its locks against the next execution
            else:
                out.source.drop(out.database, role=out.role)
            self._way_out = None
        self.workspace.give_up()
        if dead:
            self.runtime.aside(self._clear)
        else:
            self.workspace.remove()
        self._closed = True

    def _record(self, state: str) -> None:
        self.recorder.execution(
            self.number,
            state=state,
            container=self.name,
            exit_code=self._exit_code,
            fault=self._fault,
            wrote=self._follower.wrote if self._follower is not None else None,
        )

    def _clear(self) -> None:
        """Take away what is left of a container that has ended: nobody has to wait for that."""
        self.runtime.engine.remove(self.name)
        self.workspace.remove()

    def _keep_resume_point(self) -> None:
        """Keep what a script without units has written so far, with the last token that it gave.

        Until that is done it has not ended by the records: when it fails, the next attempt finds the files and does it.
        """
        follower, outputs = self._follower, self._outputs
        if self._kept or follower is None or outputs is None or self.finished:
            return
        token = follower.traces.last_token
        if follower.units is not None or token is None:
            return
        self._stop_watching()
        self._record("running")  # refused when the attempt is not the current one any more
        if not follower.dead:
            self.runtime.engine.remove(self.name)
        outputs.check = lambda: None  # whatever else is asked of us
        try:
            output = outputs.take_all()
        except (OutputRefused, LimitExceeded) as error:
            self.recorder.log(f"seatrial: the resume point cannot be kept: {error.text}\n".encode())
        else:
            self.recorder.resume_point(token, output)
            self.resume_point = (token, output)
        self._kept = True
