"""Compare runs from outside: a released and a candidate branch on the same data, with a class for each unit."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from fixtures_git import Repository
from fixtures_server import Server, branch_files, kill, until

UNITS = ["a/pl", "b/pl", "c/pl", "d/pl", "e/pl"]
RULES = "compare: {rules: [{match: '*/pl', key: [account], tolerance: {absolute: 0.005}}]}"
# Prints one table a unit; the amount of each is in the branch's own file.
WRITE = """\
wait_for() { :; }
while read -r unit; do
    wait_for "$unit"
    if [ -e fail ] && grep -qx "$unit" fail; then
        printf '%s\\tfailed\\tno such account\\n' "$unit" >> "$SEATRIAL_CHECKPOINT"
        continue
    fi
    amount=$(sed -n "s#^$unit ##p" amounts)
    mkdir -p "$(dirname "$SEATRIAL_OUTPUT/$unit")"
    printf 'account,amount\\n4000,%s\\n4100,7\\n' "${amount:-1.00}" > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
done < "$SEATRIAL_UNITS"
"""


def branch(lab: Repository, name: str, amounts: dict[str, str], units: list[str], failing: str = "") -> None:
    files = branch_files(WRITE, units=units, more=RULES)
    files["amounts"] = "".join(f"{unit} {amount}\n" for unit, amount in amounts.items()).encode()
    if failing:
        files["fail"] = f"{failing}\n".encode()
    lab.branch(name, files)


def classes(server: Server, run: int) -> dict[str, str]:
    return {unit["unit"]: unit["class"] for unit in server.get(f"/runs/{run}/diffs")["units"]}


def test_each_unit_has_a_class(lab: Repository, shared_server: Server) -> None:
    server = shared_server
    branch(lab, "released", {"b/pl": "1.001"}, UNITS[:4], failing="d/pl")
    branch(lab, "candidate", {"c/pl": "3.50"}, ["a/pl", "b/pl", "c/pl", "e/pl"])
    run = server.submit("lab", "candidate", baseline="released")
    assert run["baseline"]["ref"] == "released"
    assert [leg["name"] for leg in run["legs"]] == ["baseline", "candidate"]
    ended = server.wait(run["id"], "done")
    assert (ended["verdict"], ended["different"]) == ("different", 2)
    expected = {"a/pl": "same", "b/pl": "equivalent", "c/pl": "different", "d/pl": "missing", "e/pl": "new"}
    assert classes(server, run["id"]) == expected
    listed = server.get(f"/runs/{run['id']}/diffs")
    assert listed["left"] == 0
    assert listed["counts"] == {"same": 1, "equivalent": 1, "different": 1, "missing": 1, "new": 1}
    one: dict[str, Any] = server.get(f"/runs/{run['id']}/diffs/c/pl")
    assert one["rows"] == {"changed": 1, "added": 0, "removed": 0, "same": 1}
    assert one["rule"] == "*/pl"
    [cell] = one["differences"]
    assert (cell["key"], cell["column"], cell["a"], cell["b"]) == (["4000"], "amount", "1.00", "3.50")
    assert cell["delta"] == pytest.approx(2.5)
    groups = server.get(f"/runs/{run['id']}/groups")["groups"]
    assert {group["title"]: (group["units"], group["ratio"]) for group in groups} == {
        "*/pl: amount: values went up": (1, pytest.approx(3.5)),
        "*/pl: the candidate does not list it": (1, None),
    }
    assert server.get(f"/runs/{run['id']}/latency")["units"] == 3


def test_the_same_branch_twice_passes(lab: Repository, shared_server: Server) -> None:
    branch(lab, "twin", {}, UNITS)
    ended = shared_server.passes(shared_server.submit("lab", "twin", baseline="twin")["id"])
    assert ended["different"] == 0
    assert set(classes(shared_server, ended["id"]).values()) == {"same"}


def test_a_unit_that_fails_is_a_class_and_no_failed_run(lab: Repository, shared_server: Server) -> None:
    branch(lab, "sound", {}, UNITS)
    branch(lab, "broken", {}, UNITS, failing="b/pl")
    ended = shared_server.wait(shared_server.submit("lab", "broken", baseline="sound")["id"], "done")
    assert ended["verdict"] == "different"
    assert classes(shared_server, ended["id"])["b/pl"] == "candidate_failed"


def test_differences_appear_while_the_rest_runs(lab: Repository, shared_server: Server) -> None:
    # Units of its own: those that differed in another test would go first.
    waits = WRITE.replace("{ :; }", '{ [ "$1" != late/pl ] || gate; }')
    units = ["late/pl", "soon/pl"]
    for name, amount in (("early-a", "1"), ("early-b", "2")):
        files = branch_files(waits, units=units[::-1], more=RULES) | {"amounts": f"soon/pl {amount}\n".encode()}
        lab.branch(name, files)
    run = shared_server.submit("lab", "early-b", baseline="early-a")["id"]
    until(lambda: classes(shared_server, run).get("soon/pl") == "different", "the first difference is there")
    assert shared_server.run(run)["state"] == "running"
    assert shared_server.finish(run)["verdict"] == "different"
    lab.branch("early-a", branch_files(WRITE, units=units, more=RULES))
    again = shared_server.submit("lab", "early-b", baseline="early-a")["id"]
    found = shared_server.finish(again)
    first = {task["id"] for task in found["tasks"] if task["batch"] == 1}
    listed = shared_server.get(f"/runs/{again}/units")["units"]
    assert [unit["unit"] for unit in listed if unit["task"] in first] == ["soon/pl"] * 2, "what differed goes first"


def test_a_baseline_that_is_not_there_is_named(lab: Repository, shared_server: Server) -> None:
    branch(lab, "lonely", {}, UNITS)
    answer = shared_server.post("/runs", {"project": "lab", "ref": "lonely", "baseline": "no-such-branch"})
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["key"] == "baseline"


def test_fail_fast_stops_the_run(lab: Repository, shared_server: Server) -> None:
    waits = WRITE.replace("{ :; }", '{ case "$1" in f?/pl) ;; *) gate ;; esac; }')
    units = ["fa/pl", "fb/pl", "fast-c/pl", "fast-d/pl", "fast-e/pl"]
    for name, amount in (("fast-a", "1"), ("fast-b", "2")):
        files = branch_files(waits, units=units, more=RULES)
        lab.branch(name, files | {"amounts": f"fa/pl {amount}\nfb/pl {amount}\n".encode()})
    run = shared_server.submit("lab", "fast-b", baseline="fast-a", options={"fail_fast": 2})["id"]
    ended = shared_server.wait(run, "done")
    assert (ended["verdict"], ended["different"]) == ("different", 2)
    text = "Stopped after 2 differing units (fail_fast); 3 units were not compared."
    assert ended["reason"] == {"code": "fail_fast", "text": text}
    assert classes(shared_server, run) == {"fa/pl": "different", "fb/pl": "different"}
    assert shared_server.get(f"/runs/{run}/diffs")["left"] == 3


def test_a_leg_that_cannot_be_prepared_ends_the_other_one(lab: Repository, shared_server: Server) -> None:
    endless = WRITE.replace("{ :; }", "{ until [ -e /tmp/never ]; do sleep 0.1; done; }")
    lab.branch("prepared", branch_files(endless, units=UNITS, more=RULES))
    fails = 'setup: ["until [ -e /tmp/go ]; do sleep 0.1; done; exit 7"]'
    lab.branch("unprepared", branch_files(WRITE, units=UNITS, more=fails))
    run = shared_server.submit("lab", "unprepared", baseline="prepared")["id"]

    def goes() -> bool:
        tasks = shared_server.run(run)["tasks"]
        return any((one["leg"], one["kind"], one["state"]) == ("baseline", "verify", "running") for one in tasks)

    until(goes, "the baseline is verified")
    ended = shared_server.finish(run, "failed")
    assert (ended["verdict"], ended["reason"]["code"]) == (None, "step_failed")
    states = {task["leg"]: task["state"] for task in ended["tasks"] if task["kind"] == "verify"}
    assert states == {"baseline": "cancelled"}


def test_a_comparer_that_is_killed_again_and_again_loses_nothing(lab: Repository, shared_server: Server) -> None:
    units = [f"u{number:02}/pl" for number in range(40)]
    slow = WRITE.replace("{ :; }", "{ sleep 0.1; }")
    for name, amount in (("killed-a", "1"), ("killed-b", "2")):
        amounts = "".join(f"{unit} {amount}\n" for unit in units[::2]).encode()
        lab.branch(name, branch_files(slow, units=units, more=RULES) | {"amounts": amounts})
    run = shared_server.submit("lab", "killed-b", baseline="killed-a")["id"]
    kills = 0
    while shared_server.run(run)["state"] != "done":
        for comparer in shared_server.direct("comparer"):
            with suppress(psutil.NoSuchProcess):  # it was killed a moment ago
                children = comparer.children()
                if children and kills < 6:  # it is comparing, or was a moment ago
                    kill(*(children if kills % 2 else [comparer]))
                    kills += 1
        time.sleep(0.2)
    ended = shared_server.run(run)
    assert (ended["verdict"], ended["different"]) == ("different", 20)
    expected = {unit: "different" if number % 2 == 0 else "same" for number, unit in enumerate(units)}
    assert classes(shared_server, run) == expected
    assert kills > 0
    for unit in units[::2]:
        assert shared_server.get(f"/runs/{run}/diffs/{unit}")["rows"]["changed"] == 1, unit


def test_both_legs_have_the_same_data_though_the_source_is_blessed_between(
    lab: Repository, shared_server: Server
) -> None:
    more = RULES + '\ndatabase: {source: sample}\nsetup: ["sleep 0"]'
    lab.branch("blessed-a", branch_files(WRITE, units=["n/pl"], more=more))
    slow = more.replace("sleep 0", "until test -e /tmp/go; do sleep 0.1; done")
    lab.branch("blessed-b", branch_files(WRITE, units=["n/pl"], more=slow))
    run = shared_server.submit("lab", "blessed-b", baseline="blessed-a")["id"]

    def legs() -> dict[str, Any]:
        return {leg["name"]: leg for leg in shared_server.run(run)["legs"]}

    until(lambda: legs()["baseline"]["prepared"], "the baseline is prepared")
    before = legs()["baseline"]["data_id"]
    candidate = next(task["id"] for task in shared_server.run(run)["tasks"] if task["leg"] == "candidate")

    def prepares() -> bool:
        found = shared_server.containers(kind="workspace", run=run, task=candidate)
        return any(one.status == "running" for one in found)

    until(prepares, "the candidate is prepared")
    shared_server.bless("sample")
    worker = next(task["worker"] for task in shared_server.run(run)["tasks"] if task["id"] == candidate)
    [slot] = [one for one in shared_server.processes("slot") if one.pid == _pid_of(shared_server, worker)]
    kill(slot)  # whoever adopts its container finds a newer base
    ended = shared_server.finish(run)
    assert ended["verdict"] == "passed"
    assert {leg["data_id"] for leg in ended["legs"]} == {before}
    again = shared_server.submit("lab", "blessed-a", baseline="blessed-a")["id"]
    assert {leg["data_id"] for leg in shared_server.wait(again, "done")["legs"]} != {before}


def _pid_of(server: Server, worker: str) -> int:
    [pool] = server.get("/capacity")["pools"]
    return next(int(one["pid"]) for one in pool["workers"] if one["name"] == worker)


def test_a_baseline_is_taken_over_and_only_what_differs_is_run_again(lab: Repository, shared_server: Server) -> None:
    units = ["ra/pl", "rb/pl", "rc/pl"]
    branch(lab, "reused", {}, units)
    branch(lab, "using", {"rb/pl": "2"}, units)
    first = shared_server.wait(shared_server.submit("lab", "using", baseline="reused")["id"], "done")
    assert first["legs"][0]["reused"] is None
    second = shared_server.wait(shared_server.submit("lab", "using", baseline="reused")["id"], "done")
    reused = second["legs"][0]["reused"]
    assert (reused["run"], reused["units"], reused["differs"]) == (first["id"], 3, [])
    assert reused["seconds_saved"] > 0
    assert [task["kind"] for task in second["tasks"] if task["leg"] == "baseline"] == ["prepare"]
    assert classes(shared_server, second["id"]) == classes(shared_server, first["id"])
    anew = shared_server.submit("lab", "using", baseline="reused", options={"reuse": False})
    assert shared_server.wait(anew["id"], "done")["legs"][0]["reused"] is None
    answer = shared_server.post(f"/runs/{first['id']}/rerun", {"only": "different"})
    assert answer.status_code == 201, answer.text
    child = shared_server.wait(answer.json()["id"], "done")
    assert (child["parent"], child["verdict"]) == (first["id"], "different")
    assert classes(shared_server, child["id"]) == {"rb/pl": "different"}
    passed = shared_server.passes(shared_server.submit("lab", "reused", baseline="reused")["id"])
    refused = shared_server.post(f"/runs/{passed['id']}/rerun", {"only": "different"})
    assert refused.status_code == 409
