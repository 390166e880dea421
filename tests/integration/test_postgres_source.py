"""A source on real servers: marker, bases, what is refused and with which remedy, copies at once, the link."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from runner.adapters.postgres_clone import PostgresSource
from runner.errors import DatabaseRefused, DatabaseUnavailable, SourceInUse
from runner.ports import Probe

if TYPE_CHECKING:
    from fixtures_postgres import Sample


def source(sample: Sample, **more: Any) -> PostgresSource:
    return PostgresSource("books", sample.dsn, installation="source", **more)


def fresh() -> str:
    return f"seatrial_x_r{secrets.randbelow(10**9)}_t1_e1"


# ---- marker and base --------------------------------------------------------------------------------------


def test_a_database_without_marker_gets_not_one_statement(sample: Sample) -> None:
    before = sample.server.log.stat().st_size
    with pytest.raises(DatabaseRefused, match="seatrial db bless books"):
        source(sample).base()
    sample.execute(f"COMMENT ON DATABASE {sample.database} IS 'seatrial: production'", database="postgres")
    for act in (source(sample).base, source(sample).bless):
        with pytest.raises(DatabaseRefused, match="production"):
            act()
    assert not source(sample).check().usable
    with sample.server.log.open("rb") as log:
        log.seek(before)
        sent = log.read().decode()
    assert "statement:" in sent
    assert f"@{sample.database} " not in sent


def test_blessing_keeps_the_admins_own_comment(sample: Sample) -> None:
    sample.execute(f"COMMENT ON DATABASE {sample.database} IS 'copy of last night'")
    source(sample).bless()
    source(sample).bless()
    comment = sample.value(
        f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{sample.database}'"
    )
    assert comment == "copy of last night\nseatrial: verification"


def test_an_unknown_marker_is_no_marker(sample: Sample) -> None:
    sample.execute(f"COMMENT ON DATABASE {sample.database} IS 'seatrial: staging'")
    with pytest.raises(DatabaseRefused, match="'staging'"):
        source(sample).base()


def test_the_base_holds_the_data_of_the_moment_it_was_blessed(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    sample.execute("DELETE FROM account WHERE id > 10")
    name = fresh()
    made.clone(base.database, name)
    login = made.login(name, role=name, owner=base.owner)
    with psycopg.connect(host=login.host, port=login.port, dbname=name, user=name, password=login.password) as session:
        assert session.execute("SELECT count(*) FROM account").fetchone() == (1000,)
    made.drop(name, role=name)


def test_no_session_of_ours_stays_on_source_base_or_template(sample: Sample) -> None:
    made = source(sample)
    probe = made.probe()
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    deadline = time.monotonic() + 10
    with sample.admin("postgres") as admin:
        while admin.execute(  # one that has just ended is listed for a moment
            "SELECT datname FROM pg_stat_activity WHERE usename = %s AND datname <> 'postgres'", (sample.seatrial,)
        ).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    probe.close()
    made.drop(name)


def test_sessions_on_the_source_are_named(sample: Sample) -> None:
    with sample.admin() as session:
        session.execute("SET application_name = 'nightly report'")
        with pytest.raises(SourceInUse) as refused:
            source(sample).bless()
        assert f"pid {session.info.backend_pid} user postgres application nightly report" in refused.value.text
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert not [
        name for name in sample.databases() if name.startswith("seatrial_base_books") and sample.database in name
    ]


def test_a_source_that_is_gone_is_told_as_such(sample: Sample) -> None:
    missing = sample.dsn.replace(sample.database, "no_such_database")
    made = PostgresSource("books", missing, installation="source")
    with pytest.raises(DatabaseRefused, match="no_such_database"):
        made.base()
    with pytest.raises(DatabaseRefused, match="no_such_database"):
        made.bless()
    assert "no_such_database" in str(made.check().problems[0])


@pytest.mark.parametrize(
    "dsn", ["host=x password='abc", "postgresql://u:se cret@h/d", "nonsense secret", "host=h user=u"]
)
def test_a_dsn_that_is_none_is_refused_without_being_repeated(dsn: str) -> None:
    with pytest.raises(DatabaseRefused, match="books") as refused:
        PostgresSource("books", dsn, installation="source")
    assert not any(word in refused.value.text for word in ("abc", "cret", "secret"))


@pytest.mark.parametrize("name", ["", "Books", "1st", "a-b", "x" * 26, 'a"b'])
def test_a_source_name_that_cannot_be_part_of_a_name_is_refused(name: str) -> None:
    with pytest.raises(DatabaseRefused, match="source"):
        PostgresSource(name, "postgresql://u:p@h/d", installation="source")


def test_an_unreachable_server_is_named_without_the_password(sample: Sample) -> None:
    made = PostgresSource("books", "postgresql://u:sup3rsecret@127.0.0.1:1/verification", installation="source")
    for act in (
        made.base,
        made.bless,
        made.bases,
        lambda: made.clone("seatrial_base_a_b", fresh()),
        lambda: made.drop(fresh()),
    ):
        with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1") as unavailable:
            act()
        assert "sup3rsecret" not in unavailable.value.text
    check = made.check()
    assert not check.reachable
    assert not check.usable
    assert "sup3rsecret" not in repr((made, check))
    wrong = sample.dsn.replace(sample.password, "wr0ngpassword")
    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as unavailable:
        PostgresSource("books", wrong, installation="source").base()
    assert "wr0ngpassword" not in unavailable.value.text


def test_a_check_of_a_ready_source_tells_all(sample: Sample) -> None:
    made = source(sample)
    check = made.check()
    assert (check.reachable, check.marker, check.usable) == (True, None, False)
    assert "seatrial db bless books" in str(check.problems[0])
    base = made.bless()
    check = made.check()
    assert check.usable
    assert check.problems == ()
    assert check.owner == sample.owner
    assert check.method == ("clone" if check.version.startswith("18") else "file_copy")
    assert check.seconds is not None
    assert check.sizes == {base.database: base.size}
    assert not [name for name in sample.databases() if "check" in name]


# ---- what a source may not allow --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "remedy"),
    [
        (["ALTER ROLE {owner} CREATEDB"], 'ALTER ROLE "{owner}" NOCREATEDB'),
        (["ALTER ROLE {owner} CREATEROLE BYPASSRLS"], 'ALTER ROLE "{owner}" NOCREATEROLE NOBYPASSRLS'),
        (["ALTER ROLE {owner} SUPERUSER"], "a superuser"),
        (["GRANT postgres TO {owner}"], 'REVOKE "postgres" FROM "{owner}"'),
        (["GRANT pg_execute_server_program TO {owner}"], 'REVOKE pg_execute_server_program FROM "{owner}"'),
        (["GRANT pg_signal_backend TO {owner}"], 'REVOKE pg_signal_backend FROM "{owner}"'),
        (["ALTER DATABASE {database} OWNER TO {owner}"], 'ALTER DATABASE "{database}" OWNER TO "{seatrial}"'),
        (["ALTER DATABASE {database} OWNER TO postgres"], 'ALTER DATABASE "{database}" OWNER TO "{seatrial}"'),
        (["ALTER ROLE {seatrial} NOCREATEROLE"], 'ALTER ROLE "{seatrial}" CREATEROLE'),
        (["ALTER ROLE {seatrial} NOCREATEDB"], 'ALTER ROLE "{seatrial}" CREATEDB'),
        (["CREATE EXTENSION dblink"], "DROP EXTENSION dblink"),
        (
            ["CREATE EXTENSION postgres_fdw", "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
             "CREATE USER MAPPING FOR {owner} SERVER far OPTIONS (password 'canary')"],
            'DROP USER MAPPING FOR "{owner}" SERVER "far"',
        ),
        (
            ["CREATE EXTENSION postgres_fdw", "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {owner}",
             "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw", "ALTER SERVER far OWNER TO {owner}"],
            'ALTER SERVER "far" OWNER',
        ),
    ],
)  # fmt: skip
def test_what_lets_branch_code_out_is_refused_with_the_remedy(
    sample18: Sample, statements: list[str], remedy: str
) -> None:
    names = {"owner": sample18.owner, "seatrial": sample18.seatrial, "database": sample18.database}
    sample18.execute(*(statement.format(**names) for statement in statements))
    check = source(sample18).check()
    with pytest.raises(DatabaseRefused) as refused:
        source(sample18).bless()
    assert remedy.format(**names) in refused.value.text
    assert not check.usable
    assert not [name for name in sample18.databases() if "seatrial_base" in name and sample18.seatrial in name]
    sample18.execute(
        f"ALTER DATABASE {sample18.database} OWNER TO {sample18.seatrial}", f"ALTER ROLE {sample18.owner} NOSUPERUSER"
    )


def test_an_owner_without_admin_option_is_refused_with_the_grant(sample18: Sample) -> None:
    sample18.execute(f"REVOKE {sample18.owner} FROM {sample18.seatrial}")
    with pytest.raises(DatabaseRefused, match=f'GRANT "{sample18.owner}" TO "{sample18.seatrial}" WITH ADMIN OPTION'):
        source(sample18).bless()


def test_an_owner_that_grew_after_the_blessing_is_refused_at_the_next_login(sample18: Sample) -> None:
    made = source(sample18)
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    sample18.execute(f"ALTER ROLE {sample18.owner} CREATEDB")
    with pytest.raises(DatabaseRefused, match="CREATEDB"):
        made.login(name, role=name, owner=base.owner)
    made.drop(name)


def test_an_owner_setting_goes_over_the_guess_and_must_exist(sample18: Sample) -> None:
    with pytest.raises(DatabaseRefused, match="no role nobody_knows"):
        source(sample18, owner="nobody_knows").bless()
    sample18.execute("DROP SCHEMA tenant_001 CASCADE", "DROP TABLE account")
    with pytest.raises(DatabaseRefused, match="set `owner`"):
        source(sample18).bless()
    assert source(sample18, owner=sample18.owner).bless().owner == sample18.owner


def test_warnings_do_not_refuse(sample18: Sample) -> None:
    sample18.execute(
        f"ALTER ROLE {sample18.owner} LOGIN",
        f"REVOKE CREATE ON DATABASE {sample18.database} FROM {sample18.owner}",
        f"REVOKE CREATE ON SCHEMA public FROM {sample18.owner}",
    )
    source(sample18).bless()
    check = source(sample18).check()
    assert check.usable
    assert [
        next(word for word in ("NOLOGIN", "GRANT CREATE ON DATABASE", "ON SCHEMA public") if word in problem.remedy)
        for problem in check.problems
    ] == ["NOLOGIN", "GRANT CREATE ON DATABASE", "ON SCHEMA public"]


def test_user_mappings_of_foreign_servers_are_gone_from_the_base_alone(sample18: Sample) -> None:
    sample18.execute(
        "CREATE EXTENSION postgres_fdw",
        f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {sample18.seatrial}",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
        f"ALTER SERVER far OWNER TO {sample18.seatrial}",
        f"CREATE USER MAPPING FOR {sample18.owner} SERVER far OPTIONS (user 'u', password 'canary')",
        "CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'u', password 'canary')",
    )
    made = source(sample18)
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    with sample18.admin(name) as inside:
        assert inside.execute("SELECT count(*) FROM pg_user_mappings").fetchone() == (0,)
    assert sample18.value("SELECT count(*) FROM pg_user_mappings") == 2
    made.drop(name)


def test_dblink_without_its_functions_for_the_application_is_no_way_out(sample18: Sample) -> None:
    sample18.execute(
        "CREATE EXTENSION dblink",
        """DO $$ DECLARE f text; BEGIN
           FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid
               JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'dblink'
           LOOP EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$""",
    )
    made = source(sample18)
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    login = made.login(name, role=name, owner=base.owner)
    with (
        psycopg.connect(host=login.host, port=login.port, dbname=name, user=name, password=login.password) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("SELECT dblink_connect('host=127.0.0.1 password=x')")
    made.drop(name, role=name)


# ---- copies at once, left-overs ---------------------------------------------------------------------------


def test_eight_clones_of_one_template_at_once(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    names = [fresh() for _ in range(16)]

    def whole(name: str) -> int:
        made.clone(base.database, name)
        login = made.login(name, role=name, owner=base.owner)
        with psycopg.connect(
            host=login.host, port=login.port, dbname=name, user=name, password=login.password
        ) as session:
            row = session.execute("SELECT count(*) FROM account").fetchone()
        made.drop(name, role=name)
        return int(row[0]) if row else 0

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(whole, names)) == [1000] * 16
    assert not set(names) & (sample.databases() | sample.roles())


def test_a_clone_whose_maker_died_before_labelling_it_is_replaced_or_swept(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    replaced, swept, foreign = fresh(), fresh(), fresh()
    with psycopg.connect(sample.dsn.replace(sample.database, "postgres"), autocommit=True) as session:
        for name in (replaced, swept):
            session.execute(f"CREATE DATABASE {name}".encode())
    sample.execute(f"CREATE DATABASE {foreign}", database="postgres")
    made.clone(base.database, replaced)
    with pytest.raises(DatabaseRefused, match="not made by Seatrial"):
        made.clone(base.database, foreign)
    with pytest.raises(DatabaseRefused, match="not made by Seatrial"):
        made.drop(foreign)
    assert made.sweep(lambda: {replaced}) == [swept]
    assert foreign in sample.databases()
    sample.execute(f"DROP DATABASE {foreign}", database="postgres")
    made.drop(replaced)


def test_a_clone_that_cannot_be_dropped_keeps_no_other_from_being_swept(sample18: Sample) -> None:
    made = source(sample18)
    base = made.bless()
    stuck, swept = sorted((fresh(), fresh()))
    for name in (stuck, swept):
        made.clone(base.database, name)
    sample18.execute(f"ALTER DATABASE {stuck} IS_TEMPLATE true", database="postgres")
    try:
        assert made.sweep(set) == [swept]
        with pytest.raises(DatabaseRefused, match="template"):
            made.sweep(set)
    finally:
        sample18.execute(f"ALTER DATABASE {stuck} IS_TEMPLATE false", database="postgres")
    assert made.sweep(set) == [stuck]


def test_a_clone_with_open_sessions_is_dropped_all_the_same(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    login = made.login(name, role=name, owner=base.owner)
    session = psycopg.connect(host=login.host, port=login.port, dbname=name, user=name, password=login.password)
    made.drop(name, role=name)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert name not in sample.databases() | sample.roles()


def test_freezing_ends_the_sessions_of_its_own_roles_only(sample: Sample) -> None:
    made = source(sample)
    base = made.bless()
    name, role = fresh().replace("_x_", "_leg_"), fresh()
    made.clone(base.database, name)
    login = made.login(name, role=role, owner=base.owner)
    session = psycopg.connect(host=login.host, port=login.port, dbname=name, user=role, password=login.password)
    made.freeze(name)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    made.drop(name)
    second = fresh().replace("_x_", "_leg_")
    made.clone(base.database, second)
    with sample.admin(second) as foreign:
        with pytest.raises(SourceInUse, match=f"pid {foreign.info.backend_pid}"):
            made.freeze(second)
        assert foreign.execute("SELECT 1").fetchone() == (1,)
    made.drop(second)


def test_the_connection_limit_stands_on_the_clone(sample: Sample) -> None:
    made = source(sample, connection_limit=2)
    base = made.bless()
    name = fresh()
    made.clone(base.database, name)
    login = made.login(name, role=name, owner=base.owner)
    assert login.connection_limit == 2
    info: dict[str, Any] = {
        "host": login.host, "port": login.port, "dbname": name, "user": name, "password": login.password,
    }  # fmt: skip
    limit = sample.value(f"SELECT datconnlimit FROM pg_database WHERE datname = '{name}'")
    assert isinstance(limit, int)
    assert limit >= 2
    sessions = [psycopg.connect(**info) for _ in range(limit)]
    with pytest.raises(psycopg.OperationalError, match="too many connections for database"):
        psycopg.connect(**info)
    for session in sessions:
        session.close()
    made.drop(name, role=name)


# ---- the link ---------------------------------------------------------------------------------------------


def stands(probe: Probe) -> None:
    """Wait until the link is known to stand."""
    deadline = time.monotonic() + 30
    while probe.lost_between(now := time.monotonic(), now):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_probe_tells_a_lost_link_from_none(sample18: Sample) -> None:
    from fixtures_postgres import Proxy

    with Proxy(sample18.server.port) as link:
        made = PostgresSource("books", link.through(sample18.dsn), installation="source")
        probe = made.probe()
        stands(probe)

        cut = time.monotonic()
        link.cut()
        assert probe.lost_between(cut, time.monotonic())
        with pytest.raises(DatabaseUnavailable):
            made.base()
        link.mend()
        stands(probe)
        back = time.monotonic()
        assert not probe.lost_between(back, back)
        assert probe.lost_between(cut, back)
        assert not probe.lost_between(cut - 60, cut - 10)

        link.blink()  # shorter than the probe's pace: the session is gone, though the next one stands at once
        blinked = time.monotonic()
        assert probe.lost_between(blinked, blinked)
        stands(probe)

        link.hang()  # half open: nothing is refused, nothing answers
        hung = time.monotonic()
        assert probe.lost_between(hung, hung + 2.0)
        assert time.monotonic() - hung < 20.0
        link.mend()
        probe.close()


def test_a_probe_that_never_reached_the_server_says_lost() -> None:
    made = PostgresSource("books", "postgresql://u:p@127.0.0.1:1/verification", installation="source")
    probe = made.probe()
    now = time.monotonic()
    assert probe.lost_between(now, now)
    probe.close()


def test_names_that_need_quoting_go_through(sample18: Sample) -> None:
    owner, database = "App \"Ö'x", "Büro; DROP 'x"
    quoted = '"App ""Ö\'x"'
    sample18.execute(
        f"ALTER ROLE {sample18.owner} RENAME TO {quoted}",
        f"ALTER ROLE {quoted} SET search_path = tenant_001, public",
        f'CREATE DATABASE "{database}" TEMPLATE {sample18.database} OWNER {sample18.seatrial}',
        database="postgres",
    )
    try:
        made = PostgresSource("books", make_conninfo(sample18.dsn, dbname=database), installation="source")
        base = made.bless()
        assert base.owner == owner
        assert made.check().usable
        name = fresh()
        made.clone(base.database, name)
        login = made.login(name, role=name, owner=base.owner)
        with psycopg.connect(
            host=login.host, port=login.port, dbname=name, user=name, password=login.password
        ) as session:
            assert session.execute("SELECT current_user, count(*) FROM entry GROUP BY 1").fetchone() == (owner, 100)
        made.drop(name, role=name)
    finally:
        sample18.execute(f"ALTER ROLE {quoted} RENAME TO {sample18.owner}", database="postgres")
