"""The table of defences does not rot: each can still be taken out, and each row of the catalogue has one."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from defences import BEGIN, END, table
from defences_table import DEFENCES, Defence

ROOT = Path(__file__).parents[2]

each_defence = pytest.mark.parametrize("defence", DEFENCES, ids=[f"{one.row}-{one.words}" for one in DEFENCES])


def test_each_row_of_the_catalogue_has_a_defence() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    _, _, catalogue = page.partition("## What it stands\n")
    rows = re.findall(r"^\| ([ABC]\d+) \| .+ \| .+ \|$", catalogue.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) == 40
    assert list(dict.fromkeys(defence.row for defence in DEFENCES)) == rows
    assert len({defence.key for defence in DEFENCES}) == len(DEFENCES)


def test_the_page_tells_of_each_of_them_and_that_its_test_fails() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    _, _, rest = page.partition(f"{BEGIN}\n")
    written, _, _ = rest.partition(f"\n{END}")
    assert written == table({defence.key: {"fails": True} for defence in DEFENCES})


@each_defence
def test_what_is_taken_out_is_there_once(defence: Defence) -> None:
    for edit in defence.edits:
        text = (ROOT / edit.file).read_text("utf-8")
        assert text.count(edit.old) == 1, edit.old
        ast.parse(text.replace(edit.old, edit.new))  # a file that cannot be read proves nothing


@each_defence
def test_its_test_is_named_after_the_row(defence: Defence) -> None:
    path, _, name = defence.test.partition("::")
    function = name.partition("[")[0]
    number = int(defence.row[1:])
    row = f"c{number}" if defence.row.startswith("C") else f"{defence.row[0].lower()}{number:02}"
    assert f"_{row}_" in function
    assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8")
