"""`seatrial diff` on files and directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from runner.comparison import neutral

A = "account,amount\n1,10.00\n2,20.00\n3,5.00\n"
B = "account,amount\n1,10.001\n2,21.50\n4,5.00\n"
RULES = '- match: "*"\n  key: [account]\n  tolerance: {absolute: 0.005}\n'


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for side, content in (("a", A), ("b", B)):
        (tmp_path / side / "t1").mkdir(parents=True)
        (tmp_path / side / "t1" / "pl.csv").write_text(content)
        (tmp_path / side / "same.csv").write_text(A)
    (tmp_path / "rules.yml").write_text(RULES)


def diff(*words: str) -> Result:
    return CliRunner().invoke(main, ["diff", *words])


def test_two_files_as_text() -> None:
    found = diff("a/t1/pl.csv", "b/t1/pl.csv", "--rules", "rules.yml")
    assert found.exit_code == 1
    lines = found.stdout.splitlines()
    assert lines[:2] == ["different: a/t1/pl.csv and b/t1/pl.csv", "  rows      1 changed, 1 added, 1 removed, 1 same"]
    assert "  value    2    amount  20.00   21.50     1.5    6.977%" in lines
    assert "\x1b" not in found.stdout


def test_two_files_as_json() -> None:
    found = diff("a/t1/pl.csv", "b/t1/pl.csv", "--rules", "rules.yml", "--format", "json")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["class"]) == (1, "different")
    assert told["rows"] == {"changed": 1, "added": 1, "removed": 1, "same": 1}
    assert told["differences"][0]["delta"] == 1.5
    few = json.loads(diff("a/t1/pl.csv", "b/t1/pl.csv", "--format", "json", "--limit", "1").stdout)
    assert (len(few["differences"]), few["truncated"]) == (1, "the 1 largest of 4 differences are kept")


def test_exit_codes() -> None:
    same = diff("a/same.csv", "b/same.csv")
    assert (same.exit_code, same.stdout.splitlines()[1]) == (0, "  rows      0 changed, 0 added, 0 removed, 3 same")
    Path("c.csv").write_text(A.replace("5.00", "5.001"))
    assert diff("a/same.csv", "c.csv", "--rules", "rules.yml").exit_code == 0
    assert diff("a/same.csv", "c.csv").exit_code == 1
    assert diff("a/same.csv").exit_code == 2


def test_two_directories() -> None:
    Path("b/new.txt").write_text("x")
    Path("a/gone").mkdir()
    Path("a/gone/x.csv").write_text("x")
    Path("a/link").symlink_to("/etc/passwd")
    Path("b/link").symlink_to("/etc/shadow")
    found = diff("a", "b", "--rules", "rules.yml", "--format", "json")
    assert found.exit_code == 1, (found.output, found.exception)
    told = json.loads(found.stdout)
    assert told["files"] == {"same": 1, "equivalent": 0, "different": 2, "missing": ["gone/x.csv"], "new": ["new.txt"]}
    assert told["rows"] == {"changed": 1, "added": 1, "removed": 1, "same": 1}
    assert [(one["file"], one["rule"]) for one in told["results"]] == [("link", None), ("t1/pl.csv", "*")]
    text = diff("a", "b", "--rules", "rules.yml")
    assert "  files     1 same, 0 equivalent, 2 different, 1 missing, 1 new" in text.stdout
    assert diff("a", "a").exit_code == 0


def test_a_rule_that_matches_nothing_is_a_warning() -> None:
    Path("rules.yml").write_text(RULES + "- match: none\n")
    found = diff("a/same.csv", "b/same.csv", "--rules", "rules.yml")
    assert (found.exit_code, found.stderr) == (0, "Warning: the rule 'none' of rules.yml matches nothing.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "none"), "none cannot be read: No such file or directory"),
        (("a", "a/same.csv"), "one is a directory and the other is not"),
        (("a", "b", "--rules", "none.yml"), "none.yml cannot be read"),
        (("a", "b", "--rules", "a"), "a cannot be read"),
        (("a", "b", "--format", "xml"), "'xml' is not one of"),
        (("a", "b", "--seconds", "0"), "0.0 is not in the range"),
        (("/dev/null", "a/same.csv"), "it is no regular file"),
    ],
)
def test_what_cannot_be_done(words: tuple[str, ...], message: str) -> None:
    found = diff(*words)
    assert (found.exit_code, message in found.output) == (2, True)


def test_problems_of_rules_are_those_of_a_spec() -> None:
    Path("rules.yml").write_text("- match: x\n  tolerance: {absolute: -1}\n")
    found = diff("a", "b", "--rules", "rules.yml")
    assert found.exit_code == 2
    assert "rules.yml:2: rules[0].tolerance.absolute: must be 0 or more (given: -1)" in found.stderr


def test_what_a_branch_wrote_moves_no_cursor() -> None:
    Path("c.csv").write_text("id,v\n1,\x1b[2J\n")
    Path("d.csv").write_text("id,v\n1,[red]x\n")
    found = diff("c.csv", "d.csv")
    assert "\x1b" not in found.stdout
    assert "\\x1b[2J" in found.stdout
    assert "[red]x" in found.stdout


def test_html_is_one_harmless_file() -> None:
    Path("c.csv").write_text("id,<b>v\n1,<script>alert(1)</script>\n2,\u202ex\n")
    Path("d.csv").write_text('id,<b>v\n1,"\'><img src=x onerror=alert(1)>"\n2,y\n')
    found = diff("c.csv", "d.csv", "--format", "html")
    assert found.exit_code == 1
    assert "default-src 'none'" in found.stdout
    assert "<script" not in found.stdout
    assert "<img" not in found.stdout
    assert "<b>" not in found.stdout
    assert "\u202e" not in found.stdout
    assert "<del>&lt;script&gt;alert(1)&lt;/script&gt;</del>" in found.stdout
    both = diff("a", "b", "--rules", "rules.yml", "--format", "html")
    assert both.exit_code == 1, (both.output, both.exception)
    trees = both.stdout
    assert "t1/pl.csv</h2>" in trees
    assert not [word for word in ("http://", "https://", "<link", "<script", "url(") if word in trees]


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("\t=1", "'\t=1"),
        ("-5.25", "-5.25"),
        ("+7", "+7"),
        ("1=1", "1=1"),
        ("", ""),
    ],
)
def test_formulas_are_neutralised(cell: str, safe: str) -> None:
    assert neutral(cell) == safe


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("7", "--rules", "rules.yml"), "--rules is for two files: run 7 was compared by the rules of its branch"),
        (("7", "t1/pl", "--seconds", "1"), "--seconds is for two files"),
        (("7", "--format", "html"), "seatrial report 7 -o run-7.html"),
        (("7", "--download", "csv"), "seatrial diff 7 UNIT --download csv"),
        (("7", "t1/pl", "-o", "x"), "--output is for --download"),
        (("0",), "0 is no run's number"),
        (("9" * 30,), "is no run's number"),
        (("a",), "Give two files or directories, or a run's number instead of 'a'"),
        (("a", "b", "--download", "csv"), "--download is for a run, and 'a' is no run's number"),
        (("a", "b", "--server", "http://127.0.0.1:1"), "--server is for a run"),
        (("7", "--server", "ftp://x"), "is not the address of a server"),
    ],
)
def test_a_run_and_two_files_are_not_mixed_up(words: tuple[str, ...], message: str) -> None:
    found = diff(*words)
    assert (found.exit_code, message in found.output) == (2, True), found.output


def test_a_number_that_is_a_file_is_the_file() -> None:
    Path("7").write_text(A)
    Path("8").write_text(B)
    assert diff("7", "8").stdout.startswith("different: 7 and 8\n")
