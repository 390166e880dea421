"""Who the application may be: what the role that branch code becomes could reach beyond its own clone."""

from __future__ import annotations

from typing import Any

from runner.adapters.postgres_link import Connection, rows, value
from runner.adapters.postgres_names import SourceProblem

# PostgreSQL 16 takes ADMIN from CREATEROLE: a role has to be given to us before we can give it on.
SPLIT = 160_000
# What a member of these can do does not end at its own database.
DANGEROUS = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_signal_backend",
    "pg_create_subscription",
)


ATTRIBUTES = """
SELECT rolname, concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
       CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
       CASE WHEN rolbypassrls THEN 'BYPASSRLS' END)
FROM pg_roles WHERE pg_has_role(%s::name, oid, 'MEMBER')
AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls) ORDER BY 1
"""
MEMBERSHIPS = """
SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND pg_has_role(%s::name, oid, 'MEMBER') ORDER BY 1
"""
OWNED = """
SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE pg_has_role(%s::name, datdba, 'MEMBER') ORDER BY 1
"""


def find_owner(connection: Connection) -> str | None:
    """Find the role that owns most tables of the database that the session is in; None when there are none."""
    found = value(
        connection,
        """SELECT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
           AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.objid = c.oid AND e.deptype = 'e')
           GROUP BY c.relowner ORDER BY count(*) DESC, 1 LIMIT 1""",
    )
    return None if found is None else str(found)


def judge_ourselves(connection: Connection, database: str) -> list[SourceProblem]:
    """Judge the rights of Seatrial's own role."""
    me, superuser, createdb, createrole = rows(
        connection, "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    )[0]
    problems = []
    if superuser:
        text = f"Seatrial's role {me} is a superuser, and it needs only CREATEDB and CREATEROLE"
        problems.append(SourceProblem(text, f'CREATE ROLE seatrial LOGIN CREATEDB CREATEROLE, or ALTER ROLE "{me}" '
                                      "NOSUPERUSER CREATEDB CREATEROLE", refuses=False))  # fmt: skip
    for has, word in ((createdb, "CREATEDB"), (createrole, "CREATEROLE")):
        if not has and not superuser:
            problems.append(SourceProblem(f"Seatrial's role {me} lacks {word}", f'ALTER ROLE "{me}" {word}'))
    holder = value(
        connection,
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s AND NOT pg_has_role(datdba, 'USAGE')",
        database,
    )
    if holder is not None:
        problems.append(
            SourceProblem(
                f"the database {database} belongs to {holder}, so Seatrial's role {me} may not copy it",
                _remedy(database, str(me), str(holder)),
            )
        )
    return problems


def _remedy(database: str, me: str, owner: str) -> str:
    """Say how the database changes hands without the application losing what it had by owning it."""
    return (
        f'ALTER DATABASE "{database}" OWNER TO "{me}"; GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO "{owner}"; '
        f'and in that database: GRANT USAGE, CREATE ON SCHEMA public TO "{owner}"'
    )


def judge_owner(connection: Connection, database: str, owner: str) -> list[SourceProblem]:
    """Judge the role that branch code becomes, from a session in the source."""
    problems = judge_reach(connection, owner)
    if not value(connection, "SELECT count(*) FROM pg_roles WHERE rolname = %s AND NOT rolsuper", owner):
        return problems
    return problems + _warnings(connection, database, owner) + _outward(connection, owner)


def judge_reach(connection: Connection, owner: str) -> list[SourceProblem]:
    """Judge what the role that branch code becomes can do beyond its clone, by the server's catalogue alone."""
    me = str(value(connection, "SELECT current_user"))
    superuser = value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", owner)
    if superuser is None:
        return [
            SourceProblem(f"there is no role {owner}", "set `owner` to the role that owns the application's tables")
        ]
    if superuser:
        return [
            SourceProblem(
                f"the application's tables belong to {owner}, a superuser, and branch code would become it",
                "CREATE ROLE app; give it the application's schemas and tables (ALTER TABLE … OWNER TO app); "
                f'GRANT app TO "{me}" WITH ADMIN OPTION',
            )
        ]
    problems = []
    for role, can in rows(connection, ATTRIBUTES, owner):
        whom, which = f"branch code becomes {owner}", f"which is {can}"
        if role == owner:
            remedy = " ".join(f"NO{word}" for word in str(can).split())
            problems.append(SourceProblem(f"{whom}, {which}", f'ALTER ROLE "{owner}" {remedy}'))
        else:
            problems.append(SourceProblem(f"{whom}, a member of {role}, {which}", f'REVOKE "{role}" FROM "{owner}"'))
    for (role,) in rows(connection, MEMBERSHIPS, list(DANGEROUS), owner):
        problems.append(
            SourceProblem(f"branch code becomes {owner}, a member of {role}", f'REVOKE {role} FROM "{owner}"')
        )
    for owned, role in rows(connection, OWNED, owner):
        problems.append(
            SourceProblem(
                f"branch code becomes {owner} and could drop or alter the database {owned}, which belongs to {role}",
                _remedy(str(owned), me, owner),
            )
        )
    if not _may_grant(connection, owner):
        problems.append(
            SourceProblem(
                f"Seatrial's role {me} may not grant {owner} to the role of an execution",
                f'GRANT "{owner}" TO "{me}" WITH ADMIN OPTION',
            )
        )
    return problems


def _may_grant(connection: Connection, owner: str) -> bool:
    if connection.info.server_version < SPLIT:
        return True  # CREATEROLE is enough
    return bool(value(connection, "SELECT pg_has_role(%s::name, 'MEMBER WITH ADMIN OPTION')", owner))


def _warnings(connection: Connection, database: str, owner: str) -> list[SourceProblem]:
    problems = []
    if value(connection, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", owner):
        text = f"branch code becomes {owner}, which can log in, and could change its password and settings"
        problems.append(SourceProblem(text, f'ALTER ROLE "{owner}" NOLOGIN', refuses=False))
    if not value(connection, "SELECT has_database_privilege(%s::name, %s::text, 'CREATE')", owner, database):
        text = f"{owner} may not create schemas or trusted extensions, so migrations that do will fail"
        problems.append(SourceProblem(text, f'GRANT CREATE ON DATABASE "{database}" TO "{owner}"', refuses=False))
    if value(
        connection,
        "SELECT NOT has_schema_privilege(%s::name, oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'",
        owner,
    ):
        text = f"{owner} may not create tables in the schema public"
        problems.append(SourceProblem(text, f'GRANT USAGE, CREATE ON SCHEMA public TO "{owner}"', refuses=False))
    return problems


# Extensions whose functions open connections from the server itself: a way out that is not the door.
NETWORK = ("dblink", "http", "pg_net", "plsh")
OUTWARD_FUNCTIONS = """
SELECT e.extname, p.oid::regprocedure::text FROM pg_extension e
JOIN pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
WHERE e.extname = ANY(%s) AND has_function_privilege(%s::name, p.oid, 'EXECUTE') ORDER BY 1, 2
"""
OUTWARD_SERVERS = """
SELECT s.srvname, pg_has_role(%(r)s::name, s.srvowner, 'MEMBER') FROM pg_foreign_server s
WHERE has_server_privilege(%(r)s::name, s.oid, 'USAGE') ORDER BY 1
"""


def _outward(connection: Connection, owner: str) -> list[SourceProblem]:
    """Name what lets branch code make the database server open connections to elsewhere."""
    problems: list[SourceProblem] = []
    functions: dict[str, list[str]] = {}
    for extension, function in rows(connection, OUTWARD_FUNCTIONS, list(NETWORK), owner):
        functions.setdefault(str(extension), []).append(str(function))
    problems += [
        SourceProblem(
            f"the extension {extension} lets branch code open connections from the database server",
            f"DROP EXTENSION {extension}, or for each of these functions REVOKE EXECUTE ON FUNCTION … FROM PUBLIC: "
            + ", ".join(open_to),
        )
        for extension, open_to in functions.items()
    ]
    servers: list[tuple[Any, ...]] = connection.execute(OUTWARD_SERVERS.encode(), {"r": owner}).fetchall()
    for server, owns in servers:
        if owns:
            text = f"{owner} owns the foreign server {server} and could point it anywhere"
            problems.append(
                SourceProblem(text, f'ALTER SERVER "{server}" OWNER TO a role that branch code cannot become')
            )
        else:
            text = f"{owner} may use the foreign server {server} with a password that branch code brings"
            problems.append(
                SourceProblem(text, f'REVOKE USAGE ON FOREIGN SERVER "{server}" FROM "{owner}"', refuses=False)
            )
    return problems
