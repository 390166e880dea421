"""Parse the checkpoint file: one finished unit a line. Pure; it trusts nothing that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.model import UnitState

LINE_BYTES = 65_536
TEXT_CHARACTERS = 2_000
_TOO_LONG = f"a line of more than {LINE_BYTES:,} bytes was left out"
NAMED = 20  # so many wrong lines are named; the rest are counted


def failed_line(unit: str) -> str:
    """Give what is said in the log where a unit's mark as failed was taken."""
    return f"unit {unit} failed"


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
            if len(line) > LINE_BYTES:
                self._complain(_TOO_LONG)
                continue
            mark = self._mark(line)
            if mark is not None:
                marks.append(mark)
        if len(self._rest) > LINE_BYTES:
            if not self._skipping:
                self._complain(_TOO_LONG)
            self.offset += len(self._rest)
            self._rest, self._skipping = b"", True
        return marks

    def restart(self) -> None:
        """Begin at the first byte again: the file was truncated or replaced."""
        self.offset, self._rest, self._skipping = 0, b"", False

    def finish(self) -> None:
        """Note half a line at the end, which does not count, and how many lines were wrong without being named."""
        if self._rest:
            self._complain("the last line has no newline and does not count", self._rest)
            self._rest = b""
        if self._complaints > NAMED:
            self.problems.append(f"checkpoint: {self._complaints:,} lines are wrong in all")

    def _mark(self, line: bytes) -> Mark | None:
        line = line.removesuffix(b"\r")
        if not line:
            return None
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            self._complain("a line is not UTF-8", line)
            return None
        if "\x00" in text:
            self._complain("a line holds NUL bytes", line)
            return None
        if self.known is None:
            return Mark(text, UnitState.DONE, "", self.offset)
        unit, *rest = text.split("\t", 2)
        if unit not in self.known:
            self._complain("no such unit in SEATRIAL_UNITS", line)
            return None
        if rest and rest[0] not in ("failed", "done"):
            self._complain("after a unit comes nothing or `failed`", line)
            return None
        if unit in self._seen:
            self._complain("marked twice", line)
        self._seen.add(unit)
        state = UnitState.FAILED if rest and rest[0] == "failed" else UnitState.DONE
        reason = rest[1][:TEXT_CHARACTERS] if len(rest) > 1 else ""
        return Mark(unit, state, reason, self.offset)

    def _complain(self, text: str, line: bytes | None = None) -> None:
        self._complaints += 1
        if self._complaints <= NAMED:
            self.problems.append(f"checkpoint: {text}" + ("" if line is None else f": {_shown(line)}"))
        elif self._complaints == NAMED + 1:
            self.problems.append("checkpoint: more lines are wrong; they are counted, and not named any more")

    def take_problems(self) -> list[str]:
        """Give the problems since the last call."""
        found, self.problems = self.problems, []
        return found


def _shown(line: bytes) -> str:
    text = line[:80].decode("utf-8", "backslashreplace")
    return repr(text) + ("…" if len(line) > 80 else "")
