"""The store: SQLite or PostgreSQL behind one set of verbs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from jobs.adapters.sql_acceptances import SqlAcceptances
from jobs.adapters.sql_compare import SqlCompare
from jobs.adapters.sql_compare_views import SqlCompareViews
from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_groups import SqlGroups
from jobs.adapters.sql_heartbeats import SqlHeartbeats
from jobs.adapters.sql_inside import SqlInside
from jobs.adapters.sql_keeping import SqlKeeping
from jobs.adapters.sql_latency import SqlLatency
from jobs.adapters.sql_ledger import SqlLedger
from jobs.adapters.sql_machines import SqlMachines
from jobs.adapters.sql_noise import SqlNoise
from jobs.adapters.sql_plan import SqlPlan
from jobs.adapters.sql_retention import SqlRetention
from jobs.adapters.sql_reuse import SqlReuse
from jobs.adapters.sql_runs import SqlRuns
from jobs.adapters.sql_schema import installation, metadata
from jobs.adapters.sql_snapshots import SqlSnapshots
from jobs.adapters.sql_submissions import IDEMPOTENCY_SECONDS
from jobs.adapters.sql_tasks import SqlTasks
from jobs.adapters.sql_workers import SqlWorkers
from runner.errors import StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    """One database of records."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runs = SqlRuns(database)
        self.tasks = SqlTasks(database)
        self.plan = SqlPlan(database)
        self.ledger = SqlLedger(database)
        self.inside = SqlInside(database)
        self.compare = SqlCompare(database)
        self.compare_views = SqlCompareViews(database)
        self.groups = SqlGroups(database)
        self.acceptances = SqlAcceptances(database)
        self.noise = SqlNoise(database)
        self.reuse = SqlReuse(database)
        self.latency = SqlLatency(database)
        self.snapshots = SqlSnapshots(database)
        self.workers = SqlWorkers(database)
        self.machines = SqlMachines(database)
        self.heartbeats = SqlHeartbeats(database)
        self.keeping = SqlKeeping(database)
        self.retention = SqlRetention(database, key_seconds=IDEMPOTENCY_SECONDS)

    @classmethod
    def open(cls, url: str) -> Store:
        """Open the store at a URL and bring its tables up to date."""
        store = cls(Database(open_engine(url)))
        store.migrate()
        return store

    @classmethod
    def in_memory(cls) -> Store:
        """Open an empty store that lives as long as the process: the twin for unit tests."""
        store = cls(Database(open_engine("sqlite://")))
        metadata.create_all(store.database.engine)
        return store

    def migrate(self) -> None:
        """Bring the tables up to date; safe to call from many processes at once."""
        if self._is_current():
            return
        # Here and not above: a quarter of a second that the many processes of a server need not spend.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.database.write() as connection:
            if not self.database.is_sqlite:
                connection.execute(text("SET LOCAL lock_timeout = 0"))  # large tables take their time, and others wait
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(7130925)"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _is_current(self) -> bool:
        """Tell whether the newest migration was done; a migration's file is named for its revision."""
        newest = max(path.name for path in (MIGRATIONS / "versions").glob("*.py")).partition("_")[0]
        with self.database.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]

    def mark(self, own: str) -> str:
        """Give the mark of the installation whose records these are: that of the first host that asked, `own` if none."""
        with self.database.write() as connection:
            self.database.alone(connection, "installation")
            found = connection.execute(select(installation.c.mark)).scalar_one_or_none()
            if found is None:
                connection.execute(insert(installation).values(id=1, mark=own))
            return own if found is None else str(found)

    def problems(self) -> list[str]:
        """Tell in words why the store cannot be used; empty when it can."""
        try:
            with self.database.read() as connection:
                connection.execute(text("SELECT 1 FROM runs LIMIT 1"))
        except StoreUnavailable as error:
            return [error.text]
        except SQLAlchemyError as error:
            return [f"The store cannot be read: {str(error.__cause__ or error).splitlines()[0]}"]
        return []

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
