"""Hold a workspace to limits.disk, without holding up whoever follows it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from runner.errors import DiskFull, LimitExceeded, SeatrialError
from runner.quantities import format_size
from runner.quota import Quota

DISK_SECONDS = 5.0
TRIM_SECONDS = 1.0  # what XFS gives back it reserves anew at the next write
# Below this the host counts as full: what fails then did not fail because of the branch.
HOST_FLOOR = 64 << 20


class DiskWatch:
    """The bytes on disk below a directory, asked again every 5 s; `du` walks, as deep and as long as it takes."""

    def __init__(self, root: Path, *, before: Callable[[], None] = lambda: None) -> None:
        self._root, self._before = root, before
        self._asking: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._next = time.monotonic() + DISK_SECONDS

    def poll(self) -> int | None:
        """Give the bytes that are used when a walk has just ended, else None; never waits."""
        now = time.monotonic()
        if self._asking is None:
            if now >= self._next:
                self._before()
                command = ["du", "-sx", "--block-size=1", str(self._root)]
                self._asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                self._began = now
            return None
        if self._asking.poll() is None:
            return None
        assert self._asking.stdout is not None
        with self._asking.stdout as stdout:
            text = stdout.read()
        self._asking = None
        # A large tree is asked more rarely, so that the asking stays below a tenth of the time.
        self._next = now + max(DISK_SECONDS, 10 * (now - self._began))
        found = text.split(b"\t", 1)[0]
        return int(found) if found.isdigit() else None  # files that vanish meanwhile leave a sum all the same

    def close(self) -> None:
        """End a walk that is under way; safe to call twice."""
        if self._asking is not None:
            self._asking.kill()
            self._asking.wait()
            if self._asking.stdout is not None:
                self._asking.stdout.close()
            self._asking = None


def host_is_full(path: Path) -> bool:
    """Tell whether the file system of a path has no room left for anybody."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize < HOST_FLOOR


class DiskLimit:
    """limits.disk of one workspace: by its project quota where it has one, and by asking how much there is.

    Asking goes on beside the quota: whoever owns a file may give it to another project.
    """

    def __init__(self, root: Path, limit: int, quota: Quota | None) -> None:
        self._root, self._limit, self._quota = root, limit, quota
        self._watch = DiskWatch(root, before=self._trim)
        self._next_trim = 0.0

    def passed(self) -> SeatrialError | None:
        """Tell of the limit when it was passed, or of a host without room; never waits."""
        if time.monotonic() >= self._next_trim and (error := self.over()) is not None:
            return error
        used = self._watch.poll()
        if used is None:
            return None
        if used > self._limit:
            return self._error(used)
        return DiskFull("The host's disk is full.") if host_is_full(self._root) else None

    def over(self) -> LimitExceeded | None:
        """Tell of the limit when the quota says that it is passed now: a write may have been refused."""
        used = self._used()
        if used > self._limit:
            self._trim()
            used = self._used()
        return self._error(used) if used > self._limit else None

    def _used(self) -> int:
        return (self._quota.used() or 0) if self._quota is not None else 0

    def _trim(self) -> None:
        if self._quota is not None:
            self._next_trim = time.monotonic() + TRIM_SECONDS
            self._quota.trim()

    def close(self) -> None:
        """End what is under way; safe to call twice."""
        self._watch.close()

    def _error(self, used: int) -> LimitExceeded:
        return disk_limit_passed(used, self._limit)


def disk_limit_passed(used: int, limit: int) -> LimitExceeded:
    """Name the limit, what was written and what can be done."""
    return LimitExceeded(
        f"The workspace wrote {format_size(used)}; limits.disk is {format_size(limit)}. "
        "Write less, or raise workspace.limits.disk in seatrial.yml."
    )
