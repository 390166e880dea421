"""Watch how much a workspace has written, without holding up whoever follows it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

DISK_SECONDS = 5.0
# Below this the host counts as full: what fails then did not fail because of the branch.
HOST_FLOOR = 64 << 20


class DiskWatch:
    """The bytes on disk below a directory, asked again every 5 s; `du` walks, as deep and as long as it takes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._asking: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._next = time.monotonic() + DISK_SECONDS

    def poll(self) -> int | None:
        """Give the bytes that are used when a walk has just ended, else None; never waits."""
        now = time.monotonic()
        if self._asking is None:
            if now >= self._next:
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
