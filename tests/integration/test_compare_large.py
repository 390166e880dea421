"""Comparisons of large files: their roads, their memory, Parquet, and what is too long."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pytest

from runner.adapters.table_duckdb import DuckdbParquet
from runner.compare import Budget, Output, OutputUnreadable, compare
from runner.comparison import Comparison, Leniency, Outcome, Rows
from runner.spec import Rule

ROWS = 250_000
RULE = Rule.model_validate({"match": "*", "key": ("id",), "tolerance": {"absolute": 0.005}}, strict=False)


def lines() -> list[str]:
    return [
        f"{n},account {n % 997},2024-01-{n % 28 + 1:02},{n * 37 % 10_007 / 100:.2f},note {n % 13} text\n"
        for n in range(ROWS)
    ]


def write(path: Path, rows: Iterable[str], head: str = "id,account,day,amount,note\n") -> Output:
    with path.open("w", newline="") as file:
        file.write(head)
        file.writelines(rows)
    return Output.of(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Output]:
    rows = lines()
    return rows, write(tmp_path_factory.mktemp("large") / "a.csv", rows)


def changed(rows: list[str]) -> list[str]:
    others = list(rows)
    for n in range(0, ROWS, 5_000):
        others[n] = others[n].replace(",2024", ",2025")
    del others[1234]
    others.insert(200_000, "x1,new,2024-01-01,1.00,new\n")
    return others


def shuffled(rows: list[str]) -> list[str]:
    others = changed(rows)
    random.Random(1).shuffle(others)
    return others


@pytest.mark.parametrize(("make", "crossed"), [(changed, False), (shuffled, True)])
def test_a_few_differences(
    base: tuple[list[str], Output], tmp_path: Path, make: Callable[[list[str]], list[str]], crossed: bool
) -> None:
    rows, a = base
    found = compare(a, write(tmp_path / "b.csv", make(rows)), RULE, spool=tmp_path)
    assert found.rows == Rows(changed=50, added=1, removed=1, same=ROWS - 51)
    assert (Leniency.ROW_ORDER in found.leniencies) is crossed
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]


def test_every_row_is_another(base: tuple[list[str], Output], tmp_path: Path) -> None:
    rows, a = base
    b = write(tmp_path / "b.csv", (row.replace(" text", " txt") for row in rows))
    found = compare(a, b, RULE, budget=Budget(differences=10))
    assert (found.rows, len(found.differences)) == (Rows(changed=ROWS), 10)
    assert found.truncated == f"the 10 largest of {ROWS:,} differences are kept"
    assert found.leniencies == ()


def test_columns_in_another_order(base: tuple[list[str], Output], tmp_path: Path) -> None:
    rows, a = base
    b = write(
        tmp_path / "b.csv",
        (f"{row[:-1].split(',', 1)[1]},{row.split(',', 1)[0]}\n" for row in rows),
        "account,day,amount,note,id\n",
    )
    found = compare(a, b, RULE)
    assert (found.outcome, found.leniencies, found.rows) == (
        Outcome.EQUIVALENT,
        (Leniency.COLUMN_ORDER,),
        Rows(same=ROWS),
    )


def test_line_ends_inside_of_quotes(base: tuple[list[str], Output], tmp_path: Path) -> None:
    rows, _ = base
    quoted = [
        row.replace(" text", ' "" text').replace("note", '"two\nlines').replace("\n\n", "\n").rstrip("\n") + '"\n'
        for row in rows
    ]
    a = write(tmp_path / "a.csv", quoted)
    other = list(quoted)
    other[7] = other[7].replace("two\nlines", "three\nlines")
    other[100_000:100_002] = reversed(other[100_000:100_002])
    found = compare(a, write(tmp_path / "b.csv", other), RULE)
    assert (found.rows, found.leniencies) == (Rows(changed=1, same=ROWS - 1), (Leniency.ROW_ORDER,))
    assert "three\nlines" in str(found.differences[0].b)


def test_time_is_over_in_the_middle(base: tuple[list[str], Output], tmp_path: Path) -> None:
    rows, a = base
    found = compare(a, write(tmp_path / "b.csv", shuffled(rows)), RULE, budget=Budget(seconds=0.05))
    assert found.outcome is Outcome.DIFFERENT
    assert "stopped after 0.05 s" in str(found.truncated)


MEASURE = """
import sys
from pathlib import Path
from runner.compare import Output, compare
def peak():
    # Of this program alone; what getrusage tells begins with the size of whoever started it.
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
found = compare(Output.of(Path(sys.argv[1])), Output.of(Path(sys.argv[2])))
print(found.outcome.value, [note.code for note in found.notes], peak())
"""


def measured(a: Path, b: Path) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", MEASURE, a, b], capture_output=True, text=True, check=True)
    told, _, megabytes = done.stdout.rstrip().rpartition(" ")
    return told, int(megabytes)


def test_one_cell_of_a_hundred_megabytes(tmp_path: Path) -> None:
    for name, last in (("a.csv", b"x"), ("b.csv", b"y")):
        (tmp_path / name).write_bytes(b"id,v\n1," + b"x" * 100_000_000 + last + b"\n2,z\n")
    told, megabytes = measured(tmp_path / "a.csv", tmp_path / "b.csv")
    assert told == "different []"
    assert megabytes < 1_000


def test_a_quote_that_nobody_closes(tmp_path: Path) -> None:
    for name, last in (("a.csv", b"x"), ("b.csv", b"y")):
        (tmp_path / name).write_bytes(b'id,v\n1,"' + b"some text\n" * 40_000_000 + last)
    told, megabytes = measured(tmp_path / "a.csv", tmp_path / "b.csv")
    assert told == "different ['too_long', 'bytes_differ']"
    assert megabytes < 1_500


def parquet(path: Path, query: str) -> Output:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return Output.of(path)


def by_parquet(a: Output, b: Output, **rule: object) -> Comparison:
    return compare(a, b, Rule.model_validate({"match": "*", **rule}, strict=False), parquet=DuckdbParquet())


def test_parquet(tmp_path: Path) -> None:
    select = (
        "SELECT i AS id, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'x,\"\n' END AS t, "
        "(i / 2)::DECIMAL(9,{}) AS v FROM range(9) r(i)"
    )
    a = parquet(tmp_path / "a.parquet", select.format(1))
    assert by_parquet(a, parquet(tmp_path / "b.parquet", f"{select.format(1)} ORDER BY i DESC")).leniencies == (
        Leniency.ROW_ORDER,
    )
    found = by_parquet(a, parquet(tmp_path / "c.parquet", select.format(2)))
    assert (found.format, found.outcome, found.key) == ("parquet", Outcome.DIFFERENT, ("id",))
    assert found.columns.types == (("v", "DECIMAL(9,1)", "DECIMAL(9,2)"),)
    assert [(one.column, one.kinds) for one in found.changes] == [("v", {"format": 9})]
    empty = parquet(tmp_path / "d.parquet", f"SELECT id, coalesce(t, '') AS t, v FROM ({select.format(1)})")
    assert [(one.column, one.kinds) for one in by_parquet(a, empty, key=("id",)).changes] == [("t", {"null": 3})]
    again = parquet(tmp_path / "e.parquet", f"{select.format(1)} LIMIT 9")
    assert by_parquet(a, again).outcome in (Outcome.SAME, Outcome.EQUIVALENT)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a.parquet", "SELECT 1 AS id")
    for content in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(OutputUnreadable, match=r"b\.parquet cannot be read"):
            by_parquet(a, Output.of(tmp_path / "b.parquet"))


def test_a_full_disk_is_not_the_fault_of_the_parquet(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a.parquet", "SELECT 1 AS id")
    target = tmp_path / "target.csv"
    target.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        DuckdbParquet().to_csv(a.path, target, seconds=None)


def test_a_path_of_parquet_is_no_pattern_and_no_sql(tmp_path: Path) -> None:
    odd = tmp_path / "it's [a]*' OR 1"
    odd.mkdir()
    parquet(tmp_path / "x.parquet", "SELECT 1 AS id").path.rename(odd / "a.parquet")
    parquet(tmp_path / "x.parquet", "SELECT 2 AS id").path.rename(odd / "b.parquet")
    a, b = Output.of(odd / "a.parquet"), Output.of(odd / "b.parquet")
    assert compare(a, b, spool=odd, parquet=DuckdbParquet()).rows == Rows(added=1, removed=1)


def test_without_a_reader_parquet_goes_by_bytes(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a.parquet", "SELECT 1 AS id")
    assert compare(a, parquet(tmp_path / "b.parquet", "SELECT 2 AS id")).format == "bytes"


def test_memory_does_not_grow_with_the_files(base: tuple[list[str], Output], tmp_path: Path) -> None:
    rows, a = base
    told, megabytes = measured(a.path, write(tmp_path / "b.csv", shuffled(rows)).path)
    assert told.startswith("different")
    assert megabytes < 400
