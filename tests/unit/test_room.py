"""The floor of a host, and what is told when it is below."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.settings import SettingsError, load_settings
from runner.quantities import QuantityError
from runner.quota import Used
from runner.room import Floor, Reserve, Room, Short, Spare, lacking, look, short

GIB = 1 << 30
ROOM = Room("home", "/srv/seatrial", 1, free=5 * GIB, total=100 * GIB, inodes=1_000_000, inodes_total=6_000_000)
FLOOR = Floor(Reserve.parse("1g"), Reserve.parse("1%"))


@pytest.mark.parametrize(
    ("text", "total", "reserve"),
    [
        ("1g", 100 * GIB, GIB),
        ("5%", 200, 10),
        ("0.5 %", 2_000, 10),
        ("0", 100, 0),
        ("0%", 100, 0),
        ("20000", 5, 20_000),
    ],
)
def test_a_reserve_is_a_size_or_a_share(text: str, total: int, reserve: int) -> None:
    assert Reserve.parse(text).of(total) == reserve


@pytest.mark.parametrize("text", ["", "much", "-1g", "100%", "5 percent", "1g5%", "%"])
def test_what_is_no_reserve_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(QuantityError, match="1g, 512m or 5%"):
        Reserve.parse(text)


def test_room_above_the_floor_lacks_nothing() -> None:
    assert lacking([ROOM], FLOOR) is None
    assert lacking([replace(ROOM, free=GIB)], FLOOR) is None
    assert lacking([], FLOOR) is None


def test_each_file_system_below_the_floor_is_told_of_once() -> None:
    low = replace(ROOM, free=GIB - 1)
    objects = replace(low, what="the object store", path="/srv/seatrial/objects")
    few = replace(ROOM, what="the Docker engine", path="/var/lib/docker", device=2, inodes=59_999)
    assert lacking([low, objects, few], FLOOR) == (
        "1 GiB free for home (/srv/seatrial), the reserve is 1 GiB; "
        "59,999 more files can be made for the Docker engine (/var/lib/docker), the reserve is 60,000"
    )


def test_a_file_system_without_a_limit_of_files_lacks_none() -> None:
    assert lacking([replace(ROOM, inodes=0, inodes_total=0)], FLOOR) is None


def test_a_mark_above_the_floor_is_a_multiple_of_it() -> None:
    assert lacking([replace(ROOM, free=GIB * 3 // 2)], FLOOR) is None
    assert lacking([replace(ROOM, free=GIB * 3 // 2)], FLOOR.times(2)) is not None
    assert lacking([replace(ROOM, free=0, inodes=0)], Floor(Reserve(), Reserve()).times(2)) is None


def test_a_directory_that_is_yet_to_be_made_has_the_room_of_the_one_above(tmp_path: Path) -> None:
    here, below = look("home", tmp_path), look("home", tmp_path / "a" / "b")
    assert here is not None
    assert below is not None
    assert (below.device, below.total, below.path) == (here.device, here.total, str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("key", ["DISK_RESERVE", "INODE_RESERVE"])
def test_settings_name_what_a_reserve_can_be(key: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="write it as 1g, 512m or 5%"):
        load_settings(None, {"HOME": str(tmp_path), f"SEATRIAL_SERVER__{key}": "plenty"})


def test_the_floor_of_a_server_that_names_none_is_small(tmp_path: Path) -> None:
    server = load_settings(None, {"HOME": str(tmp_path)}).server
    assert (server.disk_reserve, server.inode_reserve) == ("1g", "1%")


def test_what_may_be_written_is_what_lies_above_the_floor() -> None:
    spare = Spare(ROOM, FLOOR)
    assert spare.used == Used(4 * GIB, 940_000)
    assert spare.told(Used()) == (
        "5 GiB and 1,000,000 files are free for home (/srv/seatrial), the reserve is 1 GiB and 60,000 files"
    )
    assert spare.told(Used(GIB, 7)).endswith("60,000 files, and what runs there may yet write 1 GiB in 7 files")


def test_nothing_may_be_written_below_the_floor_and_any_number_of_files_where_they_have_no_limit() -> None:
    spare = Spare(replace(ROOM, free=GIB // 2, inodes=0, inodes_total=0), FLOOR)
    assert (spare.used.size, spare.used.files > 1 << 60) == (0, True)
    assert spare.told(Used()) == "512 MiB are free for home (/srv/seatrial), the reserve is 1 GiB"


def test_what_is_missing_to_a_mark_is_told_with_how_much() -> None:
    low = replace(ROOM, free=GIB // 2, inodes=10_000)
    assert short(ROOM, FLOOR) is None
    text = "512 MiB free for home (/srv/seatrial), the reserve is 1 GiB"
    assert short(low, FLOOR) == Short(text, Used(GIB // 2, 50_000))
    assert short(replace(low, inodes_total=0), FLOOR) == Short(text, Used(GIB // 2, 0))
