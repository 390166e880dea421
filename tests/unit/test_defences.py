"""The table of defences does not rot: each can still be taken out, and each row of the catalogue has one."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from defences_table import DEFENCES, Defence

ROOT = Path(__file__).parents[2]

each_defence = pytest.mark.parametrize("defence", DEFENCES, ids=[f"{one.row}-{one.words}" for one in DEFENCES])


def test_each_row_of_the_catalogue_has_a_defence() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    _, _, catalogue = page.partition("## What it stands\n")
    rows = re.findall(r"^\| ([AB]\d+) \| .+ \| .+ \|$", catalogue.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) == 32
    assert list(dict.fromkeys(defence.row for defence in DEFENCES)) == rows
    assert len({defence.key for defence in DEFENCES}) == len(DEFENCES)


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
    assert f"_{defence.row[0].lower()}{int(defence.row[1:]):02}_" in function
    assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8")
