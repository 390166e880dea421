"""Whose memory ran out: the container's own, or its host's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.adapters.memory_limit import Look, MemoryLimit, kept

GIB = 1 << 30
ID = "4f" * 32


@pytest.mark.parametrize(
    ("last", "among", "expected"),
    [
        (Look(), None, False),
        (Look(), 0, False),
        (Look(reached=0, among=3), 3, True),
        (Look(reached=0, among=3), 4, False),
        (Look(reached=0, among=3), None, False),
        (Look(reached=0, among=None), None, False),
        (Look(reached=1, among=3), 3, False),
        (Look(reached=None, among=3), 3, False),
        (Look(limit=GIB, bound=GIB - 4096), None, True),
        (Look(limit=GIB, bound=GIB), None, False),
        (Look(limit=GIB, bound=None), None, False),
    ],
)
def test_the_world_is_blamed_in_no_doubt_only(last: Look, among: int | None, expected: bool) -> None:
    assert kept(last, among) is expected


class Second:
    """A tree of control groups of version 2, in which a container runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts = root / "mounts"
        self.mounts.write_text("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,memory_recursiveprot 0 0\n")
        self.parent = root / "system.slice"
        self.group = self.parent / f"docker-{ID}.scope"
        self.group.mkdir(parents=True)
        self.above, self.own, self.neighbours = 0, 0, 0
        self.tell()

    def tell(self) -> None:
        """Write what the kernel would: a group's events count those below it, the local ones do not."""
        whole = self.above + self.own + self.neighbours
        (self.parent / "memory.events").write_text(f"low 0\nhigh 0\nmax 99\noom {whole}\noom_kill 12\n")
        (self.parent / "memory.events.local").write_text(f"low 0\nhigh 0\nmax 99\noom {self.above}\noom_kill 0\n")
        if self.group.exists():
            (self.group / "memory.events").write_text(f"low 0\nhigh 0\nmax 99\noom {self.own}\noom_kill {self.own}\n")

    def limit(self, path: str = f"/system.slice/docker-{ID}.scope") -> MemoryLimit:
        return MemoryLimit(f"1:name=systemd:/x\n0::{path}\n", ID, root=self.root, mounts=self.mounts)

    def end(self) -> None:
        shutil.rmtree(self.group)
        self.tell()


@pytest.fixture
def second(tmp_path: Path) -> Second:
    return Second(tmp_path)


@pytest.mark.parametrize(
    ("above", "own", "neighbours", "expected"),
    [(0, 0, 0, True), (1, 0, 0, True), (0, 1, 0, False), (0, 0, 1, False), (2, 1, 0, False)],
)
def test_what_came_after_the_last_look_is_counted_above_it(
    second: Second, above: int, own: int, neighbours: int, expected: bool
) -> None:
    second.above, second.neighbours = 4, 7
    second.tell()
    limit = second.limit()
    limit.look()
    second.above, second.own, second.neighbours = 4 + above, own, 7 + neighbours
    second.end()
    limit.look()
    assert limit.kept() is expected


def test_what_came_before_the_first_look_is_its_own_while_it_runs(second: Second) -> None:
    second.own = 1
    second.tell()
    limit = second.limit()
    limit.look()
    assert not limit.kept()


def test_a_later_look_forgets_what_neighbours_did_before(second: Second) -> None:
    limit = second.limit()
    limit.look()
    second.neighbours = 1
    second.tell()
    assert not limit.kept()
    limit.look()
    second.end()
    assert limit.kept()


def test_who_was_never_looked_at_is_in_doubt(second: Second) -> None:
    limit = second.limit()
    assert not limit.kept()
    second.end()
    limit.look()
    assert not limit.kept()


@pytest.mark.parametrize("path", [f"/../system.slice/docker-{ID}.scope", "/system.slice", "/"])
def test_a_tree_that_is_not_the_containers_tells_nothing(second: Second, path: str) -> None:
    limit = second.limit(path)
    limit.look()
    assert not limit.kept()


def test_a_group_below_the_one_with_the_limit_tells_nothing(second: Second) -> None:
    inner = second.group / "init"
    inner.mkdir()
    (inner / "memory.events").write_text("oom 0\n")
    (second.group / "memory.events.local").write_text("oom 0\n")
    limit = second.limit(f"/system.slice/{second.group.name}/init")
    limit.look()
    (second.group / "memory.events.local").write_text("oom 1\n")
    (second.group / "memory.events").write_text("oom 1\n")
    assert not limit.kept()


def test_counts_that_leave_out_what_is_below_tell_nothing(second: Second) -> None:
    second.mounts.write_text("cgroup2 /sys/fs/cgroup cgroup2 rw,memory_localevents 0 0\n")
    limit = second.limit()
    limit.look()
    assert not limit.kept()
    second.mounts.unlink()
    limit.look()
    assert not limit.kept()


def test_a_kernel_without_local_counts_tells_nothing(second: Second) -> None:
    (second.parent / "memory.events.local").unlink()
    limit = second.limit()
    limit.look()
    assert not limit.kept()


@pytest.mark.parametrize(("bound", "expected"), [(64 << 20, True), (GIB, False)])
def test_with_version_1_only_a_lower_limit_above_it_tells(tmp_path: Path, bound: int, expected: bool) -> None:
    group = tmp_path / "memory" / "docker" / ID
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (group / "memory.stat").write_text(f"cache 0\nhierarchical_memory_limit {bound}\ntotal_cache 0\n")
    limit = MemoryLimit(f"8:pids:/x\n4:memory:/docker/{ID}\n0::/\n", ID, root=tmp_path)
    limit.look()
    shutil.rmtree(group)
    limit.look()
    assert limit.kept() is expected
