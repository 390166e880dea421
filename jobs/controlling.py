"""Put the controllers together: one for each pool of machines in a cloud. Only a sweeper has them."""

from __future__ import annotations

from jobs.adapters.sql_store import Store
from jobs.cloud import Clouds, Expected
from jobs.controlled import Controlled
from jobs.controller import Controller
from jobs.host import installation
from jobs.pool_policy import policy_of
from jobs.settings import Settings


def controlled(settings: Settings, name: str) -> Controlled:
    """Describe a pool of EC2 instances as its controller needs it."""
    pool = settings.pools[name]
    assert pool.account is not None
    assert pool.region is not None
    return Controlled(
        expected=Expected(name, pool.account, pool.region, pool.production_tags),
        policy=policy_of(pool, lease=settings.server.lease),
        instances=pool.instances,
        template=pool.launch_template,
        slots=pool.slots,
        price=pool.price_per_hour,
        stop_silent=pool.stop_silent,
        installation=installation(settings),
    )


def build_controllers(settings: Settings, store: Store, clouds: Clouds | None = None) -> list[Controller]:
    """Make a controller for each pool of EC2 instances, with a client of its own."""
    wanted = [controlled(settings, name) for name, pool in sorted(settings.pools.items()) if pool.is_ec2]
    if not wanted:
        return []
    # Here and not above: boto3 takes half a second that installations without EC2 need not spend.
    from jobs.adapters.ec2 import Ec2

    make = clouds or Ec2
    return [Controller(store, make(pool.expected.region), pool) for pool in wanted]
