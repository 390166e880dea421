"""`seatrial spec check`, `settings check`, `project list`: what is checked without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main

GOOD = "version: 1\nworkspace: {image: x}\nrun: bin/export\n"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SEATRIAL_CONFIG", "SEATRIAL_DATABASE_URL", "SEATRIAL_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def seatrial(*words: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, words, input=stdin)


def test_a_valid_spec() -> None:
    Path("s.yml").write_text(GOOD, "utf-8")
    found = seatrial("spec", "check", "s.yml")
    assert (found.exit_code, found.output) == (0, "s.yml is valid.\n")
    assert seatrial("spec", "check", "-", stdin=GOOD).exit_code == 0


def test_each_problem_has_its_file_and_line() -> None:
    Path("s.yml").write_text("version: 2\nworkspace: {image: x}\nrunn: x\n", "utf-8")
    found = seatrial("spec", "check", "s.yml")
    lines = found.stdout.splitlines()
    assert found.exit_code == 2
    assert any(line.startswith("s.yml:1: version: ") for line in lines)
    assert any(line.startswith("s.yml: run: is required") for line in lines)
    assert any(line.startswith("s.yml:3: runn: is not a known key; did you mean `run`?") for line in lines)
    told = json.loads(seatrial("spec", "check", "--json", "s.yml").stdout)
    assert told["valid"] is False
    assert {problem["key"] for problem in told["problems"]} >= {"version", "runn"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a: [", b"- 1\n", b"a: 1\na: 2\n", b"\x00"])
def test_what_is_no_spec_at_all(content: bytes) -> None:
    Path("s.yml").write_bytes(content)
    found = seatrial("spec", "check", "s.yml")
    assert found.exit_code == 2
    assert all(line.startswith("s.yml") for line in found.stdout.splitlines())


def test_a_spec_that_is_not_there() -> None:
    found = seatrial("spec", "check", "none.yml")
    assert (found.exit_code, found.output) == (2, "Error: none.yml cannot be read: No such file or directory\n")


def test_the_schemas_are_those_that_are_shipped() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for group in ("spec", "settings"):
        shipped = json.loads((docs / f"{group}.schema.json").read_text("utf-8"))
        assert json.loads(seatrial(group, "schema").stdout) == shipped


def test_settings_are_checked_with_all_problems_at_once() -> None:
    Path("seatrial.toml").write_text('[server]\nlisten = "0.0.0.0:80"\nhome = "h"\nhoem = 1\n', "utf-8")
    found = seatrial("settings", "check")
    assert found.exit_code == 2
    assert "server.listen" in found.output
    assert "server.hoem" in found.output


def test_a_setting_that_there_is_not_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_SERVER_URL", "http://x")
    found = seatrial("projects")
    assert found.exit_code == 2
    assert "SEATRIAL_SERVER_URL" in found.output


def test_projects_of_the_settings() -> None:
    Path("seatrial.toml").write_text(
        '[server]\nhome = "h"\n[projects.b]\nrepository = "https://example.org/b.git"\n'
        '[projects.a]\nrepository = "/srv/a"\n',
        "utf-8",
    )
    assert "2 projects" in seatrial("settings", "check").output
    lines = seatrial("project", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PROJECT", "a", "b"]
    told = json.loads(seatrial("project", "list", "--json").stdout)
    assert [(p["name"], p["repository"]) for p in told["projects"]] == [
        ("a", "/srv/a"),
        ("b", "https://example.org/b.git"),
    ]


def test_a_database_that_there_is_not() -> None:
    Path("seatrial.toml").write_text('[server]\nhome = "h"\n', "utf-8")
    for command in (("bless", "x"), ("check", "x"), ("bases", "x"), ("forget", "x", "--keep", "1")):
        found = seatrial("db", *command)
        assert (found.exit_code, "There is no database 'x'" in found.output) == (2, True)
    assert seatrial("db", "forget", "x", "--keep", "0").exit_code == 2
