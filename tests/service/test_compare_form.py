"""The form "New run" with a baseline, as a browser without scripts uses it."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from web_site import Site


def token(client: FlaskClient) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/new").text)
    assert found is not None
    return found[1]


def send(client: FlaskClient, **more: str) -> tuple[int, str]:
    form = {"project": "accounts", "ref": "feature/rounding", "csrf_token": token(client)} | more
    answer = client.post("/new", data=form)
    return answer.status_code, answer.text


def test_the_default_baseline_is_offered_first(client: FlaskClient) -> None:
    text = client.get("/new?project=accounts").text
    assert "(v2.41.0)" in text
    assert 'value="default" checked' in text
    text = client.get("/new?project=plain").text  # has none
    assert 'value="nothing" checked' in text
    assert "none is set" in text
    assert "v2.41.0" in client.get("/new/default?project=accounts").text
    assert "none is set" in client.get("/new/default?project=plain").text


def test_a_run_is_compared_with_the_default_baseline(site: Site, client: FlaskClient) -> None:
    assert send(client, against="default")[0] == 303
    run = site.service.run(1)
    assert run.baseline is not None
    assert run.baseline.ref == "v2.41.0"
    assert 'value="default" checked' in client.get("/new").text


def test_a_run_is_compared_with_another_ref_and_it_is_remembered(site: Site, client: FlaskClient) -> None:
    assert send(client, against="other", baseline=" main ")[0] == 303
    run = site.service.run(1)
    assert run.baseline is not None
    assert run.baseline.ref == "main"
    text = client.get("/new").text
    assert 'value="other" checked' in text
    assert 'name="baseline" value="main"' in text


def test_nothing_is_compared_when_that_is_chosen(site: Site, client: FlaskClient) -> None:
    assert send(client, against="nothing", baseline="main", merge_base="1")[0] == 303
    assert site.service.run(1).baseline is None
    assert site.service.run(1).options == {}


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"against": "other", "baseline": "gone"}, "gone"),
        ({"against": "other", "baseline": ""}, "1 character"),
        ({"against": "default", "project": "plain", "ref": "main"}, "default_baseline"),
    ],
)
def test_a_bad_baseline_is_said_at_its_field(client: FlaskClient, sent: dict[str, str], said: str) -> None:
    status, text = send(client, **sent)
    assert status in (404, 422)
    found = re.search(r'id="baseline-error">(.*?)</p>', text, re.DOTALL)
    assert found is not None
    assert said in found[1]


def test_the_preview_says_what_is_compared(site: Site, client: FlaskClient) -> None:
    address = "/new/preview?project=accounts&ref=feature/rounding"
    text = client.get(f"{address}&against=default").text
    for words in ("2 legs", "Release 2.41.0", "candidate&#39;s clone only", "without any tolerance"):
        assert words in text
    assert 'class="error"' in client.get(f"{address}&against=other&baseline=gone").text
    assert "Name the baseline" in client.get(f"{address}&against=other&baseline=").text
    assert "2 legs" not in client.get(f"{address}&against=nothing").text
    assert "same commit" in client.get("/new/preview?project=accounts&ref=main&against=default").text
    assert "merge base with v2.41.0" in client.get(f"{address}&against=default&merge_base=1").text
    assert "main" in client.get("/new/refs?project=accounts&field=baseline&baseline=mai").text


def test_a_ref_that_there_is_not_is_told_once(client: FlaskClient) -> None:
    _, text = send(client, ref="feature/roundng", against="nothing")
    assert text.count("Did you mean &#39;feature/rounding&#39;?") == 1
    assert "(given: feature/roundng)" not in text
    assert 'hx-trigger="load, input changed delay:500ms from:#ref' not in text, "the preview would tell it again"
