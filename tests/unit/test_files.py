"""Read what branch code wrote, and be led nowhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runner.errors import OutputRefused
from runner.files import MAX_DEPTH, Tail, check_directory, list_inside, open_inside, remove_tree, walk_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    return made


def test_a_regular_file_is_read(root: Path) -> None:
    with open_inside(root, "sub/file") as file:
        assert file.read() == b"inside"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may be no longer than 107 bytes
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: path.symlink_to("../secret"), "a symbolic link"),
        (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
        (os.mkfifo, "a FIFO"),
        (Path.mkdir, "a directory"),
        (make_socket, "a socket"),
    ],
)
def test_anything_else_is_refused_by_its_kind(root: Path, make: object, word: str) -> None:
    make(root / "thing")  # type: ignore[operator]
    with pytest.raises(OutputRefused, match=f"thing is {word}, not a regular file"):
        open_inside(root, "thing")


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "", "/etc/passwd", "sub//file", ".", "sub/."])
def test_ways_out_are_refused(root: Path, path: str) -> None:
    with pytest.raises(OutputRefused, match="leads out"):
        open_inside(root, path)


def test_links_on_the_way_are_refused(root: Path) -> None:
    (root / "up").symlink_to("..")
    for call in (lambda: open_inside(root, "up/secret"), lambda: list_inside(root, "up")):
        with pytest.raises(OutputRefused, match="a symbolic link"):
            call()
    with pytest.raises(OutputRefused, match="not a directory of this tree"):
        check_directory(root, "up/root")


def test_what_is_not_there(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_inside(root, "sub/none")
    with pytest.raises(FileNotFoundError):
        open_inside(root, "none/file")
    with pytest.raises(FileNotFoundError):
        check_directory(root, "none")
    assert list_inside(root, "none") == []


def test_directories_below_a_root(root: Path) -> None:
    assert check_directory(root, "sub") == root / "sub"
    assert check_directory(root, "./sub/.") == root / "sub"
    with pytest.raises(OutputRefused, match="leads out"):
        check_directory(root, "sub/..")
    with pytest.raises(OutputRefused):
        check_directory(root, "sub/file")


def test_a_walk_lists_files_and_follows_nothing(root: Path) -> None:
    (root / "link").symlink_to("..")
    (root / "sub" / "deeper").mkdir()
    assert walk_inside(root) == ["link", "sub/file"]
    with pytest.raises(OutputRefused, match="more than 1 files"):
        walk_inside(root, limit=1)


def deep(root: Path, levels: int) -> None:
    here = os.open(root, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_walk_has_a_floor(root: Path) -> None:
    deep(root, MAX_DEPTH + 5)
    with pytest.raises(OutputRefused, match="levels deep"):
        walk_inside(root)


def test_a_tree_deeper_than_python_can_go_is_removed(root: Path) -> None:
    deep(root, 1500)
    remove_tree(root)
    assert not root.exists()
    remove_tree(root)


def test_a_tail_gives_what_came_since(root: Path) -> None:
    (root / "log").write_bytes(b"one\n")
    tail = Tail(root, "log")
    assert tail.read(100) == b"one\n"
    assert tail.read(100) == b""
    with (root / "log").open("ab") as file:
        file.write(b"two\nthree\n")
    assert tail.read(4) == b"two\n"
    assert tail.left() == 6
    assert tail.read(100) == b"three\n"
    assert tail.offset == 14
    tail.close()
    tail.close()


def test_what_another_one_removes_at_the_same_time_goes_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "other").write_text("x")
    unlink = os.unlink
    first: list[object] = []

    def taken_before(path: str, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        if not first:
            first.append(path)
            raise FileNotFoundError(path)

    monkeypatch.setattr(os, "unlink", taken_before)
    remove_tree(root)
    assert first
    assert not root.exists()


def test_what_cannot_be_seen_to_go_is_not_tried_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: str, *, dir_fd: int | None = None) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "unlink", never)
    remove_tree(root)  # rm does it
    assert not root.exists()


def test_a_tail_that_begins_later_and_before_its_file(root: Path) -> None:
    early = Tail(root, "log", 2)
    assert early.read(10) == b""
    assert early.left() == 0
    (root / "log").write_bytes(b"12345")
    assert early.read(10) == b"345"
    early.close()


def test_a_tail_notices_truncation_and_replacement(root: Path) -> None:
    (root / "log").write_bytes(b"12345")
    tail = Tail(root, "log")
    tail.read(10)
    os.truncate(root / "log", 0)
    assert tail.left() == -5
    assert not tail.replaced()
    (root / "log").rename(root / "old")
    assert tail.replaced()
    (root / "log").write_bytes(b"new")
    assert tail.replaced()
    tail.reopen()
    assert tail.read(10) == b"new"
    assert not tail.replaced()
    tail.close()


def test_a_tail_holds_on_to_its_file_and_refuses_another_kind(root: Path) -> None:
    (root / "log").write_bytes(b"kept")
    tail = Tail(root, "log")
    (root / "log").unlink()
    (root / "log").symlink_to("../secret")
    assert tail.read(10) == b"kept"
    tail.reopen()
    with pytest.raises(OutputRefused, match="a symbolic link"):
        tail.read(10)
    assert tail.left() == 0
    with pytest.raises(OutputRefused):
        Tail(root, "log").read(1)
