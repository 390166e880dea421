"""Part with snapshots that are past their time, and replace the data of a source."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import structlog

from jobs.adapters.sql_store import Store
from jobs.host import Sources
from jobs.keeping import Done
from jobs.settings import DatabaseSettings, Settings
from jobs.settings_model import KeptSnapshots
from jobs.snapshots import Uses, past
from runner.adapters.postgres_clone import PostgresSource
from runner.errors import InfraError
from runner.model import Base

STDERR = 2

log = structlog.get_logger(__name__)


class RefreshFailed(InfraError):
    """A command that refreshes a source failed."""

    code = "refresh_failed"


def uses_of(store: Store, source: str, found: list[Base]) -> Uses:
    """Tell which runs use these snapshots of a source."""
    return store.snapshots.uses(source, [base.data_id for base in found])


def prune(store: Store, source: PostgresSource, keep: KeptSnapshots) -> Iterator[Base]:
    """Drop the snapshots of a source that are past their time; gives each once it is gone.

    Who uses them is asked again for each: a run may have begun meanwhile.
    """
    if keep == KeptSnapshots():
        return
    found = source.bases()
    for base in past(found, keep, uses_of(store, source.name, found), datetime.now(UTC)):
        if not uses_of(store, source.name, [base]).live_runs(base):
            source.remove(base)
            yield base


def prune_all(settings: Settings, store: Store) -> Iterator[Done]:
    """Drop the snapshots of every source that are past their time; a server that is away waits for the next round."""
    sources = Sources(settings)
    for name, known in sorted(settings.databases.items()):
        try:
            for base in prune(store, sources(name), known.keep_snapshots):
                yield Done("snapshot", f"{name} {base.name}", f"keep_snapshots of databases.{name}")
        except InfraError as error:
            log.warning("snapshots.postponed", source=name, code=error.code, error=error.text)
        except (OSError, KeyError, ValueError):  # never the error's own words: they could hold the dsn
            log.warning("snapshots.postponed", source=name, error="its dsn cannot be read")


def refresh(
    source: PostgresSource,
    known: DatabaseSettings,
    environment: Mapping[str, str],
    *,
    snapshot: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Base:
    """Replace the data of a source by its commands, mask it, mark it, and freeze a snapshot of it; in this order.

    The commands find the source in DATABASE_URL. Raises InfraError; then the source has no marker, and the snapshots
    that stand serve on.
    """
    with source.refreshing() as refreshed:
        for number, command in enumerate(known.refresh, 1):
            tell(f"refresh {number} of {len(known.refresh)}: {command}")
            # What they write goes to our standard error: our output is the result alone.
            ended = subprocess.run(
                ["/bin/sh", "-ec", command],
                env={**environment, "DATABASE_URL": source.dsn},
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
            )
            if ended.returncode != 0:
                raise RefreshFailed(
                    f"The command {number} of databases.{source.name}.refresh ended with exit code {ended.returncode}."
                )
        refreshed.unmark()
        for file in known.masking:
            tell(f"masking: {file.name}")
            refreshed.mask(file)
        tell("marking the source, and freezing a snapshot")
        return refreshed.finish(snapshot)
