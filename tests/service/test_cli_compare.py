"""`seatrial diff RUN` and `seatrial report RUN` against a server with a compare run of every class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from command_line import Seatrial, command_line
from web_compare import begin, compared, every_class, ledger, outputs, run_twice, with_rules
from web_site import Site


@pytest.fixture
def seatrial(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seatrial]:
    """The command line beside a server."""
    site.worker()
    with_rules(site)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with command_line(site.app()) as run:
        yield run


def test_a_run_is_told_classes_then_groups_then_units(site: Site, seatrial: Seatrial) -> None:
    compared(site, *every_class())
    text = seatrial("diff", "1", "--limit", "3", code=1).stdout
    lines = text.splitlines()
    assert lines[0].startswith("different: run 1, accounts feature/rounding = ")
    assert " against v2.41.0 = " in lines[0]
    assert lines[1].startswith("  18 of 109 units: 14 different")
    heads = [line.split() for line in lines if line.isupper()]
    assert heads == [
        ["CLASS", "UNITS"],
        ["UNITS", "CELLS", "BY", "CAUSE"],
        ["CLASS", "UNIT", "ROWS", "LARGEST", "RULE"],
    ]
    assert "×1.005" in text
    assert "tenant_002/pl" in text
    assert "tenant_004/pl" not in text
    assert lines[-1] == "15 more; --limit N tells more of them"
    found = json.loads(seatrial("diff", "1", "--format", "json", code=1).stdout)
    assert len(found["units"]) == found["comparison"]["differing"] == 18
    assert (found["run"]["id"], found["groups"][0]["units"]) == (1, 12)


def test_exit_codes_are_those_of_the_verdict(site: Site, seatrial: Seatrial) -> None:
    compared(site, {"a/pl": ledger()}, {"a/pl": ledger()})
    assert seatrial("diff", "1").stdout.splitlines()[1] == "  1 unit has the same figures, byte for byte"
    begin(site, ["a/pl"], ["a/pl"])
    going = seatrial("diff", "2", code=2)
    assert "Run 2 goes on: nothing differs so far, units left to compare: 1." in going.stderr
    assert "There is no run 9." in seatrial("diff", "9", code=2).stderr
    site.submit()
    assert "compares nothing" in seatrial("diff", "3", code=2).stderr


def test_a_unit_is_told_cell_by_cell(site: Site, seatrial: Seatrial) -> None:
    compared(site, *every_class())
    lines = seatrial("diff", "1", "tenant_017/pl", "--limit", "2", code=1).stdout.splitlines()
    assert lines[:3] == [
        "different: tenant_017/pl of run 1",
        "  rows      22 changed, 0 added, 0 removed, 18 same",
        "  rule      *",
    ]
    assert lines[-3].split() == ["value", "4193", "amount", "5241.25", "5267.46", "26.21"]
    assert lines[-1] == "20 more; --limit N tells more of the 22 that are stored"
    found = json.loads(seatrial("diff", "1", "tenant_017/pl", "--format", "json", code=1).stdout)
    assert len(found["differences"]) == 22
    assert seatrial("diff", "1", "tenant_001/cash").stdout.startswith("equivalent: ")
    assert seatrial("diff", "1", "tenant_003/tax", code=1).stdout.startswith("candidate_failed: ")
    assert "tenant_9/pl" in seatrial("diff", "1", "tenant_9/pl", code=2).stderr


def test_a_unit_that_differs_by_noise_alone_passes(site: Site, seatrial: Seatrial) -> None:
    run_twice(site, outputs(real=True))
    text = seatrial("diff", "1", "b/stamped").stdout
    assert text.splitlines()[0] == "different, but by noise alone: b/stamped of run 1"
    noise = "between two runs of the baseline: cells of generated_at, and the candidate differs by nothing else"
    assert f"  noise     {noise}" in text.splitlines()
    text = seatrial("diff", "1", "d/mixed", code=1).stdout
    assert text.splitlines()[0] == "different: d/mixed of run 1"
    assert "  cause     *: amount: values went up" in text.splitlines()


def test_a_unit_that_is_accepted_says_by_which_name(site: Site, seatrial: Seatrial) -> None:
    compared(site, *every_class())
    group = site.service.groups(1)[0].group
    assert seatrial("diff", "1", "tenant_017/pl", code=1).stdout.startswith("different: ")
    expires = f"{date.today() + timedelta(days=200)}"  # noqa: DTZ011 - far enough from today in any zone
    seatrial("accept", "1", group.key, "--name", "New rates", "--reason", "The law changed.", "--expires", expires)
    lines = seatrial("diff", "1", "tenant_017/pl").stdout.splitlines()
    assert lines[0] == "different, and accepted as New rates: tenant_017/pl of run 1"
    [cause] = [line for line in lines if line.startswith("  cause")]
    assert cause.endswith(f"amount: values went up; accepted as New rates (by mio, until {expires})")
    found = json.loads(seatrial("diff", "1", "tenant_017/pl", "--format", "json").stdout)
    [cause] = found["causes"]
    assert (cause["key"], cause["count"], cause["units"]) == (group.key, 22, 12)
    assert [one["name"] for one in cause["accepted"]] == ["New rates"]


def test_differences_are_fetched_as_files(site: Site, seatrial: Seatrial) -> None:
    compared(site, *every_class())
    told = seatrial("diff", "1", "tenant_008/bs", "--download", "parquet")
    name = "run-1-tenant_008-bs.parquet"
    assert told.stderr.startswith(f"{name}: ")
    query = 'SELECT change, key, "column", baseline, candidate, delta FROM read_parquet($1)'
    rows = duckdb.execute(query, [name]).fetchall()
    assert len(rows) == 4
    assert ("value", ["4080"], "amount", "=1+1", "<b>n/a</b>", None) in rows
    seatrial("diff", "1", "tenant_017/pl", "--download", "parquet", "-o", "pl.parquet")
    assert duckdb.execute("SELECT max(delta), count(*) FROM read_parquet('pl.parquet')").fetchone() == (26.21, 22)
    seatrial("diff", "1", "tenant_008/bs", "--download", "csv", "-o", "bs.csv")
    assert b"'=1+1" in Path("bs.csv").read_bytes()
    listed = json.loads(seatrial("diff", "1", "tenant_008/bs", "--download", "json", "-o", "-").stdout)
    assert [one["change"] for one in listed].count("added") == 3
    # A unit without differences is a table without rows.
    seatrial("diff", "1", "tenant_001/vat", "--download", "parquet", "-o", "none.parquet")
    assert duckdb.execute("SELECT count(*) FROM read_parquet('none.parquet')").fetchone() == (0,)


def test_the_report_is_written(site: Site, seatrial: Seatrial) -> None:
    compared(site, *every_class())
    assert "18 of 109 units" in seatrial("report", "1").stdout
    assert seatrial("report", "1", "--format", "md").stdout.startswith("### Different: 18 of 109 units")
    seatrial("report", "1", "-o", ".")
    assert Path("run-1.html").read_text().startswith("<!doctype html>")
    seatrial("report", "1", "-o", "summary.md")
    assert Path("summary.md").read_text().startswith("### Different")
    begin(site, ["a/pl"], ["a/pl"])
    assert "Run 2 goes on." in seatrial("report", "2", code=2).stderr
