"""Bad input over HTTP, and branches that are wrong: each answer names what is wrong, and no server process minds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_git import Repository
from fixtures_registry import Registry
from fixtures_server import IMAGE, Json, Server, branch_files, until

GOOD = "work() { :; }\neach\n"

# What git would take for an option, an expression or a path; none of them may do anything but be refused.
HOSTILE = {
    "option": "-x",
    "upload-pack": "--upload-pack=touch {marker}",
    "exec": "--exec=touch {marker}",
    "ext": "ext::sh -c touch% {marker}",
    "substitution": "$(touch {marker})",
    "backticks": "`touch {marker}`",
    "semicolon": "main;touch {marker}",
    "previous": "@{{-1}}",
    "range": "a..b",
    "search": "HEAD^{{/x}}",
    "parent": "good~1",
    "object": "good:seatrial.yml",
    "reflog": "good@{{0}}",
    "nul": "go\0od",
    "newline": "good\n--upload-pack=touch {marker}",
    "long": "b" * 300,
    "longer": "b" * 100_000,
    "traversal": "../../../../etc/passwd",
    "rtl": "\u202egood",
    "emoji": "feature/🚢",
    "glob": "goo*",
    "empty": "",
    "blank": "  ",
    "lock": "good.lock",
}


@pytest.fixture(scope="module", autouse=True)
def good(lab: Repository) -> str:
    """Give the commit of a branch that could be run."""
    return lab.branch("good", branch_files(GOOD, units=["u1"]))


def refused(answer: httpx.Response, *statuses: int) -> Json:
    """See that an answer is a problem document whose every error names key, value (if any) and remedy."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: Json = answer.json()
    assert found["status"] == answer.status_code
    assert found["type"] == f"urn:seatrial:problem:{found['code']}"
    assert found["title"]
    assert found["detail"]
    return found


def submit(server: Server, project: str, ref: Any, **more: Any) -> httpx.Response:
    return server.post("/runs", {"project": project, "ref": ref, **more})


def ends(server: Server, lab: Repository, branch: str, state: str, files: dict[str, bytes]) -> Json:
    """Push a branch, submit it and wait for its end."""
    lab.branch(branch, files)
    return server.wait(server.submit("lab", branch)["id"], state)


# ---- refused at submit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ref(server: Server, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    ref = HOSTILE[name].format(marker=marker)
    found = refused(submit(server, "lab", ref), 404, 422)
    [error] = found["errors"]
    assert error["key"] == "ref"
    assert error["message"]
    assert error.get("remedy") or found["code"] == "invalid"
    if ref.strip():
        assert error["value"]
        assert len(error["value"]) < 1_000
    refused(server.http.get("/projects/lab/preview", params={"ref": ref[:2_000]}), 404, 422)
    assert not marker.exists()


def test_ref_that_does_not_exist(server: Server) -> None:
    found = refused(submit(server, "lab", "feature/missing"), 404)
    [error] = found["errors"]
    assert (error["key"], error["value"]) == ("ref", "feature/missing")
    assert error["remedy"]


def test_full_and_abbreviated_commit(server: Server, good: str) -> None:
    for ref in (good, good[:10], "refs/heads/good"):
        assert server.submit("lab", ref)["commit"] == good
    [error] = refused(submit(server, "lab", "0" * 40), 404)["errors"]
    assert error["key"] == "ref"


def test_unknown_project(server: Server) -> None:
    [error] = refused(submit(server, "ledgre", "main"), 404)["errors"]
    assert (error["key"], error["value"]) == ("project", "ledgre")
    assert "lab" in error["remedy"]


def test_unknown_database(server: Server, lab: Repository) -> None:
    lab.branch("database", branch_files(GOOD, units=["u1"], more="database: {source: sample}"))
    [error] = refused(submit(server, "lab", "database", database="production"), 422)["errors"]
    assert (error["key"], error["value"]) == ("database", "production")
    assert "sample" in error["message"]


def test_database_for_a_branch_without_one(server: Server) -> None:
    [error] = refused(submit(server, "lab", "good", database="sample"), 422)["errors"]
    assert (error["key"], error["value"]) == ("database", "sample")


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"project": "lab"}, ["ref"]),
        ({"project": "lab", "ref": 7}, ["ref"]),
        ({"project": "lab", "ref": "good", "colour": "red"}, ["colour"]),
        ({"project": "lab", "ref": "good", "priority": "high"}, ["priority"]),
        ({"project": "lab", "ref": "good", "priority": 10**12}, ["priority"]),
        ({"project": "lab", "ref": "good", "note": "x" * 2_001, "priority": -101}, ["note", "priority"]),
    ],
)
def test_body_of_a_wrong_shape(server: Server, body: Json, keys: list[str]) -> None:
    found = refused(server.post("/runs", body), 422)
    assert sorted(error["key"] for error in found["errors"]) == keys


def test_body_that_is_not_json(server: Server) -> None:
    refused(server.http.post("/runs", content=b"{", headers={"Content-Type": "application/json"}), 400, 422)
    refused(server.http.post("/runs", data={"project": "lab", "ref": "good"}), 415)


def test_unknown_run(server: Server) -> None:
    for path in ("/runs/999999", "/runs/999999/log", "/runs/999999/stream", "/runs/999999/units/u1/output"):
        refused(server.http.get(path), 404)
    for verb in ("cancel", "resume", "rerun"):
        refused(server.post(f"/runs/999999/{verb}"), 404)


def test_cancel_and_resume_of_what_has_ended(server: Server) -> None:
    run = server.passes(server.submit("lab", "good")["id"])["id"]
    for verb in ("cancel", "resume"):
        [error] = refused(server.post(f"/runs/{run}/{verb}"), 409)["errors"]
        assert error["remedy"]


def test_repository_that_vanished(server: Server, gone: Repository, tmp_path: Path) -> None:
    gone.branch("main", branch_files(GOOD, units=["u1"]))
    old = server.passes(server.submit("gone", "main")["id"])
    moved = shutil.move(gone.path, tmp_path / "elsewhere.git")
    try:
        found = refused(submit(server, "gone", "main"), 503)
        assert found["code"] == "remote_unavailable"
        # What was pinned before can be run again: its commit is here.
        server.passes(server.act(old["id"], "rerun")["id"])
    finally:
        shutil.move(moved, gone.path)
    assert submit(server, "gone", "main").status_code == 201


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (b"version: 1\nworkspace: {image: x}\nrun: y\ncolour: red\n", 4, "colour"),
        (b"version: 2\nworkspace: {image: x}\nrun: y\n", 1, "version"),
        (b"version: 1\nworkspace: {image: x}\nrun: y\nrun: z\n", 4, "run"),
        (b"version: 1\nworkspace:\n  image: x\n  limits: {memory: much}\nrun: y\n", 4, "workspace.limits.memory"),
        (b"version: 1\nworkspace: {image: x}\nrun: y\ntimeouts: {run: 10000000000h}\n", 4, "timeouts.run"),
        (b"version: 1\nworkspace: {image: [\n", None, ""),
        (b"\xff\xfe\x00", None, ""),
    ],
)
def test_broken_specification(server: Server, lab: Repository, text: bytes, line: int | None, key: str) -> None:
    lab.branch("broken", {"seatrial.yml": text})
    found = refused(submit(server, "lab", "broken"), 422)
    assert found["code"] == "spec_invalid"
    assert found["errors"]
    if line is not None:
        assert (line, key) in [(error.get("line"), error["key"]) for error in found["errors"]]


def test_no_specification(server: Server, lab: Repository) -> None:
    lab.branch("bare", {"README": b"nothing here"})
    [error] = refused(submit(server, "lab", "bare"), 422)["errors"]
    assert (error["key"], error["value"]) == ("ref", "bare")
    assert "seatrial.yml" in error["message"]
    assert error["remedy"]


# ---- accepted, and ended with a reason -----------------------------------------------------------------------


def test_database_without_marker(server: Server, lab: Repository) -> None:
    lab.branch("unmarked", branch_files(GOOD, units=["u1"], more="database: {source: unmarked}"))
    run = server.submit("lab", "unmarked")["id"]
    found = until(lambda: (now := server.run(run))["state"] in ("interrupted", "errored") and now, "it is refused")
    assert found["reason"]["code"] in ("database_refused", "needs_attention")
    assert "not marked as a verification database" in found["reason"]["text"]
    assert "seatrial db bless unmarked" in found["reason"]["text"]
    assert "failed" not in server.states(run)


def test_image_that_cannot_be_built(server: Server, lab: Repository) -> None:
    spec = b"version: 1\nworkspace: {build: {dockerfile: Dockerfile}}\nrun: 'true'\n"
    dockerfile = f"FROM {IMAGE}\nRUN echo about to fail && exit 3\n".encode()
    found = ends(server, lab, "unbuildable", "failed", {"seatrial.yml": spec, "Dockerfile": dockerfile})
    assert found["reason"]["code"] == "image_build_failed"
    assert "about to fail" in server.http.get(f"/runs/{found['id']}/log").text


def test_image_that_its_registry_does_not_have(server: Server, lab: Repository, registry: Registry) -> None:
    registry.status, registry.code = 404, "MANIFEST_UNKNOWN"
    spec = f"version: 1\nworkspace: {{image: '{registry.image}'}}\nrun: 'true'\n"
    found = ends(server, lab, "imageless", "failed", {"seatrial.yml": spec.encode()})
    assert found["reason"]["code"] == "image_missing"
    assert registry.image in found["reason"]["text"]


def test_image_whose_registry_does_not_answer(server: Server, lab: Repository) -> None:
    """As on a machine without any registry: the run waits, says at once for what, and goes on when it is loaded."""
    name = "localhost:1/loaded-later:1"
    spec = f"version: 1\nworkspace: {{image: '{name}'}}\nrun: 'true'\n"
    lab.branch("unloaded", {"seatrial.yml": spec.encode()})
    run = server.submit("lab", "unloaded")["id"]
    found = server.wait(run, "interrupted")
    assert found["reason"]["code"] == "registry_unavailable"
    assert f"The image {name} is not on this machine" in found["waiting"]["text"]
    assert "Build or load it here" in found["waiting"]["text"]
    subprocess.run(["docker", "tag", IMAGE, name], check=True)
    try:
        server.passes(run)
    finally:
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True)
    assert "failed" not in server.states(run)


@pytest.mark.parametrize(
    ("command", "word"),
    [("'true'", "empty"), ("echo ../../etc/passwd", "segment"), ("printf 'a\\na\\n'", "twice")],
)
def test_list_of_units(server: Server, lab: Repository, command: str, word: str) -> None:
    files = branch_files(GOOD, units=[])
    files["seatrial.yml"] = files["seatrial.yml"].replace(b"units: []", b"units: " + command.encode())
    found = ends(server, lab, "units", "failed", files)
    assert found["reason"]["code"] == "units_invalid"
    assert word in found["reason"]["text"]


def test_units_command_that_fails(server: Server, lab: Repository) -> None:
    found = ends(server, lab, "units", "failed", branch_files(GOOD, units="echo no database >&2; exit 4"))
    assert found["reason"]["code"] == "step_failed"
    assert "no database" in found["reason"]["text"]


def test_exit_0_with_a_unit_missing(server: Server, lab: Repository) -> None:
    script = "work() { [ $1 != n2 ] || exit 0; }\neach\n"
    found = ends(server, lab, "missing", "failed", branch_files(script, units="printf 'n1\\nn2\\n'"))
    assert found["reason"]["code"] == "incomplete"
    assert "n2" in found["reason"]["text"]
    assert found["verdict"] is None


def test_mark_without_output(server: Server, lab: Repository) -> None:
    script = 'cat "$SEATRIAL_UNITS" >>"$SEATRIAL_CHECKPOINT"\n'
    found = ends(server, lab, "outputless", "failed", branch_files(script, units=["o1"]))
    assert found["reason"]["code"] == "incomplete"
    assert "o1 is marked, but it has no output" in server.http.get(f"/runs/{found['id']}/log").text


def test_output_changed_after_its_mark(server: Server, lab: Repository) -> None:
    script = """\
work() { :; }
each
[ "$(wc -l <"$SEATRIAL_UNITS")" = 1 ] || { sleep 0.5; echo late >>"$SEATRIAL_OUTPUT/c1.csv"; }
"""
    lab.branch("changing", branch_files(script, units=["c1", "c2", "c3", "c4"]))
    run = server.submit("lab", "changing")["id"]
    found = server.passes(run)
    assert server.begun(run) == ["c1", "c1", "c2", "c3", "c4"]
    assert "c1: its output was changed after its mark" in server.http.get(f"/runs/{run}/log").text
    voided = [event["data"] for event in server.get(f"/runs/{run}/events")["events"] if event["kind"] == "void"]
    assert [event["unit"] for event in voided] == ["c1"]
    assert found["units"] == {"total": 4, "done": 4, "failed": 0}
    assert server.http.get(f"/runs/{run}/units/c1/output").text == "c1,1\n"


def test_hostile_output_never_leaves_the_workspace(server: Server, lab: Repository) -> None:
    script = """\
ln -s /etc/passwd "$SEATRIAL_OUTPUT/s1.csv"
mkfifo "$SEATRIAL_OUTPUT/s2.csv"
cat "$SEATRIAL_UNITS" >>"$SEATRIAL_CHECKPOINT"
"""
    found = ends(server, lab, "hostile", "failed", branch_files(script, units=["s1", "s2"]))
    assert found["reason"]["code"] == "units_failed"
    units = server.get(f"/runs/{found['id']}/units")["units"]
    assert [(unit["unit"], unit["state"], unit["output"]) for unit in units] == [
        ("s1", "failed", None),
        ("s2", "failed", None),
    ]
