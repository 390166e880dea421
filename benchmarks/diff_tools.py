"""`python -m benchmarks.diff_tools`: the same cases for Seatrial, daff, csv-diff and datacompy; prints docs/compare.md's table.

What each tool says is reduced to rows changed, added, removed; "error" is an exception of the tool's own.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.compare import TOOLS
from runner.compare import Output, compare
from runner.spec import Rule

# name, first file, second file; every table has the key `id`.
CASES: list[tuple[str, str | bytes, str | bytes]] = [
    ("one changed number", "id,v\n1,2\n2,3\n", "id,v\n1,2\n2,4\n"),
    ("a row added, one removed", "id,v\n1,2\n2,3\n", "id,v\n1,2\n3,3\n"),
    ("rows in another order", "id,v\n1,2\n2,3\n", "id,v\n2,3\n1,2\n"),
    ("columns in another order", "id,v,w\n1,2,x\n", "id,w,v\n1,x,2\n"),
    ("a column added", "id,v\n1,2\n", "id,v,w\n1,2,x\n"),
    ("a column removed", "id,v,w\n1,2,x\n", "id,v\n1,2\n"),
    ("1.0 and 1.00", "id,v\n1,1.0\n", "id,v\n1,1.00\n"),
    ("007 and 7", "id,v\n1,007\n", "id,v\n1,7\n"),
    ("within the tolerance", "id,v\n1,1.001\n", "id,v\n1,1.003\n"),
    ("two forms of a date", "id,v\n1,2024-01-02\n", "id,v\n1,2024/01/02\n"),
    ("null and an empty text", "id,v\n1,\n2,x\n", 'id,v\n1,""\n2,x\n'),
    ("null and the word NULL", "id,v\n1,\n2,x\n", "id,v\n1,NULL\n2,x\n"),
    ("NaN on both sides, another row changed", "id,v\n1,NaN\n2,3\n", "id,v\n1,NaN\n2,4\n"),
    ("1e999 and inf", "id,v\n1,1e999\n", "id,v\n1,inf\n"),
    ("a large whole number, its last digit", "id,v\n1,9007199254740992\n2,x\n", "id,v\n1,9007199254740993\n2,x\n"),
    ("the last digits beyond a float", "id,v\n1,0.10000000000000000001\n", "id,v\n1,0.10000000000000000002\n"),
    ("1,234 and 1234", 'id,v\n1,"1,234"\n', "id,v\n1,1234\n"),
    ("full-width digits", "id,v\n1,１２\n", "id,v\n1,12\n"),
    ("a line end inside of quotes", 'id,v\n1,"x\ny"\n', 'id,v\n1,"x\nz"\n'),
    ("needless quotes", "id,v\n1,2\n", 'id,v\n"1","2"\n'),
    ("CRLF", "id,v\n1,x\n", "id,v\r\n1,x\r\n"),
    ("a byte order mark", "id,v\n1,x\n", "\ufeffid,v\n1,x\n"),
    ("CP932 and UTF-8", "id,v\n1,表\n".encode("cp932"), "id,v\n1,表\n"),
    ("a space behind a text", "id,v\n1,x\n", "id,v\n1,x \n"),
    ("a key that stands twice, one of them changed", "id,v\n1,2\n1,3\n", "id,v\n1,2\n1,4\n"),
    ("a key that stands once more", "id,v\n1,2\n", "id,v\n1,2\n1,2\n"),
    ("a ragged row", "id,v,w\n1,2\n2,x,y\n", "id,v,w\n1,2,\n2,x,z\n"),
    ("a row with one cell more", "id,v\n1,2,3\n", "id,v\n1,2,4\n"),
    ("doubled names of columns", "id,v,v\n1,2,3\n", "id,v,v\n1,2,4\n"),
    ("an empty file", "", "id,v\n1,2\n"),
    ("a header alone", "id,v\n", "id,v\n1,2\n"),
    ("a key that one side lacks", "id,v\n1,2\n", "key,v\n1,2\n"),
    ("a NUL byte", "id,v\n1,a\0b\n", "id,v\n1,a\0c\n"),
]

PROGRAM = r"""
import io, json, sys, warnings
warnings.simplefilter("ignore")
import csv, csv_diff, daff, datacompy, pandas

def by_csv_diff(a, b):
    found = csv_diff.compare(*(csv_diff.load_csv(open(path, newline=""), key="id") for path in (a, b)))
    return [len(found["changed"]), len(found["added"]), len(found["removed"])]

def by_datacompy(a, b):
    found = datacompy.PandasCompare(*(pandas.read_csv(path) for path in (a, b)), join_columns=["id"], abs_tol=0.005)
    changed = len(found.intersect_rows) - int(found.count_matching_rows())
    return [changed, len(found.df2_unq_rows), len(found.df1_unq_rows)]

def by_daff(a, b):
    tables = [daff.PythonTableView(list(csv.reader(open(path, newline="")))) for path in (a, b)]
    flags = daff.CompareFlags()
    flags.ordered = False
    flags.addPrimaryKey("id")
    rows = []
    out = daff.PythonTableView(rows)
    daff.TableDiff(daff.compareTables(*tables, flags).align(), flags).hilite(out)
    marks = [row[0] for row in rows if row]
    return [sum("->" in str(m) for m in marks), marks.count("+++"), marks.count("---")]

told = []
for a, b in json.load(sys.stdin):
    line = {}
    for name, tool in (("daff", by_daff), ("csv-diff", by_csv_diff), ("datacompy", by_datacompy)):
        try:
            line[name] = tool(a, b)
        except Exception as error:
            line[name] = type(error).__name__
    told.append(line)
json.dump(told, sys.stdout)
"""


def main() -> None:
    """Run all, print a line for each case."""
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for number, (_, *contents) in enumerate(CASES):
            pair = [Path(directory) / f"{number}-{side}.csv" for side in "ab"]
            for path, content in zip(pair, contents, strict=True):
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
            files.append(pair)
        given = json.dumps([[str(path) for path in pair] for pair in files])
        done = subprocess.run([TOOLS, "-c", PROGRAM], input=given, capture_output=True, text=True, check=True)
        rule = Rule.model_validate({"match": "*", "key": ("id",), "tolerance": {"absolute": 0.005}}, strict=False)
        print("| case | Seatrial | | daff | csv-diff | datacompy |\n|---|---|---|---|---|---|")
        for (name, *_), pair, others in zip(CASES, files, json.loads(done.stdout), strict=True):
            found = compare(Output.of(pair[0]), Output.of(pair[1]), rule)
            why = ", ".join([one.value for one in found.leniencies] + [note.code for note in found.notes])
            rows = found.rows
            ours = [rows.changed, rows.added, rows.removed]
            cells = [_shown(others[tool]) for tool in ("daff", "csv-diff", "datacompy")]
            print(f"| {name} | {found.outcome.value} {_shown(ours)} | {why} | {' | '.join(cells)} |")


def _shown(found: list[int] | str) -> str:
    return found if isinstance(found, str) else " ".join(map(str, found))


if __name__ == "__main__":
    main()
