"""`seatrial db` and the doctor's look at databases, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures_postgres import Sample, free_port

from jobs.cli import main

Seatrial = Callable[..., Result]


def settings_file(place: Path, dsn: str) -> Path:
    file = place / "seatrial.toml"
    file.write_text(f'[server]\nhome = "home"\n[databases.v]\ndsn = "{dsn}"\n', "utf-8")
    return file


@pytest.fixture
def config(sample18: Sample, tmp_path: Path) -> Path:
    return settings_file(tmp_path, sample18.dsn)


def seatrial(config: Path, *words: str, code: int = 0) -> Result:
    found = CliRunner().invoke(main, ["--config", str(config), *words])
    assert found.exit_code == code, found.output
    return found


def test_bless_check_bases_and_forget(config: Path, sample18: Sample) -> None:
    before = seatrial(config, "db", "check", code=3).stdout
    assert before.startswith("v: cannot be used yet\n")
    assert "is not marked as a verification database" in before
    assert "no base yet" in seatrial(config, "db", "bases", "v").stderr

    blessed = seatrial(config, "db", "bless", "v", "--yes")
    assert f"database {sample18.database}" in blessed.stderr
    assert "seatrial_base_v_" in blessed.stdout
    told = json.loads(seatrial(config, "db", "bless", "v", "--yes", "--json").stdout)
    assert {told["database"]} < sample18.databases()
    after = seatrial(config, "db", "check", "v").stdout
    assert after.startswith("v: can be used\n")
    assert "  clone   " in after
    checked = json.loads(seatrial(config, "db", "check", "--json").stdout)["v"]
    assert (checked["usable"], checked["marker"], len(checked["sizes"])) == (True, "verification", 2)
    assert checked["seconds"] > 0

    listed = json.loads(seatrial(config, "db", "bases", "v", "--json").stdout)["bases"]
    assert listed[0]["data_id"] == told["data_id"]
    assert len(seatrial(config, "db", "bases", "v").stdout.splitlines()) == 3
    dropped = json.loads(seatrial(config, "db", "forget", "v", "--keep", "1", "--json").stdout)["dropped"]
    assert dropped == [listed[1]["database"]]
    assert "nothing was dropped" in seatrial(config, "db", "forget", "v", "--keep", "1").stdout


def test_bless_asks_and_without_anybody_to_ask_does_nothing(config: Path, sample18: Sample) -> None:
    refused = seatrial(config, "db", "bless", "v", code=2)
    assert "say --yes. Nothing was changed." in refused.stderr
    assert _answered(config, b"n\n") == 2
    assert not [name for name in sample18.databases() if name.startswith("seatrial_base_v")]
    assert _answered(config, b"y\n") == 0
    assert [name for name in sample18.databases() if name.startswith("seatrial_base_v")]


def _answered(config: Path, answer: bytes) -> int:
    """Bless from a terminal, and answer its question."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "jobs.cli", "--config", str(config), "db", "bless", "v"]
        asked = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(ours, answer)
        _, err = asked.communicate(timeout=120)
        assert b"Go on? [y/N]" in err
        return asked.returncode
    finally:
        os.close(ours)
        os.close(theirs)


def test_what_bless_refuses_is_told_without_the_password(config: Path, sample18: Sample, tmp_path: Path) -> None:
    sample18.execute(f"COMMENT ON DATABASE {sample18.database} IS 'seatrial: production'")
    found = seatrial(config, "db", "bless", "v", "--yes", code=3)
    assert "is marked as production and is never used" in found.stderr
    sample18.execute(f"COMMENT ON DATABASE {sample18.database} IS NULL")
    with sample18.admin():
        found = seatrial(config, "db", "bless", "v", "--yes", code=3)
        assert "Error: " in found.stderr
    wrong = settings_file(tmp_path, sample18.dsn.replace(sample18.password, "canary-password"))
    for words in (("bless", "v", "--yes"), ("check",), ("bases", "v"), ("forget", "v", "--keep", "1")):
        found = seatrial(wrong, "db", *words, code=3)
        assert "canary-password" not in found.output
        assert "Traceback" not in found.output
    checked = seatrial(wrong, "db", "check", code=3).stdout
    assert "refused the role or the password: " in checked
    assert "does not answer" not in checked
    assert "correct the role or the password in what dsn, dsn_env or dsn_file of [databases.v]" in checked


def test_a_server_that_is_away(tmp_path: Path) -> None:
    config = settings_file(tmp_path, f"postgresql://me:canary@127.0.0.1:{free_port()}/data")
    found = seatrial(config, "db", "check", code=3)
    assert "does not answer" in found.stdout
    assert "canary" not in found.output
    assert "does not answer" in seatrial(config, "db", "bless", "v", "--yes", code=3).stderr


def test_a_name_that_no_source_can_have(tmp_path: Path, sample18: Sample) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text(f'[server]\nhome = "home"\n[databases.a-b]\ndsn = "{sample18.dsn}"\n', "utf-8")
    found = CliRunner().invoke(main, ["--config", str(config), "db", "check"])
    assert found.exit_code in (2, 3)
    assert "a-b" in found.output
