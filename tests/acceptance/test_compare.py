"""Compare runs from outside: a released and a candidate branch on the same data, with a class for each unit."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures_git import Repository
from fixtures_server import Server, branch_files, until

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
    waits = WRITE.replace("{ :; }", '{ [ "$1" != b/pl ] || gate; }')
    for name, amount in (("early-a", "1"), ("early-b", "2")):
        files = branch_files(waits, units=UNITS[:2], more=RULES) | {"amounts": f"a/pl {amount}\n".encode()}
        lab.branch(name, files)
    run = shared_server.submit("lab", "early-b", baseline="early-a")["id"]
    until(lambda: classes(shared_server, run).get("a/pl") == "different", "the first difference is there")
    assert shared_server.run(run)["state"] == "running"
    shared_server.open_gate(run)
    assert shared_server.wait(run, "done")["verdict"] == "different"


def test_a_baseline_that_is_not_there_is_named(lab: Repository, shared_server: Server) -> None:
    branch(lab, "lonely", {}, UNITS)
    answer = shared_server.post("/runs", {"project": "lab", "ref": "lonely", "baseline": "no-such-branch"})
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["key"] == "baseline"
