"""Accepted groups from outside: one run's verdict turns, the next one passes, and withdrawing ends it."""

from __future__ import annotations

import pytest
from fixtures_git import Repository
from fixtures_server import Server, branch_files

UNITS = ["a/pl", "b/pl", "c/pl"]
RULES = "compare: {rules: [{match: '*/pl', key: [account]}]}"
WRITE = """\
while read -r unit; do
    mkdir -p "$(dirname "$SEATRIAL_OUTPUT/$unit")"
    printf 'account,amount\\n4000,%s\\n4100,7\\n' "$(cat amount)" > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
done < "$SEATRIAL_UNITS"
"""


def branch(lab: Repository, name: str, amount: str) -> None:
    files = branch_files(WRITE, units=UNITS, more=RULES)
    files["amount"] = f"{amount}\n".encode()
    lab.branch(name, files)


def test_what_is_accepted_is_carried_to_later_runs(lab: Repository, shared_server: Server) -> None:
    server = shared_server
    branch(lab, "released", "200.00")
    branch(lab, "half-a-percent", "201.00")
    branch(lab, "too-much", "300.00")

    def run(ref: str) -> dict[str, object]:
        submitted = server.submit("lab", ref, baseline="released")
        return dict(server.wait(submitted["id"], "done"))

    first = run("half-a-percent")
    assert (first["verdict"], first["different"], first["accepted"]) == ("different", 3, 0)
    [group] = server.get(f"/runs/{first['id']}/groups")["groups"]
    assert (group["units"], group["ratio"]) == (3, pytest.approx(1.005))
    body = {"name": "New rates", "reason": "The law changed.", "expires": "30d"}
    done = server.post(f"/runs/{first['id']}/groups/{group['key']}/accept", body).json()
    assert (done["run"]["verdict"], done["run"]["accepted"]) == ("passed", 3)

    second = run("half-a-percent")
    assert (second["verdict"], second["accepted"], second["accepted_groups"]) == ("passed", 3, 1)
    third = run("too-much")
    assert (third["verdict"], third["different"], third["accepted"]) == ("different", 3, 0)

    server.post(f"/runs/{second['id']}/groups/{group['key']}/withdraw", {})
    verdicts = [server.get(f"/runs/{one['id']}")["verdict"] for one in (first, second)]
    assert verdicts == ["passed", "different"], "the first one stays as it ended"
    assert run("half-a-percent")["verdict"] == "different"
    [kept] = server.get("/projects/lab/acceptances")["acceptances"]
    assert (kept["standing"], kept["name"]) == ("withdrawn", "New rates")
