"""Open a database source of the settings for a command."""

from __future__ import annotations

from jobs.cli_common import EXIT_USAGE, Failure
from jobs.host import Sources
from jobs.settings import Settings
from runner.adapters.postgres_clone import PostgresSource


def open_source(settings: Settings, name: str) -> PostgresSource:
    """Open a source of seatrial.toml."""
    if name not in settings.databases:
        known = ", ".join(sorted(settings.databases)) or "none yet; add [databases.NAME] with its dsn"
        raise Failure(f"There is no database {name!r} in seatrial.toml. Known: {known}", EXIT_USAGE)
    try:
        return Sources(settings)(name)
    except (OSError, KeyError, ValueError):
        # Never the error's own words: they could hold the dsn.
        raise Failure(f"The dsn of database {name} cannot be read any more: see databases.{name}", EXIT_USAGE) from None
