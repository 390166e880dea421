"""Files of rules, and which rule holds for a unit."""

from __future__ import annotations

import pytest

from runner.compare_rules import RuleBook, parse_rules
from runner.errors import SpecError
from runner.spec import Rule

ONE = '{match: "*/pl", key: [id]}'


@pytest.mark.parametrize(
    "text",
    [
        f"- {ONE}\n",
        f"rules:\n  - {ONE}\n",
        f"compare:\n  rules: [{ONE}]\n",
        f"version: 1\nworkspace: {{image: x}}\nrun: x\ncompare: {{rules: [{ONE}]}}\n",
    ],
)
def test_the_forms_of_a_file_of_rules(text: str) -> None:
    assert parse_rules(text, source="r.yml") == (Rule(match="*/pl", key=("id",)),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- {match: x, kee: [id]}\n", "line 1: rules[0].kee: is not a known key; did you mean `key`?"),
        (
            "- match: x\n  tolerance: {absolute: -1}\n",
            "line 2: rules[0].tolerance.absolute: must be 0 or more (given: -1)",
        ),
        (
            "- match: x\n  tolerance: {columns: {v: {relative: -1}}}\n",
            "tolerance.columns.v.relative: must be 0 or more",
        ),
        ("- match: x\n  tolerance: {absolute: .nan}\n", "must be a finite number"),
        ("- {key: [id]}\n", "rules[0].match: is required"),
        ("- match: x\n  delimiter: ab\n", "must be one ASCII character"),
        ("- match: x\n  encoding: latin1\n", "must be utf-8 or cp932"),
        ("- match: x\n  lenient: [colours]\n", "must be numbers, dates, nulls or text"),
        ("- match: x\n  key:\n", "is empty"),
        ("rules: 5\n", "must be a list"),
        ("5\n", "must be a list of rules"),
        ("", "must be a list of rules"),
        ("a: [\n", "is not YAML"),
        ("version: 1\nrun: x\n", "workspace: is required"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=r"^r\.yml is not valid") as caught:
        parse_rules(text, source="r.yml")
    assert problem in str(caught.value)


def test_the_first_rule_that_matches_holds_and_idle_ones_are_known() -> None:
    book = RuleBook(Rule(match=match) for match in ("*/pl", "t1/*", "none"))
    assert book.choose("t1/pl") == Rule(match="*/pl")
    assert book.choose("t1/bs") == Rule(match="t1/*")
    assert book.choose("t2/bs") is None
    assert book.idle() == ("none",)
