"""The room of a machine, and which EBS volume it is on; what people should do about it, in words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from jobs.machines import Disk
from runner.room import Room

SYS = Path("/sys")
SECTOR = 512  # what the kernel counts block devices in, whatever their own blocks are
LITTLE = 0.1  # of a disk, below which people are told what to do


def disk_of(rooms: Iterable[Room], sys: Path = SYS) -> Disk | None:
    """Give the file system of which the least is left, by bytes or by files; None where none can be looked at."""
    tightest = min(rooms, key=_left, default=None)
    if tightest is None:
        return None
    room = tightest
    return Disk(room.free, room.total, room.inodes, room.inodes_total, room.path, volume_of(room.device, sys))


def _left(room: Room) -> float:
    bytes_left = room.free / room.total if room.total else 1.0
    return min(bytes_left, room.inodes / room.inodes_total if room.inodes_total else 1.0)


def volume_of(device: int, sys: Path = SYS) -> str | None:
    """Give the id of the EBS volume that a device, or what it is a partition or a layer of, is on; None for no such.

    Instances of today show them as NVMe disks, whose serial number is the id without its dash.
    """
    disk = disk_of_device(device, sys)
    try:
        serial = (disk / "device" / "serial").read_text("ascii", "replace").strip() if disk is not None else ""
    except OSError:
        return None
    return f"vol-{serial.removeprefix('vol')}" if serial.startswith("vol") else None


def disk_of_device(device: int, sys: Path = SYS) -> Path | None:
    """Give the directory of the whole disk below a device in /sys; None where it stands on several, or on none."""
    place = sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    if not place.exists():
        return None
    place = place.resolve()
    while len(slaves := sorted((place / "slaves").iterdir()) if (place / "slaves").is_dir() else []) == 1:
        place = slaves[0].resolve()
    if slaves:
        return None
    return place.parent if (place / "partition").exists() else place


def size_of(block: Path) -> int:
    """Give the bytes of a disk or partition in /sys; raises OSError."""
    return int((block / "size").read_text()) * SECTOR


def advice(disk: Disk, *, grows_to: str | None) -> str | None:
    """Tell what to do about a disk of which little is left; None while there is enough."""
    left = disk.free / disk.total if disk.total else 1.0
    files_left = disk.inodes_free / disk.inodes_total if disk.inodes_total else 1.0
    if min(left, files_left) >= LITTLE:
        return None
    what = f"Only {disk.inodes_free:,} more files can be made. " if left >= LITTLE else ""
    volume = f"volume {disk.volume}" if disk.volume else "disk"
    if grows_to is not None and disk.volume:
        return f"{what}Its {volume} is grown, up to {grows_to}, where it stays below twice the reserve."
    return f"{what}Grow its {volume}, or let Seatrial do so: grow_disk."


__all__ = ["advice", "disk_of", "disk_of_device", "size_of", "volume_of"]
