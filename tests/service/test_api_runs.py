"""The JSON API over the real service and a real SQLite store."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from flask.testing import FlaskClient
from web_site import Site

from jobs.adapters.sql_schema import heartbeats
from jobs.run import TaskState
from runner.model import Reason, UnitResult, UnitState

SHAPE = {
    "id", "project", "ref", "commit", "baseline", "state", "verdict", "reason", "units", "different", "accepted",
    "accepted_groups", "attempts", "created_at", "started_at", "finished_at", "legs", "user", "note", "priority",
    "database", "units_filter", "pool", "cancel_requested", "parent", "options", "outputs_removed", "links",
}  # fmt: skip


def submit(client: FlaskClient, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return client.post("/api/v1/runs", json={"project": "accounts", "ref": "main"} | body, headers=headers)


# ---- submit ----


def test_a_run_has_the_documented_shape(client: FlaskClient) -> None:
    answer = submit(client, ref="feature/rounding", note="Rounding", priority=5, units="*/pl")
    assert answer.status_code == 201
    run = answer.json
    assert set(run) == SHAPE
    assert answer.headers["Location"] == f"/api/v1/runs/{run['id']}" == run["links"]["self"]
    assert (run["state"], run["verdict"], run["reason"], run["baseline"]) == ("queued", None, None, None)
    assert run["units"] == {"total": None, "done": 0, "failed": 0}
    assert len(run["commit"]) == 40
    assert run["legs"][0]["subject"] == "Round half to even in the ledger"
    assert (run["user"], run["note"], run["priority"], run["units_filter"]) == ("mio", "Rounding", 5, "*/pl")
    assert run["created_at"].endswith("Z")
    assert run["created_at"][10] == "T"


def test_an_idempotency_key_gives_the_same_run(client: FlaskClient) -> None:
    first = submit(client, {"Idempotency-Key": "k-1"})
    again = submit(client, {"Idempotency-Key": "k-1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json["id"] == again.json["id"]
    other = submit(client, {"Idempotency-Key": "k-1"}, note="another")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "käse"])
def test_an_odd_idempotency_key_is_refused(client: FlaskClient, key: str) -> None:
    answer = submit(client, {"Idempotency-Key": key.encode().decode("latin-1")})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["key"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"project": "nope"}, "project"),
        ({"ref": "gone"}, "ref"),
        ({"ref": ""}, "ref"),
        ({"ref": "-x"}, "ref"),
        ({"ref": "--upload-pack=touch pwned"}, "ref"),
        ({"ref": "a..b"}, "ref"),
        ({"ref": "@{-1}"}, "ref"),
        ({"ref": "bare"}, "ref"),
        ({"ref": "x" * 301}, "ref"),
        ({"ref": "a\x00b"}, "ref"),
        ({"ref": 7}, "ref"),
        ({"units": 7}, "units"),
        ({"priority": 101}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": True}, "priority"),
        ({"note": "x" * 2_001}, "note"),
        ({"note": "a\x00"}, "note"),
        ({"database": "unknown"}, "database"),
        ({"options": []}, "options"),
        ({"branch": "main"}, "branch"),
        ({"project": None}, "project"),
    ],
)
def test_bad_input_names_field_and_remedy(client: FlaskClient, body: dict[str, Any], key: str) -> None:
    answer = submit(client, **body)
    assert answer.status_code in (404, 422)
    assert answer.mimetype == "application/problem+json"
    problem = answer.json
    assert set(problem) >= {"type", "title", "status", "detail", "code", "errors"}
    assert problem["status"] == answer.status_code
    assert key in {error["key"] for error in problem["errors"]}
    assert client.get("/api/v1/runs").json["runs"] == []


def test_every_problem_of_a_specification_is_named_with_its_line(client: FlaskClient) -> None:
    problem = submit(client, ref="broken").json
    assert problem["code"] == "spec_invalid"
    assert {(error["key"], error.get("line")) for error in problem["errors"]} >= {("version", 1), ("run", 2)}


def test_an_unreachable_remote_is_a_503(site: Site, client: FlaskClient) -> None:
    site.remotes["accounts"].down = "connection refused"
    answer = submit(client)
    assert (answer.status_code, answer.json["code"]) == (503, "remote_unavailable")
    assert "connection refused" in json.dumps(answer.json)
    assert answer.headers["Retry-After"] == "10"


@pytest.mark.parametrize(
    ("data", "mimetype", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"", "application/json", 422),
        (b'{"project": "\\ud800", "ref": "x"}', "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"project=accounts&ref=main", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b'{"note": "' + b"x" * (1 << 20) + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_is_not_json_is_refused(client: FlaskClient, data: bytes, mimetype: str, status: int) -> None:
    answer = client.post("/api/v1/runs", data=data, content_type=mimetype)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"


# ---- lists ----


def test_runs_are_paged_both_ways(site: Site, client: FlaskClient) -> None:
    for _ in range(7):
        site.submit("main")
    first = client.get("/api/v1/runs?limit=3")
    assert [run["id"] for run in first.json["runs"]] == [7, 6, 5]
    assert 'rel="next"' in first.headers["Link"]
    second = client.get(first.json["next"])
    assert [run["id"] for run in second.json["runs"]] == [4, 3, 2]
    last = client.get(second.json["next"])
    assert ([run["id"] for run in last.json["runs"]], last.json["next"]) == ([1], None)
    back = client.get(last.json["previous"])
    assert [run["id"] for run in back.json["runs"]] == [4, 3, 2]


def test_runs_are_filtered(site: Site, client: FlaskClient) -> None:
    site.submit("main", note="Zebra")
    site.submit("main", "plain")
    cancelled = site.submit("feature/rounding")
    site.service.cancel(cancelled.id, user="mio")

    def ids(query: str) -> list[int]:
        return [run["id"] for run in client.get(f"/api/v1/runs?{query}").json["runs"]]

    assert ids("project=plain") == [2]
    assert ids("state=cancelled") == [3]
    assert ids("text=zebra") == [1]
    assert ids("ref=main") == [2, 1]
    assert ids("user=nobody") == []
    assert ids("verdict=passed") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=201", "state=odd", "colour=red", "before=0", f"before={2**63}", "text=%00"]
)
def test_a_bad_query_is_refused(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/v1/runs?{query}")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["key"] == query.split("=")[0]


def test_units_go_on_after_a_position(site: Site, client: FlaskClient) -> None:
    units = [f"t{n:03}/pl" for n in range(25)]
    run = site.passed(units)
    first = client.get(f"/api/v1/runs/{run.id}/units?limit=20").json
    rest = client.get(first["next"]).json
    assert [unit["unit"] for unit in first["units"] + rest["units"]] == units
    assert (len(rest["units"]), rest["next"]) == (5, None)
    assert first["counts"] == {"candidate": {"total": 25, "done": 25, "failed": 0}}
    assert client.get(f"/api/v1/runs/{run.id}/units?text=t007").json["units"][0]["unit"] == "t007/pl"
    assert client.get(f"/api/v1/runs/{run.id}/units?state=failed").json["units"] == []


def test_a_run_shows_tasks_steps_and_attempts(site: Site, client: FlaskClient) -> None:
    run = site.failed()
    shown = client.get(f"/api/v1/runs/{run.id}").json
    assert (shown["state"], shown["reason"]["code"]) == ("failed", "units_failed")
    assert [task["kind"] for task in shown["tasks"]] == ["prepare", "verify"]
    assert "migrate" in {step["name"] for step in shown["steps"]}
    attempts = client.get(f"/api/v1/runs/{run.id}/attempts").json["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["done", "failed"]
    events = client.get(f"/api/v1/runs/{run.id}/events").json["events"]
    assert events[0]["kind"] == "submitted"
    page = client.get(f"/api/v1/runs/{run.id}/events?limit=2").json
    assert client.get(page["next"]).json["events"][0]["id"] > page["events"][-1]["id"]


# ---- actions ----


def test_cancel_resume_rerun(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    post = lambda action: client.post(f"/api/v1/runs/{run.id}/{action}", json={})  # noqa: E731
    assert post("cancel").json["state"] == "cancelled"
    assert post("cancel").status_code == 409
    assert post("resume").json["state"] == "queued"
    again = post("resume")
    assert (again.status_code, again.json["code"]) == (409, "conflict")
    new = post("rerun")
    assert (new.status_code, new.json["parent"], new.json["commit"]) == (201, run.id, run.candidate.commit)
    assert client.post("/api/v1/runs/999/cancel", json={}).status_code == 404
    assert client.post(f"/api/v1/runs/{run.id}/cancel", json={"force": True}).json["errors"][0]["key"] == "force"
    assert client.post(f"/api/v1/runs/{run.id}/cancel").status_code == 415


def test_an_interruption_is_not_a_verdict(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    claim = site.claim()
    site.store.tasks.interrupt(claim.task.id, claim.task.attempt, Reason("database_unavailable", "No answer."))
    shown = client.get(f"/api/v1/runs/{run.id}").json
    assert (shown["state"], shown["verdict"], shown["reason"]["code"]) == ("interrupted", None, "database_unavailable")


# ---- bytes ----

RAW = b"\x1b[31mred\x1b[0m \xff\xfe\x00nul\r 50%\r\n" + b"z" * 40_000


def logged(site: Site) -> tuple[int, int]:
    run = site.submit()
    claim = site.claim()
    site.log(claim, RAW[:10])
    site.log(claim, RAW[10:])
    site.end(claim, TaskState.FAILED, Reason("step_failed", "bin/prepare ended with 1."))
    return run.id, claim.task.id


def test_a_log_is_byte_exact_from_any_offset(site: Site, client: FlaskClient) -> None:
    run, task = logged(site)
    for offset in (0, 1, 9, 10, 11, 20_000, len(RAW), len(RAW) + 5):
        answer = client.get(f"/api/v1/runs/{run}/tasks/{task}/log?offset={offset}")
        assert answer.data == RAW[offset:]
        assert answer.headers["Seatrial-Log-Size"] == str(len(RAW))
    assert client.get(f"/api/v1/runs/{run}/tasks/{task}/log?offset=5&limit=7").data == RAW[5:12]
    whole = client.get(f"/api/v1/runs/{run}/log").data
    assert whole == f"==> task {task}: prepare <==\n".encode() + RAW + b"\n"


def test_a_branchs_bytes_are_never_a_page(site: Site, client: FlaskClient) -> None:
    run, task = logged(site)
    done = site.passed(["x/pl"])
    for address in (
        f"/api/v1/runs/{run}/log",
        f"/api/v1/runs/{run}/tasks/{task}/log",
        f"/api/v1/runs/{done.id}/units/x/pl/output",
        f"/api/v1/runs/{done.id}/outputs.zip",
    ):
        headers = client.get(address).headers
        assert headers["Content-Disposition"].startswith("attachment;")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "html" not in headers["Content-Type"]


def test_lines_and_search(site: Site, client: FlaskClient) -> None:
    run, task = logged(site)
    lines = client.get(f"/api/v1/runs/{run}/tasks/{task}/lines").json
    assert (lines["total"], lines["lines"][1]["cut"], lines["open"]) == (2, 40_000 - 16_384, True)
    hits = client.get(f"/api/v1/runs/{run}/tasks/{task}/search?q=RED").json
    assert [hit["n"] for hit in hits["hits"]] == [1]
    assert client.get(f"/api/v1/runs/{run}/tasks/{task + 1}/lines").status_code == 404
    assert client.get(f"/api/v1/runs/{run}/tasks/{task}/search").json["errors"][0]["key"] == "q"


def test_an_html_output_is_sent_as_bytes(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    site.prepare(["a"])
    claim = site.claim()
    page = site.output(b"<script>alert(1)</script>", 'evil"\r\n.html')
    site.store.ledger.mark(claim.task.id, claim.task.attempt, [UnitResult("a", UnitState.DONE, page)], None)
    answer = client.get(f"/api/v1/runs/{run.id}/units/a/output")
    assert answer.mimetype == "application/octet-stream"
    assert "\n" not in answer.headers["Content-Disposition"]
    assert answer.data == b"<script>alert(1)</script>"


def test_outputs_one_by_one_and_as_archives(site: Site, client: FlaskClient) -> None:
    units = ["tenant 1/p&l", "tenant/ü", "plain"]
    run = site.passed(units)
    for unit in units:
        href = next(u for u in client.get(f"/api/v1/runs/{run.id}/units").json["units"] if u["unit"] == unit)["output"][
            "href"
        ]
        answer = client.get(href)
        assert f"{unit},2026-11,12.50".encode() in answer.data
        assert answer.headers["Content-Length"] == str(len(answer.data))
        assert client.get(href, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    names = zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/runs/{run.id}/outputs.zip").data)).namelist()
    assert set(names) == {f"candidate/{unit}.csv" for unit in units}
    assert client.get(f"/api/v1/runs/{run.id}/outputs.tar").status_code == 200
    assert client.get(f"/api/v1/runs/{run.id}/outputs.rar").status_code == 404
    assert client.get(f"/api/v1/runs/{run.id}/units/nope/output").status_code == 404
    assert client.get(f"/api/v1/runs/{run.id}/units/plain/output?leg=baseline").status_code == 404
    assert client.get(f"/api/v1/runs/{run.id}/units/plain/output?path=x").status_code == 404


def test_an_output_of_several_files(site: Site, client: FlaskClient) -> None:
    run = site.submit("main", "plain")
    site.prepare(["all"])
    claim = site.claim()
    tree = site.tree({"a.csv": b"1\n", "sub/b.csv": b"2\n"})
    site.store.ledger.mark(claim.task.id, claim.task.attempt, [UnitResult("all", UnitState.DONE, tree)], None)
    whole = zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/runs/{run.id}/units/all/output").data))
    assert whole.namelist() == ["a.csv", "sub/b.csv"]
    assert client.get(f"/api/v1/runs/{run.id}/units/all/output?path=sub/b.csv").data == b"2\n"
    assert client.get(f"/api/v1/runs/{run.id}/units/all/output?path=../b.csv").status_code == 404
    page = client.get(f"/runs/{run.id}/units/candidate/all").get_data(as_text=True)
    assert "sub/b.csv" in page


# ---- around runs ----


def test_projects_refs_preview_capacity(site: Site, client: FlaskClient) -> None:
    site.worker()
    project = client.get("/api/v1/projects").json["projects"][0]
    assert project == {
        "name": "accounts",
        "repository": "https://git.example.com/accounts.git",
        "default_baseline": "v2.41.0",
        "pool": "local",
        "database": None,
    }
    refs = client.get("/api/v1/projects/accounts/refs?q=round").json["refs"]
    assert [(ref["name"], ref["kind"]) for ref in refs] == [("feature/rounding", "branch")]
    preview = client.get("/api/v1/projects/accounts/preview?ref=v2.41.0").json
    assert (preview["ref"]["kind"], preview["commit"]["author"]) == ("tag", "Rin Sato")
    assert preview["spec"]["run"] == "bin/export"
    pool = client.get("/api/v1/capacity").json["pools"][0]
    assert (pool["name"], pool["workers"][0]["name"]) == ("local", "host-a/1")
    assert client.get("/api/v1/projects/nope/refs").status_code == 404
    assert client.get("/api/v1/projects/accounts/preview").json["errors"][0]["key"] == "ref"


def test_no_answer_holds_a_credential(site: Site, client: FlaskClient) -> None:
    site.passed()
    for address in ("/api/v1/projects", "/api/v1/runs/1", "/projects", "/runs/1", "/capacity", "/metrics", "/new"):
        assert b"canary" not in client.get(address).data


def test_health_and_metrics(site: Site, client: FlaskClient) -> None:
    ill = client.get("/healthz")
    assert (ill.status_code, ill.json["healthy"]) == (503, False)
    assert "worker" in ill.json["problems"][0]
    site.worker()
    assert client.get("/healthz").json == {"healthy": True, "problems": []}
    with site.store.database.write() as connection:
        connection.execute(heartbeats.delete())
    halted = client.get("/healthz")
    assert halted.status_code == 503
    assert halted.json["problems"] == [
        "No sweeper is running: nothing that was interrupted goes on by itself. Start it: seatrial sweeper",
        "No comparer is running: no compare run comes to its end. Start it: seatrial comparer",
    ]
    site.submit()
    text = client.get("/metrics").get_data(as_text=True)
    assert 'seatrial_tasks_queued{pool="local"} 1.0' in text
    assert "seatrial_refused_total 0.0" in text
    assert 'seatrial_requests_total{endpoint="health.healthz",method="GET",status="200"} 1.0' in text
