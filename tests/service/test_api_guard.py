"""Who may ask the web: host names, origins, form tokens, and what browsers are told."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from web_site import Site

from runner.errors import StoreUnavailable
from web.app import create_app

BODY = {"project": "accounts", "ref": "main"}


@pytest.fixture
def app(site: Site) -> Flask:
    return site.app()


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "169.254.169.254", "", "[", "127.0.0.1.nip.io"]
)
def test_a_foreign_host_name_is_refused(app: Flask, host: str) -> None:
    for path in ("/runs", "/api/v1/runs", "/healthz", "/static/x"):
        assert app.test_client().get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8321", "127.0.0.1:8321", "[::1]:8321"])
def test_loopback_names_are_answered(app: Flask, host: str) -> None:
    assert app.test_client().get("/api/v1/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/runs/1/cancel", "/new", "/runs/1/cancel"])
def test_another_site_cannot_write(site: Site, app: Flask, headers: dict[str, str], path: str) -> None:
    run = site.submit()
    answer = app.test_client().post(path, json=BODY, headers=headers)
    assert answer.status_code == 403
    assert not site.service.run(run.id).cancel_requested


def test_our_own_pages_can_write(app: Flask) -> None:
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert app.test_client().post("/api/v1/runs", json=BODY, headers=headers).status_code == 201


@pytest.mark.parametrize("path", ["/new", "/runs/1/cancel", "/runs/1/rerun"])
def test_a_form_without_its_token_is_refused(site: Site, app: Flask, path: str) -> None:
    site.submit()
    answer = app.test_client().post(path, data=BODY)
    assert answer.status_code == 400
    assert "load it again" in answer.get_data(as_text=True)
    assert len(site.service.runs().runs) == 1


def test_every_answer_binds_the_browser(site: Site, app: Flask) -> None:
    site.passed()
    for path in ("/runs", "/runs/1", "/runs/9", "/api/v1/runs", "/new", "/healthz"):
        headers = app.test_client().get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


def test_no_page_holds_an_inline_script_or_style(site: Site, app: Flask) -> None:
    site.failed()
    paths = ["/runs", "/new", "/projects", "/capacity", "/nope", "/runs/1"]
    paths += [f"/runs/1?tab={tab}" for tab in ("units", "log", "attempts", "files")]
    for path in paths:
        page = app.test_client().get(path).get_data(as_text=True)
        assert "<script>" not in page
        assert " style=" not in page
        assert " onclick=" not in page


def test_the_session_cookie_is_for_this_site_only(app: Flask) -> None:
    cookie = app.test_client().get("/new").headers["Set-Cookie"]
    assert cookie.startswith("seatrial=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


class Broken:
    """A service whose store is gone."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> Any:
            raise RuntimeError("secret canary in a traceback")

        return fail


def test_a_defect_shows_no_traceback() -> None:
    app = create_app(Broken(), secret_key="test")  # type: ignore[arg-type]
    page = app.test_client().get("/api/v1/runs")
    assert (page.status_code, page.json["code"]) == (500, "internal")
    assert b"canary" not in page.data
    assert b"Traceback" not in page.data


def test_a_wrong_method_names_the_right_ones(app: Flask) -> None:
    answer = app.test_client().delete("/api/v1/runs")
    assert (answer.status_code, answer.mimetype) == (405, "application/problem+json")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(",", "").split())


def test_html_and_templates_in_notes_are_text(site: Site, app: Flask) -> None:
    note = "<script>alert(1)</script> {{7*7}} %s"
    run = site.passed(note=note)
    for path in ("/runs", f"/runs/{run.id}"):
        page = app.test_client().get(path).get_data(as_text=True)
        assert "&lt;script&gt;alert(1)&lt;/script&gt; {{7*7}} %s" in page
        assert "<script>alert" not in page


class Away:
    """A service whose store does not answer."""

    def __getattr__(self, name: str) -> object:
        raise StoreUnavailable("The store does not answer: connection refused.")


def test_a_store_that_is_away_is_a_503_with_its_reason() -> None:
    client = create_app(Away(), secret_key="k").test_client()  # type: ignore[arg-type]
    for path in ("/api/v1/runs", "/api/v1/runs/1"):
        answer = client.get(path, headers={"Host": "localhost"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.json is not None
        assert answer.json["code"] == "store_unavailable"
        assert "connection refused" in answer.json["detail"]
