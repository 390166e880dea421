"""A volume that runs full grows: real file systems on loop devices, and an EC2 over HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from fixtures_s3 import S3Server
from loop_mounts import can_be_made, can_mount, unmount

from jobs.adapters.ec2 import CallRefused
from jobs.adapters.ec2_volumes import Ec2Volumes
from jobs.cloud import MARKER, CloudAway, CloudRefused
from jobs.growing import AGAIN_SECONDS, FULL_SECONDS, Growing
from jobs.machine_disk import disk_of
from jobs.machines import Disk
from runner.room import look

MIB, GIB = 1 << 20, 1 << 30


@dataclass
class Loop:
    """A file system on a file, which can be made longer as EC2 enlarges a volume."""

    image: Path
    device: str
    point: Path

    def disk(self) -> Disk:
        room = look("home", self.point)
        assert room is not None
        found = disk_of([room])
        assert found is not None
        return found

    def lengthen(self, size: int) -> None:
        os.truncate(self.image, size)
        subprocess.run(["losetup", "--set-capacity", self.device], check=True)


@dataclass
class Asked:
    now: float = 0.0
    volumes: list[tuple[str, int]] = field(default_factory=list)
    error: Exception | None = None

    def enlarge(self, volume: str, size: int) -> None:
        self.volumes.append((volume, size))
        if self.error is not None:
            raise self.error


@contextmanager
def small_xfs() -> Iterator[Loop]:
    home = Path(tempfile.mkdtemp(prefix="seatrial-growing-"))
    image, point = home / "image", home / "mount"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    try:
        subprocess.run(["mkfs.xfs", "-q", image], check=True, capture_output=True)
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        device = made.stdout.strip()
        try:
            subprocess.run(["mount", device, point], check=True, capture_output=True)
            try:
                yield Loop(image, device, point)
            finally:
                unmount(point)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    finally:
        shutil.rmtree(home)


if can_mount("mkfs.xfs") and can_be_made(small_xfs):

    def test_a_file_system_takes_up_what_its_volume_got() -> None:
        asked = Asked()
        with small_xfs() as loop:
            growing = Growing(10 * GIB, asked.enlarge, lambda: asked.now)
            before = loop.disk()
            growing.look(before, full=False)
            assert loop.disk().total == before.total
            loop.lengthen(640 * MIB)
            asked.now += AGAIN_SECONDS
            growing.look(loop.disk(), full=False)
            assert loop.disk().total > before.total + 250 * MIB


# ---- what is run ---------------------------------------------------------------------------------------------


@dataclass
class Disks:
    """A disk with a partition as /sys and /proc show them; the device is a file that stands for it."""

    sys: Path
    mounts: Path
    whole: Path
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def look(self, total: int, kind: str) -> None:
        self.mounts.write_text(f"/dev/null / {kind} rw 0 0\n")
        growing = Growing(
            GIB, lambda volume, size: None, lambda: 0.0, run=lambda words: self.commands.append(tuple(words)),
            sys=self.sys, mounts=self.mounts,
        )  # fmt: skip
        growing.look(Disk(1, total, 1, 10, "/data", "vol-1"), full=False)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    whole = tmp_path / "sys" / "devices" / "nvme1n1"
    part = whole / "nvme1n1p1"
    part.mkdir(parents=True)
    (part / "partition").write_text("1\n")
    (part / "size").write_text(str(GIB // 512))
    (whole / "size").write_text(str(2 * GIB // 512))
    number = os.stat("/dev/null").st_rdev
    link = tmp_path / "sys" / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(part)
    return Disks(tmp_path / "sys", tmp_path / "mounts", whole)


@pytest.mark.parametrize(("kind", "command"), [("xfs", ("xfs_growfs", "/")), ("ext4", ("resize2fs", "/dev/null"))])
def test_a_partition_grows_before_its_file_system(disks: Disks, kind: str, command: tuple[str, ...]) -> None:
    disks.look(GIB, kind)
    assert disks.commands == [("growpart", "/dev/nvme1n1", "1"), command]


def test_a_file_system_that_has_it_all_is_left_alone(disks: Disks) -> None:
    disks.look(2 * GIB, "xfs")
    assert disks.commands == []


def test_a_user_who_is_not_root_asks_without_a_password(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    (disks.whole / "nvme1n1p1" / "size").write_text(str(2 * GIB // 512))
    disks.look(GIB, "xfs")
    assert disks.commands == [("sudo", "-n", "xfs_growfs", "/")]


def test_another_kind_of_file_system_is_said(disks: Disks, capsys: pytest.CaptureFixture[str]) -> None:
    disks.look(GIB, "zfs")
    assert not any("zfs" in word for words in disks.commands for word in words)
    assert "a file system of the kind zfs is not grown" in capsys.readouterr().out


# ---- when EC2 is asked ---------------------------------------------------------------------------------------


@pytest.fixture
def nothing_mounted(tmp_path: Path) -> Path:
    (tmp_path / "mounts").write_text("")
    return tmp_path / "mounts"


FULL = Disk(GIB, 100 * GIB, 1_000, 10_000, "/data", "vol-1")


def test_a_volume_that_stays_full_is_enlarged_and_one_with_room_is_not(nothing_mounted: Path) -> None:
    asked = Asked()
    growing = Growing(500 * GIB, asked.enlarge, lambda: asked.now, mounts=nothing_mounted)
    for full in (False, True, False, True):  # images that nobody needs went meanwhile
        growing.look(FULL, full=full)
        asked.now += FULL_SECONDS - 1
        assert asked.volumes == []
    asked.now += 1
    growing.look(FULL, full=True)
    assert asked.volumes == [("vol-1", 150)]


def test_what_fails_is_tried_again_after_a_while(nothing_mounted: Path) -> None:
    asked = Asked(error=CloudAway("gone"))
    growing = Growing(500 * GIB, asked.enlarge, lambda: asked.now, mounts=nothing_mounted)
    growing.look(FULL, full=True)
    asked.now += FULL_SECONDS
    growing.look(FULL, full=True)
    growing.look(FULL, full=True)
    assert len(asked.volumes) == 1
    asked.now += AGAIN_SECONDS
    growing.look(FULL, full=True)
    assert len(asked.volumes) == 2


def test_a_volume_at_its_limit_and_a_disk_that_is_none_stay_as_they_are(nothing_mounted: Path) -> None:
    asked = Asked()
    growing = Growing(100 * GIB, asked.enlarge, lambda: asked.now, mounts=nothing_mounted)
    for disk in (FULL, FULL, Disk(GIB, 10 * GIB, 1, 10, "/data", None)):
        growing.look(disk, full=True)
        asked.now += FULL_SECONDS
    assert asked.volumes == []


@pytest.fixture
def ec2(s3_server: S3Server, s3_credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    return boto3.session.Session(region_name="us-east-1").client("ec2")


def volume(ec2: Any, pool: str | None) -> str:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": MARKER, "Value": pool}]}] if pool else []
    made = ec2.create_volume(AvailabilityZone="us-east-1a", Size=100, VolumeType="gp3", TagSpecifications=tags)
    return str(made["VolumeId"])


def size(ec2: Any, volume: str) -> int:
    return int(ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"])


def test_a_marked_volume_is_enlarged_and_never_made_smaller(ec2: Any) -> None:
    ours, volumes = volume(ec2, "trial"), Ec2Volumes("us-east-1")
    volumes.grow(ours, pool="trial", size=150)
    assert size(ec2, ours) == 150
    volumes.grow(ours, pool="trial", size=120)
    assert size(ec2, ours) == 150


@pytest.mark.parametrize("pool", [None, "other"])
def test_a_volume_without_the_marker_is_left_alone(ec2: Any, pool: str | None) -> None:
    foreign = volume(ec2, pool)
    with pytest.raises(CloudRefused, match=MARKER):
        Ec2Volumes("us-east-1").grow(foreign, pool="trial", size=150)
    assert size(ec2, foreign) == 100


def test_a_volume_that_is_not_there_is_said(ec2: Any) -> None:
    with pytest.raises(CloudRefused, match="vol-0000"):
        Ec2Volumes("us-east-1").grow("vol-00000000000000000", pool="trial", size=150)


def test_no_other_call_is_let_out(ec2: Any) -> None:
    ours, volumes = volume(ec2, "trial"), Ec2Volumes("us-east-1")
    with pytest.raises(CallRefused):
        volumes._client.delete_volume(VolumeId=ours)
    assert size(ec2, ours) == 100
