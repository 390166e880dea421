"""What a machine does, as it sees itself: containers, people who are logged in, shells. What cannot be told is busy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from runner.errors import EngineUnavailable
from runner.model import ContainerState

PROC = Path("/proc")
WHO_SECONDS = 5.0
# Unix98 pseudo terminals, Documentation/admin-guide/devices.txt: what SSH, a terminal multiplexer or an agent opens.
_FIRST_PTS, _LAST_PTS = 136, 143
# Session Manager's shells are in no list of logins; its worker process is there as long as one is open.
_SESSION_WORKER = "ssm-session-wor"
_SHOWN = 3  # of each kind


def containers(find: Callable[[], Iterable[ContainerState]]) -> tuple[str, ...]:
    """Name the containers of this installation that are not over; the slots' pause containers do nothing."""
    try:
        found = [one for one in find() if one.status not in ("exited", "dead") and one.labels.get("kind") != "pause"]
    except EngineUnavailable as error:
        return (f"its containers cannot be told: {error.text}",)
    return _some([f"container {one.name}" for one in found])


def people(who: Sequence[str] = ("who",), proc: Path = PROC) -> tuple[str, ...]:
    """Name who is logged in, and the terminals and sessions that are open without a login."""
    logins = _logged_in(who)
    if logins is None:
        return ("who is logged in cannot be told",)
    said = [f"{user} is logged in on {line}" for line, user in logins.items()]
    said += [f"a shell is open on {line} ({command})" for line, command in _terminals(proc) if line not in logins]
    return _some(said)


def _logged_in(who: Sequence[str]) -> dict[str, str] | None:
    """Ask `who`, which knows where this system keeps its list: line → user; None when it does not answer."""
    try:
        asked = subprocess.run(list(who), capture_output=True, text=True, timeout=WHO_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    words = [line.split() for line in asked.stdout.splitlines()]
    return {line[1]: line[0] for line in words if len(line) >= 2}


def _terminals(proc: Path) -> Iterator[tuple[str, str]]:
    """Give (line, command) of each pseudo terminal that a process has, and of each session of Session Manager."""
    found: dict[str, str] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text("utf-8", "replace")
        except OSError:
            continue  # it ended meanwhile
        command, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if command == _SESSION_WORKER:
            found.setdefault(f"session {entry.name}", "Session Manager")
        device = int(fields[4])
        major, minor = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
        if _FIRST_PTS <= major <= _LAST_PTS:
            found.setdefault(f"pts/{(major - _FIRST_PTS) * 256 + minor}", command)
    yield from sorted(found.items())


def _some(names: list[str]) -> tuple[str, ...]:
    names = sorted(names)
    more = len(names) - _SHOWN
    return (*names[:_SHOWN], f"and {more} more") if more > 0 else tuple(names)


__all__ = ["containers", "people"]
