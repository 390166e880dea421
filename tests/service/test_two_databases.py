"""Runs of one commit on two database sources: submitted, refused, shown, reported."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from web_compare import compare_now, finish, ledger
from web_site import Site

from jobs.run import Run
from jobs.submission import SubmissionRefused
from runner.errors import BaseReplaced, NotFound

UNITS = ("tenant_001/pl", "tenant_002/pl")
OPTIONS = {"baseline_database": "old_server"}


def compared(site: Site, **candidate: bytes) -> Run:
    """Run both legs on data of their own, and compare them."""
    run = site.submit(options=OPTIONS)
    for _ in run.legs:
        leg = site.claim_of_leg()
        site.prepare_on(leg, UNITS, data=f"data-of-{leg.task.leg}", source=leg.database or "")
    made = dict.fromkeys(UNITS, ledger())
    finish(site, {"baseline": made, "candidate": made | dict(candidate)})
    compare_now(site)
    return site.service.run(run.id)


def test_both_legs_have_the_commit_and_a_source_each(site: Site) -> None:
    run = site.submit(options=OPTIONS)
    assert run.two_databases
    assert {leg.name: leg.database for leg in run.legs} == {"baseline": "old_server", "candidate": "verification"}
    assert len({(leg.ref, leg.commit, leg.spec_digest) for leg in run.legs}) == 1
    claims = [site.claim_of_leg(), site.claim_of_leg()]
    assert {claim.task.leg: claim.database for claim in claims} == {
        "baseline": "old_server",
        "candidate": "verification",
    }
    assert {claim.task.leg: claim.migrate for claim in claims} == {"baseline": False, "candidate": True}
    again = site.service.rerun(run.id, user="mio")
    assert [leg.database for leg in again.legs] == [leg.database for leg in run.legs]


def test_the_baseline_runs_twice_on_its_own_source(site: Site, client: FlaskClient) -> None:
    run = site.submit(options=OPTIONS | {"noise": 2, "snapshot": "a", "baseline_snapshot": "b"})
    sources = {"baseline": "old_server", "baseline_again": "old_server", "candidate": "verification"}
    assert {leg.name: leg.database for leg in run.legs} == sources
    assert run.two_databases
    claims = {claim.task.leg: claim for claim in (site.claim_of_leg() for _ in run.legs)}
    assert {leg: claim.database for leg, claim in claims.items()} == sources
    assert {leg: claim.snapshot for leg, claim in claims.items()} == {
        "baseline": "b",
        "baseline_again": "b",
        "candidate": "a",
    }
    site.prepare_on(claims["candidate"], UNITS, data="new-data", source="verification")
    site.prepare_on(claims["baseline"], UNITS, data="old-data", source="old_server")
    with pytest.raises(BaseReplaced):
        site.prepare_on(claims["baseline_again"], UNITS, data="new-data", source="old_server")
    site.prepare_on(claims["baseline_again"], UNITS, data="old-data", source="old_server")
    head = client.get(f"/runs/{run.id}").text.split('class="subject"')[1].split("</p>")[0]
    assert head.count("old_server") == 1
    assert "baseline_again" not in head


def test_the_form_offers_noise_and_no_reuse_with_two_databases(site: Site, client: FlaskClient) -> None:
    form = {"project": "accounts", "ref": "feature/rounding", "against": "database", "baseline_database": "old_server"}
    chosen = form | {"noise": "2", "anew": "1", "merge_base": "1"}
    text = client.get("/new/preview", query_string=chosen).text
    assert "<b>3 legs</b>, at the same time on clones of two databases: the baseline runs twice" in text
    assert client.post("/new", data=chosen | {"csrf_token": token(client)}).status_code == 303
    assert site.service.run(1).options == OPTIONS | {"noise": 2, "reuse": False}


def test_any_other_run_has_one_source(site: Site) -> None:
    run = site.submit(options={"compare": True})
    assert not run.two_databases
    assert {leg.database for leg in run.legs} == {"verification"}
    assert {leg.database for leg in site.submit("main", "plain").legs} == {None}


def test_data_of_two_ids_is_compared_and_both_are_shown(site: Site, client: FlaskClient) -> None:
    run = compared(site)
    assert {leg.name: leg.data_id for leg in run.legs} == {
        "baseline": "data-of-baseline",
        "candidate": "data-of-candidate",
    }
    assert run.verdict == "passed"
    page = client.get(f"/runs/{run.id}").text
    report = client.get(f"/api/v1/runs/{run.id}/report.html").text
    short = client.get(f"/api/v1/runs/{run.id}/report.md").text.replace("\\", "")
    for text in (page, report, short):
        for words in ("old_server", "verification", "data-of-baseline", "data-of-candidate", "taken to be alike"):
            assert words in text
    assert "on verification against old_server" in client.get("/runs").text
    found = client.get(f"/api/v1/runs/{run.id}").get_json()
    assert {leg["name"]: leg["database"] for leg in found["legs"]} == {
        "baseline": "old_server",
        "candidate": "verification",
    }


def test_the_snapshot_is_on_the_leg_the_page_and_the_report(site: Site, client: FlaskClient) -> None:
    run = site.submit(options={"compare": True, "snapshot": "month-end"})
    for _ in run.legs:
        claim = site.claim_of_leg()
        assert claim.snapshot == "month-end"
        site.prepare_on(claim, UNITS, data="d1", source="verification", snapshot="month-end")
    made = dict.fromkeys(UNITS, ledger())
    finish(site, {"baseline": made, "candidate": made})
    compare_now(site)
    assert {leg.snapshot for leg in site.service.run(run.id).legs} == {"month-end"}
    found = client.get(f"/api/v1/runs/{run.id}").get_json()
    assert {leg["snapshot"] for leg in found["legs"]} == {"month-end"}
    for page in (f"/runs/{run.id}", f"/api/v1/runs/{run.id}/report.html", f"/api/v1/runs/{run.id}/report.md"):
        text = client.get(page).text.replace("\\", "")
        assert "month-end" in text
        assert "d1" in text
        assert "taken to be alike" not in text


def test_the_form_takes_snapshots(site: Site, client: FlaskClient) -> None:
    form = {"project": "accounts", "ref": "feature/rounding", "against": "nothing", "csrf_token": token(client)}
    answer = client.post("/new", data=form | {"snapshot": "a b"})
    assert answer.status_code == 422
    assert 'id="snapshot-error"' in answer.text
    assert client.post("/new", data=form | {"snapshot": " month-end "}).status_code == 303
    assert site.service.run(1).options == {"snapshot": "month-end"}
    both = form | {"against": "database", "baseline_database": "old_server", "baseline_snapshot": "b", "snapshot": "a"}
    assert client.post("/new", data=both).status_code == 303
    assert site.service.run(2).options == OPTIONS | {"baseline_snapshot": "b", "snapshot": "a"}


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        (
            {"options": {"baseline_database": "gone"}},
            "options.baseline_database",
            "known: old_server, verification. The server read",
        ),
        ({"options": {"baseline_database": "verification"}}, "options.baseline_database", "another source"),
        ({"options": OPTIONS, "database": "old_server"}, "options.baseline_database", "another source"),
        (
            {"options": OPTIONS, "database": "gone"},
            "database",
            "no such source in seatrial.toml; known: old_server, verification. The server read",
        ),
        ({"options": OPTIONS, "project": "plain", "ref": "main"}, "options.baseline_database", "uses no database"),
        ({"options": {"snapshot": "x"}, "project": "plain", "ref": "main"}, "options.snapshot", "uses no database"),
    ],
)
def test_a_bad_source_is_refused(site: Site, fields: dict[str, object], key: str, words: str) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        site.submit(**fields)  # type: ignore[arg-type]
    (problem,) = refused.value.problems
    assert problem.key == key
    assert words in problem.message
    with pytest.raises(NotFound):
        site.service.run(1)


def token(client: FlaskClient) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/new").text)
    assert found is not None
    return found[1]


def test_the_form_takes_a_second_database(site: Site, client: FlaskClient) -> None:
    form = {"project": "accounts", "ref": "feature/rounding", "against": "database", "csrf_token": token(client)}
    answer = client.post("/new", data=form | {"baseline_database": "verification"})
    assert answer.status_code == 422
    found = re.search(r'id="baseline_database-error">(.*?)</p>', answer.text, re.DOTALL)
    assert found is not None
    assert "another source" in found[1]
    assert client.post("/new", data=form | {"baseline_database": "old_server"}).status_code == 303
    assert site.service.run(1).options == OPTIONS
    assert 'value="database" checked' in client.get("/new").text
    preview = "/new/preview?project=accounts&ref=feature/rounding&against=database&baseline_database=old_server"
    text = client.get(preview).text
    assert "clones of two databases" in text
    assert "<b>verification</b> for the candidate and <b>old_server</b> for the baseline" in text
    same = client.get(preview.replace("old_server", "verification")).text
    assert 'class="error"' in same
    assert "another source" in same
    assert "taken to be alike" in text
