"""A project quota where it can be had, told apart by what the kernel says of mounts; and what passing it means."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_bench import BASE, Bench, Inside, ScriptedEngine

from runner import quota as module
from runner.disk import DiskLimit
from runner.model import UnitState
from runner.quota import Mounted, NoQuota, Quota, allot, most_files, mount_of

Maker = Callable[[Callable[[Inside], int | None]], Bench]
LIMITED = f"""
run: x
workspace: {{image: '{BASE}', limits: {{disk: 20m}}}}
"""
USED = 25 << 20


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("xfs", "rw,attr2,inode64,prjquota", None),
        ("xfs", "rw,usrquota,pquota", None),
        ("ext4", "rw,prjquota", None),
        ("xfs", "rw,noquota", "/srv is xfs mounted without prjquota"),
        ("ext4", "rw,quota,usrquota", "/srv is ext4 mounted without prjquota"),
        ("xfs", "rw,pqnoenforce", "/srv counts project quotas and does not enforce them (pqnoenforce)"),
        ("btrfs", "rw", "/srv is btrfs, which has no project quota"),
        ("overlay", "rw,prjquota", "/srv is overlay, which has no project quota"),
    ],
)
def test_who_has_a_project_quota(kind: str, options: str, why: str | None) -> None:
    assert Mounted("/srv", kind, tuple(options.split(","))).why_not() == why


def test_a_mount_is_found_by_its_device(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert str(tmp_path).startswith(found.point)
    assert mount_of(Path("/proc")).kind == "proc"


def test_of_many_mounts_of_one_file_system_the_path_s_own_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    points = ["/etc/resolv.conf", str(home.parent), str(home).replace(" ", "\\040"), f"{home}-other", "/"]
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"20 1 {number} / {point} rw - ext4 /dev/vda rw,prjquota\n" for point in points))
    monkeypatch.setattr(module, "Path", lambda name: table if name == "/proc/self/mountinfo" else Path(name))
    assert mount_of(home) == Mounted(str(home), "ext4", ("rw", "prjquota"))


class Kernel:
    """Quotas as a file system would count them: project → limits in blocks and files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuses: int = 0, taken: int = 0) -> None:
        self.space = self.files = self.refuses = 0
        self.limits: dict[int, tuple[int, int]] = {}
        self.joined: list[Path] = []
        self.refuses, self.taken = refuses, taken
        monkeypatch.setattr(module, "mount_of", lambda _: Mounted("/", "xfs", ("prjquota",)))
        monkeypatch.setattr(module, "_get", self.get)
        monkeypatch.setattr(module, "_set", self.set)
        monkeypatch.setattr(module, "_join", lambda path, project: self.joined.append(path))

    def get(self, place: Path, project: int) -> SimpleNamespace:
        if self.taken:
            self.taken -= 1
            return SimpleNamespace(space=0, inodes=3)
        return SimpleNamespace(space=self.space, inodes=self.files)

    def set(self, place: Path, project: int, blocks: int, files: int) -> None:
        if self.refuses:
            raise OSError(self.refuses, "refused")
        self.limits[project] = blocks, files


def test_a_number_that_somebody_has_is_not_given_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch, taken=7)
    found = allot(tmp_path, [tmp_path / "a", tmp_path / "b"], 10 << 20)
    assert kernel.limits == {found.project: ((10 << 10) + (module.SLACK >> 10), 65_536 + module.FILES_SLACK)}
    assert kernel.joined == [tmp_path / "a", tmp_path / "b"]
    assert 1 << 30 <= found.project < (1 << 32) - 1
    found.release()
    assert kernel.limits == {found.project: (0, 0)}


def test_when_all_are_taken_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Kernel(monkeypatch, taken=1_000)
    with pytest.raises(NoQuota, match="no project quota could be set: no project number is free"):
        allot(tmp_path, [], 1)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EPERM, "this process may not set a quota (it takes root, or CAP_SYS_ADMIN)"),
        (errno.ESRCH, "its project quota is not turned on"),
        (errno.ENOSYS, "Linux 5.14"),
        (errno.EIO, "no project quota could be set: refused"),
    ],
)
def test_a_refusal_is_told_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, said: str) -> None:
    Kernel(monkeypatch, refuses=number)
    with pytest.raises(NoQuota) as no:
        allot(tmp_path, [], 1)
    assert said in str(no.value)


# ---- what passing it means --------------------------------------------------------------------------------


def bench_with_quota(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, script: Callable[[Inside], int | None]
) -> tuple[Bench, Kernel]:
    kernel = Kernel(monkeypatch)

    def given(place: Path, paths: Sequence[Path], limit: int) -> Quota:
        return Quota(place, 1 << 30, "xfs")

    monkeypatch.setattr("runner.workspace.allot", given)
    return scripted(script), kernel


@pytest.mark.parametrize("code", [0, 1, 137, 75])
@pytest.mark.parametrize("exit_file", [True, False])
def test_a_script_that_is_over_the_limit_at_its_end_has_failed(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, code: int, exit_file: bool
) -> None:
    def script(inside: Inside) -> int | None:
        kernel.space = USED
        if exit_file:
            return code
        assert isinstance(bench.engine, ScriptedEngine)
        bench.engine.end(inside.container.name, code)
        return None

    bench, kernel = bench_with_quota(scripted, monkeypatch, script)
    outcome, recorder = bench.verify(LIMITED)
    assert outcome.code == "limit_exceeded", outcome.why
    assert outcome.why == (
        "The workspace wrote 25 MiB; limits.disk is 20 MiB. Write less, or raise workspace.limits.disk in seatrial.yml."
    )
    assert recorder.units == {"all": UnitState.FAILED}
    assert "limits.disk, 20 MiB, is a project quota of xfs (project 1073741824)" in recorder.said()
    assert kernel.limits == {1 << 30: (0, 0)}, "released"
    assert bench.left_over() == []


@pytest.mark.parametrize("code", [0, 1, None])
def test_more_files_than_the_limit_allows_are_the_branchs_fault(
    scripted: Maker, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def script(inside: Inside) -> int | None:
        kernel.files = 65_537
        return code

    bench, kernel = bench_with_quota(scripted, monkeypatch, script)
    outcome, _ = bench.verify(LIMITED)
    assert outcome.code == "limit_exceeded", outcome.why
    assert outcome.why == (
        "The workspace made 65,537 files; limits.disk, 20 MiB, allows 65,536. "
        "Make fewer, or raise workspace.limits.disk in seatrial.yml."
    )


def test_a_file_for_each_16_kib_is_allowed() -> None:
    assert most_files(10 << 30) == 655_360
    assert most_files(1) == 65_536


def test_one_that_goes_on_is_ended(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(inside: Inside) -> None:
        kernel.space = USED

    bench, kernel = bench_with_quota(scripted, monkeypatch, script)
    assert bench.verify(LIMITED)[0].code == "limit_exceeded"


def test_one_that_stays_below_it_is_done(scripted: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(inside: Inside) -> int:
        kernel.space = 20 << 20
        return 0

    bench, kernel = bench_with_quota(scripted, monkeypatch, script)
    assert bench.verify(LIMITED)[0].code == "done"


def test_a_quota_that_tells_nothing_any_more_is_no_evidence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone(place: Path, project: int) -> SimpleNamespace:
        raise OSError(errno.ESRCH, "turned off")

    monkeypatch.setattr(module, "_get", gone)
    limit = DiskLimit(tmp_path, 1, Quota(tmp_path, 1, "xfs"))
    assert limit.over() is None
    assert limit.passed() is None
    limit.close()


def test_what_xfs_only_reserved_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = 15
    monkeypatch.setattr(module, "_get", lambda place, project: SimpleNamespace(space=counted, inodes=1))

    def trim(quota: Quota) -> None:
        nonlocal counted
        counted = 9

    monkeypatch.setattr(Quota, "trim", trim)
    limit = DiskLimit(tmp_path, 10, Quota(tmp_path, 1, "xfs"))
    assert limit.passed() is None
    assert counted == 9
    counted, trimmed = 15, counted
    assert limit.passed() is None, "not again within a second"
    assert limit.over() is None
    assert counted == trimmed
    limit.close()
