"""Two files under a rule: the class, the counts and the differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.compare import Budget, Output, OutputUnreadable, compare
from runner.comparison import Change, Comparison, Leniency, Outcome, Rows
from runner.spec import Rule

HEAD = "id,name,amount\n"


@pytest.fixture
def trial(tmp_path: Path) -> Any:
    def run(a: str | bytes, b: str | bytes, kind: str = "csv", budget: Budget | None = None, **rule: Any) -> Comparison:
        files = []
        for side, content in (("a", a), ("b", b)):
            file = tmp_path / f"{side}.{kind}"
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
            files.append(Output.of(file))
        found = compare(files[0], files[1], Rule(match="*", **rule) if rule else None, budget=budget)
        json.dumps(found.as_json(), allow_nan=False)
        return found

    return run


def codes(found: Comparison) -> list[str]:
    return [note.code for note in found.notes]


def test_equal_digests_are_enough(tmp_path: Path) -> None:
    a, b = (Output(tmp_path / "nowhere", name, "d1") for name in ("a.csv", "b.csv"))
    assert compare(a, b).outcome is Outcome.SAME


def test_equal_bytes_are_the_same(trial: Any) -> None:
    assert trial(HEAD + "1,x,2\n", HEAD + "1,x,2\n").outcome is Outcome.SAME
    assert trial("", "").outcome is Outcome.SAME


def test_changed_added_and_removed_rows(trial: Any) -> None:
    found = trial(HEAD + "1,x,2\n2,y,3\n3,z,4\n", HEAD + "1,x,2\n3,z,5.5\n4,w,1\n", key=("id",))
    assert found.outcome is Outcome.DIFFERENT
    assert found.rows == Rows(changed=1, added=1, removed=1, same=1)
    changed, removed, added = found.differences
    assert (changed.key, changed.column, changed.a, changed.b, changed.delta) == (("3",), "amount", "4", "5.5", 1.5)
    assert (removed.change, removed.key, removed.a, removed.b) == (Change.REMOVED, ("2",), "2,y,3", None)
    assert (added.change, added.key, added.a, added.b) == (Change.ADDED, ("4",), None, "4,w,1")
    (column,) = found.changes
    assert (column.column, column.changed, column.kinds, column.delta) == ("amount", 1, {"value": 1}, 1.5)


@pytest.mark.parametrize(
    ("a", "b", "leniencies"),
    [
        ("id,v\n1,2\n2,3\n", "id,v\n2,3\n1,2\n", ["row_order"]),
        ("id,v\n1,2\n", "id,v\r\n1,2\r\n", ["line_ends"]),
        ("id,v\n1,2\n", "id,v\r1,2\r", ["line_ends"]),
        ("id,v\n1,2\n", "\ufeffid,v\n1,2\n", ["bom"]),
        ("id,v\n1,2\n", "id,v\n1,2", ["final_newline"]),
        ("id,v\n1,2\n", "id,v\n\n1,2\n\n", ["blank_lines"]),
        ("id,v\n1,2\n", "v,id\n2,1\n", ["column_order"]),
        ("id,v\n1,2\n", "id;v\n1;2\n", ["delimiter"]),
        ("id,v\n1,2\n", 'id,v\n"1","2"\n', ["writing"]),
        ('id,v\n1,"x\ny"\n', 'id,v\n"1","x\ny"\n', ["writing"]),
        ("id,v\n1,表\n", "id,v\n1,表\n".encode("cp932"), ["encoding"]),
        (
            "id,v\n1,2\n2,3\n",
            b"\xef\xbb\xbfv,id\r\n3,2\r\n2,1",
            ["bom", "line_ends", "final_newline", "row_order", "column_order"],
        ),
    ],
)
def test_what_does_not_matter(trial: Any, a: str, b: str | bytes, leniencies: list[str]) -> None:
    found = trial(a, b, key=("id",))
    assert (found.outcome, [one.value for one in found.leniencies]) == (Outcome.EQUIVALENT, leniencies)
    assert found.rows.same == a.count("\n") - (1 + ("x\n" in a))
    assert not found.differences


def test_the_order_of_rows_may_matter(trial: Any) -> None:
    found = trial("id,v\n1,2\n2,3\n", "id,v\n2,3\n1,2\n", order=True)
    assert (found.outcome, codes(found)) == (Outcome.DIFFERENT, ["row_order"])
    assert (
        trial("id,v\n1,2\n2,3\n", "id,v\n1,2\n2,3.0\n", order=True, lenient=("numbers",)).outcome is Outcome.EQUIVALENT
    )
    swapped = trial("id,v\n1,2\n2,3\n", "id,v\n2,3.0\n1,2\n", order=True, lenient=("numbers",))
    assert swapped.outcome is Outcome.DIFFERENT


def test_other_columns_are_a_difference_of_the_columns_alone(trial: Any) -> None:
    found = trial("id,old,v\n1,x,2\n", "id,v,new\n1,2,y\n", key=("id",))
    assert (found.outcome, found.rows) == (Outcome.DIFFERENT, Rows(same=1))
    assert (found.columns.added, found.columns.removed) == (("new",), ("old",))
    ignored = trial("id,old,v\n1,x,2\n", "id,v,new\n1,2,y\n", key=("id",), ignore=("old", "new"))
    assert (ignored.outcome, ignored.leniencies) == (Outcome.EQUIVALENT, (Leniency.IGNORED_COLUMNS,))


def test_equal_records_under_other_headers_are_other_rows(trial: Any) -> None:
    assert trial("a,b\n1,2\n", "b,a\n1,2\n").outcome is Outcome.DIFFERENT


def test_tolerances_by_column(trial: Any) -> None:
    a, b = HEAD + "1,2.000,1.00\n", HEAD + "1,2.001,1.01\n"
    assert trial(a, b, tolerance={"absolute": 0.01}).leniencies == (Leniency.TOLERANCE,)
    one = trial(a, b, tolerance={"columns": {"amount": {"absolute": 0.01}}})
    assert [(c.column, c.changed, c.tolerated) for c in one.changes] == [("name", 1, 0), ("amount", 0, 1)]
    other = trial(a, b, tolerance={"absolute": 0.01, "columns": {"amount": {"relative": 0.001}}})
    assert [(c.column, c.changed) for c in other.changes] == [("name", 0), ("amount", 1)]


def test_keys_are_never_compared_with_a_tolerance(trial: Any) -> None:
    found = trial("id,v\n1.00,2\n", "id,v\n1.01,2\n", key=("id",), tolerance={"absolute": 1})
    assert found.rows == Rows(added=1, removed=1)


def test_ignored_columns(trial: Any) -> None:
    found = trial("id,at\n1,10:00\n2,10:00\n", "id,at\n1,11:00\n2,11:00\n", ignore=("at",))
    assert (found.outcome, found.leniencies) == (Outcome.EQUIVALENT, (Leniency.IGNORED_COLUMNS,))


def test_forms_are_told_as_such(trial: Any) -> None:
    a = "id,n,d,e\n1,1.0,2024-01-02,\n"
    b = 'id,n,d,e\n1,1.00,2024/01/02,""\n'
    found = trial(a, b)
    assert found.outcome is Outcome.DIFFERENT
    assert [(c.column, c.kinds) for c in found.changes] == [
        ("n", {"format": 1}),
        ("d", {"format": 1}),
        ("e", {"null": 1}),
    ]
    lenient = trial(a, b, lenient=("numbers", "dates", "nulls"))
    assert [one.value for one in lenient.leniencies] == ["number_format", "date_format", "null_format"]


def test_a_key_is_found(trial: Any) -> None:
    rows = [f"{n % 3},{n},x,{n}.5" for n in range(20)]
    found = trial("a,b,c,d\n" + "\n".join(rows), "a,b,c,d\n" + "\n".join(rows).replace("7.5", "8.5"))
    assert (found.key, found.key_found) == (("b",), True)
    assert found.rows == Rows(changed=2, same=18)
    pair = [f"{n % 4},{n // 4},{n}.5" for n in range(20)]
    found = trial("a,b,d\n" + "\n".join(pair), "a,b,d\n" + "\n".join(pair).replace("13.5", "8.5"))
    assert (found.key, found.rows.changed) == (("a", "b"), 1)


def test_without_any_key_rows_go_by_their_texts(trial: Any) -> None:
    found = trial("t,v\nx,1.5\nx,2.5\ny,1.5\n", "t,v\nx,1.5\nx,3.5\ny,1.5\n")
    assert (found.rows, codes(found)) == (Rows(changed=1, same=2), ["no_key"])


def test_doubled_keys_are_told(trial: Any) -> None:
    found = trial("id,v\n1,5\n1,6\n2,7\n", "id,v\n1,6.5\n1,5\n1,9\n2,7\n", key=("id",))
    assert found.rows == Rows(changed=1, added=1, same=2)
    found = trial("id,v\n1,5\n1,6\n", "id,v\n1,7\n1,8\n", key=("id",))
    assert (found.rows, codes(found)) == (Rows(changed=2), ["duplicate_key"])


def test_a_key_that_one_side_lacks(trial: Any) -> None:
    found = trial("id,k,v\n1,x,2\n", "k,v\nx,3\n", key=("id",))
    assert codes(found) == ["key_missing:id"]
    assert "second side" in found.notes[0].text
    assert (found.key, found.rows.changed, found.columns.removed) == (("k",), 1, ("id",))


def test_a_key_in_another_form_still_finds_its_row(trial: Any) -> None:
    found = trial("d,v\n2024-01-02,1\n2024-01-03,2\n", "d,v\n2024/01/02,1\n2024/01/03,2\n", key=("d",))
    assert found.rows == Rows(changed=2)
    assert {difference.change for difference in found.differences} == {Change.FORMAT}


def test_ragged_rows(trial: Any) -> None:
    found = trial(HEAD + "1,x\n2,y,3\n", HEAD + "1,x,\n2,y,3,more\n", key=("id",))
    assert (found.outcome, found.rows.changed) == (Outcome.DIFFERENT, 2)
    assert [note.count for note in found.notes if note.code == "ragged"] == [2]


@pytest.mark.parametrize(
    ("a", "b", "rows"),
    [
        ("", HEAD + "1,x,2\n", Rows(added=1)),
        (HEAD, HEAD + "1,x,2\n", Rows(added=1)),
        (HEAD + "1,x,2\n", "", Rows(removed=1)),
        ("a\n1\n", "b\n1\n", Rows(added=1, removed=1)),
        ("a\n\n1\n", "a\n1\n", Rows(removed=1, same=1)),
    ],
)
def test_files_with_little_in_them(trial: Any, a: str, b: str, rows: Rows) -> None:
    found = trial(a, b)
    assert (found.outcome, found.rows) == (Outcome.DIFFERENT, rows)


def test_an_empty_file_lacks_the_columns(trial: Any) -> None:
    assert trial("", HEAD).columns.added == ("id", "name", "amount")


def test_no_header(trial: Any) -> None:
    found = trial("1,2\n3,4\n", "1,2\n3,5\n", header=False)
    assert (found.key, found.rows) == (("1",), Rows(changed=1, same=1))
    guessed = trial("1,2\n3,4\n", "1,2\n3,5\n")
    assert codes(guessed) == ["header_of_numbers"]


def test_a_space_in_the_name_of_a_column_is_another_name(trial: Any) -> None:
    found = trial("id,amount\n1,2\n", "id,amount \n1,2\n")
    assert (found.outcome, found.columns.removed, found.columns.added) == (
        Outcome.DIFFERENT,
        ("amount",),
        ("amount ",),
    )
    assert (
        trial("id, amount\n1,2\n", "id, amount\n1,3\n", key=("id",), ignore=("amount",)).outcome is Outcome.EQUIVALENT
    )
    assert trial('id,"amount",\n1,2,\n', 'id,amount,""\n1,2,\n').leniencies == (Leniency.WRITING,)
    lenient = trial("id,amount\n1,2\n", "id,amount \n1,2\n", lenient=("text",))
    assert (lenient.outcome, lenient.leniencies) == (Outcome.EQUIVALENT, (Leniency.TEXT_FORMAT,))
    doubled = trial("v,v \n1,2\n", "v,v\n1,2\n")
    assert (doubled.columns.removed, doubled.columns.added) == (("v ",), ("v (2)",))


def test_doubled_column_names(trial: Any) -> None:
    found = trial("id,v,v\n1,2,3\n", "id,v,v\n1,2,4\n")
    assert [change.column for change in found.changes] == ["v (2)"]
    assert codes(found) == ["doubled_column"]


def test_odd_quotes(trial: Any) -> None:
    found = trial('id,v\n1,5" pipe\n2,3\n', 'id,v\n1,5" pipe\n2,4\n')
    assert (found.rows, codes(found)) == (Rows(changed=1, same=1), ["odd_quotes"])
    open_quote = trial('id,v\n1,"x\n', 'id,v\n1,"y\n')
    assert (open_quote.outcome, codes(open_quote)) == (Outcome.DIFFERENT, ["odd_quotes"])


def test_nothing_and_an_empty_text_beside_odd_quotes(trial: Any) -> None:
    found = trial('id,v,w\n1,"",5" pipe\n2,,x\n', 'id,v,w\n1,,5" pipe\n2,,x\n', key=("id",))
    assert (found.outcome, found.changes[0].kinds) == (Outcome.DIFFERENT, {"null": 1})
    assert (found.differences[0].a, found.differences[0].b) == ('""', "")
    same = trial('id,v,w\n1,"",5" pipe\n2,"a,"",b",""\n', 'id,v,w\n2,"a,"",b",""\n1,"",5" pipe\n')
    assert (same.outcome, same.leniencies) == (Outcome.EQUIVALENT, (Leniency.ROW_ORDER,))
    unclosed = trial('id,v,w\n1,"",",\n', 'id,v,w\n1,,",\n', key=("id",))
    assert unclosed.outcome is Outcome.DIFFERENT
    alone = trial('v\n""\n"x"y\n', 'v\n\n"x"y\n')
    assert alone.outcome is Outcome.DIFFERENT


def test_line_ends_inside_of_quotes(trial: Any) -> None:
    found = trial('id,v,w\n1,"x\ny",1\n2,z,1\n', 'id,v,w\n2,z,1\n1,"x\nq",1\n', key=("id",))
    assert (found.rows, found.differences[0].a, found.differences[0].b) == (Rows(changed=1, same=1), "x\ny", "x\nq")


def test_bytes_that_are_no_text(trial: Any) -> None:
    found = trial(b"id,v\n1,\x00\xfa\xff\n", b"id,v\n1,\x00\xfa\xfe\n")
    assert found.outcome is Outcome.DIFFERENT
    assert {"undecodable:first", "undecodable:second"} <= set(codes(found))
    nul = trial(b"id,v\n1,a\x00b\n", b"id,v\n1,a\x00c\n")
    assert nul.differences[0].a == "a\0b"


def test_a_byte_that_is_no_text_is_not_its_code(trial: Any) -> None:
    found = trial(b"id,v\n1,caf\xe9,\n", b"id,v\n1,caf\\xe9,\n", encoding="utf-8")
    assert (found.outcome, found.differences[0].a) == (Outcome.DIFFERENT, "caf\ufffd\\xe9")
    named = trial(b"id,\xe9\n1,2\n", b"id,\\xe9\n1,2\n")
    assert named.columns.removed == ("\ufffd\\xe9",)


def test_utf_16_goes_by_bytes(trial: Any) -> None:
    found = trial("id,v\n1,2\n".encode("utf-16"), "id,v\n1,3\n".encode("utf-16"))
    assert (found.format, codes(found)) == ("bytes", ["utf_16", "bytes_differ"])


def test_other_files_go_by_bytes(trial: Any) -> None:
    found = trial(b"\x89PNG1", b"\x89PNG22", "png")
    assert (found.outcome, found.format, found.sizes) == (Outcome.DIFFERENT, "bytes", (5, 6))
    assert "from byte 4 on" in found.notes[0].text


def test_formats_that_differ_go_by_bytes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / name).write_text(name)
    found = compare(Output.of(tmp_path / "a.csv"), Output.of(tmp_path / "b.jsonl"))
    assert (found.outcome, codes(found)) == (Outcome.DIFFERENT, ["other_format", "bytes_differ"])


def test_tsv(trial: Any) -> None:
    found = trial("id\tv, w\n1\t2,0\n", "id\tv, w\n1\t2,1\n", "tsv")
    assert (found.format, found.differences[0].column) == ("tsv", "v, w")


@pytest.mark.parametrize("depth", [100, 300, 500, 700, 900, 5_000])
def test_json_that_is_nested_deeply(trial: Any, depth: int) -> None:
    a, b = ('{"a":' * depth + number + "}" * depth + "\n" for number in "12")
    found = trial(a, b, "jsonl")
    assert found.outcome is Outcome.DIFFERENT
    assert ("not_json" in codes(found)) is (depth > 200)
    assert trial(a, " " + a, "jsonl").outcome is not Outcome.SAME


def test_json_lines(trial: Any) -> None:
    a = '{"id": 1, "v": 1.0, "t": {"x": 1, "y": 2}}\n{"id": 2, "v": 2}\n'
    b = '{"t":{"y":2,"x":1},"v":1.0,"id":1}\n{"id": 2, "v": "2"}\n'
    found = trial(a, b, "jsonl", key=("id",))
    assert (found.rows, found.format) == (Rows(changed=1, same=1), "jsonl")
    assert [(d.change, d.a, d.b) for d in found.differences] == [(Change.TYPE, "2", '"2"')]
    assert trial('{"id": 1}\n', '{"id":1}\n', "jsonl").leniencies == (Leniency.WRITING,)
    more = trial('{"id": 1}\n', '{"id": 1, "w": null}\n', "jsonl")
    assert (more.columns.added, more.outcome) == (("w",), Outcome.DIFFERENT)


@pytest.mark.parametrize(
    "line", ["{", "[1", "nonsense", '"\\ud800"', "9" * 5_000, "[" * 100_000, '{"a":1,"a":2}', "NaN", "\u2028"]
)
def test_json_lines_that_are_odd(trial: Any, line: str) -> None:
    found = trial('{"id": 1}\n' + line + "\n", '{"id": 1}\n', "jsonl")
    assert (found.outcome, found.rows) == (Outcome.DIFFERENT, Rows(removed=1, same=1))


def test_the_largest_differences_are_kept_and_the_rest_is_told(trial: Any) -> None:
    a = "id,v\n" + "".join(f"{n},0\n" for n in range(50))
    b = "id,v\n" + "".join(f"{n},{(n * 7) % 50}\n" for n in range(50))
    found = trial(a, b, key=("id",), budget=Budget(differences=3))
    assert [difference.delta for difference in found.differences] == [49, 48, 47]
    assert (found.found, found.rows.changed, found.truncated) == (49, 49, "the 3 largest of 49 differences are kept")
    assert trial(a, b, key=("id",), budget=Budget(differences=0)).differences == ()


def test_time_that_is_over_is_told(trial: Any) -> None:
    found = trial("id,v\n1,2\n", "id,v\n1,3\n", budget=Budget(seconds=1e-9))
    assert found.outcome is Outcome.DIFFERENT
    assert "stopped after" in str(found.truncated)


def test_the_sink_hears_of_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\n" + "".join(f"{n},0\n" for n in range(20)))
    (tmp_path / "b.csv").write_text("id,v\n" + "".join(f"{n},1\n" for n in range(20)))
    heard: list[Any] = []
    a, b = Output.of(tmp_path / "a.csv"), Output.of(tmp_path / "b.csv")
    compare(a, b, budget=Budget(differences=2), sink=heard.append)
    assert len(heard) == 20


def test_what_cannot_be_read(tmp_path: Path) -> None:
    there = tmp_path / "a.csv"
    there.write_text("x\n")
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(OutputUnreadable, match="cannot be read"):
            compare(Output.of(there), Output.of(path))


def test_very_many_columns(trial: Any) -> None:
    names = ",".join(f"c{n}" for n in range(10_000))
    cells = ",".join(str(n) for n in range(10_000))
    found = trial(f"{names}\n{cells}\n", f"{names}\n{cells[:-4]}1234\n")
    assert [(d.column, d.b) for d in found.differences] == [("c9999", "1234")]


def test_a_long_cell_goes_by_its_digest(trial: Any) -> None:
    long = "x" * (1 << 20)
    found = trial(f"id,v\n1,{long}\n2,y\n", f"id,v\n1,{long}x\n2,y\n")
    assert found.differences[0].b is not None
    assert found.differences[0].b.startswith("(1,048,577 bytes, SHA-256 ")
