"""What the command line says when no server answers, and how it asks for runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs import cli_client
from jobs.api_client import ApiClient
from jobs.cli import main

NOBODY = "http://127.0.0.1:1"


def test_without_a_settings_file_that_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEATRIAL_CONFIG", raising=False)
    monkeypatch.setattr(cli_client, "current_server", lambda config: NOBODY)
    told = CliRunner().invoke(main, ["list"])
    assert (told.exit_code, "There is no seatrial.toml here" in told.output) == (3, True)
    assert "seatrial --config FILE" in told.output
    named = CliRunner().invoke(main, ["list", "--server", NOBODY])
    assert (named.exit_code, "seatrial.toml" in named.output) == (3, False), "it says itself where the server is"
    (tmp_path / "seatrial.toml").write_text("", "utf-8")
    assert "There is no seatrial.toml" not in CliRunner().invoke(main, ["list"]).output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def pages(self: ApiClient, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        found.append(query)
        yield {"runs": []}

    monkeypatch.setattr(ApiClient, "pages", pages)
    return found


@pytest.mark.parametrize(
    ("words", "state", "verdict"),
    [
        (["--state", "passed"], None, "passed"),
        (["--state", "different", "--verdict", "different"], None, "different"),
        (["--state", "done", "--verdict", "passed"], "done", "passed"),
        (["--state", "failed"], "failed", None),
    ],
)
def test_a_list_is_narrowed_by_what_its_column_says(
    asked: list[dict[str, Any]], words: list[str], state: str | None, verdict: str | None
) -> None:
    assert CliRunner().invoke(main, ["list", "--server", NOBODY, *words]).exit_code == 0
    assert [(query["state"], query["verdict"]) for query in asked] == [(state, verdict)]


def test_two_verdicts_are_refused(asked: list[dict[str, Any]]) -> None:
    told = CliRunner().invoke(main, ["list", "--server", NOBODY, "--state", "passed", "--verdict", "different"])
    assert (told.exit_code, "leave one out" in told.output, asked) == (2, True, [])
