"""The doctor's judgement: facts into findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.cli_doctor import show
from jobs.doctor import (
    DiskFacts,
    EngineFacts,
    Finding,
    Level,
    ProjectFacts,
    RedisFacts,
    StoreFacts,
    counted,
    healthy,
    judge_carrier,
    judge_database,
    judge_disk,
    judge_disk_limit,
    judge_engine,
    judge_git,
    judge_project,
    judge_python,
    judge_redis,
    judge_store,
    version_of,
)
from runner.adapters.postgres_names import SourceCheck, SourceProblem

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
GATEWAY, BASE = "seatrial/gateway:1", "seatrial/base:bookworm"
INFO = {
    "ServerVersion": "20.10.24",
    "LiveRestoreEnabled": True,
    "Driver": "overlay2",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
}
ENGINE = EngineFacts(INFO, {GATEWAY: True, BASE: True})
REDIS = RedisFacts("redis://h:6379", embedded=False, server="valkey", version="9.1.2", policy="noeviction")
STORE = StoreFacts("store.db", "SQLite store.db", "0002", ("0001", "0002"))


def worst(findings: list[Finding]) -> Level:
    levels = [finding.level for finding in findings]
    return PROBLEM if PROBLEM in levels else WARNING if WARNING in levels else OK


def judged(facts: EngineFacts, *, databases: bool = True) -> dict[str, Finding]:
    found = judge_engine(facts, api="1.41", gateway=GATEWAY, base=BASE, databases=databases)
    return {finding.what: finding for finding in found}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5", (2, 39, 5)),
        ("git version 2.30.1 (Apple Git-130)", (2, 30, 1)),
        ("git version 2.45.rc1", (2, 45)),
        ("18beta1", ()),
        ("15.14 (Debian 15.14-0+deb12u1)", (15, 14)),
        ("20.10.24+dfsg1", (20, 10)),
        ("", ()),
    ],
)
def test_versions_are_read_out_of_text(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


def test_python_and_git() -> None:
    assert judge_python((3, 11, 0)).level is OK
    assert judge_python((3, 10, 14)).level is PROBLEM
    assert judge_git("git version 2.30.0").level is OK
    for text in (None, "git version 2.29.9", "git version what"):
        found = judge_git(text)
        assert (found.level, bool(found.remedy)) == (PROBLEM, True)


@pytest.mark.parametrize(
    ("free", "inodes", "level"),
    [
        (50 << 30, 10_000_000, OK),
        (50 << 30, None, OK),
        (9 << 30, 10_000_000, WARNING),
        ((1 << 30) - 1, 10_000_000, PROBLEM),
        (50 << 30, 199_999, WARNING),
        (50 << 30, 19_999, PROBLEM),
    ],
)
def test_room_on_a_disk(free: int, inodes: int | None, level: Level) -> None:
    assert worst(judge_disk("home", DiskFacts("/srv", free, 100 << 30, inodes))) is level


def test_a_directory_that_cannot_be_written_to() -> None:
    (found,) = judge_disk("home", DiskFacts("/srv", error="Permission denied"))
    assert (found.level, "/srv" in found.remedy) == (PROBLEM, True)


def test_a_file_system_that_cannot_carry_workspaces() -> None:
    assert [judge_carrier("/srv", kind).level for kind in ("ext4", "xfs", "btrfs")] == [OK] * 3
    for kind in ("overlay", "nfs4", "fuse.sshfs"):
        found = judge_carrier("/srv", kind)
        assert (found.level, found.text) == (PROBLEM, f"/srv is {kind}: no workspace can start there")


def test_how_the_limit_of_the_disk_is_kept() -> None:
    kept, polled = judge_disk_limit("xfs"), judge_disk_limit(None, "/srv is xfs mounted without prjquota")
    assert (kept.level, polled.level) == (OK, OK)
    assert "a project quota of xfs" in kept.text
    assert polled.text.startswith("polled every 5 s (/srv is xfs mounted without prjquota); docs/deploy.md, ")
    assert polled.remedy == "", "what is well needs none"


def test_lines_end_with_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    show([Finding("git", OK, "2.39"), Finding("redis", PROBLEM, "away [red]", "Start it, " + "and wait for it, " * 4)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok       git    2.39"
    assert lines[1] == "problem  redis  away [red]"
    assert [line for line in lines if line != line.rstrip()] == []
    assert lines[-1] == "1 problem."


def test_a_good_engine() -> None:
    assert worst(list(judged(ENGINE).values())) is OK


def test_an_engine_that_is_away_is_one_problem() -> None:
    found = judged(EngineFacts(error="The Docker engine could not be reached: no socket"))
    assert [(f.level, bool(f.remedy)) for f in found.values()] == [(PROBLEM, True)]


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        ({"LiveRestoreEnabled": False}, "docker, live-restore", WARNING),
        ({"Driver": "vfs"}, "docker, storage", WARNING),
        ({"MemoryLimit": False}, "docker, limits", PROBLEM),
        ({"PidsLimit": False}, "docker, limits", PROBLEM),
        ({"SecurityOptions": []}, "docker, seccomp", PROBLEM),
        ({"SecurityOptions": None}, "docker, seccomp", PROBLEM),
    ],
)
def test_an_engine_with_a_flaw(change: dict[str, object], what: str, level: Level) -> None:
    found = judged(replace(ENGINE, info={**INFO, **change}))[what]
    assert (found.level, bool(found.remedy)) == (level, True)


def test_a_missing_gateway_is_a_problem_only_where_there_are_databases() -> None:
    bare = replace(ENGINE, images={})
    assert judged(bare)[f"image {GATEWAY}"].level is PROBLEM
    assert judged(bare, databases=False)[f"image {GATEWAY}"].level is WARNING
    assert judged(bare)[f"image {BASE}"].level is WARNING


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (REDIS, OK),
        (replace(REDIS, policy="allkeys-lru"), WARNING),
        (replace(REDIS, open_at=("10.0.0.1:6379",)), WARNING),
        (replace(REDIS, version="6.0.16"), PROBLEM),
        (replace(REDIS, error="refused"), PROBLEM),
        (replace(REDIS, error="no socket", embedded=True), WARNING),
    ],
)
def test_redis(facts: RedisFacts, level: Level) -> None:
    found = judge_redis(facts)
    assert worst(found) is level
    assert all(finding.remedy for finding in found if finding.level is not OK)


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (STORE, OK),
        (replace(STORE, revision=None), OK),
        (replace(STORE, revision="0001"), WARNING),
        (replace(STORE, revision="0003"), PROBLEM),
        (replace(STORE, damage=("row 1 missing from index",)), PROBLEM),
        (replace(STORE, error="unable to open"), PROBLEM),
    ],
)
def test_the_store(facts: StoreFacts, level: Level) -> None:
    (found,) = judge_store(facts)
    assert (found.level, bool(found.remedy)) == (level, level is not OK)


def test_a_database() -> None:
    good = SourceCheck(True, "18.1", "verification", (), "app", "copy-on-write", 0.031, 1 << 30, {"b": 1 << 30})
    (found,) = judge_database("v", good)
    assert (found.level, found.text) == (
        OK,
        "PostgreSQL 18.1, marked, branches become app, a clone takes 0.03 s (copy-on-write)",
    )
    warned = replace(good, problems=(SourceProblem("w", "mend w", refuses=False),))
    assert [f.level for f in judge_database("v", warned)] == [OK, WARNING]
    refused = replace(good, problems=(SourceProblem("p", "mend p"),))
    assert [(f.level, f.remedy) for f in judge_database("v", refused)] == [(PROBLEM, "mend p")]
    assert worst(judge_database("v", replace(good, version="14.9"))) is PROBLEM
    assert worst(judge_database("v", None, "no dsn")) is PROBLEM


def test_a_project() -> None:
    facts = ProjectFacts("ledger", "https://example.org/x.git", 0.4)
    assert [f.level for f in judge_project(facts)] == [OK]
    assert [f.level for f in judge_project(replace(facts, error="away"))] == [PROBLEM]
    assert [f.level for f in judge_project(replace(facts, spec="/s.yml"))] == [OK, OK]
    broken = replace(facts, spec="/s.yml", spec_problems=("run: is required",))
    assert [f.level for f in judge_project(broken)] == [OK, PROBLEM]


def test_warnings_are_no_problem() -> None:
    found = [Finding("a", OK, ""), Finding("b", WARNING, "", "x")]
    assert (healthy(found), counted(found)) == (True, "1 warning")
    found += [Finding("c", PROBLEM, "", "x"), Finding("d", PROBLEM, "", "x")]
    assert (healthy(found), counted(found)) == (False, "2 problems and 1 warning")
    assert counted([]) == "All is well"
