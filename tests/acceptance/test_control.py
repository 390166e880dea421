"""Cancel, resume, rerun; a branch that moves or vanishes meanwhile; a script that asks to be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fixtures_git import Repository
from fixtures_postgres import Sample
from fixtures_server import Server, branch_files, until

GRACE = 5.0  # what a script gets after SIGTERM
UNITS = ["u1", "u2", "u3"]
GATED = "work() { [ $1 != u2 ] || gate; }\neach\n"
STUBBORN = "trap '' TERM\n" + GATED
DATABASE = "database: {source: sample}\n"


def gated_run(server: Server, lab: Repository, branch: str, script: str = GATED, *, more: str = "") -> int:
    """Start a run of one batch that waits in its second unit."""
    lab.branch(branch, branch_files(script, units="printf 'u1\\nu2\\nu3\\n'", more=more))
    run: int = server.submit("lab", branch, units="u*")["id"]
    server.wait_log(run, "begin u2\n")
    return run


@pytest.fixture
def one_slot(server: Server, lab: Repository) -> Iterator[int]:
    """A run that holds one of the two slots, so that a later one has only one."""
    lab.branch("holder", branch_files("work() { gate; }\neach\n", units=["holder"]))
    run: int = server.submit("lab", "holder")["id"]
    server.wait_log(run, "begin holder\n")
    yield run
    server.finish(run)


@pytest.mark.parametrize("script", [GATED, STUBBORN], ids=["polite", "stubborn"])
def test_cancel(server: Server, lab: Repository, samples: tuple[Sample, Sample], script: str) -> None:
    run = gated_run(server, lab, "cancelled", script, more=DATABASE)
    mark = f"_{server.installation}_r{run}_"
    sample = samples[0]
    assert any(mark in name for name in sample.databases())
    assert any(mark in name for name in sample.roles())
    assert server.workspaces(run)
    server.act(run, "cancel")
    began = time.monotonic()
    found = server.wait(run, "cancelled")
    assert time.monotonic() - began < GRACE + 25.0
    assert found["reason"]["code"] == "cancelled"
    assert found["verdict"] is None
    until(lambda: not server.containers(run=run), "its containers are gone")
    until(lambda: not any(mark in name for name in sample.databases() | sample.roles()), "its clones are gone")
    assert "failed" not in server.states(run)


def test_resume_after_cancel_goes_on_with_the_same_commit(server: Server, lab: Repository) -> None:
    run = gated_run(server, lab, "moving")
    server.act(run, "cancel")
    found = server.wait(run, "cancelled")
    moved = lab.branch("moving", branch_files("echo moved; exit 1\n", units=UNITS))
    assert moved != found["commit"]
    server.act(run, "resume")
    assert server.finish(run)["commit"] == found["commit"]
    # u1 was finished before, and two batches of one or two units each had begun one.
    assert server.begun(run).count("u1") == 1
    assert server.begun(run).count("u2") == 2
    assert set(server.digests(run)) == set(UNITS)


def test_failed_run_resumes_at_its_failed_unit(server: Server, lab: Repository) -> None:
    script = """\
work() {
    if [ "$1" = u2 ] && [ "$SEATRIAL_ATTEMPT" = 1 ]; then
        printf 'u2\\tfailed\\tno such account\\n' >>"$SEATRIAL_CHECKPOINT"
        exit 0
    fi
}
each
"""
    lab.branch("failing", branch_files(script, units=["u2"]))
    run = server.submit("lab", "failing")["id"]
    failed = server.wait(run, "failed")
    assert failed["reason"]["code"] == "units_failed"
    assert failed["units"] == {"total": 1, "done": 0, "failed": 1}
    [unit] = server.get(f"/runs/{run}/units")["units"]
    assert (unit["state"], unit["text"]) == ("failed", "no such account")
    server.act(run, "resume")
    assert server.passes(run)["units"] == {"total": 1, "done": 1, "failed": 0}


def test_broken_script_loses_one_unit_and_the_rest_go_on(server: Server, lab: Repository, one_slot: int) -> None:
    script = "work() { [ $1 != k1 ] || { echo 'KeyError: amount'; exit 7; }; }\neach\n"
    lab.branch("raising", branch_files(script, units=["k1", "k2", "k3", "k4"]))
    run = server.submit("lab", "raising")["id"]
    found = server.wait(run, "failed")
    assert found["reason"]["code"] == "units_failed"
    assert found["units"] == {"total": 4, "done": 3, "failed": 1}
    [failed] = server.get(f"/runs/{run}/units", state="failed")["units"]
    assert failed["unit"] == "k1"
    assert "exit code 7" in failed["text"]
    assert "KeyError: amount" in failed["text"]


def test_rerun_is_a_new_run_of_the_same_commit(server: Server, lab: Repository) -> None:
    lab.branch("again", branch_files("work() { :; }\neach\n", units=UNITS))
    old = server.passes(server.submit("lab", "again", note="once more")["id"])
    lab.branch("again", branch_files("exit 1\n", units=UNITS))
    new = server.act(old["id"], "rerun")
    assert new["id"] != old["id"]
    assert (new["parent"], new["commit"], new["note"]) == (old["id"], old["commit"], "once more")
    server.passes(new["id"])
    assert server.digests(new["id"]) == server.digests(old["id"])


def test_exit_75_interrupts_and_resumes_by_itself(server: Server, lab: Repository) -> None:
    script = "work() { [ $1 != v2 ] || [ $SEATRIAL_ATTEMPT != 1 ] || exit 75; }\neach\n"
    lab.branch("tempfail", branch_files(script, units=["v1", "v2", "v3", "v4", "v5", "v6"]))
    run = server.submit("lab", "tempfail")["id"]
    server.passes(run)
    assert server.interruptions(run) == ["resume_requested"]
    assert server.begun(run) == ["v1", "v2", "v2", "v3", "v4", "v5", "v6"]
    assert "failed" not in server.states(run)


def test_resume_option_of_an_opaque_script(server: Server, lab: Repository) -> None:
    script = """\
for step in 1 2 3 4; do
    [ $step -gt "${1:-0}" ] || continue
    echo "step $step"
    echo $step >>"$SEATRIAL_OUTPUT/steps.txt"
    echo $step >>"$SEATRIAL_CHECKPOINT"
    [ $step != 2 ] || exit 75
done
"""
    files = branch_files(script, units=None, more='resume: sh verify.sh "$SEATRIAL_RESUME_FROM"')
    lab.branch("opaque", files)
    run = server.submit("lab", "opaque")["id"]
    server.passes(run)
    [log] = server.script_logs(run)
    assert log == b"step 1\nstep 2\nstep 3\nstep 4\n"
    answer = server.http.get(f"/runs/{run}/units/all/output", params={"path": "steps.txt"})
    assert answer.text == "1\n2\n3\n4\n"


def test_pushed_over_or_deleted_while_queued(server: Server, lab: Repository) -> None:
    """The commit that was shown at submit is the one that runs, whatever happens to the branch meanwhile."""
    script = 'work() { echo "I am $(cat name) at $SEATRIAL_COMMIT"; }\neach\n'
    lab.branch("holders", branch_files("work() { gate; }\neach\n", units=["h1", "h2"]))
    holders = server.submit("lab", "holders")["id"]
    server.wait_log(holders, "begin h", times=2)

    for name in ("forced", "deleted"):
        lab.branch(name, branch_files(script, units=["w"]) | {"name": name.encode()})
    forced, deleted = (server.submit("lab", name) for name in ("forced", "deleted"))
    assert forced["state"] == deleted["state"] == "queued"
    lab.branch("forced", branch_files(script, units=["w"]) | {"name": b"another"})
    lab.delete("refs/heads/deleted")
    server.finish(holders)

    for run, name in ((forced, "forced"), (deleted, "deleted")):
        assert server.passes(run["id"])["commit"] == run["commit"]
        assert f"I am {name} at {run['commit']}\n".encode() in server.script_logs(run["id"])[0]
