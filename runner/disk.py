"""Hold a workspace to limits.disk, without holding up whoever follows it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from runner.errors import DiskFull, LimitExceeded, SeatrialError
from runner.quantities import format_size
from runner.quota import Quota, Used, most_files

DISK_SECONDS = 5.0
LAST_SECONDS = 1.0  # at its end, a tree that takes longer to walk through is not waited for
TRIM_SECONDS = 1.0  # what XFS gives back it reserves anew at the next write
# Below this the host counts as full: what fails then did not fail because of the branch.
HOST_FLOOR = 64 << 20
HOST_FILES = 1_024
_WALKS = (["du", "-sx", "--block-size=1"], ["du", "-sx", "--inodes"])


class DiskWatch:
    """What is used below a directory, asked again every 5 s; `du` walks, as deep and as long as it takes."""

    def __init__(self, root: Path, *, before: Callable[[], None] = lambda: None) -> None:
        self._root, self._before = root, before
        self._asking: list[subprocess.Popen[bytes]] = []
        self._began = 0.0
        self._next = time.monotonic() + DISK_SECONDS

    def poll(self) -> Used | None:
        """Give what is used when a walk has just ended, else None; never waits."""
        now = time.monotonic()
        if not self._asking:
            if now >= self._next:
                self._before()
                for command in _WALKS:  # one cannot tell both
                    walk = [*command, str(self._root)]
                    self._asking.append(subprocess.Popen(walk, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
                self._began = now
            return None
        if any(asking.poll() is None for asking in self._asking):
            return None
        found = []
        for asking in self._asking:
            assert asking.stdout is not None
            with asking.stdout as stdout:
                found.append(stdout.read().split(b"\t", 1)[0])
        self._asking = []
        # A large tree is asked more rarely, so that the asking stays below a tenth of the time.
        self._next = now + max(DISK_SECONDS, 10 * (now - self._began))
        # Files that vanish meanwhile leave a sum all the same.
        return Used(*map(int, found)) if all(text.isdigit() for text in found) else None

    def ask(self, *, patience: float) -> Used | None:
        """Give what is used now; None when that takes longer than so many seconds."""
        self._next = 0.0
        until = time.monotonic() + patience
        while (used := self.poll()) is None and time.monotonic() < until:
            time.sleep(0.002)
        return used

    def close(self) -> None:
        """End a walk that is under way; safe to call twice."""
        for asking in self._asking:
            asking.kill()
            asking.wait()
            if asking.stdout is not None:
                asking.stdout.close()
        self._asking = []


def host_is_full(path: Path) -> bool:
    """Tell whether the file system of a path has no room left for anybody."""
    status = os.statvfs(path)
    few = status.f_files and status.f_favail < HOST_FILES  # some file systems have as many as there is room for
    return bool(few) or status.f_bavail * status.f_frsize < HOST_FLOOR


class DiskLimit:
    """limits.disk of one workspace: by its project quota where it has one, and by asking how much there is.

    Asking goes on beside the quota: whoever owns a file may give it to another project. `peak`: the most that was seen.
    """

    def __init__(self, root: Path, limit: int, quota: Quota | None) -> None:
        self._root, self._limit, self._quota = root, limit, quota
        self._watch = DiskWatch(root, before=self._trim)
        self._next_trim = 0.0
        self.peak = Used()

    def passed(self) -> SeatrialError | None:
        """Tell of the limit when it was passed, or of a host without room; never waits."""
        if time.monotonic() >= self._next_trim and (error := self.over()) is not None:
            return error
        used = self._watch.poll()
        if used is None:
            return None
        self.peak = self.peak.or_more(used)
        if (error := self._beyond(used)) is not None:
            return error
        return DiskFull("The host's disk is full.") if host_is_full(self._root) else None

    def over(self) -> LimitExceeded | None:
        """Tell of the limit when the quota says that it is passed now: a write may have been refused."""
        error = self._beyond(self._used())
        if error is not None:
            self._trim()
            error = self._beyond(self._used())
        return error

    def ended(self) -> None:
        """Look at what is there once nothing writes any more: many write the most of it last."""
        self.peak = self.peak.or_more(self._watch.ask(patience=LAST_SECONDS) or Used())

    def _used(self) -> Used:
        return (self._quota.used() if self._quota is not None else None) or Used()

    def _trim(self) -> None:
        if self._quota is not None:
            self._next_trim = time.monotonic() + TRIM_SECONDS
            self._quota.trim()

    def close(self) -> None:
        """End what is under way; safe to call twice."""
        self._watch.close()

    def _beyond(self, used: Used) -> LimitExceeded | None:
        if used.size > self._limit:
            return disk_limit_passed(used.size, self._limit)
        if used.files > (most := most_files(self._limit)):
            return LimitExceeded(
                f"The workspace made {used.files:,} files; limits.disk, {format_size(self._limit)}, allows {most:,}. "
                "Make fewer, or raise workspace.limits.disk in seatrial.yml."
            )
        return None


def disk_limit_passed(used: int, limit: int) -> LimitExceeded:
    """Name the limit, what was written and what can be done."""
    return LimitExceeded(
        f"The workspace wrote {format_size(used)}; limits.disk is {format_size(limit)}. "
        "Write less, or raise workspace.limits.disk in seatrial.yml."
    )
