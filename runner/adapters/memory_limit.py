"""Tell a container that reached its own limit of memory from one that the kernel killed for want of memory elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True)
class Look:
    """What the kernel told of a container that ran; None for what it did not tell.

    `reached`: how often it reached its own limit so far. `among`: how often any group beside it did, or itself, read before
    `reached`. `limit`: its own limit, and `bound`: the lowest of that and those of the groups that it is in, in bytes.
    """

    reached: int | None = None
    among: int | None = None
    limit: int | None = None
    bound: int | None = None


def kept(last: Look, among: int | None) -> bool:
    """Tell whether a container certainly did not reach its limit. `among`: as in Look, read after its end.

    It cannot where a group that it is in has a lower one. It had not when it was looked at last, and has not since when none
    of those beside it has either: the count stays when the container's own is gone.
    """
    if last.limit is not None and last.bound is not None and last.bound < last.limit:
        return True
    return last.reached == 0 and among is not None and last.among == among


class MemoryLimit:
    """What can be told of a container's limit of memory by its control group, of either version."""

    def __init__(self, groups: str, container: str, *, root: Path = GROUPS, mounts: Path = MOUNTS) -> None:
        """Take the text of a process' /proc/PID/cgroup, and the id of its container; nothing is told of any other."""
        paths = {names: path for _, names, path in (line.split(":", 2) for line in groups.splitlines())}
        self._first = "memory" in paths  # version 1, with a tree for each kind of resource
        path = paths.get("memory", paths.get("", ""))
        # Else it has made groups of its own, below the one with the limit, or the tree that is seen here is another one.
        ours = container in path.rpartition("/")[2] and ".." not in path.split("/")
        self._group = (root / "memory" if self._first else root) / path.lstrip("/") if ours else None
        self._mounts = mounts
        self._last = Look()

    def look(self) -> None:
        """See how it stands, while it runs; what its end has taken away changes nothing."""
        if self._group is None:
            return
        if self._first:
            limit = _read(self._group / "memory.limit_in_bytes")
            bound = _read(self._group / "memory.stat", "hierarchical_memory_limit")
            now = Look(limit=limit, bound=bound)
        else:
            among = self._among()  # first: what happens in between is in the other one
            now = Look(reached=_read(self._group / "memory.events", "oom"), among=among)
        self._last = self._last if now.limit is None and now.reached is None else now

    def kept(self) -> bool:
        """Tell, after its end, whether it certainly did not reach its limit."""
        return kept(self._last, self._among())

    def _among(self) -> int | None:
        """Count how often the groups below the container's parent reached a limit of theirs, those that are gone too."""
        if self._group is None or self._first:
            return None
        local = _read(self._group.parent / "memory.events.local", "oom")
        whole = _read(self._group.parent / "memory.events", "oom")
        again = _read(self._group.parent / "memory.events.local", "oom")
        if whole is None or local is None or local != again or self._counts_locally():
            return None
        return whole - local

    def _counts_locally(self) -> bool:
        """Tell whether no group counts what happens below it (an option of the mount), or this cannot be seen."""
        try:
            return "memory_localevents" in self._mounts.read_text()
        except OSError:
            return True


def _read(path: Path, key: str = "") -> int | None:
    """Read the number in a file, or the one that stands there after `key`; None when there is none."""
    try:
        for line in path.read_text().splitlines():
            name, _, number = line.rpartition(" ")
            if name == key:
                return int(number)
    except (OSError, ValueError):
        return None
    return None
