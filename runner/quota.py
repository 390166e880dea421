"""A project quota on what one workspace may write, where its file system has them: XFS or ext4, mounted with prjquota."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# include/uapi/linux/fs.h: struct fsxattr is xflags, extsize, nextents, projid, cowextsize and eight spare bytes.
_FSXATTR = struct.Struct("=5I8x")
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
# include/uapi/linux/quota.h: (command << 8) | PRJQUOTA. XFS and ext4 both answer to the generic commands.
_Q_GETQUOTA = 0x800007 << 8 | 2
_Q_SETQUOTA = 0x800008 << 8 | 2
_QIF_BLIMITS, _QIF_ILIMITS = 1 << 0, 1 << 2
_BLOCK = 1024
# fs/xfs/libxfs/xfs_fs.h: struct xfs_fs_eofblocks is version, flags, uid, gid, prid, a pad, a smallest size and spare room.
_EOFBLOCKS = struct.Struct("=6IQ96x")
_XFS_IOC_FREE_EOFBLOCKS = 0x8080583A
_EOF_SYNC_PRID = 1 << 0 | 1 << 3
_QUOTACTL_FD = 443  # the same number on every architecture; Linux 5.14

# Ours begin far above the small numbers that people, and Docker's own storage driver, give to their projects.
_FIRST, _COUNT = 1 << 30, 1 << 31
# XFS reserves up to 4 MiB for one write, and refuses it whole. That much above the limit and as much again, a write that
# was refused leaves a sum above the limit, so that nobody has to guess what "No space left on device" meant.
SLACK = 8 << 20
# ext4 makes an inode for each 16 KiB: who keeps to its share of the bytes keeps to its share of the inodes.
FILE_BYTES = 16 << 10
FILES = 1 << 16  # as many in any case
FILES_SLACK = 64  # so that the sum tells that one more was refused

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Dqblk(ctypes.Structure):
    """struct if_dqblk; space is in bytes, limits in blocks of 1,024 bytes."""

    _fields_ = [
        (name, ctypes.c_uint64) for name in ("bhard", "bsoft", "space", "ihard", "isoft", "inodes", "btime", "itime")
    ] + [("valid", ctypes.c_uint32)]


class NoQuota(Exception):
    """There is no project quota here; the text says why, and nothing is wrong with that."""


@dataclass(frozen=True)
class Mounted:
    """What /proc/self/mountinfo tells of the file system that a path is on."""

    point: str
    kind: str
    options: tuple[str, ...]

    def why_not(self) -> str | None:
        """Tell why it has no project quota; None when it should have."""
        if self.kind not in ("xfs", "ext4"):
            return f"{self.point} is {self.kind}, which has no project quota"
        if "pqnoenforce" in self.options:
            return f"{self.point} counts project quotas and does not enforce them (pqnoenforce)"
        if not {"prjquota", "pquota"} & set(self.options):
            return f"{self.point} is {self.kind} mounted without prjquota"
        return None


@dataclass(frozen=True)
class Used:
    """What a workspace takes: bytes, and files of whatever kind."""

    size: int = 0
    files: int = 0

    def less(self, other: Used) -> Used:
        """Give what is left without it."""
        return Used(max(0, self.size - other.size), max(0, self.files - other.files))

    def or_more(self, other: Used) -> Used:
        """Give the greater of each."""
        return Used(max(self.size, other.size), max(self.files, other.files))


def most_files(limit: int) -> int:
    """Give how many files a limit in bytes allows: empty ones take no bytes, and inodes run out like bytes."""
    return max(FILES, limit // FILE_BYTES)


@dataclass(frozen=True)
class Quota:
    """The project of one execution: `place` is on its file system and outside of the project itself."""

    place: Path
    project: int
    kind: str

    def used(self) -> Used | None:
        """Give what it takes now, as the file system counts it; None when it does not tell any more."""
        try:
            found = _get(self.place, self.project)
        except OSError:
            return None
        return Used(int(found.space), int(found.inodes))

    def trim(self) -> None:
        """Have XFS give back what it reserved behind the ends of growing files: up to as much again as was written.

        It counts as used although nobody wrote it; XFS itself trims it before it refuses a write.
        """
        if self.kind == "xfs":
            with contextlib.suppress(OSError), _opened(self.place) as descriptor:
                asked = _EOFBLOCKS.pack(1, _EOF_SYNC_PRID, 0, 0, self.project, 0, 0)
                fcntl.ioctl(descriptor, _XFS_IOC_FREE_EOFBLOCKS, asked)

    def release(self) -> None:
        """Take its limit away; its number is free when its last file is gone. Safe to call twice."""
        with contextlib.suppress(OSError):
            _set(self.place, self.project, 0, 0)


def allot(place: Path, paths: Sequence[Path], limit: int) -> Quota:
    """Put new directories and empty files into a project that nobody has, of `limit` bytes and SLACK; raises NoQuota.

    It may have `most_files` of the limit and FILES_SLACK. What is made in the directories later belongs to it too. A
    number is taken when any file has it, so it cannot be had again before all that was in its project is removed.
    """
    mounted = mount_of(place)
    why = mounted.why_not()
    if why is not None:
        raise NoQuota(why)
    try:
        with _one_at_a_time(mounted):
            project = _free(place)
            _set(place, project, -(-(limit + SLACK) // _BLOCK), most_files(limit) + FILES_SLACK)
            for path in paths:
                _join(path, project)
    except OSError as error:
        raise NoQuota(f"{mounted.point}: {_words(error)}") from error
    return Quota(place, project, mounted.kind)


def try_out(directory: Path) -> Quota:
    """Have a quota in a directory for a moment, as an execution there would; raises NoQuota."""
    with tempfile.TemporaryDirectory(prefix="seatrial-quota-", dir=directory) as made:
        inside = Path(made) / "inside"
        inside.mkdir()
        quota = allot(Path(made), [inside], 1 << 20)
        quota.release()
        return quota


def mount_of(path: Path) -> Mounted:
    """Tell what file system a path is on; raises NoQuota when the kernel does not say."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    mounts = list(mounts_of_device(table, number))
    if not mounts:
        raise NoQuota(f"nothing is known of the file system of {path}")
    # One file system may be mounted at many places, as in containers: the one that the path is below says most.
    holding = [mount for mount in mounts if path.resolve().is_relative_to(mount.point)]
    return max(holding, key=lambda mount: len(mount.point), default=mounts[0])


def mounts_of_device(table: str, number: str) -> Iterator[Mounted]:
    """Read from the text of /proc/self/mountinfo where a device, as MAJOR:MINOR, is mounted."""
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if fields[2] == number:
            point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            yield Mounted(point, more[0], tuple(more[2].split(",")))


@contextlib.contextmanager
def _one_at_a_time(mounted: Mounted) -> Iterator[None]:
    """Hold what all who allot on this file system hold: its root directory."""
    with _opened(Path(mounted.point)) as root:
        fcntl.flock(root, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _free(place: Path) -> int:
    """Find a number that no file has. By chance: branch code could otherwise tell those of its neighbours."""
    for _ in range(100):
        project = _FIRST + secrets.randbelow(_COUNT)
        found = _get(place, project)
        if found.inodes == 0 and found.space == 0:
            return project
    raise OSError(errno.EUSERS, "no project number is free")


def _join(path: Path, project: int) -> None:
    with _opened(path) as descriptor:
        buffer = bytearray(_FSXATTR.size)
        fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, buffer)
        flags, extent, extents, _, copy = _FSXATTR.unpack(buffer)
        if path.is_dir():
            flags |= _FS_XFLAG_PROJINHERIT
        fcntl.ioctl(descriptor, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, extent, extents, project, copy))


def _get(place: Path, project: int) -> _Dqblk:
    found = _Dqblk()
    try:
        _quotactl(place, _Q_GETQUOTA, project, found)
    except OSError as error:
        if error.errno != errno.ENOENT:  # XFS has no record of a number that nobody ever had
            raise
    return found


def _set(place: Path, project: int, blocks: int, files: int) -> None:
    _quotactl(place, _Q_SETQUOTA, project, _Dqblk(bhard=blocks, ihard=files, valid=_QIF_BLIMITS | _QIF_ILIMITS))


def _quotactl(place: Path, command: int, project: int, block: _Dqblk) -> None:
    with _opened(place) as descriptor:
        done = _LIBC.syscall(
            ctypes.c_long(_QUOTACTL_FD),
            ctypes.c_long(descriptor),
            ctypes.c_ulong(command),
            ctypes.c_ulong(project),
            ctypes.byref(block),
        )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _words(error: OSError) -> str:
    known = {
        errno.EPERM: "this process may not set a quota (it takes root, or CAP_SYS_ADMIN)",
        errno.EACCES: "this process may not set a quota (it takes root, or CAP_SYS_ADMIN)",
        errno.ESRCH: "its project quota is not turned on",
        errno.ENOSYS: "the kernel cannot set one by a path (Linux 5.14 can)",
    }
    return known.get(error.errno or 0) or f"no project quota could be set: {error.strerror or error}"
