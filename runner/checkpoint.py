"""Parse the checkpoint file: one finished unit a line. Pure; it trusts nothing that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.model import UnitState

LINE_BYTES = 65_536
TEXT_CHARACTERS = 2_000


@dataclass(frozen=True)
class Mark:
    """A line of the checkpoint file: this unit is finished. `end` is the byte offset after the line."""

    unit: str
    state: UnitState
    text: str
    end: int


@dataclass
class CheckpointParser:
    """Turn bytes into marks; half a line is kept until its rest comes.

    `known`: the units that may be marked; None takes any token. `problems` names what was wrong, once a kind and
    value, and never stops the reading.
    """

    known: frozenset[str] | None
    offset: int = 0
    problems: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _skipping: bool = False
    _seen: set[str] = field(default_factory=set)
    _complaints: int = 0

    def feed(self, data: bytes) -> list[Mark]:
        """Take the next bytes and give the marks that they complete."""
        marks = []
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self.offset += len(line) + 1
            if self._skipping:
                self._skipping = False
                continue
            mark = self._mark(line)
            if mark is not None:
                marks.append(mark)
        if len(self._rest) > LINE_BYTES:
            if not self._skipping:
                self._complain(f"a line of more than {LINE_BYTES:,} bytes was left out")
            self.offset += len(self._rest)
            self._rest, self._skipping = b"", True
        return marks

    def finish(self) -> None:
        """Note half a line at the end: its mark was never completed, so it does not count."""
        if self._rest:
            self._complain(f"the last line has no newline and does not count: {_shown(self._rest)}")

    def _mark(self, line: bytes) -> Mark | None:
        line = line.removesuffix(b"\r")
        if not line:
            return None
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            self._complain(f"a line is not UTF-8: {_shown(line)}")
            return None
        if "\x00" in text:
            self._complain(f"a line holds NUL bytes: {_shown(line)}")
            return None
        unit, *rest = text.split("\t", 2)
        if self.known is not None and unit not in self.known:
            self._complain(f"no such unit in SEATRIAL_UNITS: {_shown(line)}")
            return None
        if rest and rest[0] not in ("failed", "done"):
            self._complain(f"after a unit comes nothing or `failed`: {_shown(line)}")
            return None
        if self.known is not None and unit in self._seen:
            self._complain(f"marked twice: {_shown(line)}")
        self._seen.add(unit)
        state = UnitState.FAILED if rest and rest[0] == "failed" else UnitState.DONE
        reason = rest[1][:TEXT_CHARACTERS] if len(rest) > 1 else ""
        return Mark(unit, state, reason, self.offset)

    def _complain(self, text: str) -> None:
        self._complaints += 1
        if self._complaints <= 20:
            self.problems.append(f"checkpoint: {text}")
        elif self._complaints == 21:
            self.problems.append("checkpoint: more lines are wrong; they are not named any more")

    def take_problems(self) -> list[str]:
        """Give the problems since the last call."""
        found, self.problems = self.problems, []
        return found


def _shown(line: bytes) -> str:
    text = line[:80].decode("utf-8", "backslashreplace")
    return repr(text) + ("…" if len(line) > 80 else "")
