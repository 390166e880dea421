"""Noise and reused baselines on the pages, in the API, the reports and the form."""

from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from web_compare import ledger, outputs, run_twice, with_rules
from web_site import Site

from jobs.adapters.sql_schema import legs as legs_table
from jobs.run import Run, Verdict
from jobs.submission import Submission, SubmissionRefused
from runner.errors import RequestError
from runner.model import BASELINE_AGAIN


@pytest.fixture
def client(site: Site) -> FlaskClient:
    site.worker()
    with_rules(site)
    return site.app().test_client()


def page(client: FlaskClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.get_data(as_text=True)


@pytest.fixture
def noisy(site: Site, client: FlaskClient) -> FlaskClient:
    """Run 1 has noise and one real difference."""
    run = run_twice(site, outputs(real=True))
    assert (run.verdict, run.units_different) == (Verdict.DIFFERENT, 1)
    return client


def test_only_the_real_difference_counts(noisy: FlaskClient) -> None:
    found = noisy.get("/api/v1/runs/1/diffs?class=differing").json
    assert [(one["unit"], one["noisy"]) for one in found["units"]] == [("d/mixed", False)]
    assert found["counts"] == {"same": 1, "different": 3}
    found = noisy.get("/api/v1/runs/1/diffs?class=noisy").json
    assert [(one["unit"], one["class"]) for one in found["units"]] == [
        ("b/stamped", "different"),
        ("c/log", "different"),
    ]
    overview = noisy.get("/api/v1/runs/1/comparison").json
    assert (overview["differing"], overview["noisy"]) == (1, 2)
    assert overview["verdict"] == "1 of 4 units: 1 different; 2 units differ only as two runs of the baseline do"
    [group] = noisy.get("/api/v1/runs/1/groups").json["groups"]
    assert (group["column"], group["units"]) == ("amount", 1)


def test_the_noise_is_listed(noisy: FlaskClient) -> None:
    found = noisy.get("/api/v1/runs/1/noise").json
    assert {name: found[name] for name in ("baseline_runs", "checked", "unstable", "noisy", "next")} == {
        "baseline_runs": 2,
        "checked": 4,
        "unstable": 3,
        "noisy": 2,
        "next": None,
    }
    listed = {one["unit"]: (one["noisy"], one["columns"], one["whole"]) for one in found["units"]}
    assert listed == {
        "b/stamped": (True, ["generated_at"], []),
        "c/log": (True, [], ["bytes"]),
        "d/mixed": (False, ["generated_at"], []),
    }
    [first] = noisy.get("/api/v1/runs/1/noise?limit=1").json["units"]
    assert first["examples"][0]["column"] == "generated_at"
    seen, address = [], "/api/v1/runs/1/noise?limit=1"
    while address:
        part = noisy.get(address).json
        seen += [one["unit"] for one in part["units"]]
        address = part["next"]
    assert seen == list(listed)
    assert noisy.get("/api/v1/runs/1/noise?limit=0").status_code == 422
    one = noisy.get("/api/v1/runs/1/diffs/b/stamped").json
    assert (one["noisy"], one["noise"]["words"]) == (True, "cells of generated_at")
    assert noisy.get("/api/v1/runs/1/diffs/a/pl").json["noise"] is None


def test_the_page_shows_it(noisy: FlaskClient) -> None:
    text = page(noisy, "/runs/1?tab=differences")
    assert 'id="noise"' in text
    words = re.sub(r"<[^>]+>", "", text)
    assert "3 of 4 units move by themselves; 2 differ by nothing else, and are left out of the verdict." in words
    assert re.search(r'id="chip-noisy".*?<b class="figures">2</b>', text, re.DOTALL)
    assert re.search(r'id="chip-differing".*?<b class="figures">1</b>', text, re.DOTALL)
    assert 'class="k-different is-noise"' in text
    text = page(noisy, "/runs/1?tab=differences&class=noisy")
    assert "noise alone" in text
    assert "differ only as two runs of the baseline do" in page(noisy, "/runs/1")
    assert "on 3 legs" in page(noisy, "/runs/1")
    text = page(noisy, "/runs/1/diffs/b/stamped")
    assert "so it is left out of the verdict" in text
    assert "The candidate differs by nothing else." in text
    assert "Baseline again" in text
    assert "The candidate differs by more than that." in page(noisy, "/runs/1/diffs/d/mixed")
    assert "baseline again" in page(noisy, "/runs/1?tab=units")


@pytest.mark.parametrize("tab", ["units", "files"])
def test_the_list_of_units_goes_on_to_the_last_one(site: Site, client: FlaskClient, tab: str) -> None:
    legs = ("baseline", BASELINE_AGAIN, "candidate")
    run_twice(site, {leg: {f"t{number:02}/pl": ledger() for number in range(70)} for leg in legs})
    following: str | None = f"/runs/1?tab={tab}"
    seen: set[str] = set()
    while following is not None:
        text = page(client, following)
        seen |= set(re.findall(r'href="(/runs/1/units/[a-z_]+/t\d\d/pl)"', text))
        link = re.search(r'rel="next" href="([^"]+)"', text)
        following = html.unescape(link[1]) if link is not None else None
    assert len(seen) == 3 * 70


def test_the_reports_name_it(noisy: FlaskClient) -> None:
    text = page(noisy, "/runs/1/report.html")
    assert "3 of 4 units move between both, and 2 differ by nothing else" in text
    assert "cells of generated_at" in text
    short = page(noisy, "/runs/1/report.md")
    assert "| c/log | its bytes are never the same | differs by that alone |" in short
    assert "d/mixed" in short.split("| unit | why")[1]
    assert "b/stamped" not in short.split("| unit | why")[1]


def test_a_run_of_nothing_but_noise_passes(site: Site, client: FlaskClient) -> None:
    run = run_twice(site, outputs(real=False))
    assert (run.verdict, run.units_different) == (Verdict.PASSED, 0)
    text = page(client, "/runs/1?tab=differences")
    assert "Nothing differs but noise." in text
    assert "3 units differ only as two runs of the baseline do" in re.sub(r"<[^>]+>", "", text)
    answer = client.post("/api/v1/runs/1/rerun", json={"only": "different"})
    assert answer.status_code == 409, "there is nothing that counts"


def test_a_run_whose_baseline_ran_once_says_so(site: Site, client: FlaskClient) -> None:
    site.submit(options={"compare": True})
    found = client.get("/api/v1/runs/1/noise").json
    assert (found["baseline_runs"], found["units"]) == (1, [])
    assert 'id="noise"' not in page(client, "/runs/1?tab=differences")
    site.submit()
    assert client.get("/api/v1/runs/2/noise").status_code == 409


# ---- submit ----


def legs(site: Site, run: int) -> list[str]:
    return [leg.name for leg in site.service.run(run).legs]


def test_the_branch_or_the_submission_says_whether_it_runs_twice(site: Site, client: FlaskClient) -> None:
    remote = site.remotes["accounts"]
    spec = b"version: 1\nworkspace: {image: debian}\nunits: bin/list\nrun: make\ncompare: {noise: 2}\n"
    remote.set("refs/heads/moving", remote.commit({"seatrial.yml": spec}, "Move"))
    for number, (options, twice) in enumerate((({}, True), ({"noise": 1}, False), ({"noise": 2}, True)), 1):
        site.submit("moving", options={"compare": True, **options})
        assert (BASELINE_AGAIN in legs(site, number)) is twice
    first, *_, last = site.service.tasks(1)
    assert (first.leg, last.leg) == ("baseline", "candidate")
    tasks = sorted(site.service.tasks(1), key=lambda task: task.id)
    assert [task.leg for task in tasks] == ["baseline", "candidate", BASELINE_AGAIN], "the second run is prepared last"
    again = site.service.rerun(3, user="mio")
    assert legs(site, again.id) == ["baseline", BASELINE_AGAIN, "candidate"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compare": True, "noise": 3}, "options.noise"),
        ({"compare": True, "noise": True}, "options.noise"),
        ({"compare": True, "noise": "2"}, "options.noise"),
        ({"noise": 2}, "options.compare"),
    ],
)
def test_another_number_is_refused(site: Site, options: dict[str, object], said: str) -> None:
    with pytest.raises(SubmissionRefused, match=said) as refused:
        site.service.submit(Submission("accounts", "main", options=options), user="mio")
    assert isinstance(refused.value, RequestError)


def test_the_form_offers_both(site: Site, client: FlaskClient) -> None:
    text = page(client, "/new?project=accounts")
    token = re.search(r'name="csrf_token" value="([^"]+)"', text)
    assert token is not None
    assert 'name="anew"' in text
    form = {"project": "accounts", "ref": "feature/rounding", "csrf_token": token[1], "against": "default"}
    assert client.post("/new", data=form | {"noise": "2", "anew": "1"}).status_code == 303
    assert site.service.run(1).options == {"compare": True, "noise": 2, "reuse": False}
    assert BASELINE_AGAIN in legs(site, 1)
    text = page(client, "/new")
    assert '<option value="2" selected>' in text
    assert 'name="anew" value="1" checked' in text
    assert client.post("/new", data=form | {"against": "nothing", "noise": "2", "anew": "1"}).status_code == 303
    assert site.service.run(2).options == {}
    answer = client.post("/new", data=form | {"noise": "7"})
    assert answer.status_code == 422
    assert 'id="noise-error"' in answer.text
    address = "/new/preview?project=accounts&ref=feature/rounding&against=default"
    assert "3 legs" in page(client, f"{address}&noise=2")
    assert "2 legs" in page(client, address)


# ---- reuse ----


def reused(site: Site, **more: object) -> Run:
    """Submit a run whose baseline looked at run 7."""
    run = site.submit(options={"compare": True})
    record = {"run": 7, "leg": "baseline", "units": 3, "seconds_saved": 723.0, "differs": [], "proof": None} | more
    with site.store.database.write() as connection:
        here = (legs_table.c.run == run.id, legs_table.c.name == "baseline")
        connection.execute(update(legs_table).where(*here).values(reused=record))
    return run


def test_what_was_taken_over_is_shown_with_its_proof(site: Site, client: FlaskClient) -> None:
    reused(site, proof={"spec": "d" * 64, "image": "sha256:1", "data": None})
    text = page(client, "/runs/1")
    assert 'baseline taken over from run <a href="/runs/7">#7</a>: 3 units, saved 12 min 03 s' in text
    assert "Proof: what was the same" in text
    assert "sha256:1" in text
    assert client.get("/api/v1/runs/1").json["legs"][0]["reused"]["units"] == 3


def test_what_differs_from_an_earlier_run_is_named(site: Site, client: FlaskClient) -> None:
    run = reused(site, units=0, seconds_saved=0.0, differs=["image", "units"])
    text = page(client, "/runs/1")
    words = "its image differs and it did not list all units that are wanted now"
    assert f'nothing taken over from run <a href="/runs/7">#7</a>: {words}' in text
    assert "Proof" not in text
    site.service.cancel(run.id, user="mio")
    assert f"nothing taken over from run #7: {words}" in page(client, "/runs/1/report.html")
    assert f"Baseline nothing taken over from run \\#7: {words}" in page(client, "/runs/1/report.md")
