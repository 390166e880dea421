"""What two runs of one baseline teach, and which differences that explains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.causes import causes
from jobs.comparing import Compared, Pair, Side, UnitClass, is_still_so, second_run
from jobs.noise import Moves, Noise, explains, judged, learn, noise_of, words
from runner.compare import Budget, Output, compare
from runner.comparison import OF_A_PART
from runner.model import BASELINE_AGAIN, UnitState
from runner.model import Output as Made
from runner.spec import Rule

KEYED = Rule(match="*", key=("id",))
HEAD = "id,amount,generated_at\n"


def result(tmp_path: Path, a: str, b: str, *, rule: Rule = KEYED, name: str = "x.csv") -> dict[str, Any]:
    """Compare two files as a comparer does."""
    sides = []
    for side, text in (("a", a), ("b", b)):
        path = tmp_path / f"{side}-{name}"
        path.write_text(text)
        sides.append(Output(path, name, f"{side}{hash(text)}"))
    return compare(*sides, rule, budget=Budget(60, 100), spool=tmp_path).as_json()


def table(at: str, *, amount: str = "5", more: str = "") -> str:
    return f"{HEAD}1,{amount},{at}\n2,7,{at}\n{more}"


def test_a_column_that_moves_is_learnt_and_explains_only_itself(tmp_path: Path) -> None:
    twice = result(tmp_path, table("10:00"), table("10:01"))
    noise = learn(twice, twice["differences"])
    assert noise is not None
    assert (noise.columns, noise.whole, noise.changed, len(noise.examples)) == (("generated_at",), (), 2, 2)
    assert words(noise) == "cells of generated_at"
    assert explains(noise, result(tmp_path, table("10:00"), table("10:07")))
    assert not explains(noise, result(tmp_path, table("10:00"), table("10:07", amount="6")))
    assert not explains(noise, result(tmp_path, table("10:00"), table("10:07", more="3,1,10:07\n")))
    dropped = table("10:07").replace("id,amount", "id,sum")
    assert not explains(noise, result(tmp_path, table("10:00"), dropped))


def test_a_cause_of_several_files_is_noise_only_where_each_of_them_moves() -> None:
    def file(name: str, *columns: str) -> dict[str, Any]:
        changes = [{"column": column, "changed": 1, "delta": None, "kinds": {"value": 1}} for column in columns]
        return {"file": name, "class": "different", "format": "csv", "rule": "*", "changes": changes}

    noise = Noise({"a.csv": Moves(columns=("at",))})
    for files, left in (
        ([file("a.csv", "at", "tax")], {"tax"}),
        ([file("a.csv", "at"), file("b.csv", "tax")], {"tax"}),
        ([file("a.csv", "at"), file("b.csv", "at", "tax")], {"at", "tax"}),
    ):
        found = Compared("u", 0, UnitClass.DIFFERENT, summary={"results": files})
        found = judged(Compared("u", 0, UnitClass.DIFFERENT, summary=found.summary, causes=causes(found)), noise)
        assert not found.noisy
        assert {share.cause.column for share in found.causes} == left


def test_what_agrees_within_the_rules_is_no_noise(tmp_path: Path) -> None:
    ignoring = Rule(match="*", key=("id",), ignore=("generated_at",))
    assert learn(result(tmp_path, table("10:00"), table("10:01"), rule=ignoring)) is None
    assert learn(result(tmp_path, table("10:00"), table("10:00"))) is None


def test_rows_in_another_order_beside_what_moves(tmp_path: Path) -> None:
    ordered = KEYED.model_copy(update={"order": True})
    noise = learn(result(tmp_path, table("10:00"), table("10:01"), rule=ordered))
    assert noise is not None
    moved = f"{HEAD}2,7,10:07\n1,5,10:07\n"
    found = result(tmp_path, table("10:00"), moved, rule=ordered)
    assert not explains(noise, found)
    assert explains(noise, result(tmp_path, table("10:00"), table("10:07"), rule=ordered))
    also = learn(result(tmp_path, table("10:00"), moved, rule=ordered))
    assert also is not None
    assert (also.columns, also.whole) == (("generated_at",), ("other",))
    assert explains(also, found)
    more = result(tmp_path, table("10:00"), moved.replace("5", "6"), rule=ordered)
    left = Compared("u", 0, UnitClass.DIFFERENT, summary=more)
    left = Compared("u", 0, UnitClass.DIFFERENT, summary=more, causes=causes(left))
    assert [one.cause.what for one in judged(left, noise).causes] == ["value", "other"]
    assert [one.cause.what for one in judged(left, also).causes] == ["value"]


def test_rows_that_come_and_go(tmp_path: Path) -> None:
    noise = learn(result(tmp_path, table("1", more="8,1,1\n"), table("1", more="9,1,1\n")))
    assert noise is not None
    assert (noise.columns, noise.whole) == ((), ("rows",))
    assert explains(noise, result(tmp_path, table("1", more="8,1,1\n"), table("1", more="5,1,1\n")))
    assert not explains(noise, result(tmp_path, table("1"), table("1", amount="6"))), "a cell of a row that stays"


def test_bytes_that_are_never_the_same(tmp_path: Path) -> None:
    noise = learn(result(tmp_path, "made at 10:00", "made at 10:01", name="x.txt"))
    assert noise is not None
    assert noise.whole == ("bytes",)
    assert explains(noise, result(tmp_path, "made at 10:00", "anything else", name="x.txt"))


def test_columns_that_come_and_go(tmp_path: Path) -> None:
    noise = learn(result(tmp_path, "id,a\n1,1\n", "id,b\n1,1\n"))
    assert noise is not None
    assert "shape" in noise.whole
    assert not explains(noise, result(tmp_path, "id,a\n1,1\n", "id,a\n1,2\n"))


def files(**classes: Any) -> dict[str, Any]:
    lone = {"missing": classes.pop("missing", []), "new": classes.pop("new", [])}
    some = [
        {"file": name, "class": "different", "changes": [{"column": one, "changed": 1} for one in columns]}
        for name, columns in classes.items()
    ]
    return {"class": "different", "files": lone, "results": some}


@pytest.mark.parametrize(
    ("found", "explained"),
    [
        (files(a=["at"]), True),
        (files(b=["at"]), False),
        (files(a=["at", "sum"]), False),
        (files(a=["at"], missing=["run-1.log"], new=["run-3.log"]), True),
        (files(missing=["run-1.log"]), True),
        (files(missing=["figures.csv"]), False),
        ({"class": "different"}, False),
        ({"class": "different", "notes": [{"code": "unreadable"}]}, False),
    ],
)
def test_each_file_is_explained_by_what_moves_in_it(found: dict[str, Any], explained: bool) -> None:
    noise = learn(files(a=["at"], missing=["run-1.log"], new=["run-2.log"]))
    assert noise is not None
    assert noise.whole == ("files",)
    assert explains(noise, found) is explained


def test_what_was_not_read_to_its_end_is_not_explained_and_teaches_no_more_than_was_seen() -> None:
    column = {"class": "different", "format": "csv", "changes": [{"column": "at", "changed": 1}]}
    part = {"truncated": f"stopped after 1 s, the budget of one comparison: {OF_A_PART}"}
    noise = learn(column | part)
    assert noise is not None
    assert noise.columns == ("at",)
    assert explains(noise, column)
    assert not explains(noise, column | part)
    unread = {"class": "different", "format": "bytes"} | part
    assert learn(unread) is None, "its bytes were compared for want of time"
    assert learn({"class": "different", "notes": [{"code": "unreadable"}]}) is None
    assert not explains(Noise({"": Moves(bytes=True)}), unread)


def test_only_a_difference_can_be_noise(tmp_path: Path) -> None:
    noise = learn(result(tmp_path, table("1"), table("2")))
    found = result(tmp_path, table("1"), table("3"))
    one = Compared("t/x", 0, UnitClass.DIFFERENT, summary=found)
    one = Compared(**vars(one) | {"causes": causes(one)})
    assert one.harmful
    noisy = judged(one, noise)
    assert (noisy.kind, noisy.noisy, noisy.harmful, noisy.causes) == (UnitClass.DIFFERENT, True, False, ())
    assert judged(one, None) is one
    for kind in UnitClass:
        assert kind is UnitClass.DIFFERENT or not judged(Compared("x", 0, kind), noise).noisy
    found = result(tmp_path, table("1"), table("3", amount="6"))
    one = Compared("t/x", 0, UnitClass.DIFFERENT, summary=found)
    one = judged(Compared(**vars(one) | {"causes": causes(one)}), noise)
    assert one.harmful
    assert [share.cause.column for share in one.causes] == ["amount"], "what moves anyway is no cause"


def test_it_is_kept_as_json(tmp_path: Path) -> None:
    twice = result(tmp_path, table("10:00"), table("10:01", more="3,1,1\n"))
    noise = learn(twice, twice["differences"])
    assert noise is not None
    assert noise_of(json.loads(json.dumps(noise.as_json()))) == noise


def side(content: str | None, state: UnitState = UnitState.DONE) -> Side:
    return Side(state, None if content is None else Made("x.csv", content * 64, 3))


def test_both_runs_are_compared_when_both_have_the_unit_and_their_bytes_are_unlike() -> None:
    def twice(again: Side | None, first: Side | None = None) -> Pair | None:
        return second_run(Pair("a", 0, first or side("1"), side("2"), again))

    assert twice(side("3")) == Pair("a", 0, side("1"), side("3"))
    assert twice(side("1")) is None
    assert twice(None) is None
    assert twice(side(None, UnitState.FAILED)) is None
    assert twice(side("3"), side(None, UnitState.FAILED)) is None


def test_a_pair_is_what_it_was_only_with_the_same_second_run() -> None:
    pair = Pair("a", 0, side("1"), side("2"), side("3"))
    present = {"baseline": side("1"), "candidate": side("2")}
    assert is_still_so(pair, present | {BASELINE_AGAIN: side("3")}, over=False)
    assert not is_still_so(pair, present | {BASELINE_AGAIN: side("4")}, over=False)
    assert not is_still_so(pair, present | {BASELINE_AGAIN: side(None, UnitState.TODO)}, over=False)
    assert not is_still_so(pair, present, over=False)
    once = Pair("a", 0, side("1"), side("2"))
    assert is_still_so(once, present, over=False)
    assert not is_still_so(once, present | {BASELINE_AGAIN: side("3")}, over=False), "it was listed meanwhile"
