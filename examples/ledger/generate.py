"""Make books in the empty database of $DATABASE_URL with django-ledger's own generator of sample data.

The same seed makes the same books, keys and moments of creation included. It runs inside the environment that
fill_database.py makes, which also fixes PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import os
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import django
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

NAMES = (
    "Alder Bakery",
    "Birch Logistics",
    "Cedar Instruments",
    "Dogwood Press",
    "Elm Textiles",
    "Fir Hydraulics",
    "Ginkgo Labs",
    "Hazel Foods",
    "Iris Optics",
    "Juniper Works",
)
START = datetime(2024, 1, 8, tzinfo=UTC)
DAYS = 330
SEED = 4000


class Clock:
    """A clock that starts in January 2025 and goes on by a millisecond whenever it is read.

    django-ledger caps dates at today, voids documents today, and orders much by the moment of creation.
    """

    def __init__(self) -> None:
        self.time = datetime(2025, 1, 15, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


def seeded_uuid() -> uuid.UUID:
    """Return a version 4 UUID out of the seeded generator."""
    return uuid.UUID(int=random.getrandbits(128), version=4)


def create_books(name: str, seed: int, documents: int) -> str:
    """Create an entity with `documents` purchase orders, bills and invoices and a closed half-year; return its slug."""
    from django.contrib.auth import get_user_model
    from django_ledger.io.io_generator import EntityDataGenerator
    from django_ledger.models import EntityModel
    from faker import Faker

    random.seed(seed)
    Faker.seed(seed)
    administrator, _ = get_user_model().objects.get_or_create(username="books")
    entity = EntityModel.create_entity(name=name, use_accrual_method=True, admin=administrator, fy_start_month=1)
    EntityDataGenerator(
        user_model=administrator,
        entity_model=entity,
        start_dttm=START,
        days_forward=DAYS,
        capital_contribution=Decimal(250_000),
        tx_quantity=documents,
    ).populate_entity(create_closing_entry=True)
    return str(entity.slug)


@contextmanager
def kept_order() -> Iterator[None]:
    """Let rows stay in the order in which they were written: the generator draws from them as they come.

    Autovacuum would change plans with fresh statistics, and room that is used again would change the order of rows, at
    moments that depend on what else the server does. So there is no autovacuum, and an old snapshot keeps all versions.
    """
    keeper = connection.copy()
    keeper.set_autocommit(False)
    try:
        with keeper.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM pg_class")
        _autovacuum("off")
        yield
    finally:
        keeper.rollback()
        keeper.close()
    _autovacuum("on")


def _autovacuum(state: str) -> None:
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"ALTER TABLE {connection.ops.quote_name(table)} SET (autovacuum_enabled = {state})")


def main() -> None:
    """Migrate the empty database and create the entities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, required=True, choices=range(1, len(NAMES) + 1))
    parser.add_argument("--documents", type=int, required=True)
    options = parser.parse_args()

    started = time.monotonic()
    # Models take uuid4 as the default of their keys when they are imported.
    uuid.uuid4 = seeded_uuid
    timezone.now = Clock().now
    os.environ["DJANGO_SETTINGS_MODULE"] = "verification.settings"
    django.setup()
    if "django_ledger_entitymodel" in connection.introspection.table_names():
        raise SystemExit("the database holds books already: drop it and create it anew")
    call_command("migrate", verbosity=0)
    print(f"schema ({time.monotonic() - started:.1f} s)", flush=True)
    with kept_order():
        for number, name in enumerate(NAMES[: options.entities]):
            started = time.monotonic()
            slug = create_books(name, SEED + number, options.documents)
            print(f"{number + 1}/{options.entities} {slug} ({time.monotonic() - started:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
