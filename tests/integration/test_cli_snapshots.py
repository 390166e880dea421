"""`seatrial db snapshot`, `snapshots` and `refresh`, on a real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fixtures_postgres import Sample
from hands import Hands

from jobs.adapters.sql_store import Store
from jobs.cli import main
from jobs.host import installation
from jobs.settings import load_settings
from runner.adapters.postgres_clone import PostgresSource

MASKED = "UPDATE people SET name = 'nobody';"


@pytest.fixture
def config(sample18: Sample, tmp_path: Path) -> Path:
    (tmp_path / "mask.sql").write_text(f"-- two statements, 100 % masked\n{MASKED}\nSELECT 1;\n", "utf-8")
    file = tmp_path / "seatrial.toml"
    file.write_text(
        f"""
[server]
home = "home"
[databases.v]
dsn = "{sample18.dsn}"
keep_snapshots = 3
refresh = ["test ! -e {tmp_path}/broken", "touch {tmp_path}/ran; echo restored; test -n $DATABASE_URL"]
masking = ["mask.sql"]
""",
        "utf-8",
    )
    sample18.execute(
        "CREATE TABLE people (name text)",
        f"ALTER TABLE people OWNER TO {sample18.owner}",
        "INSERT INTO people VALUES ('Rin Sato')",
    )
    return file


def seatrial(config: Path, *words: str, code: int = 0) -> Result:
    found = CliRunner().invoke(main, ["--config", str(config), *words])
    assert found.exit_code == code, found.output
    return found


def told(config: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(seatrial(config, *words, "--json").stdout)
    return found


def names(config: Path) -> list[str]:
    return [one["name"] for one in told(config, "db", "snapshots", "v")["snapshots"]]


def data_of(sample: Sample, database: str) -> object:
    """Read what a snapshot holds, from a copy: it takes no connections itself."""
    sample.execute(f"CREATE DATABASE look_{sample.database} TEMPLATE {database}", database="postgres")
    try:
        return sample.value("SELECT string_agg(name, ',') FROM people", f"look_{sample.database}")
    finally:
        sample.execute(f"DROP DATABASE look_{sample.database}", database="postgres")


def comment(sample: Sample) -> object:
    return sample.value(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )


def test_snapshots_are_taken_listed_and_removed(config: Path) -> None:
    assert "not marked" in seatrial(config, "db", "snapshot", "v", code=3).stderr
    assert "no snapshot yet" in seatrial(config, "db", "snapshots", "v").stderr
    seatrial(config, "db", "bless", "v", "--yes")
    made = seatrial(config, "db", "snapshot", "v", "--name", "month-end").stdout
    assert made.startswith("v: snapshot month-end, data 20")
    listed = told(config, "db", "snapshots", "v")["snapshots"]
    assert [one["name"] for one in listed] == ["month-end", listed[1]["data_id"]]
    table = seatrial(config, "db", "snapshots", "v").stdout.splitlines()
    assert table[0].split() == ["SNAPSHOT", "DATE", "(UTC)", "SIZE", "DATA", "IN", "USE", "BY", "RUNS"]
    assert table[1].startswith("month-end")
    assert "already" in seatrial(config, "db", "snapshot", "v", "--name", "month-end", code=3).stderr
    assert "newest" in seatrial(config, "db", "snapshot", "v", "--remove", "month-end", code=2).stderr
    assert (
        "no snapshot gone. Known: month-end"
        in seatrial(config, "db", "snapshot", "v", "--remove", "gone", code=2).stderr
    )
    assert "letter or digit" in seatrial(config, "db", "snapshot", "v", "--name", "a b", code=2).stderr
    both = seatrial(config, "db", "snapshot", "v", "--name", "a", "--remove", "b", code=2).stderr
    assert "not both" in both
    assert told(config, "db", "snapshot", "v", "--remove", listed[1]["data_id"]) == {"dropped": [listed[1]["name"]]}
    assert names(config) == ["month-end"]
    assert "no database 'w'" in seatrial(config, "db", "snapshots", "w", code=2).stderr


def test_what_a_run_needs_is_neither_removed_nor_past_its_time(config: Path) -> None:
    seatrial(config, "db", "bless", "v", "--yes")
    first = names(config)[0]
    url = load_settings(config, {"HOME": str(config.parent)}).server.database_url
    store = Store.open(url)
    hands = Hands(store)
    run = hands.submit(source="v")
    hands.prepared(hands.take(), ["a"], data=first)
    for name in ("b", "c", "d"):
        seatrial(config, "db", "snapshot", "v", "--name", name)
    assert names(config) == ["d", "c", "b", first], "three are kept, and the one that the run needs"
    used = told(config, "db", "snapshots", "v")["snapshots"][-1]
    assert (used["runs"], used["live_runs"]) == ([run], [run])
    refused = seatrial(config, "db", "snapshot", "v", "--remove", first, code=2).stderr
    assert f"used by runs that have not ended: {run}" in refused
    assert told(config, "db", "forget", "v", "--keep", "3") == {"dropped": []}
    hands.store.runs.cancel(run, "mio")
    assert hands.run(run).state.final
    store.close()
    assert told(config, "db", "snapshot", "v", "--name", "e")["dropped"] == ["b", first]
    assert names(config) == ["e", "d", "c"]


def test_a_refresh_masks_before_it_marks(config: Path, sample18: Sample) -> None:
    seatrial(config, "db", "bless", "v", "--yes")
    [old] = told(config, "db", "snapshots", "v")["snapshots"]
    assert data_of(sample18, old["database"]) == "Rin Sato"
    assert "say --yes. Nothing was changed" in seatrial(config, "db", "refresh", "v", code=2).stderr
    found = told(config, "db", "refresh", "v", "--name", "monday", "--yes")
    assert (found["name"], found["dropped"]) == ("monday", [])
    assert data_of(sample18, found["database"]) == "nobody"
    assert comment(sample18) == "seatrial: verification"
    assert "already" in seatrial(config, "db", "refresh", "v", "--name", "monday", "--yes", code=2).stderr


def test_a_refresh_that_fails_leaves_the_old_snapshots_serving(config: Path, sample18: Sample) -> None:
    seatrial(config, "db", "bless", "v", "--yes")
    before = names(config)
    source = PostgresSource("v", sample18.dsn, installation=installation_of(config))
    (config.parent / "broken").touch()
    failed = seatrial(config, "db", "refresh", "v", "--yes", code=3).stderr
    assert "command 1 of databases.v.refresh ended with exit code 1" in failed
    assert "snapshots that stand serve on" in failed
    assert not (config.parent / "ran").exists()
    assert comment(sample18) is None
    assert source.base().name == before[0]
    (config.parent / "broken").unlink()
    (config.parent / "mask.sql").write_text("UPDATE people SET name = 'half'; UPDATE gone SET x = 1;", "utf-8")
    failed = seatrial(config, "db", "refresh", "v", "--yes", code=3).stderr
    assert "masking by mask.sql failed" in failed
    assert sample18.value("SELECT name FROM people") == "Rin Sato", "a file is one transaction"
    assert names(config) == before
    assert "not marked" in seatrial(config, "db", "snapshot", "v", code=3).stderr
    sample18.execute(f"COMMENT ON DATABASE {sample18.database} IS 'seatrial: production'")
    assert "production" in seatrial(config, "db", "refresh", "v", "--yes", code=3).stderr
    sample18.execute(f"COMMENT ON DATABASE {sample18.database} IS NULL")
    (config.parent / "mask.sql").write_text(MASKED, "utf-8")
    assert told(config, "db", "refresh", "v", "--yes")["dropped"] == []
    assert comment(sample18) == "seatrial: verification"
    assert len(names(config)) == 2


def test_a_source_without_commands_is_not_refreshed(config: Path) -> None:
    text = config.read_text("utf-8")
    config.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("refresh", "masking"))))
    assert "has no refresh" in seatrial(config, "db", "refresh", "v", "--yes", code=2).stderr


def installation_of(config: Path) -> str:
    return installation(load_settings(config, {"HOME": str(config.parent)}))
