"""A data volume that runs full is enlarged, and then its partition and file system, where the settings allow it."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from jobs.machine_disk import SYS, disk_of_device, size_of
from jobs.machines import Disk
from runner.errors import InfraError

MOUNTS = Path("/proc/self/mounts")
GIB = 1 << 30
COMMAND_SECONDS = 120.0
# EC2 lets a volume rest for six hours after each change: hence by half of what it has, and no less than so much.
FACTOR, LEAST = 1.5, 10
# What a file system takes for itself: ext4 up to 3 %, XFS about 1 %. A disk that is larger by more has room to be had.
OWN = 0.05
AGAIN_SECONDS = 600.0
# What nobody needs is removed every two minutes: only what stays full after two rounds of that is enlarged.
FULL_SECONDS = 300.0

log = structlog.get_logger(__name__)

Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Mounted:
    """The file system that a path is on: its device, where it is mounted, and of what kind it is."""

    device: str
    point: str
    kind: str


def mounted(path: str, mounts: Path = MOUNTS) -> Mounted | None:
    """Find the file system of a path; None where it has no device."""
    found = None
    for line in mounts.read_text("utf-8").splitlines():
        device, point, kind = (word.replace("\\040", " ") for word in line.split()[:3])
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and (found is None or len(point) >= len(found.point)):
            found = Mounted(device, point, kind)
    return found if found is not None and found.device.startswith("/dev/") else None


def next_size(total: int, limit: int) -> int | None:
    """Give the GiB to which a volume of `total` bytes is enlarged, at most `limit` bytes; None when it is there."""
    now = math.ceil(total / GIB)
    size = min(limit // GIB, max(math.ceil(now * FACTOR), now + LEAST))
    return size if size > now else None


def as_root(*words: str) -> tuple[str, ...]:
    """Give a command as root runs it, without asking anybody for a password."""
    return words if os.geteuid() == 0 else ("sudo", "-n", *words)


def run(command: Sequence[str]) -> None:
    """Run a command; raises OSError with the end of what it said."""
    try:
        subprocess.run(list(command), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        if error.returncode == 1 and any(line.startswith("NOCHANGE") for line in (error.stdout or "").splitlines()):
            return  # growpart: there is nothing to do
        raise OSError(f"{command[0]}: {said[-1] if said else f'exit {error.returncode}'}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took longer than {COMMAND_SECONDS:.0f} s") from error


class Growing:
    """Enlarge one machine's data volume up to `limit` bytes. `enlarge`: asks EC2 for a volume of so many GiB.

    Nothing is remembered that the machine itself does not show: a warden that was killed in the middle goes on.
    """

    def __init__(
        self, limit: int, enlarge: Callable[[str, int], None], clock: Callable[[], float], *,
        run: Run = run, sys: Path = SYS, mounts: Path = MOUNTS,
    ) -> None:  # fmt: skip
        self._limit, self._enlarge, self._clock, self._run = limit, enlarge, clock, run
        self._sys, self._mounts = sys, mounts
        self._not_before = 0.0
        self._taken_up = 0
        self._full_since: float | None = None

    def look(self, disk: Disk, *, full: bool) -> None:
        """Do the next step, if there is one; what fails is told and tried again after a while."""
        now = self._clock()
        if not full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if now < self._not_before:
            return
        stays_full = self._full_since is not None and now - self._full_since >= FULL_SECONDS
        try:
            done = self._take_up(disk) or (stays_full and self._ask(disk))
        except (OSError, InfraError) as error:
            log.error("disk.not_grown", path=disk.path, volume=disk.volume, error=str(error))
            done = True
        if done:
            self._not_before = self._clock() + AGAIN_SECONDS

    def _ask(self, disk: Disk) -> bool:
        size = next_size(disk.total, self._limit)
        if disk.volume is None or size is None:
            return False
        self._enlarge(disk.volume, size)
        log.warning("disk.enlarged", volume=disk.volume, gib=size, free=disk.free)
        return False  # its room is taken up as soon as the kernel sees it

    def _take_up(self, disk: Disk) -> bool:
        """Let partition and file system have what the volume has."""
        place = mounted(disk.path, self._mounts)
        if place is None:
            return False
        status = os.stat(place.device)
        whole = disk_of_device(status.st_rdev, self._sys)
        if whole is None:
            return False
        own = (self._sys / "dev" / "block" / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve()
        size = size_of(whole)
        if size * (1 - OWN) <= disk.total or size == self._taken_up:
            return False
        if own != whole and size_of(own) < size * (1 - OWN):
            number = (own / "partition").read_text().strip()
            self._run(as_root("growpart", f"/dev/{whole.name}", number))
        self._run(_grow_command(place))
        self._taken_up = size
        log.warning("disk.grown", path=place.point, device=place.device, kind=place.kind)
        return True


def _grow_command(place: Mounted) -> tuple[str, ...]:
    if place.kind == "xfs":
        return as_root("xfs_growfs", place.point)
    if place.kind in ("ext4", "ext3", "ext2"):
        return as_root("resize2fs", place.device)
    raise OSError(f"a file system of the kind {place.kind} is not grown by Seatrial")


__all__ = ["Growing", "as_root", "mounted", "next_size", "run"]
