"""Map and list of a compare run with 200,000 units: pages of a real server, asked over HTTP, nothing of them kept."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete, insert, update

from benchmarks.ledger import new_run
from benchmarks.measure import Row, percentile
from benchmarks.server import serving
from jobs.adapters.sql_schema import comparisons, runs, tasks, units
from jobs.adapters.sql_store import Store
from jobs.comparing import UnitClass
from jobs.new_run import NewLeg
from jobs.settings import load_settings

UNITS = 200_000
REPORTS = 20
ASKED = 40  # times
BLOCK = 20_000

RULED = """version: 1
workspace: {image: debian}
run: 'true'
"""


def fill(store: Store) -> int:
    """Write a compare run that has ended, of which 1 % differ."""
    leg = NewLeg("baseline", "v1", "b" * 40, "Subject", "Author", "seatrial.yml", RULED, "0" * 64)
    new = new_run()
    candidate = NewLeg("candidate", "main", "a" * 40, "Subject", "Author", "seatrial.yml", RULED, "0" * 64)
    new = type(new)(**(vars(new) | {"legs": (leg, candidate)}))
    run = store.runs.add(new, key=None, body="")[0].id
    chance = random.Random(5)
    for start in range(0, UNITS, BLOCK):
        done, found = [], []
        for number in range(start, min(start + BLOCK, UNITS)):
            tenant, report = f"tenant_{number // REPORTS:05}", f"report_{number % REPORTS:02}"
            name = f"{tenant}/{report}"
            kind = UnitClass.DIFFERENT if chance.random() < 0.01 else UnitClass.SAME
            delta = chance.random() * 1_000 if kind is UnitClass.DIFFERENT else None
            done += [
                {"run": run, "leg": side, "unit": name, "position": number, "state": "done", "attempt": 1}
                | {"output_name": "x.csv", "output_digest": "b" * 64, "output_size": 3, "output_tree": False}
                | {"seconds": 0.1 + chance.random()}
                for side in ("baseline", "candidate")
            ]
            found.append(
                {"run": run, "unit": name, "position": number, "kind": kind.value, "changed": 1, "largest": delta}
                | {"summary": _summary(delta), "rows": None, "seconds": 0.01, "at": 1.0}
            )
        with store.database.write() as connection:
            connection.execute(insert(units), done)
            connection.execute(insert(comparisons), found)
    with store.database.write() as connection:
        connection.execute(delete(tasks).where(tasks.c.run == run))
        ended = {"state": "done", "verdict": "different", "started_at": 1.0, "finished_at": 2.0, "compared_at": 2.0}
        counts = {"units_total": 2 * UNITS, "units_done": 2 * UNITS, "units_different": UNITS // 100}
        connection.execute(update(runs).where(runs.c.id == run).values(ended | counts))
    return run


def _summary(delta: float | None) -> dict[str, object]:
    if delta is None:
        return {}
    change = {"column": "amount", "changed": 3, "tolerated": 0, "delta": delta, "kinds": {"value": 3}}
    return {"rows": {"changed": 3, "added": 0, "removed": 0, "same": 47}, "changes": [change], "rule": "*"}


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    held: list[tuple[Store, int]] = []

    def prepare(config: Path) -> None:
        store = Store.open(load_settings(config, {}).server.database_url)
        held.append((store, fill(store)))

    with serving(root, before=prepare) as server:
        [(store, run)] = held

        def ask(path: str, *, again: bool = False) -> list[float]:
            found = []
            for number in range(ASKED + 2):
                if not again:  # the server may keep an answer only while nothing of the run changes
                    with store.database.write() as connection:
                        connection.execute(update(runs).where(runs.c.id == run).values(attempts=runs.c.attempts + 1))
                start = time.perf_counter()
                answer = server.client.get(path.format(run=run, number=number))
                found.append(time.perf_counter() - start)
                assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
            return found[2:]  # without the first ones, for which the server imports and opens

        tab = ask("/runs/{run}?tab=differences")
        parts = {
            "asked again while nothing changed": ask("/runs/{run}?tab=differences", again=True),
            "the map as JSON": ask("/api/v1/runs/{run}/comparison/map"),
            "later tenants": ask("/runs/{run}?tab=differences&map=600"),
            "durations": ask("/runs/{run}/differences/durations"),
        }
        yield _row(f"tab with heat map and list, {UNITS:,} units", tab, parts)
        listed = ask("/api/v1/runs/{run}/diffs?limit=100")
        parts = {
            "only those that differ": ask("/api/v1/runs/{run}/diffs?class=differing&limit=100"),
            "by delta": ask("/api/v1/runs/{run}/diffs?sort=delta&limit=100"),
            "by a text": ask("/api/v1/runs/{run}/diffs?text=tenant_0{number:02}7&limit=100"),
            "tab of units": ask("/runs/{run}?tab=units"),
        }
        yield _row(f"list of compared units, {UNITS:,} units", listed, parts)
        store.close()


def _row(work: str, found: list[float], parts: dict[str, list[float]]) -> Row:
    p95 = percentile(found, 0.95)
    others = ", ".join(f"{name} {percentile(seconds, 0.95) * 1000:.0f} ms" for name, seconds in parts.items())
    p50 = percentile(found, 0.5)
    detail = f"p50 {p50 * 1000:.0f} ms; p95 of others: {others}"
    return Row(work, "", f"p95 {p95 * 1000:.0f} ms", "p95 < 300 ms", p95 < 0.3, detail)
