"""A run whose outputs and log were removed, and one that was removed itself: pages, API and stream say so."""

from __future__ import annotations

import json
import time

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from web_site import Site

from jobs.run import Run

WHY = "90d after the run's end (server.keep_outputs)"
PLACES = [
    "/log",
    "/outputs.zip",
    "/outputs.tar",
    "/tasks/{task}/log",
    "/tasks/{task}/lines",
    "/tasks/{task}/search?q=x",
    "/units/tenant_001/pl/output",
]


def removed(site: Site, run: Run, *, shredded: bool = True) -> Run:
    """Remove outputs and log of a run."""
    token = site.store.runs.begin_cleaning(run.id)
    assert token is not None
    site.store.runs.cleaned(run.id, token)
    assert site.store.retention.remove_outputs(run.id, before=time.time() + 60, why=WHY)
    while shredded and site.store.retention.shred():
        pass
    if shredded:
        site.objects.remove([one.digest for one in site.objects.walk()], untouched_since=time.time() + 60)
    return site.service.run(run.id)


@pytest.mark.parametrize("shredded", [True, False])
def test_every_byte_of_it_is_gone_with_a_reason(site: Site, client: FlaskClient, shredded: bool) -> None:
    run = removed(site, site.failed(), shredded=shredded)
    task = site.service.tasks(run.id)[-1].id
    for place in PLACES:
        answer = client.get(f"/api/v1/runs/{run.id}{place.format(task=task)}")
        assert answer.status_code == 410, place
        problem = json.loads(answer.data)
        assert problem["code"] == "removed"
        assert "were removed on" in json.dumps(problem)
        assert f"seatrial rerun {run.id}" in json.dumps(problem)


def test_the_api_tells_when_and_why(site: Site, client: FlaskClient) -> None:
    run = site.passed()
    assert client.get(f"/api/v1/runs/{run.id}").json["outputs_removed"] is None
    gone = removed(site, run).removed
    assert gone is not None
    told = client.get(f"/api/v1/runs/{run.id}").json["outputs_removed"]
    assert told["text"] == gone.text == f"Outputs and log were removed on {gone.at:%Y-%m-%d}, {WHY}."
    assert told["at"].endswith("Z")
    units = client.get(f"/api/v1/runs/{run.id}/units").json["units"]
    assert units[0]["output"]["digest"], "what it was stays on record"
    events = client.get(f"/api/v1/runs/{run.id}/events").json["events"]
    assert [event["data"] for event in events if event["kind"] == "outputs_removed"] == [{"why": WHY}]


def test_it_is_run_again_and_not_resumed(site: Site, client: FlaskClient) -> None:
    run = removed(site, site.failed())
    answer = client.post(f"/api/v1/runs/{run.id}/resume", json={})
    assert answer.status_code == 409
    assert "were removed on" in json.loads(answer.data)["detail"]
    again = client.post(f"/api/v1/runs/{run.id}/rerun", json={})
    assert again.status_code == 201
    assert again.json["commit"] == run.candidate.commit


@pytest.mark.parametrize(
    "tab", ["", "?tab=units", "?tab=log", "?tab=attempts", "?tab=files", "/units/candidate/tenant_001/pl"]
)
def test_each_page_of_it_says_so(site: Site, client: FlaskClient, tab: str) -> None:
    run = removed(site, site.failed())
    answer = client.get(f"/runs/{run.id}{tab}")
    assert answer.status_code == 200
    page = answer.get_data(as_text=True).replace("&#39;", "'")
    assert run.removed is not None
    assert run.removed.text in page
    assert "download>" not in page, "nothing is offered that is not there"
    assert "Resume —" not in page
    if not tab.startswith("/"):
        assert f"Run {run.candidate.commit[:7]}" in page


def test_its_stream_ends_at_once(site: Site, client: FlaskClient) -> None:
    run = removed(site, site.passed())
    answer = client.get(f"/api/v1/runs/{run.id}/stream")
    text_of_it = answer.get_data(as_text=True)
    assert "event: end" in text_of_it
    assert "event: log" not in text_of_it


def test_a_run_that_was_removed_is_known(site: Site, client: FlaskClient) -> None:
    run = removed(site, site.passed())
    site.passed()
    with site.store.database.write() as connection:
        connection.execute(text("UPDATE runs SET outputs_removed_at = 1 WHERE id = 1"))
    assert site.store.retention.remove_run(
        run.id, before=time.time() + 60, why="365d after the run's end (server.keep_runs)"
    )
    for place in ("", "/log", "/units", "/stream", "/outputs.zip"):
        answer = client.get(f"/api/v1/runs/{run.id}{place}")
        assert answer.status_code == 410, place
        assert "server.keep_runs" in answer.get_data(as_text=True)
    page = client.get(f"/runs/{run.id}")
    assert page.status_code == 410
    assert f"Run {run.id} was removed on" in page.get_data(as_text=True)
    assert client.get("/runs").status_code == 200
    assert client.get("/api/v1/runs/99").status_code == 404
