"""Read the file `steps` that the wrapper writes: begin and end of each command, in their order."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from runner.files import Tail

LINE_BYTES = 4_096


@dataclass(frozen=True)
class Ending:
    """How the wrapper ended. `stopped`: a signal from outside asked for it."""

    code: int
    stopped: bool = False


@dataclass(frozen=True)
class StepEvent:
    """A command began (`running`) or ended (`done`, `failed`); the rest is what a journal keeps of it."""

    name: str
    state: str
    seconds: float | None
    code: int | None
    told: int
    position: int
    began: float | None


class StepReader:
    """Give the events of the commands that are expected, in their order, each once.

    Branch code can write to the file too: lines out of turn are left out, and times outside of what can be are not
    believed. `began` is the machine's uptime when the present command began, None when none runs.
    """

    def __init__(self, io: Path, commands: tuple[str, ...], told: int, position: int, began: float | None) -> None:
        self._tail = Tail(io, "steps", told)
        self._commands = commands
        self._rest = b""
        self._position = position
        self.began = began
        self._last = began

    @property
    def name(self) -> str:
        """Name the command that runs, or ran last."""
        if not self._commands:
            return ""
        position = self._position if self.began is not None else self._position - 1
        return self._commands[max(0, min(position, len(self._commands) - 1))].split("-", 1)[-1]

    def began_at(self) -> float:
        """Give the `time.monotonic()` value at which the command that runs, or ran last, began."""
        now = time.monotonic()
        return now if self._last is None else now - max(0.0, _uptime() - self._last)

    def read(self) -> list[StepEvent]:
        """Give what happened since; raises OutputRefused as Tail does."""
        self._rest += self._tail.read(65_536)
        events = []
        while b"\n" in self._rest:
            line, self._rest = self._rest.split(b"\n", 1)
            event = self._event(line.decode("utf-8", "replace").split("\t"))
            if event is not None:
                events.append(event)
        if len(self._rest) > LINE_BYTES:
            self._rest = b""
        return events

    def _event(self, parts: list[str]) -> StepEvent | None:
        if self._position >= len(self._commands) or len(parts) < 3 or parts[1] != self._commands[self._position]:
            return None
        name = parts[1].split("-", 1)[-1]
        told = self._tail.offset - len(self._rest)
        if parts[0] == "begin" and self.began is None:
            self.began = self._last = self._time(parts[2])
            return StepEvent(name, "running", None, None, told, self._position, self.began)
        if parts[0] == "end" and self.began is not None and len(parts) == 4 and parts[3].isdecimal():
            code = int(parts[3][:3])
            seconds = max(0.0, self._time(parts[2]) - self.began)
            self.began = None
            self._position += 1
            return StepEvent(name, "done" if code == 0 else "failed", seconds, code, told, self._position, None)
        return None

    def _time(self, text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        now = _uptime()
        # One in the future would put a timeout off.
        return found if 0.0 <= found <= now else now

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._tail.close()


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
