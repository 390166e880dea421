"""Pools of machines: the API, the page with its buttons, the command line, and what is said of a run that waits."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from command_line import Seatrial, command_line
from flask.testing import FlaskClient
from sqlalchemy import text
from web_machines import BUSY, IDLE, STOPPED, make_machines, three_machines
from web_site import Site

from jobs.machines import MachineState, WishKind

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Site]:
    made = make_machines(tmp_path)
    three_machines(made)
    yield made
    made.store.close()


@pytest.fixture
def browser(pools: Site) -> FlaskClient:
    return pools.app(config={"WTF_CSRF_ENABLED": False}).test_client()


def post(client: FlaskClient, path: str, body: dict[str, object] | None = None, code: int = 202) -> dict[str, object]:
    found = client.post(f"/api/v1/capacity/{path}", json=body or {})
    assert found.status_code == code, found.text
    assert found.json is not None
    return dict(found.json)


# ---- the API ----


def test_capacity_tells_each_machine_and_why(pools: Site, browser: FlaskClient) -> None:
    builders, local = browser.get("/api/v1/capacity").json["pools"]  # type: ignore[index]
    assert (local["provider"], local["ec2"]) == ("local", None)
    found = builders["ec2"]
    assert (found["policy"], found["watched"], found["problem"], found["max_running"]) == ("fixed", True, None, 3)
    busy, idle, stopped = found["machines"]
    assert (busy["state"], busy["tasks"], busy["decision"]["code"]) == ("running", 1, "works")
    assert (idle["idle_since"] is not None, idle["decision"]["code"]) == (True, "idle_time")
    assert idle["decision"]["until"] > idle["idle_since"]
    assert (stopped["state"], stopped["started_at"]) == ("stopped", None)
    assert busy["disk"]["free"] == 6 << 30


def test_wishes_are_written_and_not_carried_out(pools: Site, browser: FlaskClient) -> None:
    wish = post(browser, "builders/start", {"instance": STOPPED, "reason": "a demonstration"})["wish"]
    assert (wish["kind"], wish["made_by"], wish["outcome"]) == ("start", "mio", None)  # type: ignore[index]
    post(browser, "builders/stop", {"instance": IDLE})
    post(browser, "builders/start")
    kinds = [(one.kind, one.instance) for one in pools.store.machines.open_wishes("builders")]
    assert kinds == [(WishKind.START, STOPPED), (WishKind.STOP, IDLE), (WishKind.START, None)]
    states = [one.state for one in pools.store.machines.machines("builders")]
    assert states == [MachineState.RUNNING, MachineState.RUNNING, MachineState.STOPPED]


BAD = [
    ("builders/stop", {"instance": BUSY}, 409, "It does 1 task."),
    ("builders/stop", {"instance": STOPPED}, 409, "It is stopped."),
    ("builders/stop", {"instance": "i-0"}, 404, "Pool builders has no machine 'i-0'."),
    ("builders/stop", {}, 422, "instance"),
    ("builders/stop", {"instance": IDLE, "force": True}, 422, "force"),
    ("builders/start", {"instance": BUSY}, 409, "is running already"),
    ("builders/start", {"reason": "x" * 501}, 422, "one line of up to 500"),
    ("builders/hold", {"duration": "2"}, 422, "has no unit"),
    ("builders/hold", {"duration": "30s"}, 422, "is 30 s; allowed is 1m to 7d"),
    ("builders/hold", {"duration": "8d"}, 422, "allowed is 1m to 7d"),
    ("builders/hold", {}, 422, "duration"),
    ("local/start", {}, 409, "are there anyway"),
    ("local/hold", {"duration": "2h"}, 409, "are there anyway"),
    ("none/start", {}, 404, "There is no pool 'none'."),
    ("holds/99/release", {}, 404, "There is no hold 99."),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD)
def test_what_cannot_be_is_told(
    browser: FlaskClient, path: str, body: dict[str, object], status: int, words: str
) -> None:
    found = browser.post(f"/api/v1/capacity/{path}", json=body)
    assert found.status_code == status
    assert found.json is not None
    assert words in f"{found.json['detail']} {found.json['errors']}"


def test_a_hold_is_audited_and_stops_a_stop(pools: Site, browser: FlaskClient) -> None:
    body: dict[str, object] = {"instance": IDLE, "duration": "2h", "reason": "a demonstration"}
    hold = post(browser, "builders/hold", body, 201)["hold"]
    refused = browser.post("/api/v1/capacity/builders/stop", json={"instance": IDLE})
    assert refused.status_code == 409
    assert "mio keeps it awake until" in refused.json["detail"]  # type: ignore[index]
    (machine,) = [
        one
        for one in browser.get("/api/v1/capacity").json["pools"][0]["ec2"]["machines"]
        if one["hold"]  # type: ignore[index]
    ]
    assert machine["hold"]["reason"] == "a demonstration"
    post(browser, f"holds/{hold['id']}/release", code=200)  # type: ignore[index]
    post(browser, "builders/stop", {"instance": IDLE})
    told = browser.get("/api/v1/capacity/builders/decisions?limit=2").json
    assert [(one["code"], one["made_by"]) for one in told["decisions"]] == [  # type: ignore[index]
        ("hold_released", "mio"),
        ("hold_made", "mio"),
    ]
    older = browser.get(told["next"]).json  # type: ignore[index]
    assert [one["action"] for one in older["decisions"]] == ["alarm", "start"]  # type: ignore[index]


def test_money_is_told_by_run_and_as_csv(pools: Site, browser: FlaskClient) -> None:
    found = browser.get("/api/v1/capacity/builders/money").json
    assert found is not None
    assert found["currency"] == "USD"
    now = pools.store.machines.time()  # the two hours may have begun in the month before
    touched = sorted({f"{at:%Y-%m}" for at in (now - timedelta(hours=2), now)})
    bills = [browser.get(f"/api/v1/capacity/builders/money?month={month}").json for month in touched]
    assert 1.5 < sum(float(bill["total"]["cost"]) for bill in bills) < 1.6  # type: ignore[index] # two machines
    assert [one["name"] for one in found["projects"]] in (["plain", None], [None, "plain"])
    assert {one["name"] for one in found["runs"]} == {1, None}
    assert float(found["saved"]["always_on"]) >= float(found["saved"]["paid"])
    assert sum(float(one["cost"]) for one in found["days"]) == pytest.approx(float(found["total"]["cost"]), abs=0.01)
    page = browser.get("/capacity").text
    assert "Cost of each day of" in page
    assert "nobody: it ran without work" in page
    answer = browser.get("/api/v1/capacity/builders/ledger.csv")
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {(row["instance"], row["run"], row["project"], row["user"]) for row in rows} == {
        (BUSY, "1", "plain", "mio"),
        (IDLE, "", "", ""),
    }
    assert sum(float(row["cost"]) for row in rows) == pytest.approx(float(found["total"]["cost"]), abs=0.01)
    for month, words in (("2026-13", "no month"), ("2999-01", "not begun"), ("x", "no month")):
        refused = browser.get(f"/api/v1/capacity/builders/money?month={month}")
        assert (refused.status_code, words in refused.text) == (422, True)
    assert browser.get("/api/v1/capacity/builders/money?month=2020-02").json["total"]["seconds"] == "0"  # type: ignore[index]
    assert browser.get("/api/v1/capacity/local/money").status_code == 409


def test_a_run_tells_what_it_cost(pools: Site, browser: FlaskClient) -> None:
    cost = browser.get("/api/v1/runs/1/cost").json["cost"]  # type: ignore[index]
    assert (cost["currency"], cost["unpriced"]) == ("USD", "0")
    assert float(cost["cost"]) == pytest.approx(0.768, abs=0.01)  # a machine for two hours
    assert "USD 0.77 for 2.0 h" in browser.get("/runs/1").text
    pools.submit()
    assert browser.get("/api/v1/runs/2/cost").json == {"cost": None}
    assert browser.get("/api/v1/runs/9/cost").status_code == 404


def test_alarms_are_on_every_page_and_in_the_metrics(pools: Site, browser: FlaskClient) -> None:
    metrics = browser.get("/metrics").text
    assert 'seatrial_machines{pool="builders",state="running"} 2.0' in metrics
    assert 'seatrial_machine_alarms{pool="builders"} 0.0' in metrics
    assert 'pool="local",state' not in metrics
    pools.worker()
    with pools.store.database.write() as connection:
        connection.execute(text("UPDATE machines SET seen_at = seen_at - 600 WHERE host = 'host-2'"))
    assert f"Pool builders, {IDLE}: Nothing was heard of its worker for 10 min" in (browser.get("/runs").text)
    assert 'seatrial_machine_alarms{pool="builders"} 1.0' in browser.get("/metrics").text


# ---- the page ----


def test_the_page_says_what_each_machine_does_and_what_a_button_will_do(pools: Site, browser: FlaskClient) -> None:
    page = browser.get("/capacity").text
    assert "2 of 3 machines on" in page
    row = {one: page[page.index(f'id="machine-{one}"') :].partition("</tr>")[0] for one in (BUSY, IDLE, STOPPED)}
    assert "It does 1 task." in row[BUSY]
    assert "Stop" not in row[BUSY]
    assert "Grow its volume vol-0123456789abcdef0" in row[BUSY]
    assert "Stop: nothing runs, saves USD 0.384/h" in row[IDLE]
    assert "It is stopped 10 min after its last work." in row[IDLE]
    assert "Keep awake for 2 h" in row[IDLE]
    assert "Start for 2 h: USD 0.384/h" in row[STOPPED]
    total = browser.get("/api/v1/capacity/builders/money").json["total"]  # type: ignore[index]
    assert f"USD {float(total['cost']):.2f} for {float(total['seconds']) / 3600:.1f} h" in page
    assert "It has been running for 25 h." in page
    assert "No controller" not in page
    assert "seatrial worker --pool local" in page  # the other pool


def test_the_buttons_do_what_they_say(pools: Site, browser: FlaskClient) -> None:
    for path, form in (
        ("builders/start", {"instance": STOPPED}),
        ("builders/stop", {"instance": IDLE}),
        ("builders/hold", {"instance": IDLE, "duration": "2h"}),
    ):
        answer = browser.post(f"/capacity/{path}", data=form)
        assert (answer.status_code, answer.location) == (303, "/capacity")
    assert len(pools.store.machines.open_wishes("builders")) == 2
    page = browser.get("/capacity").text
    assert "mio asked" in page
    assert "mio keeps it awake, which ends" in page
    (hold,) = pools.store.machines.holds("builders")
    browser.post(f"/capacity/holds/{hold.id}/release")
    assert pools.store.machines.holds("builders") == []
    browser.post("/capacity/builders/stop", data={"instance": BUSY})
    assert "is not stopped: It does 1 task. A busy machine is never stopped." in browser.get("/capacity").text


def test_the_answer_to_a_wish_is_told(pools: Site, browser: FlaskClient) -> None:
    browser.post("/capacity/builders/stop", data={"instance": IDLE})
    (wish,) = pools.store.machines.open_wishes()
    pools.store.machines.wish_done(wish.id, "Not stopped. A task arrived.")
    assert "Not stopped. A task arrived." in browser.get("/capacity").text
    (told,) = browser.get("/api/v1/capacity").json["pools"][0]["ec2"]["wishes"]  # type: ignore[index]
    assert told["outcome"] == "Not stopped. A task arrived."


def test_the_hold_form_keeps_what_was_wrong(browser: FlaskClient) -> None:
    assert 'value="2h"' in browser.get(f"/capacity/builders/hold?instance={IDLE}").text
    answer = browser.post("/capacity/builders/hold", data={"duration": "soon", "reason": "why not"})
    assert answer.status_code == 422
    assert 'value="soon"' in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert "are there anyway" in browser.get("/capacity/local/hold").text
    assert browser.get("/capacity/none/hold").status_code == 404


def test_decisions_have_a_page_of_their_own(browser: FlaskClient) -> None:
    page = browser.get(f"/capacity/builders/decisions?instance={BUSY}").text
    assert "1 task of this pool is waiting." in page
    assert "25 h" not in page
    assert "Nothing was decided yet" in browser.get("/capacity/local/decisions").text


def test_a_pool_that_nobody_looks_after_says_so(tmp_path: Path) -> None:
    site = make_machines(tmp_path)
    page = site.app().test_client().get("/capacity").text
    assert "No controller looks after this pool" in page
    assert "No machine of this pool is known" in page
    assert "No controller looks after pool builders" in " ".join(site.service.healthy())
    site.store.close()


# ---- before and while a run waits ----


def test_an_opened_form_is_known_to_the_pool_of_its_project(pools: Site, browser: FlaskClient) -> None:
    browser.get("/new?project=accounts")
    assert pools.store.machines.now("builders").forms == ()
    browser.get("/new?project=plain")
    browser.get("/new?project=plain")
    assert len(pools.store.machines.now("builders").forms) == 1


def test_a_run_says_how_far_its_machine_is(pools: Site) -> None:
    known = pools.store.machines
    for instance in (BUSY, IDLE):
        known.upsert(instance, pool="builders", state=MachineState.STOPPED)
    for slot in ("host-1/1", "host-2/1"):
        pools.store.workers.unregister(slot)
    run = pools.submit("main", "plain")

    def told() -> tuple[str, str]:
        waiting = pools.service.waiting(run, pools.service.tasks(run.id))
        assert waiting is not None
        return waiting.code, waiting.text

    assert told()[0] == "machine_wanted"
    known.short("builders", IDLE, for_seconds=60, text="InsufficientInstanceCapacity")
    known.short("builders", "m7i.2xlarge", for_seconds=60, text="InsufficientInstanceCapacity")
    code, words = told()
    assert code == "no_capacity"
    assert words.startswith(f"EC2 has no capacity for {IDLE} and type m7i.2xlarge. Trying {BUSY}. Waiting for ")
    known.upsert(BUSY, pool="builders", state=MachineState.PENDING)
    assert told()[0] == "machine_starting"
    assert re.fullmatch(r".*A machine is starting, \d+ s so far\.", told()[1])
    known.upsert(BUSY, pool="builders", state=MachineState.STOPPING)
    assert told()[0] == "machine_stopping"


# ---- the command line ----


@pytest.fixture
def seatrial(pools: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seatrial]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with command_line(pools.app()) as run:
        yield run


def test_the_command_line_does_what_the_buttons_do(pools: Site, seatrial: Seatrial) -> None:
    plain = seatrial("capacity").stdout
    idle = re.compile(r"Idle for \d+ s")
    assert idle.sub("", plain) == idle.sub("", seatrial("capacity", "status").stdout)
    assert plain.splitlines()[0].split() == ["POOL", "SLOTS", "WORKERS", "RUNNING", "QUEUED"]
    assert "It does 1 task." in plain
    assert "is started in a moment" in seatrial("capacity", "start", "builders").stdout
    assert "is asked whether it is busy" in seatrial("capacity", "stop", "builders", IDLE).stdout
    held = seatrial("capacity", "hold", "builders", "--for", "1h", "--reason", "a demonstration").stdout
    assert re.fullmatch(r"Hold 1: mio keeps the pool awake until .* UTC: a demonstration\n", held)
    assert "Asked for by mio: start builders" in seatrial("capacity").stdout
    assert seatrial("capacity", "release", "1").stdout == "Hold 1 is over.\n"
    assert "It does 1 task" in seatrial("capacity", "stop", "builders", BUSY, code=2).output
    why = seatrial("capacity", "why", "builders").stdout
    assert f"{BUSY}: running. It does 1 task." in why
    assert "1 task of this pool is waiting." in why
    assert BUSY not in seatrial("capacity", "why", "builders", IDLE).stdout
    assert "are there anyway" in seatrial("capacity", "why", "local", code=2).output
    assert '"ec2"' in seatrial("capacity", "--json").stdout
    seatrial("capacity", "status", "--json")
