"""What branch code can and cannot do with the login of an execution, on real servers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from runner.adapters.postgres_clone import PostgresSource
from runner.errors import DatabaseRefused
from runner.model import Login

if TYPE_CHECKING:
    from fixtures_postgres import Sample

Opened = Callable[[], tuple[Login, "psycopg.Connection[tuple[Any, ...]]"]]


def source(sample: Sample, **more: Any) -> PostgresSource:
    return PostgresSource("books", sample.dsn, installation="rights", **more)


def connect(login: Login, **more: Any) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(
        host=login.host, port=login.port, dbname=login.database, user=login.role, password=login.password,
        autocommit=True, **more,
    )  # fmt: skip


@pytest.fixture
def opened(sample: Sample) -> Iterator[Opened]:
    """Give logins on clones of their own, as many as asked for."""
    sessions = []
    made = source(sample)

    def another() -> tuple[Login, psycopg.Connection[tuple[Any, ...]]]:
        bases = made.bases() or [made.bless()]
        name = f"seatrial_x_r{secrets.randbelow(10**9)}_t1_e1"
        made.clone(bases[0].database, name)
        login = made.login(name, role=name, owner=bases[0].owner)
        session = connect(login)
        sessions.append((login, session))
        return login, session

    yield another
    for login, session in sessions:
        session.close()
        made.drop(login.database, role=login.role)


def test_an_execution_is_the_applications_role_and_works_as_it(sample: Sample, opened: Opened) -> None:
    _, session = opened()
    assert session.execute("SELECT current_user").fetchone() == (sample.owner,)
    session.execute("ALTER TABLE account ADD COLUMN note text")
    session.execute("CREATE SCHEMA tenant_002")
    session.execute("CREATE TABLE public.fresh (id int)")
    session.execute("CREATE TEMPORARY TABLE t (id int)")
    session.execute("CREATE EXTENSION hstore")
    session.execute("SET search_path = tenant_001")
    assert session.execute("SELECT count(*) FROM entry").fetchone() == (100,)


def test_a_role_that_is_shut_out_loses_its_sessions_and_no_other_does(sample: Sample, opened: Opened) -> None:
    (login, session), (_, other) = opened(), opened()
    session.execute("BEGIN")
    session.execute("DELETE FROM account")
    source(sample).shut(login.role)
    with pytest.raises(psycopg.OperationalError):
        session.execute("COMMIT")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        connect(login)
    assert other.execute("SELECT count(*) FROM account").fetchone() == (1000,)
    assert sample.value("SELECT count(*) FROM account", login.database) == 1000


BEYOND = [
    "DROP DATABASE {source}",
    "DROP DATABASE {other}",
    "ALTER DATABASE {own} RENAME TO mine",
    "ALTER DATABASE {source} SET search_path = x",
    "CREATE DATABASE another",
    "CREATE ROLE another",
    "ALTER ROLE {own} CREATEDB",
    "ALTER ROLE {other} PASSWORD 'x'",
    "GRANT {other} TO {own}",
    "SET ROLE {seatrial}",
    "SET ROLE {other}",
    "SET SESSION AUTHORIZATION postgres",
    "COPY account TO PROGRAM 'id'",
    "COPY account FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "SELECT pg_reload_conf()",
    "ALTER SYSTEM SET port = 1",
    "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION public.trigger_function()",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 password=x' PUBLICATION p WITH (connect = false)",
]


def test_what_reaches_beyond_the_clone_is_refused_by_role(sample: Sample, opened: Opened) -> None:
    login, session = opened()
    other, _ = opened()
    session.execute("CREATE FUNCTION public.trigger_function() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    names = {"source": sample.database, "own": login.database, "other": other.database, "seatrial": sample.seatrial}
    answers = {}
    for role in (sample.owner, "NONE"):
        for statement in BEYOND:
            session.execute(f"SET ROLE {role}".encode())
            try:
                session.execute(statement.format(**names).encode())
            except psycopg.Error as error:
                answers[role, statement] = error.sqlstate
            else:
                answers[role, statement] = "done"
    assert {key: state for key, state in answers.items() if state != "42501"} == {}
    assert sample.databases() >= {sample.database, login.database, other.database}


def test_one_run_cannot_end_the_sessions_of_another(opened: Opened) -> None:
    _, mine = opened()
    _, theirs = opened()
    pid = theirs.info.backend_pid
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        mine.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert theirs.execute("SELECT 1").fetchone() == (1,)
    query = mine.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
    assert query == ("<insufficient privilege>",)


def test_a_login_opens_no_other_clone_base_or_source(sample: Sample, opened: Opened) -> None:
    login, _ = opened()
    other, _ = opened()
    with sample.admin("postgres") as admin:
        admin.execute(f"REVOKE CONNECT ON DATABASE {sample.database} FROM PUBLIC".encode())
    base = source(sample).bases()[0].database
    for database in (other.database, base, sample.database):
        with pytest.raises(psycopg.OperationalError, match=r"permission denied|not currently accepting"):
            psycopg.connect(host=login.host, port=login.port, dbname=database, user=login.role, password=login.password)


def test_a_shared_owner_that_drops_what_it_owns_takes_nothing_from_other_clones(sample: Sample, opened: Opened) -> None:
    _, session = opened()
    session.execute(f"DROP OWNED BY {sample.owner} CASCADE".encode())
    _, fresh = opened()
    fresh.execute("CREATE SCHEMA still_allowed")
    assert fresh.execute("SELECT count(*) FROM account").fetchone() == (1000,)


def test_a_shared_owner_that_changes_its_own_settings_changes_no_other_run(sample: Sample, opened: Opened) -> None:
    _, session = opened()
    session.execute(f"ALTER ROLE {sample.owner} SET search_path = nowhere".encode())
    _, fresh = opened()
    assert fresh.execute("SELECT count(*) FROM account").fetchone() == (1000,)


def test_grants_and_settings_of_the_database_come_along(sample: Sample, opened: Opened) -> None:
    reader = f"reader_{secrets.token_hex(3)}"
    sample.execute(
        f"CREATE ROLE {reader}",
        f"GRANT TEMPORARY ON DATABASE {sample.database} TO {reader}",
        f"ALTER DATABASE {sample.database} SET search_path = tenant_001, public",
        f"ALTER DATABASE {sample.database} SET work_mem = '7MB'",
        f"ALTER DATABASE {sample.database} SET DateStyle = 'German, DMY'",
        f"ALTER ROLE {sample.owner} SET statement_timeout = '11min'",
        f"ALTER ROLE {sample.owner} SET lock_timeout = '5min'",
        f"ALTER ROLE {sample.owner} IN DATABASE {sample.database} SET lock_timeout = '6min'",
        f'ALTER ROLE {sample.owner} IN DATABASE {sample.database} SET search_path = tenant_001, "$user"',
    )
    try:
        login, session = opened()
        shown = {
            key: session.execute(f"SHOW {key}".encode()).fetchone()[0]  # type: ignore[index]
            for key in ("search_path", "work_mem", "DateStyle", "statement_timeout", "lock_timeout")
        }
        assert shown == {
            "search_path": 'tenant_001, "$user"', "work_mem": "7MB", "DateStyle": "German, DMY",
            "statement_timeout": "11min", "lock_timeout": "6min",
        }  # fmt: skip
        assert session.execute("SELECT count(*) FROM entry").fetchone() == (100,)
        assert sample.value(f"SELECT has_database_privilege('{reader}', '{login.database}', 'TEMPORARY')") is True
        assert sample.value(f"SELECT has_database_privilege('{reader}', '{login.database}', 'CONNECT')") is False
    finally:
        source(sample).sweep(set)
        source(sample).forget(keep=1)
        with sample.admin("postgres") as admin:
            for base in source(sample).bases():
                admin.execute(f"REVOKE ALL ON DATABASE {base.database} FROM {reader}".encode())
            admin.execute(f"REVOKE ALL ON DATABASE {sample.database} FROM {reader}".encode())
            admin.execute(f"DROP ROLE {reader}".encode())


def test_a_setting_that_only_a_superuser_may_make_is_named_with_its_remedy(sample: Sample) -> None:
    sample.execute(f"ALTER DATABASE {sample.database} SET log_min_duration_statement = '1s'")
    with pytest.raises(DatabaseRefused, match="GRANT SET ON PARAMETER log_min_duration_statement"):
        source(sample).bless()
    assert source(sample).bases() == []
    assert not [name for name in sample.databases() if name.startswith("seatrial_base_books") and "rights" in name]
    sample.execute(f"GRANT SET ON PARAMETER log_min_duration_statement TO {sample.seatrial}")
    base = source(sample).bless()
    assert source(sample).base() == base
    sample.execute(f"REVOKE SET ON PARAMETER log_min_duration_statement FROM {sample.seatrial}")


def test_what_the_preparation_made_as_its_login_role_belongs_to_the_application_afterwards(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    tag = secrets.randbelow(10**9)
    leg, role, execution = f"seatrial_leg_r{tag}_c", f"seatrial_x_r{tag}_t1_e1", f"seatrial_x_r{tag}_t2_e1"
    made.clone(base.database, leg)
    with connect(made.login(leg, role=role, owner=base.owner)) as session:
        session.execute("SET ROLE NONE")
        session.execute("CREATE SCHEMA by_login; CREATE TABLE by_login.t AS SELECT 1 AS a")
        session.execute("BEGIN; CREATE TABLE public.half (a int); PREPARE TRANSACTION 'left_behind'")
    made.freeze(leg)
    assert role not in sample.roles()
    made.clone(leg, execution)
    with connect(made.login(execution, role=execution, owner=base.owner)) as session:
        assert session.execute("SELECT a FROM by_login.t").fetchone() == (1,)
        session.execute("DROP SCHEMA by_login CASCADE")
        assert session.execute("SELECT to_regclass('public.half')").fetchone() == (None,)
        session.execute("BEGIN; CREATE TABLE public.half (a int); PREPARE TRANSACTION 'left_behind_again'")
    made.drop(execution, role=execution)
    made.drop(leg)
    assert not {leg, execution} & sample.databases()


def test_the_password_is_in_no_server_log_and_no_text(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    name = f"seatrial_x_r{secrets.randbelow(10**9)}_t1_e1"
    made.clone(base.database, name)
    login = made.login(name, role=name, owner=base.owner)
    log = sample.server.log.read_text()
    assert name in log
    assert login.password not in log
    assert login.password not in repr(login)
    assert sample.password not in repr(made)
    made.drop(name, role=name)
