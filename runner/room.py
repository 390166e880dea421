"""The room on a file system, and the floor below which a host takes no new work. Pure but for `look`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.quantities import QuantityError, format_size, parse_size
from runner.quota import Used

_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,3})?) ?%")


@dataclass(frozen=True)
class Reserve:
    """What has to stay free: so many (bytes, or files), or so many percent of all."""

    count: int = 0
    percent: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Reserve:
        """Read `1g`, `20000` or `5%`; raises QuantityError."""
        if match := _PERCENT.fullmatch(text.strip()):
            return cls(percent=float(match[1]))
        try:
            return cls(count=parse_size(text))
        except QuantityError:
            raise QuantityError("is not a reserve; write it as 1g, 512m or 5%; 0 is none") from None

    def of(self, total: int) -> int:
        """Give what has to stay free of `total`."""
        return self.count or int(total * self.percent / 100)


@dataclass(frozen=True)
class Floor:
    """What has to stay free on each file system that a host's work is written to."""

    disk: Reserve
    inodes: Reserve

    def times(self, factor: int) -> Floor:
        """Give a mark above the floor."""
        return Floor(
            Reserve(self.disk.count * factor, self.disk.percent * factor),
            Reserve(self.inodes.count * factor, self.inodes.percent * factor),
        )


@dataclass(frozen=True)
class Room:
    """What an ordinary user may still write: `free` of `total` bytes, `inodes` of `inodes_total` files.

    `what` says whose directory it is; `inodes_total` is 0 where the file system has no such limit. `device` tells file
    systems apart.
    """

    what: str
    path: str
    device: int
    free: int
    total: int
    inodes: int
    inodes_total: int


def look(what: str, path: Path) -> Room | None:
    """Look at the file system of a directory, or of the nearest one above it; None when it cannot be looked at."""
    for place in (path, *path.parents):
        try:
            status, device = os.statvfs(place), place.stat().st_dev
        except FileNotFoundError:
            continue
        except OSError:
            return None
        size = status.f_frsize
        return Room(
            what,
            str(path),
            device,
            status.f_bavail * size,
            status.f_blocks * size,
            status.f_favail,
            status.f_files,
        )
    return None


@dataclass(frozen=True)
class Spare:
    """What may be written on a file system before the floor is reached."""

    room: Room
    floor: Floor

    @property
    def used(self) -> Used:
        """Give it in bytes and files."""
        files = self.room.inodes - self.floor.inodes.of(self.room.inodes_total)
        size = self.room.free - self.floor.disk.of(self.room.total)
        return Used(max(0, size), max(0, files) if self.room.inodes_total else sys.maxsize)

    def told(self, yet: Used) -> str:
        """Tell it in words. `yet`: what those that run there are expected to write of it."""
        room, floor = self.room, self.floor
        free, reserve = format_size(room.free), format_size(floor.disk.of(room.total))
        if room.inodes_total:
            free += f" and {room.inodes:,} files"
            reserve += f" and {floor.inodes.of(room.inodes_total):,} files"
        others = f", and what runs there may yet write {format_size(yet.size)} in {yet.files:,} files"
        text = f"{free} are free for {room.what} ({room.path}), the reserve is {reserve}"
        return text + (others if yet != Used() else "")


@dataclass(frozen=True)
class Short:
    """What a file system has too little of to be at a mark: in words, and how much."""

    text: str
    used: Used


def short(room: Room, mark: Floor) -> Short | None:
    """Tell what is missing to a mark; None when nothing is."""
    text = _lack(room, mark)
    if text is None:
        return None
    size = max(0, mark.disk.of(room.total) - room.free)
    files = max(0, mark.inodes.of(room.inodes_total) - room.inodes) if room.inodes_total else 0
    return Short(text, Used(size, files))


def lacking(rooms: Iterable[Room], floor: Floor) -> str | None:
    """Tell in words what is below the floor, None when nothing is; a file system is told of once."""
    told: dict[int, str] = {}
    for room in rooms:
        if room.device not in told and (text := _lack(room, floor)):
            told[room.device] = text
    return "; ".join(told.values()) or None


def _lack(room: Room, floor: Floor) -> str | None:
    reserve = floor.disk.of(room.total)
    if room.free < reserve:
        return f"{format_size(room.free)} free for {room.what} ({room.path}), the reserve is {format_size(reserve)}"
    files = floor.inodes.of(room.inodes_total)
    if room.inodes_total and room.inodes < files:
        return f"{room.inodes:,} more files can be made for {room.what} ({room.path}), the reserve is {files:,}"
    return None
