"""Whether this host has the room that it needs to take new work, for `seatrial doctor`."""

from __future__ import annotations

from jobs.doctor import Finding, Level
from jobs.floor import HostRoom
from jobs.keeping import MARK

REMEDY = (
    "Make room, use a larger disk, or lower server.disk_reserve and server.inode_reserve; see docs/troubleshooting.md, "
    "A host takes no new work."
)


def look_at_room(room: HostRoom) -> list[Finding]:
    """Look at the file systems of a host."""
    return [judge_room(room.lacking(), room.lacking(times=MARK))]


def judge_room(below_floor: str | None, below_mark: str | None) -> Finding:
    """Judge the room of a host by what it lacks to its floor, and to the mark at which it begins to part with things."""
    if below_floor is not None:
        return Finding("disk floor", Level.PROBLEM, f"this host takes no new work: {below_floor}", REMEDY)
    if below_mark is not None:
        text = f"images and trees that nobody needs are removed: {below_mark}"
        return Finding("disk floor", Level.WARNING, text, REMEDY)
    return Finding("disk floor", Level.OK, f"more than {MARK} times the reserve is free")
