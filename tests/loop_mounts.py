"""File systems that tests mount from files of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

TRIES = 3


def can_mount(program: str) -> bool:
    """Tell whether somebody here may make a file system with a program, and mount it."""
    return os.geteuid() == 0 and shutil.which(program) is not None and os.path.exists("/dev/loop-control")


def can_be_made(make: Callable[[], AbstractContextManager[object]]) -> bool:
    """Tell whether this machine can mount such a file system, which a kernel may refuse.

    All processes of a parallel run must find the same, so a machine that is busy for a moment does not count.
    """
    for _ in range(TRIES):
        try:
            with make():
                return True
        except subprocess.CalledProcessError:
            time.sleep(0.2)
    return False


def unmount(point: Path) -> None:
    """Unmount a file system; what has just ended may hold it for a moment."""
    deadline = time.monotonic() + 20
    while subprocess.run(["umount", point], check=False, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, f"{point} stays mounted"
        time.sleep(0.1)
