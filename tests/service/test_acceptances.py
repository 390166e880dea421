"""Groups of differences on pages, in the API and on the command line: shown, accepted, carried on, withdrawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from web_compare import begin, compare_now, compared, finish, ledger, with_rules
from web_site import Site

from jobs import cli_client
from jobs.api_client import ApiClient
from jobs.cli import main

BODY = {"name": "Half a percent", "reason": "The law changed on 1 October.", "expires": "30d"}


def rise(start: int, by: float = 1.005) -> bytes:
    return ledger({n: f"{n * 1.25 * by:.2f}" for n in range(start, start + 3)}, start=start)


def outputs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Give three ledgers with one cause, one with another, and one that is the same."""
    baseline = {f"t{at}/pl": ledger(start=4000 * at) for at in (1, 2, 3)}
    baseline |= {"t1/bs": ledger(), "t2/bs": ledger()}
    candidate = {f"t{at}/pl": rise(4000 * at) for at in (1, 2, 3)}
    return baseline, candidate | {"t1/bs": ledger(rows=41), "t2/bs": ledger()}


@pytest.fixture
def client(site: Site) -> FlaskClient:
    site.worker()
    with_rules(site)
    compared(site, *outputs())
    return site.app().test_client()


@pytest.fixture
def cli(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command against the site."""
    transport = httpx.WSGITransport(app=client.application)
    monkeypatch.setattr(cli_client, "ApiClient", lambda url: ApiClient(url, transport=transport))
    return lambda *words: CliRunner().invoke(main, [*words, "--server", "http://localhost"])


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, path
    return answer.get_data(as_text=True)


def token(text: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', text)
    assert found
    return found[1]


def keys(client: FlaskClient, run: int = 1) -> dict[str, str]:
    return {one["what"]: one["key"] for one in client.get(f"/api/v1/runs/{run}/groups").json["groups"]}


def accept(client: FlaskClient, key: str, run: int = 1, **body: Any) -> Any:
    return client.post(f"/api/v1/runs/{run}/groups/{key}/accept", json=body or BODY)


def units_of(text: str) -> list[str]:
    return re.findall(r'class="rowlink" href="[^"]+">([^<]+)</a>', text)


def test_groups_stand_first_and_narrow_the_list(client: FlaskClient) -> None:
    text = page(client, "/runs/1?tab=differences")
    order = [text.index(f'id="{name}"') for name in ("sum-line", "groups", "sum-report", "list-title")]
    assert order == sorted(order)
    assert "2 causes explain all that differs" in text
    assert 'amount: values went up</a> <b class="figures change">+0.5' in text
    assert "3 units" in text
    key = keys(client)["value"]
    assert f'href="/runs/1?tab=differences&amp;group={key}#list-title"' in text
    assert units_of(page(client, f"/runs/1?tab=differences&group={key}")) == ["t1/pl", "t2/pl", "t3/pl"]
    assert next(one["unit"] for one in client.get(f"/api/v1/runs/1/diffs?group={key}").json["units"]) == "t1/pl"
    assert units_of(page(client, "/runs/1?tab=differences&group=none")) == []


def test_accepting_by_form_and_withdrawing_by_button(client: FlaskClient) -> None:
    found = keys(client)
    for what in ("value", "added_rows"):
        form = BODY | {"csrf_token": token(page(client, "/runs/1?tab=differences"))}
        answer = client.post(f"/runs/1/groups/{found[what]}/accept", data=form)
        assert (answer.status_code, answer.location) == (303, f"/runs/1?tab=differences#group-{found[what]}")
    text = page(client, "/runs/1?tab=differences")
    assert text.count("<b>Half a percent</b>:") == 2
    assert "2 causes explain all that differs, 2 are accepted" in text
    assert "The law changed on 1 October." in text
    assert 'aria-current="true"' in text
    assert text.count("accepted-mark") == 4
    assert units_of(page(client, "/runs/1?tab=differences&accepted=yes")) == ["t1/pl", "t2/pl", "t3/pl", "t1/bs"]
    assert units_of(page(client, "/runs/1?tab=differences&accepted=no")) == []
    head = page(client, "/runs/1")
    assert "Passed" in head
    assert "with 4 units accepted in 2 groups; 4 of 5 units: 4 different" in head
    assert "4 differ, 4 accepted" in page(client, "/runs")
    assert "Accepted: each of its causes is" in page(client, "/runs/1/diffs/t1/pl")
    for kind in ("html", "md"):
        report = page(client, f"/runs/1/report.{kind}")
        assert "ith 4 units accepted in 2 groups" in report
        assert "Half a percent" in report
    form = {"csrf_token": token(text)}
    assert client.post(f"/runs/1/groups/{found['value']}/withdraw", data=form).status_code == 303
    assert "4 of 5 units: 4 different; of these, 1 unit accepted in 1 group" in page(client, "/runs/1")
    again = client.post(f"/runs/1/groups/{found['value']}/withdraw", data=form, follow_redirects=True)
    assert "There is nothing to withdraw." in again.get_data(as_text=True)
    text = page(client, "/projects/accounts/acceptances")
    assert text.index("Holds") < text.index("Withdrawn</span>")
    events = [one["kind"] for one in client.get("/api/v1/runs/1/events").json["events"]]
    assert events[-3:] == ["accept", "accept", "withdraw"]


def test_a_unit_lists_its_causes(client: FlaskClient) -> None:
    found = keys(client)
    text = page(client, "/runs/1/diffs/t1/pl")
    assert f'href="/runs/1/groups/{found["value"]}">*: amount: values went up</a>' in text
    assert "3 cells" in text
    assert "in 3 units of this run" in text
    assert "Nobody accepted it." in text
    assert accept(client, found["value"]).status_code == 200
    text = page(client, "/runs/1/diffs/t1/pl")
    assert "Nobody accepted it." not in text
    assert "Accepted: <b>Half a percent</b>" in text
    assert 'id="accepted"' in text
    assert "in this unit alone" in page(client, "/runs/1/diffs/t1/bs")
    assert 'id="causes"' not in page(client, "/runs/1/diffs/t2/bs")


def test_a_form_that_is_refused_keeps_what_was_typed(client: FlaskClient) -> None:
    key = keys(client)["value"]
    form = {"csrf_token": token(page(client, f"/runs/1/groups/{key}")), "name": "<b>Rates", "reason": " "}
    answer = client.post(f"/runs/1/groups/{key}/accept", data=form | {"expires": "2020-01-01"})
    text = answer.get_data(as_text=True)
    assert answer.status_code == 422
    assert 'value="&lt;b&gt;Rates"' in text
    assert "is in the past" in text
    assert "Say why the difference is right" in text
    assert client.post(f"/runs/1/groups/{key}/accept", data={"name": "n"}).status_code == 400, "no token"
    client.post(f"/runs/1/groups/{key}/accept", data=form | BODY)
    twice = client.post(f"/runs/1/groups/{key}/accept", data=form | BODY)
    assert twice.status_code == 409
    assert "is accepted already, as &#39;Half a percent&#39;" in twice.get_data(as_text=True)


def test_later_runs_carry_it_and_earlier_ones_take_it_over(site: Site, client: FlaskClient) -> None:
    compared(site, *outputs())
    assert accept(client, keys(client)["value"], run=2).status_code == 200
    assert "for later runs, not for this one" in page(client, "/runs/1?tab=differences")
    assert "1 of it stay" not in page(client, "/runs/1?tab=differences")
    taken = client.post(f"/api/v1/runs/1/groups/{keys(client)['value']}/accept", json={})
    assert (taken.status_code, taken.json["run"]["accepted"]) == (200, 3)
    accept(client, keys(client)["added_rows"], run=2)
    third = compared(site, *outputs())
    shown = client.get(f"/api/v1/runs/{third.id}").json
    assert (shown["verdict"], shown["different"], shown["accepted"], shown["accepted_groups"]) == ("passed", 4, 4, 2)
    assert [one["kind"] for one in client.get("/api/v1/runs/3/events").json["events"]].count("accepted") == 1


def test_a_running_run_shows_what_is_accepted(site: Site, client: FlaskClient) -> None:
    accept(client, keys(client)["value"])
    baseline, candidate = outputs()
    run = begin(site, [*baseline, "t9/pl"], [*candidate, "t9/pl"])
    both = {"t9/pl": ledger()}
    finish(site, {"baseline": baseline | both})
    assert "Nothing is compared yet" in page(client, f"/runs/{run.id}?tab=differences")
    finish(site, {"candidate": candidate | both})
    site.store.compare.record(run.id, [])
    compare_now(site)
    text = page(client, f"/runs/{run.id}/differences/live")
    assert "3 units accepted in 1 group" in text
    assert "1 differs that nobody accepted" in text


def test_the_api_names_field_value_and_remedy(client: FlaskClient) -> None:
    key = keys(client)["value"]
    answer = accept(client, key, name="n", reason="", expires="1999-01-01")
    assert (answer.status_code, answer.json["code"]) == (422, "acceptance_invalid")
    assert [(one["key"], one.get("value")) for one in answer.json["errors"]] == [
        ("reason", None),
        ("expires", "1999-01-01"),
    ]
    answer = accept(client, "beef")
    assert (answer.status_code, answer.json["errors"][0]["key"], answer.json["errors"][0]["value"]) == (
        404,
        "key",
        "beef",
    )
    assert "seatrial groups 1" in answer.json["errors"][0]["remedy"]
    assert accept(client, key, nonsense=1).status_code == 422
    assert client.post(f"/api/v1/runs/1/groups/{key}/accept", data="x").status_code == 415
    made = accept(client, key, name="n", reason="r", expires=3)
    assert (made.status_code, made.json["run"]["verdict"], made.json["run"]["accepted"]) == (200, "different", 3)
    assert made.json["acceptance"]["made_by"] == "mio"
    twice = accept(client, key)
    assert (twice.status_code, twice.json["code"]) == (409, "conflict")
    back = client.post(f"/api/v1/runs/1/groups/{key}/withdraw", json={})
    assert (back.json["acceptance"]["standing"], back.json["run"]["accepted"]) == ("withdrawn", 0)
    assert client.post(f"/api/v1/runs/1/groups/{key}/withdraw", json={}).status_code == 409
    assert client.get("/api/v1/projects/none/acceptances").status_code == 404
    assert client.get("/api/v1/projects/plain/acceptances").json == {"acceptances": []}
    assert "Nothing is accepted" in page(client, "/projects/plain/acceptances")
    assert page(client, "/runs/1/groups/beef", 404)
    assert accept(client, "%00").status_code == client.get("/api/v1/projects/%00/acceptances").status_code == 404


def test_a_run_of_one_branch_has_no_groups(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    for answer in (
        client.get(f"/api/v1/runs/{run.id}/groups"),
        accept(client, "beef", run=run.id),
        client.post(f"/api/v1/runs/{run.id}/groups/beef/withdraw", json={}),
    ):
        assert (answer.status_code, answer.json["code"]) == (409, "conflict")


def test_the_command_line(client: FlaskClient, cli: Callable[..., Result]) -> None:
    listed = cli("groups", "1").output
    key = keys(client)["value"]
    assert re.search(rf"{key}\s+3\s+x 1\.005\s+-\s+\*: amount: values went up", listed), listed
    refused = cli("accept", "1", key, "--name", "Rates")
    assert refused.exit_code == 2
    assert "reason: is required. Say why" in refused.output
    done = cli("accept", "1", key, "--name", "Rates", "--reason", "The law", "--expires", "90d")
    assert done.exit_code == 0
    assert "Run 1 is different, with 3 units accepted in 1 group" in done.output
    assert "3 as Rates" in cli("groups", "1").output
    assert "Rates" in cli("acceptances", "accounts").output
    assert "withdrawn by mio" in cli("withdraw", "1", key).output
    assert "withdrawn" in cli("acceptances", "accounts").output
    assert cli("withdraw", "1", key).exit_code == 2
    assert "Nothing is accepted" in cli("acceptances", "plain").output
    assert '"accepted_units": 0' in cli("groups", "1", "--json").output
