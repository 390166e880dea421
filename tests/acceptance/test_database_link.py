"""A link that drops is the world's fault; a session that the branch ends is the branch's."""

from __future__ import annotations

import pytest
from fixtures_git import Repository
from fixtures_postgres import Proxy
from fixtures_server import Server, branch_files, until

DATABASE = "database: {source: sample}"
# The second unit keeps a session open until it breaks or the test opens the gate.
SCRIPT = """\
work() {
    psql -XAtc 'SELECT count(*) FROM account' || exit 1
    [ $1 = d2 ] || return 0
    psql -Xqc 'SELECT pg_sleep(100)' & query=$!
    until [ -e /tmp/go ]; do kill -0 $query 2>/dev/null || exit 1; sleep 0.1; done
    kill $query
}
each
"""


# Both wait without a word: one for a new session, the other one for an answer in a session that it keeps.
WAITS = """\
work() {
    psql -XAtc 'SELECT $$asked$$' || exit 1
    [ $SEATRIAL_ATTEMPT = 1 ] || return 0
    gate
    until psql -Xqc 'SELECT 1' >/dev/null 2>&1; do sleep 0.5; done
}
each
"""
KEEPS = """\
work() {
    wait=; [ $SEATRIAL_ATTEMPT != 1 ] || wait='\\! until [ -e /tmp/go ]; do sleep 0.1; done'
    printf '%s\n' 'SELECT $$asked$$;' "$wait" 'SELECT 1;' | psql -XAt -v ON_ERROR_STOP=1
}
each
"""


@pytest.mark.parametrize("how", ["cut", "blink"])
def test_link_that_drops(server: Server, lab: Repository, link: Proxy, how: str) -> None:
    lab.branch(how, branch_files(SCRIPT, units="printf 'd1\\nd2\\n'", more=DATABASE))
    run = server.submit("lab", how)["id"]
    # The other batch has ended whole, clone and all.
    until(lambda: [task["state"] for task in server.run(run)["tasks"]].count("done") == 2, "the batch of d1 is done")
    server.wait_log(run, "begin d2\n1000\n")
    if how == "cut":
        link.cut()
    else:
        link.blink()
    until(lambda: server.interruptions(run), "the run is interrupted")
    link.mend()
    found = server.finish(run)
    # While the link is down a further attempt may find the server away.
    assert server.interruptions(run)[0] == "database_lost"
    assert set(server.interruptions(run)) <= {"database_lost", "database_unavailable"}
    assert "failed" not in server.states(run)
    assert found["units"] == {"total": 2, "done": 2, "failed": 0}
    assert server.begun(run) == ["d1", "d2", "d2"]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "script"), [("cut", WAITS), ("hang", WAITS), ("hang", KEEPS)])
@pytest.mark.parametrize("timeouts", ["run: 5m, stall: 20s", "run: 20s, stall: 2m"])
def test_script_that_waits_silently_for_a_link_that_is_away(
    server: Server, lab: Repository, link: Proxy, how: str, script: str, timeouts: str
) -> None:
    files = branch_files(script, units=["s1", "s2"], more=DATABASE)
    files["seatrial.yml"] = files["seatrial.yml"].replace(b"run: 5m, stall: 2m", timeouts.encode())
    lab.branch("silent", files)
    run = server.submit("lab", "silent")["id"]
    server.wait_log(run, "asked\n")
    getattr(link, how)()
    server.open_gate(run)
    until(lambda: server.interruptions(run) or server.states(run)[-1] == "failed", "the run is interrupted")
    link.mend()
    found = server.finish(run)
    assert server.interruptions(run)[0] == "database_lost"
    assert "failed" not in server.states(run)
    assert found["units"] == {"total": 2, "done": 2, "failed": 0}


def test_script_that_ends_its_own_session_has_failed(server: Server, lab: Repository) -> None:
    script = "work() { psql -Xc 'SELECT pg_terminate_backend(pg_backend_pid())' || exit 1; }\neach\n"
    lab.branch("suicidal", branch_files(script, units=["f1"], more=DATABASE))
    run = server.submit("lab", "suicidal")["id"]
    found = server.wait(run, "failed")
    assert found["reason"]["code"] == "units_failed"
    assert server.interruptions(run) == []


def test_server_of_the_database_away_at_the_start(server: Server, lab: Repository, link: Proxy) -> None:
    lab.branch("early", branch_files("work() { psql -XAtc 'SELECT 1'; }\neach\n", units=["g1"], more=DATABASE))
    link.cut()
    run = server.submit("lab", "early")["id"]
    until(lambda: server.interruptions(run), "the run is interrupted")
    link.mend()
    server.passes(run)
    assert set(server.interruptions(run)) == {"database_unavailable"}
