"""limits.disk as a project quota of the file system, on real ones made for it; and by asking where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from fixtures_bench import BASE, GATE, Bench
from loop_mounts import can_be_made, can_mount, unmount

from runner.adapters.docker_engine import DockerEngine
from runner.model import UnitState
from runner.quota import FILES_SLACK, SLACK, NoQuota, Quota, Used, allot, mount_of

MAKE = {
    "xfs": ["mkfs.xfs", "-q"],
    "ext4": ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"],
}
MIB = 1 << 20


@contextmanager
def file_system(kind: str, options: str = "prjquota", size: int = 400 * MIB) -> Iterator[Path]:
    """Mount a new file system from a file."""
    home = Path(tempfile.mkdtemp(prefix="seatrial-quota-"))
    home.chmod(0o755)
    image, mount = home / "image", home / "mount"
    with image.open("wb") as file:
        file.truncate(size)
    mount.mkdir()
    try:
        subprocess.run([*MAKE[kind], image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", f"loop,{options}", image, mount], check=True, capture_output=True)
        try:
            mount.chmod(0o755)
            yield mount
        finally:
            unmount(mount)
    finally:
        shutil.rmtree(home)


# A kernel without quotas refuses the option.
KINDS = [kind for kind, words in MAKE.items() if can_mount(words[0]) and can_be_made(partial(file_system, kind))]


def limited(run: str, disk: str = "20m", more: str = "") -> str:
    return f"""
run: |
  {run}
workspace: {{image: '{BASE}', limits: {{disk: {disk}, log: 1g{more}}}}}
timeouts: {{run: 60s, stall: 60s}}
"""


def make_bench(engine: DockerEngine, root: Path) -> Iterator[Bench]:
    root.mkdir()
    made = Bench(engine, root)
    yield made
    for state in engine.find(installation=made.installation):
        engine.remove(state.name)


# ---- where there is none ----------------------------------------------------------------------------------


def test_without_a_quota_the_limit_is_polled_and_the_log_says_why(bench: Bench) -> None:
    outcome, recorder = bench.verify(limited("head -c 30000000 /dev/zero > big; sleep 50"))
    kind = mount_of(bench.root).kind
    assert "limits.disk, 20 MiB, is polled every 5 s (" in recorder.said()
    assert f" is {kind}" in recorder.said()
    assert outcome.code == "limit_exceeded"
    assert outcome.why.endswith("limits.disk is 20 MiB. Write less, or raise workspace.limits.disk in seatrial.yml.")


def test_a_file_system_without_projects_says_so() -> None:
    with pytest.raises(NoQuota, match="/dev/shm is tmpfs, which has no project quota"):
        allot(Path("/dev/shm"), [], 1)


if KINDS:

    @pytest.fixture(scope="module", params=KINDS)
    def mount(request: pytest.FixtureRequest) -> Iterator[Path]:
        with file_system(request.param) as made:
            yield made

    @pytest.fixture
    def quota_bench(docker_engine: DockerEngine, mount: Path) -> Iterator[Bench]:
        root = mount / "bench"
        yield from make_bench(docker_engine, root)
        shutil.rmtree(root)

    # ---- the file system's own word -------------------------------------------------------------------

    def test_each_has_a_number_of_its_own_until_its_files_are_gone(mount: Path) -> None:
        places = [mount / str(number) for number in range(5)]
        quotas = []
        for place in places:
            (place / "in").mkdir(parents=True)
            quotas.append(allot(place, [place / "in"], 10 * MIB))
            (place / "in" / "file").write_bytes(b"x" * MIB)
        assert len({quota.project for quota in quotas}) == 5
        os.sync()
        assert [MIB <= (quota.used() or Used()).size < 2 * MIB for quota in quotas] == [True] * 5
        for place, quota in zip(places, quotas, strict=True):
            shutil.rmtree(place)
            quota.release()
            quota.release()
            freed = Quota(mount, quota.project, quota.kind)
            until = time.monotonic() + 60
            while freed.used() != Used():  # XFS takes files away in the background
                assert time.monotonic() < until
                time.sleep(0.1)

    def test_a_file_system_that_counts_and_does_not_enforce_is_none(mount: Path) -> None:
        if mount_of(mount).kind == "xfs":
            with (
                file_system("xfs", "pqnoenforce") as counted,
                pytest.raises(NoQuota, match=r"counts project quotas and does not enforce them \(pqnoenforce\)"),
            ):
                allot(counted, [counted], MIB)
        else:
            with (
                file_system("ext4", "noquota") as without,
                pytest.raises(NoQuota, match="is ext4 mounted without prjquota"),
            ):
                allot(without, [without], MIB)

    # ---- what branch code meets -----------------------------------------------------------------------

    @pytest.mark.parametrize("where", ["big", "$SEATRIAL_OUTPUT/big", "/seatrial/io/big"])
    def test_a_write_past_the_limit_is_refused_at_once(quota_bench: Bench, where: str) -> None:
        script = f"head -c 300000000 /dev/zero > {where}; echo code $?; stat -c 'size %s' {where}; exit 1"
        outcome, recorder = quota_bench.verify(limited(script))
        assert outcome.code == "limit_exceeded", recorder.said()
        assert "limits.disk is 20 MiB. Write less, or raise workspace.limits.disk" in outcome.why
        kind = mount_of(quota_bench.root).kind
        assert f"limits.disk, 20 MiB, is a project quota of {kind} (project " in recorder.said()
        sizes = [int(line.split()[1]) for line in recorder.said().splitlines() if line.startswith("size ")]
        assert all(size <= 20 * MIB + SLACK for size in sizes)
        assert recorder.units == {"all": UnitState.FAILED}
        assert quota_bench.left_over() == []

    def test_the_log_counts(quota_bench: Bench) -> None:
        outcome, recorder = quota_bench.verify(limited("while :; do head -c 1000000 /dev/zero || exit 5; done"))
        assert outcome.code == "limit_exceeded", outcome.why
        assert len(recorder.text) <= 20 * MIB + SLACK + 10_000

    @pytest.mark.parametrize("then", ["exit 0", "kill -9 $$", "sleep 50"])
    def test_whatever_the_script_does_then(quota_bench: Bench, then: str) -> None:
        outcome, recorder = quota_bench.verify(limited(f"dd if=/dev/zero of=big bs=64k count=4000; {then}"))
        assert outcome.code == "limit_exceeded", (outcome.why, recorder.said())
        assert any(words in recorder.said() for words in ("No space left on device", "Disk quota exceeded", "wrote"))

    def test_files_past_the_limit_are_refused_at_once(quota_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runner.quota.FILES", 1_000)
        script = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); : > $i || break; done; echo made $i; exit 1"
        outcome, recorder = quota_bench.verify(limited(script, "4m"))
        assert outcome.code == "limit_exceeded", (outcome.why, recorder.said())
        assert "files; limits.disk, 4 MiB, allows 1,000" in outcome.why
        made = next(int(line.split()[1]) for line in recorder.said().splitlines() if line.startswith("made "))
        assert 900 < made <= 1_000 + FILES_SLACK
        assert quota_bench.left_over() == []

    def test_what_stays_below_it_passes_and_sees_its_own_room(quota_bench: Bench) -> None:
        script = "head -c 10000000 /dev/zero | tee big > $SEATRIAL_OUTPUT/one; df -B1 --output=size $SEATRIAL_OUTPUT"
        outcome, recorder = quota_bench.verify(limited(script, "30m"))
        assert outcome.code == "done", (outcome.why, recorder.said())
        assert str(30 * MIB + SLACK) in recorder.said()

    def test_the_hosts_own_lack_of_room_is_no_fault_of_the_branch(quota_bench: Bench, mount: Path) -> None:
        status = os.statvfs(mount)
        filler = mount / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - 100 * MIB)
        try:
            outcome, recorder = quota_bench.verify(limited("head -c 300000000 /dev/zero > big || exit 1", "1g"))
            assert "No space left on device" in recorder.said()
            assert outcome.code == "disk_full", outcome.why
            assert UnitState.FAILED not in recorder.units.values()
        finally:
            filler.unlink()

    def test_the_quota_goes_on_over_a_takeover(quota_bench: Bench) -> None:
        script = f"echo ready; {GATE}; head -c 300000000 /dev/zero > big; exit 1"
        order = quota_bench.order(limited(script))
        recorder = quota_bench.recorder(order)
        running = quota_bench.begin(order, recorder)
        running.wait_for("ready")
        recorder.drained.set()
        running.end()
        quota_bench.open_gate()
        outcome = quota_bench.run(quota_bench.again(order, recorder), recorder)
        assert outcome.code == "limit_exceeded", (outcome.why, recorder.said())
        assert quota_bench.left_over() == []

    def test_a_file_that_was_given_to_another_project_is_found_by_asking(quota_bench: Bench) -> None:
        """The owner of a file may do that (see docs/security.md), so the quota alone would be no limit."""
        script = (
            "python3 -c \"import fcntl, struct; f = open('big', 'wb');"
            " fcntl.ioctl(f, 0x401C5820, struct.pack('=5I8x', 0, 0, 0, 0, 0)); f.write(bytes(60_000_000)); f.close();"
            " print('evaded')\"; sleep 50"
        )
        outcome, recorder = quota_bench.verify(limited(script))
        assert "evaded" in recorder.said()
        assert outcome.code == "limit_exceeded", (outcome.why, recorder.said())

    def test_more_than_the_limit_is_not_put_back_at_a_resume(quota_bench: Bench) -> None:
        order = quota_bench.order(
            limited("head -c 40000000 /dev/zero > $SEATRIAL_OUTPUT/a; echo t >> $SEATRIAL_CHECKPOINT; exit 75", "100m")
        )
        recorder = quota_bench.recorder(order)
        assert quota_bench.run(order, recorder).code == "resume_requested"
        smaller = quota_bench.order(limited("true"))
        again = quota_bench.again(smaller, recorder)
        outcome = quota_bench.run(again, recorder)
        assert outcome.code == "limit_exceeded", outcome.why
        assert quota_bench.left_over() == []
