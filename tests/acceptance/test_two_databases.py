"""Runs on two database sources and on named snapshots, from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fixtures_git import Repository
from fixtures_postgres import Sample, drop_sample, make_sample
from fixtures_server import Server, branch_files

from jobs.adapters.embedded_postgres import EmbeddedPostgres

# Each unit is the value that the database has for it.
WRITE = """\
while read -r unit; do
    mkdir -p "$(dirname "$SEATRIAL_OUTPUT/$unit")"
    psql -XAqtc "SELECT value FROM figures WHERE unit = '$unit'" > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
done < "$SEATRIAL_UNITS"
"""
UNITS = ["a/pl", "b/pl", "c/pl"]


@pytest.fixture(scope="module")
def pair(postgres18: EmbeddedPostgres) -> Iterator[tuple[Sample, Sample]]:
    made = make_sample(postgres18), make_sample(postgres18)
    for sample in made:
        sample.execute(
            "CREATE TABLE figures (unit text, value int)",
            f"ALTER TABLE figures OWNER TO {sample.owner}",
            "INSERT INTO figures VALUES ('a/pl', 1), ('b/pl', 2), ('c/pl', 3)",
        )
    made[1].execute("UPDATE figures SET value = 20 WHERE unit = 'b/pl'")
    yield made
    for sample in made:
        drop_sample(sample)


@pytest.fixture(scope="module")
def two(lab: Repository, pair: tuple[Sample, Sample]) -> Iterator[Server]:
    """A server with an old and a new source."""
    made = Server({"lab": lab.path}, {"old": pair[0].dsn, "new": pair[1].dsn})
    with made.config.open("a") as settings:  # of the source that comes last
        settings.write(f'\nrefresh = ["test -e {made.root}/mended"]\n')
    with made as server:
        server.bless("old")
        server.bless("new")
        lab.branch("figures", branch_files(WRITE, units=UNITS, more="database: {source: new}"))
        yield server


def classes(server: Server, run: int) -> dict[str, str]:
    return {unit["unit"]: unit["class"] for unit in server.get(f"/runs/{run}/diffs")["units"]}


def test_one_commit_is_compared_on_two_servers(two: Server) -> None:
    run = two.submit("lab", "figures", options={"baseline_database": "old"})
    ended = two.wait(run["id"], "done")
    assert classes(two, run["id"]) == {"a/pl": "same", "b/pl": "different", "c/pl": "same"}
    assert (ended["verdict"], ended["different"]) == ("different", 1)
    legs = {leg["name"]: leg for leg in ended["legs"]}
    assert {name: leg["database"] for name, leg in legs.items()} == {"baseline": "old", "candidate": "new"}
    assert legs["baseline"]["commit"] == legs["candidate"]["commit"]
    assert legs["baseline"]["data_id"] != legs["candidate"]["data_id"]
    two.wait_clean()


def test_a_run_takes_the_newest_snapshot_or_the_one_that_it_names(two: Server, pair: tuple[Sample, Sample]) -> None:
    assert two.cli("db", "snapshot", "new", "--name", "early").returncode == 0
    pair[1].execute("UPDATE figures SET value = 200 WHERE unit = 'b/pl'")
    assert two.cli("db", "snapshot", "new", "--name", "late").returncode == 0
    found = {}
    for name, options in (("early", {"snapshot": "early"}), ("late", {})):
        run = two.submit("lab", "figures", options=options)["id"]
        [leg] = two.wait(run, "done")["legs"]
        assert leg["snapshot"] == name
        found[name] = two.http.get(f"/runs/{run}/units/b/pl/output").content
    assert found == {"early": b"20\n", "late": b"200\n"}
    gone = two.wait(two.submit("lab", "figures", options={"snapshot": "gone"})["id"], "errored")
    assert "no snapshot gone; the newest are: late, early" in gone["reason"]["text"]


def test_runs_go_on_while_a_source_is_refreshed_and_after_that_failed(two: Server) -> None:
    failed = two.cli("db", "refresh", "new", "--yes")
    assert failed.returncode == 3
    assert "snapshots that stand serve on" in failed.stderr
    run = two.submit("lab", "figures")["id"]
    assert two.wait(run, "done")["verdict"] == "passed"
    (two.root / "mended").touch()
    assert two.cli("db", "refresh", "new", "--yes", "--name", "fresh").returncode == 0
    run = two.submit("lab", "figures")["id"]
    assert [leg["snapshot"] for leg in two.wait(run, "done")["legs"]] == ["fresh"]
