"""Files that stand only while a process is at them."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner import passing
from runner.passing import passing_directory, passing_file, remove_left

HOLD = """
import sys, time
from pathlib import Path
from runner.passing import passing_directory, passing_file
with passing_file(Path(sys.argv[1])) as (_, file), passing_directory(Path(sys.argv[1])) as folder:
    file.write(b"half")
    (folder / "copy").write_text("half")
    file.flush()
    print("held", flush=True)
    time.sleep(60)
"""


def left(folder: Path) -> list[Path]:
    return list(remove_left(folder))


def test_a_file_is_gone_at_the_end_or_stands_where_it_was_put(tmp_path: Path) -> None:
    with passing_file(tmp_path / "new") as (path, file):
        file.write(b"some")
        assert path.parent == tmp_path / "new"
    assert not path.exists()
    with passing_file(tmp_path / "new") as (path, file):
        file.write(b"some")
        file.flush()
        path.replace(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"some"
    assert list((tmp_path / "new").iterdir()) == []


def test_a_directory_is_gone_at_the_end_with_all_that_is_in_it(tmp_path: Path) -> None:
    def work() -> None:
        with passing_directory(tmp_path / "new") as path:
            (path / "below").mkdir()
            (path / "below" / "file").write_text("x")
            (path / "none").read_text()

    with pytest.raises(FileNotFoundError):
        work()
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_held_stays_and_what_its_holder_left_goes(tmp_path: Path) -> None:
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n"
    standing = sorted(tmp_path.iterdir())
    assert len(standing) == 2
    assert left(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == standing
    held.send_signal(signal.SIGKILL)
    held.communicate()
    assert left(tmp_path) == standing
    assert list(tmp_path.iterdir()) == []


def test_what_is_none_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("elsewhere")
    (tmp_path / "new" / "below").mkdir(parents=True)
    (tmp_path / "new" / "below" / "file").touch(mode=0o400)
    (tmp_path / "new" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "new" / "dead").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "new" / "pipe")
    assert [path.name for path in left(tmp_path / "new")] == ["below"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["dead", "link", "pipe"]
    assert (tmp_path / "kept").exists()


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert left(tmp_path / "none") == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_taken_for_left_before_it_is_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = passing._stands
    gone: list[Path] = []

    def stands(path: Path, held: int) -> bool:
        if not gone:
            gone.append(path)
            path.rmdir() if path.is_dir() else path.unlink()
        return whole(path, held)

    monkeypatch.setattr(passing, "_stands", stands)
    if kind == "file":
        with passing_file(tmp_path) as (path, _):
            assert path.exists()
    else:
        with passing_directory(tmp_path) as path:
            assert path.exists()
    assert gone != [path]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_keeps_nothing_else_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    whole = Path.unlink

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "a":
            raise PermissionError(1, "Operation not permitted", str(path))
        whole(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(PermissionError):
        left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_where_nothing_can_be_locked_nothing_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No locks"), passing_file(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
