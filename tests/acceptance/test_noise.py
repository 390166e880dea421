"""A baseline that runs twice: what moves by itself is shown, and only what does not counts."""

from __future__ import annotations

from typing import Any

from fixtures_git import Repository
from fixtures_server import Server, branch_files

UNITS = ["noise/clock", "noise/stable", "noise/stamped", "noise/figures"]
RULES = "compare: {noise: 2, rules: [{match: 'noise/*', key: [account]}]}"
# A unit that writes the time, one that is always the same, one with a column of times, and one from the branch's file.
WRITE = """\
while read -r unit; do
    mkdir -p "$SEATRIAL_OUTPUT/noise"
    case "$unit" in
        noise/clock) date +%s.%N > "$SEATRIAL_OUTPUT/$unit.txt" ;;
        noise/stable) printf 'account,amount\\n4000,1\\n' > "$SEATRIAL_OUTPUT/$unit.csv" ;;
        noise/stamped) printf 'account,amount,generated_at\\n4000,1,%s\\n' "$(date +%s.%N)" > "$SEATRIAL_OUTPUT/$unit.csv" ;;
        noise/figures) printf 'account,amount,generated_at\\n4000,%s,%s\\n' "$(cat amount)" "$(date +%s.%N)" \\
            > "$SEATRIAL_OUTPUT/$unit.csv" ;;
    esac
    echo "leg $SEATRIAL_LEG"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
done < "$SEATRIAL_UNITS"
"""


def branch(lab: Repository, name: str, amount: str) -> None:
    lab.branch(name, branch_files(WRITE, units=UNITS, more=RULES) | {"amount": amount.encode()})


def listed(server: Server, run: int, **query: str) -> list[str]:
    return [unit["unit"] for unit in server.get(f"/runs/{run}/diffs", **query)["units"]]


def test_only_the_real_difference_counts(lab: Repository, shared_server: Server) -> None:
    branch(lab, "moving-a", "1.00")
    branch(lab, "moving-b", "2.00")
    run: int = shared_server.submit("lab", "moving-b", baseline="moving-a")["id"]
    ended = shared_server.wait(run, "done")
    assert [leg["name"] for leg in ended["legs"]] == ["baseline", "baseline_again", "candidate"]
    assert (ended["verdict"], ended["different"]) == ("different", 1)
    assert listed(shared_server, run, **{"class": "differing"}) == ["noise/figures"]
    assert listed(shared_server, run, **{"class": "noisy"}) == ["noise/clock", "noise/stamped"]
    found: dict[str, Any] = shared_server.get(f"/runs/{run}/noise")
    assert (found["baseline_runs"], found["checked"], found["unstable"], found["noisy"]) == (2, 4, 3, 2)
    moves = {one["unit"]: (one["columns"], one["whole"]) for one in found["units"]}
    assert moves == {
        "noise/clock": ([], ["bytes"]),
        "noise/stamped": (["generated_at"], []),
        "noise/figures": (["generated_at"], []),
    }
    [group] = shared_server.get(f"/runs/{run}/groups")["groups"]
    assert (group["column"], group["first"]) == ("amount", ["noise/figures"])


def test_noise_alone_passes(lab: Repository, shared_server: Server) -> None:
    branch(lab, "still-a", "1.00")
    branch(lab, "still-b", "1.00")
    lab.branch("still-c", branch_files(WRITE, units=UNITS, more=RULES) | {"amount": b"1.00", "other": b"1"})
    run: int = shared_server.submit("lab", "still-c", baseline="still-a")["id"]
    ended = shared_server.passes(run)
    assert ended["different"] == 0
    assert shared_server.get(f"/runs/{run}/noise")["noisy"] == 3
    again = next(task for task in ended["tasks"] if task["leg"] == "baseline_again" and task["kind"] == "verify")
    assert b"leg baseline\n" in shared_server.task_log(run, again["id"]), "to the script both are the baseline"
    once = shared_server.submit("lab", "still-c", baseline="still-b", options={"noise": 1})["id"]
    ended = shared_server.wait(once, "done")
    assert (len(ended["legs"]), ended["verdict"], ended["different"]) == (2, "different", 3)


def test_a_baseline_that_is_finished_is_not_even_prepared(lab: Repository, shared_server: Server) -> None:
    more = 'compare: {noise: 1}\ndatabase: {source: sample}\nsetup: ["sleep 0"]'
    script = WRITE.replace("noise/", "spare/").replace("$(date +%s.%N)", "now").replace("date +%s.%N", "echo now")
    units = "printf 'spare/%s\\n' clock stable"
    files = branch_files(script.replace('"$SEATRIAL_OUTPUT/noise"', '"$SEATRIAL_OUTPUT/spare"'), units=units, more=more)
    lab.branch("spared-a", files | {"amount": b"1"})
    lab.branch("spared-b", files | {"amount": b"2"})
    first = shared_server.passes(shared_server.submit("lab", "spared-b", baseline="spared-a")["id"])
    assert first["legs"][0]["reused"] is None
    again = shared_server.passes(shared_server.submit("lab", "spared-b", baseline="spared-a")["id"])
    assert (again["legs"][0]["reused"]["run"], again["legs"][0]["reused"]["units"]) == (first["id"], 2)
    assert again["legs"][0]["data_id"] == first["legs"][0]["data_id"]
    [prepare] = [task for task in again["tasks"] if task["leg"] == "baseline"]
    steps = [step["name"] for step in again["steps"] if step["task"] == prepare["id"]]
    assert steps == ["checkout", "image", "take over", "plan"]
    shared_server.bless("sample")
    other = shared_server.passes(shared_server.submit("lab", "spared-b", baseline="spared-a")["id"])
    assert other["legs"][0]["reused"]["differs"] == ["data"]
    shared_server.wait_clean()
