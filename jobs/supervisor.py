"""Keep child processes alive: start them, bring back what died, end all in order."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import structlog

from jobs.flag import Flag
from jobs.forked import Forked
from runner.parent import end_with_parent

STEADY_SECONDS = 10.0  # a child that lived this long starts again at once
LONGEST_PAUSE = 3.0  # a start is cheap, and somebody may wait for it
DRAIN_SECONDS = 10.0
LAST_SECONDS = 2.0  # that the ones which others needed have at least
POLL_SECONDS = 0.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Program:
    """A child to keep alive. `died` is told its name after each death, before it starts again.

    `main`: what a fork of the supervisor calls with `command`'s words, instead of executing `command`: all that the
    supervisor has imported is there, so it starts in milliseconds. `needed_by_others`: it ends when all the others have.
    `holds`: open files that it inherits.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    died: Callable[[str], None] | None = None
    needed_by_others: bool = False
    holds: Sequence[int] = ()
    main: Callable[[Sequence[str]], object] | None = None


class _Child:
    def __init__(self, program: Program, surroundings: Mapping[str, str], output: IO[bytes] | None) -> None:
        self.program = program
        self._output = output
        self._surroundings = surroundings
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._started = 0.0
        self._failures = 0
        self._due = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        try:
            self.process = self._execute() if self.program.main is None else self._fork(self.program.main)
        except OSError as error:
            log.error("child.not_started", child=self.program.name, error=str(error))
            self._wait_longer(self._started)
            return
        log.info("child.started", child=self.program.name, pid=self.process.pid)

    def _environment(self) -> dict[str, str]:
        return dict(self._surroundings) | dict(self.program.environment)

    def _execute(self) -> subprocess.Popen[bytes]:
        streams: dict[str, Any] = {} if self._output is None else {"stdout": self._output, "stderr": self._output}
        # A session of its own: Ctrl-C reaches the supervisor alone, which then asks the children in order.
        return subprocess.Popen(
            list(self.program.command),
            env=self._environment(),
            start_new_session=True,
            pass_fds=self.program.holds,
            preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
            **streams,
        )

    def _fork(self, main: Callable[[Sequence[str]], object]) -> Forked:
        # What is there now is shared with the child, and no collection of the child's touches it. What the death of one
        # before left behind would never go, once it is frozen.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        parent = os.getpid()

        def child() -> None:
            end_with_parent(parent, signal.SIGTERM)  # what restarts the supervisor starts all anew
            if self._output is not None:
                os.dup2(self._output.fileno(), 1)
                os.dup2(self._output.fileno(), 2)
            main(self.program.command)

        return Forked(child, self.program.command, self._environment())

    def look(self) -> None:
        """Notice a death, and start again when the pause is over."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        pause = self._wait_longer(now)
        log.warning("child.died", child=self.program.name, code=code, again_in=round(pause, 1))
        if self.program.died is not None:
            self.program.died(self.program.name)

    def _wait_longer(self, now: float) -> float:
        """Set when it starts again; gives the pause, which doubles while it does not live for long."""
        self._failures = 0 if now - self._started >= STEADY_SECONDS else self._failures + 1
        pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(self._failures, 20)) if self._failures else 0.0
        self._due = now + pause
        return pause


class Supervisor:
    """Run programs until told to stop; what has not ended `patience` seconds later (DRAIN_SECONDS) is killed.

    `each_turn` is called after each look at the programs, ten times a second: it must not block.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        surroundings: Mapping[str, str],
        *,
        output: IO[bytes] | None = None,
        patience: float | None = None,
        each_turn: Callable[[], None] | None = None,
    ) -> None:
        self._each_turn = each_turn
        self._patience = DRAIN_SECONDS if patience is None else patience
        self._children = [_Child(program, surroundings, output) for program in programs]
        self._stop = Flag()  # a signal handler raises it
        self._signals = 0
        self._killed: set[str] = set()
        self.cut_off: list[str] = []  # those that our signal ended, or that had to be killed when their time was over
        self.crashed: list[str] = []  # those that ended badly by themselves since they were looked at last

    def install_signals(self) -> None:
        """End on SIGTERM or SIGINT; at once on the second."""
        signal.signal(signal.SIGTERM, self._signalled)
        signal.signal(signal.SIGINT, self._signalled)

    def _signalled(self, _number: int, _frame: object) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._kill(self._children)

    def stop(self) -> None:
        """Ask the loop to end."""
        self._stop.set()

    def stopping(self) -> bool:
        """Tell whether the loop was asked to end."""
        return self._stop.is_set()

    def pids(self) -> dict[str, int]:
        """Give the process ids of the children that live."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None}

    def run(self) -> None:
        """Keep all alive until stopped; then end them."""
        try:
            while not self._stop.is_set():
                for child in self._children:
                    child.look()
                if self._each_turn is not None:
                    self._each_turn()
                self._stop.wait(POLL_SECONDS)
        finally:
            self._end()

    def _end(self) -> None:
        deadline = time.monotonic() + self._patience
        self._end_some([child for child in self._children if not child.program.needed_by_others], deadline)
        deadline = max(deadline, time.monotonic() + LAST_SECONDS)
        self._end_some([child for child in self._children if child.program.needed_by_others], deadline)

    def _end_some(self, children: list[_Child], deadline: float) -> None:
        living = [(child.program.name, child.process) for child in children if child.process is not None]
        dead = {name for name, process in living if process.poll() is not None}
        for _, process in living:
            process.terminate()
        try:
            for _, process in living:
                process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._kill(children)  # all of them first: none takes its time from those that come after it
        for name, process in living:
            code = process.wait()
            if name in self._killed:
                log.warning("child.killed", child=name)
            if (code == -signal.SIGTERM and name not in dead) or (code == -signal.SIGKILL and name in self._killed):
                self.cut_off.append(name)
            elif code != 0 or name in dead:
                self.crashed.append(name)

    def _kill(self, children: Sequence[_Child]) -> None:
        for child in children:
            if child.process is not None and child.process.poll() is None:
                self._killed.add(child.program.name)  # and no more: a signal's handler must not write
                child.process.kill()
