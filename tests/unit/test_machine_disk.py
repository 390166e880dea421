"""The room of a machine, the volume that it is on, and what is said of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.growing import mounted, next_size
from jobs.machine_disk import advice, disk_of, disk_of_device, size_of, volume_of
from jobs.machines import Disk
from jobs.warden_post import is_instance, shut_down
from runner.room import Room

GIB = 1 << 30


def block(
    sys: Path, name: str, number: str, *, serial: str = "", partition: int | None = None, parent: str = ""
) -> Path:
    """Make a block device as /sys shows it."""
    place = sys / "devices" / "pci" / (f"{parent}/{name}" if parent else name)
    place.mkdir(parents=True)
    (place / "size").write_text("209715200\n")
    if serial:
        (place / "device").mkdir()
        (place / "device" / "serial").write_text(f"{serial}  \n")
    if partition is not None:
        (place / "partition").write_text(f"{partition}\n")
    link = sys / "dev" / "block" / number
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place)
    return place


def test_a_volume_is_known_by_its_serial_number(tmp_path: Path) -> None:
    disk = block(tmp_path, "nvme1n1", "259:1", serial="vol0abc1234def567890")
    assert volume_of(os.makedev(259, 1), tmp_path) == "vol-0abc1234def567890"
    assert size_of(disk) == 100 * GIB


def test_a_partition_is_on_its_disks_volume(tmp_path: Path) -> None:
    disk = block(tmp_path, "nvme0n1", "259:0", serial="vol0abc")
    block(tmp_path, "nvme0n1p1", "259:2", partition=1, parent="nvme0n1")
    assert volume_of(os.makedev(259, 2), tmp_path) == "vol-0abc"
    assert disk_of_device(os.makedev(259, 2), tmp_path) == disk.resolve()


def test_a_layer_is_on_what_is_below_it_if_that_is_one(tmp_path: Path) -> None:
    disk = block(tmp_path, "nvme1n1", "259:1", serial="vol0abc")
    layer = block(tmp_path, "dm-0", "253:0")
    (layer / "slaves").mkdir()
    (layer / "slaves" / "nvme1n1").symlink_to(disk)
    assert volume_of(os.makedev(253, 0), tmp_path) == "vol-0abc"
    (layer / "slaves" / "nvme2n1").symlink_to(block(tmp_path, "nvme2n1", "259:5", serial="vol0def"))
    assert volume_of(os.makedev(253, 0), tmp_path) is None


@pytest.mark.parametrize("serial", ["", "S4EWNX0R123456"])
def test_a_disk_that_is_no_volume_is_none(tmp_path: Path, serial: str) -> None:
    block(tmp_path, "nvme0n1", "259:0", serial=serial)
    assert volume_of(os.makedev(259, 0), tmp_path) is None
    assert volume_of(os.makedev(0, 42), tmp_path) is None


def test_the_tightest_file_system_is_the_one_that_counts(tmp_path: Path) -> None:
    wide = Room("home", "/home", 1, 50, 100, 10, 100)
    tight = Room("the Docker engine", "/docker", 2, 60, 100, 5, 100)
    assert disk_of([wide, tight], tmp_path) == Disk(60, 100, 5, 100, "/docker", None)
    assert disk_of([], tmp_path) is None


def test_words_say_what_to_do() -> None:
    tight = Disk(5 * GIB, 100 * GIB, 900, 1_000, "/data", "vol-1")
    assert advice(Disk(50 * GIB, 100 * GIB, 900, 1_000), grows_to=None) is None
    assert advice(tight, grows_to=None) == "Grow its volume vol-1, or let Seatrial do so: grow_disk."
    assert advice(tight, grows_to="500g") == (
        "Its volume vol-1 is grown, up to 500g, where it stays below twice the reserve."
    )
    few = Disk(50 * GIB, 100 * GIB, 10, 1_000)
    assert advice(few, grows_to="500g") == (
        "Only 10 more files can be made. Grow its disk, or let Seatrial do so: grow_disk."
    )


@pytest.mark.parametrize(
    ("total", "limit", "size"),
    [(20, 500, 30), (12, 500, 22), (400, 500, 500), (500, 500, None), (600, 500, None), (499, 500, 500)],
)
def test_a_volume_grows_by_half_and_never_past_its_limit(total: int, limit: int, size: int | None) -> None:
    assert next_size(total * GIB - 1, limit * GIB) == size


def test_the_mount_that_is_nearest_is_the_one(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/nvme0n1p1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/nvme1n1 /var/lib/seatrial xfs rw 0 0\n"
        "tmpfs /var/lib/seatrial/tmp tmpfs rw 0 0\n/dev/sdz /var/lib/sea\\040trial xfs rw 0 0\n"
    )
    found = mounted("/var/lib/seatrial/home", mounts)
    assert found is not None
    assert (found.device, found.point, found.kind) == ("/dev/nvme1n1", "/var/lib/seatrial", "xfs")
    root = mounted("/var/lib/seatrials", mounts)
    assert root is not None
    assert root.point == "/"
    assert mounted("/var/lib/seatrial/tmp/x", mounts) is None
    spaced = mounted("/var/lib/sea trial/x", mounts)
    assert spaced is not None
    assert spaced.device == "/dev/sdz"


# ---- what stands before a shutdown ---------------------------------------------------------------------------


def firmware(sys: Path, **said: str) -> Path:
    place = sys / "devices" / "virtual" / "dmi" / "id"
    place.mkdir(parents=True)
    for name, text in said.items():
        (place / name).write_text(f"{text}\n")
    return sys


@pytest.mark.parametrize(
    ("said", "is_it"),
    [
        ({"board_asset_tag": "i-0123", "sys_vendor": "Amazon EC2"}, True),
        ({"board_asset_tag": "i-0999", "sys_vendor": "Amazon EC2"}, False),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, True),
        ({"board_asset_tag": "No Asset Tag", "sys_vendor": "LENOVO"}, False),
        ({}, False),
    ],
)
def test_only_the_instance_itself_is_shut_down(tmp_path: Path, said: dict[str, str], is_it: bool) -> None:
    assert is_instance("i-0123", firmware(tmp_path, **said)) is is_it


def test_a_laptop_with_the_settings_of_a_machine_stays_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not show that it is i-0123"):
        shut_down("i-0123", sys=firmware(tmp_path, sys_vendor="LENOVO"))


def test_a_command_of_the_settings_is_run_as_it_is(tmp_path: Path) -> None:
    shut_down("i-0123", command=("touch", str(tmp_path / "down")), sys=tmp_path)
    assert (tmp_path / "down").exists()
    with pytest.raises(OSError, match="false: exit 1"):
        shut_down("i-0123", command=("false",), sys=tmp_path)
