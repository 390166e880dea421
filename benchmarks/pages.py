"""The list of runs at 100,000 runs, through the whole web application."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import insert

from benchmarks.ledger import new_run
from benchmarks.measure import Row, percentile
from jobs.adapters.sql_schema import legs, runs
from jobs.adapters.sql_store import Store

RUNS = 100_000


def fill(store: Store) -> None:
    """Write 100,000 ended runs."""
    chance = random.Random(7)
    first, _ = store.runs.add(new_run(), key=None, body="")
    with store.database.write() as connection:
        like = dict(connection.execute(runs.select().where(runs.c.id == first.id)).mappings().one())
        leg = dict(connection.execute(legs.select().where(legs.c.run == first.id)).mappings().one())
        rows, leg_rows = [], []
        for number in range(first.id + 1, RUNS + 1):
            state = chance.choice(["done", "done", "done", "failed", "cancelled"])
            branch = f"feature/{chance.randrange(5_000)}"
            rows.append(
                like
                | {
                    "id": number,
                    "state": state,
                    "verdict": "passed" if state == "done" else None,
                    "ref": branch,
                    "user": f"user{chance.randrange(40)}",
                    "search": f"{branch}\nbench",
                    "units_total": 480,
                    "units_done": 480,
                    "started_at": 1.0,
                    "finished_at": 2.0,
                }
            )
            leg_rows.append(leg | {"run": number, "ref": branch})
        connection.execute(insert(runs), rows)
        connection.execute(insert(legs), leg_rows)


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    from jobs.adapters.file_objects import FileObjects
    from jobs.service import Service
    from jobs.settings import load_settings
    from web.app import create_app

    config = root / "seatrial.toml"
    config.write_text(f'[server]\nhome = "home"\n[projects.bench]\nrepository = "{root}"\n')
    settings = load_settings(config, {})
    store = Store.open(settings.server.database_url)
    fill(store)

    class Silent:
        def ring(self, pool: str) -> bool:
            return True

    def no_mirror(_: str) -> object:
        raise AssertionError

    service = Service(settings, store, FileObjects(settings.server.object_store), no_mirror, Silent())  # type: ignore[arg-type]
    client = create_app(service, secret_key="bench").test_client()

    def page(query: str) -> float:
        start = time.perf_counter()
        answer = client.get(f"/runs{query}", headers={"Host": settings.server.listen})
        assert answer.status_code == 200, (query, answer.status_code)
        return time.perf_counter() - start

    page("")
    first = [page("") for _ in range(60)]
    last = [page("?before=40") for _ in range(60)]
    search = [page("?text=feature%2F77") for _ in range(20)]
    p95 = percentile(first, 0.95)
    yield Row(
        "list page at 100,000 runs",
        "",
        f"p95 {p95 * 1000:.1f} ms",
        "p95 < 50 ms",
        p95 < 0.05,
        f"search p95 {percentile(search, 0.95) * 1000:.1f} ms",
    )
    ratio = percentile(last, 0.5) / percentile(first, 0.5)
    yield Row("its last page", "its first page", f"{ratio:.2f}×", "≤ 1.1×", ratio <= 1.1)
