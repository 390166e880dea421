"""The workspace contract as files and as a description for the engine."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_bench import Bench, Inside

from runner.journal import Journal
from runner.model import Container, Order, Output, UnitState
from runner.outputs import Stamp, Taken
from runner.workspace import Command, Workspace, container, environment, workspace_ids

Maker = Callable[[Callable[[Inside], int | None]], Bench]
SPEC = (
    "run: bin/run\nworkspace: {image: i, env: {A: b}, limits: {memory: 100m, cpus: 1.5, pids: 99, file: 3m, log: 2m}}"
)


@pytest.fixture
def order(scripted: Maker) -> Order:
    return scripted(lambda _: 0).order(SPEC)


def described(order: Order, workspace: Workspace, *, database: Path | None = None, units: bool = True) -> Container:
    return container(
        order, 3, workspace, image="sha256:1", tree=(Path("/tree"),), network="none", database=database, units=units
    )


def test_what_is_laid_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "x")
    assert not workspace.complete()
    before = os.umask(0o077)
    try:
        workspace.lay_out([Command("setup", "one"), Command("units", "zwei ü")], ("a", "b/c"))
    finally:
        os.umask(before)
    assert workspace.complete()
    assert workspace.commands() == ("00-setup", "01-units")
    assert (workspace.control / "commands" / "01-units").read_text("utf-8") == "zwei ü"
    assert (workspace.control / "units").read_text() == "a\nb/c\n"
    assert sorted(path.name for path in workspace.io.iterdir()) == ["checkpoint", "log", "steps"]
    uid, gid = workspace_ids()
    assert f"seatrial:x:{uid}:{gid}:" in (workspace.control / "passwd").read_text()
    assert uid != 0
    for path in (workspace.io, workspace.output, workspace.upper, workspace.io / "log"):
        assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)
    for path in workspace.control.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), "readable whatever the worker's umask"
    assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o700
    workspace.lay_out([], None)
    assert not (workspace.control / "units").exists(), "what stood there is gone"
    workspace.remove()
    workspace.remove()
    assert not workspace.root.exists()


def test_the_container_is_sealed(order: Order, tmp_path: Path) -> None:
    made = described(order, Workspace(tmp_path))
    uid, gid = workspace_ids()
    assert made.user == f"{uid}:{gid}"
    assert made.read_only
    assert not made.init, "the wrapper is the first process"
    assert made.network == "none"
    assert (made.cpus, made.memory, made.pids, made.file_size) == (1.5, 100 << 20, 99, 3 << 20)
    assert made.name == f"seatrial-{order.installation}-r1-t1-e3"
    assert made.labels["kind"] == "workspace"
    assert made.labels["execution"] == "3"
    writable = {mount.target for mount in made.mounts if not mount.read_only}
    assert writable == {"/seatrial/io", "/seatrial/output"}
    assert [(overlay.lower, overlay.target) for overlay in made.overlays] == [((Path("/tree"),), "/seatrial/src")]
    assert made.tmpfs["/tmp"] == f"exec,mode=1777,size={50 << 20}"
    assert made.tmpfs["/home/seatrial"].endswith(f"size={25 << 20}")


def test_the_contracts_variables_win_over_the_specs(order: Order) -> None:
    spec = order.spec.model_copy(
        update={
            "workspace": order.spec.workspace.model_copy(update={"env": {"HOME": "/root", "A": "b", "PGHOST": "x"}})
        }
    )
    found = environment(replace(order, spec=spec, resume_from="page 7"), database=True, units=True)
    assert found["HOME"] == "/home/seatrial"
    assert found["A"] == "b"
    assert found["PGHOST"] == "/seatrial/db"
    assert found["DATABASE_URL"] == "postgresql:///verification?host=/seatrial/db&user=seatrial"
    assert found["SEATRIAL_RESUME_FROM"] == "page 7"
    assert found["SEATRIAL_UNITS"] == "/seatrial/control/units"
    assert not any("password" in name.lower() for name in found)


def test_a_database_by_tcp(scripted: Maker) -> None:
    order = scripted(lambda _: 0).order("run: x\ndatabase: {source: s, tcp: true}")
    found = environment(order, database=True, units=False)
    assert found["PGHOST"] == "127.0.0.1"
    assert found["DATABASE_URL"] == "postgresql://seatrial@127.0.0.1:5432/verification"
    assert "SEATRIAL_UNITS" not in found


# ---- the journal ------------------------------------------------------------------------------------------

TAKEN = Taken("a.csv", Stamp(1, 2, 3, 4, False), Output("a.csv", "d" * 64, 2))


def test_a_journal_gives_back_what_it_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.load().finished == {}
    journal.step(10, 0, 5.0)
    journal.finished([("a", UnitState.DONE, TAKEN), ("b", UnitState.FAILED, None)])
    journal.token("page 7\n")
    journal.step(20, 1, None)
    kept = journal.load()
    assert kept.finished == {"a": UnitState.DONE, "b": UnitState.FAILED}
    assert kept.taken == {"a": TAKEN}
    assert (kept.told, kept.position, kept.began, kept.token) == (20, 1, None, "page 7\n")


def test_half_a_line_of_a_killed_process_does_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.token("one")
    whole = (tmp_path / "journal").read_bytes()
    journal.token("two")
    for cut in range(len(whole) + 1, len(whole) + 12):
        text = (tmp_path / "journal").read_bytes()
        (tmp_path / "journal").write_bytes(text[:cut])
        assert journal.load().token == "one"
        journal.token("three")
        assert journal.load().token == "three", "and does not spoil what comes after it"
        (tmp_path / "journal").write_bytes(text)
