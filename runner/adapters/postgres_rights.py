"""Rights in a clone: what a copy loses and gets back, and the role of an execution."""

from __future__ import annotations

import secrets
import time

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from runner.adapters.postgres_copy import describe
from runner.adapters.postgres_link import Connection, Server, execute, name, rows, value
from runner.adapters.postgres_names import Label, check_ours, read_label
from runner.errors import DatabaseRefused

# PostgreSQL 16 split membership into INHERIT, SET and ADMIN, and takes ADMIN from CREATEROLE.
SPLIT = 160_000
# Their values are lists of names; as one literal they would become one long name.
LISTS = {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
# `role` is ours to set; the others would lock the execution's own session out.
NEVER = {"role", "session_authorization"}
# How often sessions are asked to end, and how long is waited between two times.
TRIES = 40
AGAIN_SECONDS = 0.1

GRANTS = """
SELECT a.grantee::regrole::text, a.grantee, a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
WHERE d.datname = %s AND a.grantee <> d.datdba AND a.privilege_type <> 'CONNECT'
"""
SETTINGS = """
SELECT s.setrole, pg_get_userbyid(s.setrole), unnest(s.setconfig) FROM pg_db_role_setting s
JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = %s
"""
ROLE_SETTINGS = """
SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = %s AND setrole = %s::regrole
"""


def carry(connection: Connection, source: str, target: str) -> None:
    """Give `target` the database grants and settings of `source`: CREATE DATABASE … TEMPLATE loses both.

    CONNECT is not carried: only the execution's own role may connect to a clone. Settings of single roles are not
    either: they go to the execution's role (`login`), since a setting counts for who logs in, not for who one becomes.
    """
    for grantee, oid, privilege, grantable in rows(connection, GRANTS, source):
        if str(grantee).startswith("seatrial_x_"):
            continue
        execute(
            connection,
            "GRANT {} ON DATABASE {} TO {} {}",
            sql.SQL(privilege), name(target), sql.SQL("PUBLIC") if oid == 0 else name(role_name(connection, oid)),
            sql.SQL("WITH GRANT OPTION" if grantable else ""),
        )  # fmt: skip
    for role, _, setting in rows(connection, SETTINGS, source):
        if role == 0:
            key, _, given = str(setting).partition("=")
            set_for(connection, sql.SQL("DATABASE {}").format(name(target)), key, given)


def role_name(connection: Connection, oid: int) -> str:
    return str(value(connection, "SELECT pg_get_userbyid(%s)", oid))


def settings_of(connection: Connection, database: str, owner: str) -> dict[str, str]:
    """Read what the application's role has by ALTER ROLE … SET, as it counts when it logs in to `database`."""
    found: dict[str, str] = {}
    oid = value(connection, "SELECT oid FROM pg_database WHERE datname = %s", database)
    for scope in (0, oid):  # a setting for the role in this database goes over one for the role everywhere
        for (setting,) in rows(connection, ROLE_SETTINGS, scope, sql_name(owner)):
            key, _, given = str(setting).partition("=")
            if key not in NEVER:
                found[key] = given
    return found


def sql_name(role: str) -> str:
    """Quote a role's name for a cast to regrole."""
    return '"' + role.replace('"', '""') + '"'


def set_for(connection: Connection, whom: sql.Composable, key: str, given: str) -> None:
    """Run ALTER … SET for a setting as the catalogue keeps it; raises DatabaseRefused when we may not."""
    if key in NEVER:
        return
    parts = name(*key.split("."))
    try:
        with connection.transaction():
            if key in LISTS:
                value(connection, "SELECT set_config(%s, %s, true)", key, given)
                execute(connection, "ALTER {} SET {} FROM CURRENT", whom, parts)
            else:
                execute(connection, "ALTER {} SET {} = {}", whom, parts, sql.Literal(given))
    except psycopg.errors.InsufficientPrivilege:
        me = value(connection, "SELECT current_user")
        raise DatabaseRefused(
            f"the source sets {key}, which Seatrial's role may not carry over to a clone; as a superuser run: "
            f'GRANT SET ON PARAMETER {key} TO "{me}"'
        ) from None


def make_role(server: Server, connection: Connection, role: str, database: str, owner: str, label: Label) -> str:
    """Make (or remake) the login role of an execution on its clone, and give its new password.

    Member of `owner`, which it becomes at login. The password reaches the server as a SCRAM verifier only, so the
    server's log cannot show it.
    """
    check_ours(role)
    password = secrets.token_urlsafe(24)
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    split = connection.info.server_version >= SPLIT
    with connection.transaction():
        found = connection.execute(
            b"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (role,)
        ).fetchone()
        if found is None:
            execute(connection, "CREATE ROLE {}", name(role))
        else:
            _refuse_foreign_role(role, found[0], label.installation)
            execute(connection, "ALTER ROLE {} IN DATABASE {} RESET ALL", name(role), name(database))
        # Not NOSUPERUSER and its like: a new role is none of them, and only a superuser may say so.
        execute(
            connection,
            "ALTER ROLE {} LOGIN NOCREATEDB NOCREATEROLE INHERIT PASSWORD {}",
            name(role),
            sql.Literal(verifier),
        )
        describe(connection, "ROLE", role, label)
        execute(
            connection, f"GRANT {{}} TO {{}}{' WITH INHERIT TRUE, SET TRUE' if split else ''}", name(owner), name(role)
        )
        # To end its sessions and to roll back what it prepared we have to be a member.
        execute(connection, f"GRANT {{}} TO CURRENT_USER{' WITH INHERIT TRUE, SET TRUE' if split else ''}", name(role))
        execute(connection, "GRANT CONNECT ON DATABASE {} TO {}", name(database), name(role))
    whom = sql.SQL("ROLE {} IN DATABASE {}").format(name(role), name(database))
    for key, given in label.settings.items():
        set_for(connection, whom, key, given)
    execute(connection, "ALTER ROLE {} IN DATABASE {} SET role = {}", name(role), name(database), sql.Literal(owner))
    return password


def _refuse_foreign_role(role: str, comment: str | None, installation: str) -> None:
    label = read_label(comment)
    if label is None or label.installation != installation:
        raise DatabaseRefused(f"the role {role} stands there already and is not of this Seatrial")


def roles_of(connection: Connection, installation: str) -> dict[str, Label]:
    """List this installation's roles."""
    found = rows(
        connection,
        "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname LIKE 'seatrial\\_x\\_%%'",
    )
    labels = {str(role): read_label(comment) for role, comment in found}
    return {role: label for role, label in labels.items() if label is not None and label.installation == installation}


def shut_role(connection: Connection, role: str) -> None:
    """Let a role of ours log in no more and end its sessions."""
    execute(connection, "ALTER ROLE {} NOLOGIN", name(check_ours(role)))
    for left in reversed(range(TRIES)):
        try:
            rows(connection, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", role)
            return
        except InsufficientPrivilege:  # one that ends or begins at this moment has no role, and counts as a superuser's
            if not left:
                raise
            time.sleep(AGAIN_SECONDS)


def drop_role(connection: Connection, role: str, installation: str) -> None:
    """Drop an execution's role; safe to call when it is gone."""
    check_ours(role)
    found = connection.execute(
        b"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (role,)
    ).fetchone()
    if found is not None:
        _refuse_foreign_role(role, found[0], installation)
        execute(connection, "DROP ROLE IF EXISTS {}", name(role))


def hand_over(server: Server, connection: Connection, role: str, database: str, owner: str) -> None:
    """Give what an execution's role owns in its clone to the application's role, and take its grants.

    Branch code that runs DISCARD ALL or SET ROLE NONE makes objects as its login role. REASSIGN OWNED also moves
    databases: a role of ours owns none, and cannot make one.
    """
    owned = value(connection, "SELECT count(*) FROM pg_database WHERE pg_get_userbyid(datdba) = %s", role)
    if owned:
        raise DatabaseRefused(f"the role {role} owns a database, so it cannot be given up")
    with server.session(database) as inside, inside.transaction():
        # REASSIGN OWNED asks that we can become both.
        execute(inside, "REASSIGN OWNED BY {} TO {}", name(role), name(owner))
        execute(inside, "DROP OWNED BY {}", name(role))


def drop_mappings(connection: Connection) -> None:
    """Drop all user mappings of foreign servers in the copy that the session is in: they hold passwords.

    Raises DatabaseRefused naming the mapping that we may not drop.
    """
    for server, user, holder in rows(
        connection,
        "SELECT m.srvname, m.usename, pg_get_userbyid(s.srvowner) FROM pg_user_mappings m "
        "JOIN pg_foreign_server s ON s.oid = m.srvid ORDER BY 1, 2",
    ):
        whom = sql.SQL("PUBLIC") if user == "public" else name(str(user))
        try:
            with connection.transaction():
                execute(connection, "SET LOCAL ROLE {}", name(str(holder)))
                execute(connection, "DROP USER MAPPING FOR {} SERVER {}", whom, name(str(server)))
        except psycopg.errors.InsufficientPrivilege:
            raise DatabaseRefused(
                f"the source holds a user mapping of {user} on the foreign server {server}, with a password "
                f"in it, that Seatrial's role may not drop from the copy; drop it in the source as {holder}: "
                f'DROP USER MAPPING FOR {"PUBLIC" if user == "public" else sql_name(str(user))} SERVER "{server}"'
            ) from None
