"""A site with a pool of machines that are started and stopped, and hands that do what the controller and machines do."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import update
from web_site import Site

from jobs.adapters.sql_schema import attempts, intervals, machines
from jobs.machines import Action, Decision, Disk, MachineState

BUSY, IDLE, STOPPED = "i-0aaaaaaaaaaaaaaa1", "i-0aaaaaaaaaaaaaaa2", "i-0aaaaaaaaaaaaaaa3"
POOL = """
[pools.local]
[pools.builders]
provider = "ec2"
region = "eu-central-1"
account = "123456789012"
max_running = 3
idle = "10m"
price_per_hour = 0.384
"""


def make_machines(root: Path) -> Site:
    """Make a site whose project `plain` is verified on machines: one works, one idles, one is stopped."""
    return Site.make(root, POOL, {"SEATRIAL_PROJECTS__PLAIN__POOL": "builders"})


def three_machines(site: Site) -> None:
    """Have a controller look after three machines for two hours."""
    known = site.store.machines
    known.controller_seen("builders", asked=True)
    price = Decimal("0.384")
    for number, instance in enumerate((BUSY, IDLE), 1):
        known.upsert(instance, pool="builders", state=MachineState.RUNNING, kind="m7i.2xlarge", price=price)
        known.register(instance, host=f"host-{number}", pool="builders")
        site.store.workers.register(name=f"host-{number}/1", host=f"host-{number}", pool="builders", pid=100 + number)
    known.upsert(STOPPED, pool="builders", state=MachineState.STOPPED, kind="m7i.2xlarge", price=price)
    site.submit("main", "plain")
    claim = site.store.tasks.claim(pool="builders", host="host-1", worker="host-1/1", lease=3600.0)
    assert claim is not None
    known.seen(BUSY, disk=Disk(6 << 30, 100 << 30, 10, 100, "/var/lib/seatrial", "vol-0123456789abcdef0"))
    known.seen(IDLE, disk=Disk(60 << 30, 100 << 30, 90, 100, "/var/lib/seatrial", "vol-0123456789abcdef1"))
    known.record("builders", Decision(Action.START, "queued", "1 task of this pool is waiting.", BUSY))
    known.record("builders", Decision(Action.ALARM, "maximum_run", "It has been running for 25 h.", IDLE))
    _two_hours_ago(site)


def _two_hours_ago(site: Site) -> None:
    with site.store.database.write() as connection:
        when = (
            (intervals, intervals.c.started_at),
            (machines, machines.c.started_at),
            (attempts, attempts.c.started_at),
        )
        for table, column in when:
            connection.execute(update(table).values({column: column - timedelta(hours=2).total_seconds()}))
