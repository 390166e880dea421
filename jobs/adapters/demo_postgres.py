"""The demo's verification databases: roles and sample data on an embedded PostgreSQL, as an admin would make them."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.settings import host_environment
from runner.errors import InfraError

SEATRIAL_ROLE = "seatrial"


class DemoFailed(InfraError):
    """The demo's databases could not be made."""

    code = "demo_failed"


def ensure_role(server: EmbeddedPostgres, secret: Path) -> str:
    """Make Seatrial's own role (CREATEDB, CREATEROLE, never superuser) and give its password, kept in a file."""
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24))
    password = secret.read_text()
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        known = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (SEATRIAL_ROLE,)).fetchone()
        verb = sql.SQL("ALTER" if known else "CREATE")
        role, word = sql.Identifier(SEATRIAL_ROLE), sql.Literal(password)
        admin.execute(sql.SQL("{} ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(verb, role, word))
    return password


def ensure_database(server: EmbeddedPostgres, name: str, fill: Callable[[str], None]) -> bool:
    """Make and fill the database `name` unless it is there whole; tell whether it was made now.

    The application's tables belong to the role `<name>_app`, which owns nothing else; the database itself belongs
    to Seatrial's role, so that branch code can never become its owner.
    """
    owner, password = f"{name}_app", secrets.token_urlsafe(24)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return False
        making = f"{name}_making"
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(making)))
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)).fetchone():
            admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(owner)))
        ours = sql.Identifier(SEATRIAL_ROLE)
        admin.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(owner), ours))
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(making), ours))
        grant = sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}")
        admin.execute(grant.format(sql.Identifier(making), sql.Identifier(owner)))
        with psycopg.connect(server.dsn(making), autocommit=True) as inside:
            inside.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(sql.Identifier(owner)))
        login = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(owner), sql.Literal(password))
        admin.execute(login)
        try:
            fill(server.dsn(making, user=owner, password=password))
        finally:
            admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(owner)))
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        admin.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    return True


def fill_by_script(script: Path, home: Path) -> Callable[[str], None]:
    """Fill by an example's own program, which reads DATABASE_URL."""

    def fill(dsn: str) -> None:
        done = subprocess.run(
            [sys.executable, str(script), "--home", str(home)],
            env=dict(host_environment()) | {"DATABASE_URL": dsn},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            text = done.stdout.decode(errors="replace")[-2_000:]
            raise DemoFailed(f"{script.name} ended with exit code {done.returncode}:\n{text}")

    return fill


def fill_by_sql(file: Path) -> Callable[[str], None]:
    """Fill by an SQL file, in one transaction."""

    def fill(dsn: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(file.read_bytes())

    return fill
