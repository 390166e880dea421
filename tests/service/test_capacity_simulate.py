"""`seatrial capacity simulate` over what a server remembers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from web_site import Site
from werkzeug.serving import make_server

from jobs.cli import main


@pytest.fixture
def server(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    site.worker()
    made = make_server("127.0.0.1", 0, site.app(), threaded=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.port}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_the_history_of_a_pool_is_simulated(site: Site, server: str) -> None:
    site.passed()
    site.failed()
    words = ["capacity", "simulate", "--server", server, "--plot", "plot.html"]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    assert "history of local (1 week)" in found.stdout
    assert "No opened form is in the history" in found.stderr
    assert "history of local" in Path("plot.html").read_text("utf-8")
    site.store.machines.form_opened("local", made_by="ada")
    told = CliRunner().invoke(main, [*words[:4], "--json"])
    (scores,) = json.loads(told.stdout).values()
    assert scores[-1]["policy"] == "this pool"
    assert told.stderr == ""


def test_a_server_that_has_done_nothing_yet_is_said(site: Site, server: str) -> None:
    found = CliRunner().invoke(main, ["capacity", "simulate", "--server", server])
    assert (found.exit_code, "history of local: there is no run in this time." in found.output) == (2, True)


def test_the_api_tells_what_came_to_a_pool(site: Site, client: FlaskClient) -> None:
    site.worker()
    site.passed()
    site.submit("main")
    found = client.get("/api/v1/capacity/local/arrivals").json
    assert found is not None
    assert [run["finished_at"] is not None for run in found["runs"]] == [True, False]
    assert found["forms"] == []
    newest = client.get("/api/v1/capacity/local/arrivals?limit=1").json
    assert newest is not None
    assert newest["runs"] == found["runs"][1:]
    assert client.get("/api/v1/capacity/none/arrivals").status_code == 404
    assert client.get("/api/v1/capacity/local/arrivals?limit=0").status_code == 422
