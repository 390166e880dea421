"""How the command line writes things: columns, durations, and text of branches without its control characters."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

FINAL = frozenset({"done", "failed", "errored", "cancelled"})


def plain(value: object) -> str:
    """Make text of others fit for a terminal: what would move the cursor, hide or reorder text is shown as its code."""
    text = "" if value is None else str(value)
    return "".join(_seen(letter) for letter in text)


def _seen(letter: str) -> str:
    if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"
    return letter


def folded(value: object, indent: str) -> str:
    """Make text of several lines fit for a terminal: a line each, those below the first behind `indent`."""
    first, *more = ("" if value is None else str(value)).split("\n")
    return "\n".join([plain(first), *(indent + plain(line) for line in more)])


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Write a table as lines; nothing is cut, and the last column may be as long as it likes."""
    table = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def say_json(document: object) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2))


def say_lines(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        click.echo(line)


def duration(seconds: float | None) -> str:
    """Write a duration: 0.3 s, 41.0 s, 0:04:12."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def moment(text: str | None) -> str:
    """Write one of the API's times, which are UTC, to the second."""
    return "" if not text else text[:19].replace("T", " ")


def size(count: int) -> str:
    """Write a size: 812 B, 1.4 MiB."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def standing(run: Mapping[str, Any]) -> str:
    """Name how a run stands: its verdict when it is done, else its state."""
    return str(run["verdict"] or run["state"])


def counted(counts: Mapping[str, Any]) -> str:
    """Write how far the units are, as the pages do: 11/40, 1 failed; - while there are none."""
    if not counts["total"]:
        return "-"
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{counts['done']}/{counts['total']}{failed}"


def headline(run: Mapping[str, Any]) -> str:
    """Write a run in one line: number, standing, reason."""
    reason = run["reason"]
    why = f": {plain(reason['text'])} ({reason['code']})" if reason else ""
    asked = ", cancel asked for" if run["cancel_requested"] and run["state"] not in FINAL else ""
    return f"Run {run['id']} is {standing(run)}{accepted(run)}{asked}{why}"


def accepted(run: Mapping[str, Any]) -> str:
    """Write how much of a compare run is accepted; empty when nothing is."""
    units, groups = run.get("accepted", 0), run.get("accepted_groups", 0)
    if not units:
        return ""
    return f", with {units} unit{'s' if units != 1 else ''} accepted in {groups} group{'s' if groups != 1 else ''}"


def run_row(run: Mapping[str, Any]) -> tuple[object, ...]:
    """Give a run's cells of a list."""
    return (
        run["id"],
        standing(run),
        run["project"],
        run["ref"],
        run["commit"][:10],
        counted(run["units"]),
        run["user"],
        moment(run["created_at"]),
    )


RUN_HEAD = ("RUN", "STATE", "PROJECT", "REF", "COMMIT", "UNITS", "USER", "CREATED (UTC)")


def run_lines(run: Mapping[str, Any], url: str) -> list[str]:
    """Write all that `seatrial show` tells of a run."""
    commits = [f"{leg['ref']} = {leg['commit'][:10]} {leg['subject']!s}" for leg in run["legs"]]
    told = {
        "project": run["project"],
        **{leg["name"]: commit for leg, commit in zip(run["legs"], commits, strict=True)},
        **_data(run["legs"]),
        "image": ", ".join(sorted({leg["image"] for leg in run["legs"] if leg["image"]})),
        "units": counted(run["units"]),
        "only": run["units_filter"],
        "note": run["note"],
        "user": run["user"],
        "priority": run["priority"] or None,
        "again": None if run["parent"] is None else f"run {run['parent']}",
        "created": moment(run["created_at"]),
        "started": moment(run["started_at"]),
        "finished": moment(run["finished_at"]),
        "removed": None if run["outputs_removed"] is None else run["outputs_removed"]["text"],
        "waits": None if run["waiting"] is None else run["waiting"]["text"],
        "left": _left(run["estimate"]),
        "page": url + run["links"]["page"],
    }
    lines = [headline(run), *(f"  {key:<10} {plain(value)}" for key, value in told.items() if value)]
    titles = {task["id"]: task_title(task) for task in run["tasks"]}
    if run["tasks"]:
        rows = [
            (t["id"], titles[t["id"]], t["state"], t["attempt"], counted(t["units"]), t["host"], _why(t["reason"]))
            for t in run["tasks"]
        ]
        lines += ["", *columns(("TASK", "", "STATE", "ATTEMPT", "UNITS", "HOST", "WHY"), rows)]
    if run["steps"]:
        steps = [
            (titles.get(s["task"], s["task"]), s["name"], s["state"], duration(s["seconds"]), s["detail"])
            for s in run["steps"]
        ]
        lines += ["", *columns(("STEP OF", "", "STATE", "TOOK", "DETAIL"), steps)]
    return lines


ATTEMPT_HEAD = ("TASK", "ATTEMPT", "WORKER", "HOST", "BEGAN (UTC)", "TOOK", "STATE", "UNITS", "WHY")


def attempt_row(attempt: Mapping[str, Any], titles: Mapping[int, str]) -> tuple[object, ...]:
    """Give an attempt's cells of a list; `titles`: of the run's tasks."""
    return (
        titles.get(attempt["task"], attempt["task"]),
        attempt["attempt"],
        attempt["worker"],
        attempt["host"],
        moment(attempt["started_at"]),
        duration(_between(attempt["started_at"], attempt["ended_at"])),
        attempt["outcome"] or "running",
        attempt["work"]["text"],
        _why(attempt["reason"]),
    )


def _between(began: str, ended: str | None) -> float | None:
    return None if ended is None else (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def _data(legs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give sources and data ids, each with its leg when they are not the same for all."""
    several = len({leg["database"] for leg in legs if leg["database"]}) > 1
    found = {}
    for title, key in (("database", "database"), ("data", "data_id"), ("snapshot", "snapshot")):
        told = [
            (leg["name"], leg[key]) for leg in legs if leg[key] and (key == "data_id" or leg[key] != leg["data_id"])
        ]
        words = [f"{name} {value}" for name, value in told] if several else sorted({value for _, value in told})
        found[title] = ", ".join(words)
    return found


def _left(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["seconds_left"] is None:
        return ""
    return f"about {duration(estimate['seconds_left'])} ({estimate['basis']})"


def _why(reason: Mapping[str, Any] | None) -> str:
    return f"{reason['code']}: {reason['text']}" if reason else ""


def task_title(task: Mapping[str, Any]) -> str:
    """Name a task as the pages do: prepare, batch 3; with its leg when that is not the candidate."""
    name = "prepare" if task["kind"] == "prepare" else f"batch {task['batch']}"
    return name if task["leg"] == "candidate" else f"{task['leg'].replace('_', ' ')} {name}"
