"""What the door writes for PgBouncer, and which of its log lines it believes."""

from __future__ import annotations

import configparser
import struct
from pathlib import Path

import pytest

from runner.door import DATABASE, LOST, REFUSED, USER, GatewayDoor, _give, admitted, configuration
from runner.errors import DatabaseUnavailable
from runner.model import Login


def login(**more: object) -> Login:
    values: dict[str, object] = {
        "host": "db.internal", "port": 5433, "database": "seatrial_x_r1_t1_e1", "role": "seatrial_x_r1_t1_e1",
        "password": "pass'word", "connection_limit": 20, "sslmode": "require",
    }  # fmt: skip
    return Login(**{**values, **more})  # type: ignore[arg-type]


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_there_is_one_database_with_forced_target_and_quoted_password() -> None:
    written = read(configuration(login())["pgbouncer.ini"])
    assert list(written["databases"]) == [DATABASE]
    assert written["databases"][DATABASE] == (
        "host='db.internal' port='5433' dbname='seatrial_x_r1_t1_e1' user='seatrial_x_r1_t1_e1' "
        "password='pass''word' pool_size='25'"
    )


def test_only_the_one_user_on_the_one_database_is_admitted() -> None:
    written = configuration(login())
    assert written["hba.conf"].splitlines() == [f"local {DATABASE} {USER} trust", "local all all reject"]
    assert written["users.txt"] == f'"{USER}" ""\n'
    settings = read(written["pgbouncer.ini"])["pgbouncer"]
    assert "admin_users" not in settings
    assert "listen_addr" not in settings
    assert settings["auth_type"] == "hba"


def test_nothing_that_takes_hours_is_cut_and_nobody_waits_for_a_place() -> None:
    settings = read(configuration(login())["pgbouncer.ini"])["pgbouncer"]
    for name in ("query_timeout", "client_idle_timeout", "idle_transaction_timeout", "server_idle_timeout"):
        assert settings[name] == "0"
    assert settings["max_client_conn"] == settings["default_pool_size"] == settings["max_db_connections"] == "25"
    assert settings["ignore_startup_parameters"] == "extra_float_digits"


@pytest.mark.parametrize(("limit", "clients"), [(1, 3), (5, 7), (8, 10), (20, 25), (100, 125)])
def test_a_quarter_more_clients_than_the_limit_are_admitted(limit: int, clients: int) -> None:
    assert admitted(limit) == clients


def test_the_servers_certificate_is_checked_as_the_source_asks(tmp_path: Path) -> None:
    plain = read(configuration(login())["pgbouncer.ini"])["pgbouncer"]
    assert plain["server_tls_sslmode"] == "require"
    assert "server_tls_ca_file" not in plain
    (tmp_path / "ca.pem").write_text("certificates")
    files = configuration(login(sslmode="verify-full", server_ca=tmp_path / "ca.pem"))
    checked = read(files["pgbouncer.ini"])["pgbouncer"]
    assert checked["server_tls_sslmode"] == "verify-full"
    assert checked["server_tls_ca_file"] == "/seatgate/config/server-ca.pem"
    assert files["server-ca.pem"] == "certificates"
    with pytest.raises(DatabaseUnavailable, match=r"the dsn's sslrootcert .*/none cannot be read: No such file"):
        configuration(login(sslmode="verify-full", server_ca=tmp_path / "none"))


@pytest.mark.parametrize("field", ["host", "database", "role", "password"])
@pytest.mark.parametrize("value", ["a\nadmin_users = seatrial", "a\0b"])
def test_no_parameter_brings_a_line_of_its_own(field: str, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        configuration(login(**{field: value}))


@pytest.mark.parametrize("name", ["", "../escape", "a/b", "-x", "a b", "x" * 129])
def test_a_name_that_is_no_containers_is_refused(name: str, tmp_path: Path) -> None:
    door = GatewayDoor(None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name"):
        door.open(name, login())
    with pytest.raises(ValueError, match="name"):
        door.close(name)


@pytest.mark.parametrize(
    "line",
    [
        "LOG S-0x1: verification/r@10.0.0.1:5432 closing because: server conn crashed? (age=5s)",
        "LOG S-0x1: verification/r@10.0.0.1:5432 closing because: connect failed (age=0s)",
        "WARNING C-0x1: verification/seatrial@unix:5432 pooler error: query_wait_timeout",
        "WARNING C-0x1: verification/seatrial@unix:5432 pooler error: server login failing (server_login_retry)",
        "WARNING S-0x1: verification/r@10.0.0.1:5432 server login failed: FATAL the database system is starting up",
    ],
)
def test_lines_that_may_speak_of_a_lost_link(line: str) -> None:
    assert LOST.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "WARNING C-0x1: (nodb)/(nouser)@unix:5432 unsupported startup parameter: options=-c geqo=off",
        "WARNING C-0x1: (nodb)/(nouser)@unix:5432 pooler error: no more connections allowed (max_client_conn)",
        "WARNING C-0x1: pgbouncer/seatrial@unix:5432 pooler error: not allowed",
        "WARNING C-0x1: (nodb)/postgres@unix:5432 pooler error: login rejected",
    ],
)
def test_lines_that_tell_of_a_refused_client(line: str) -> None:
    assert REFUSED.search(line)
    assert not LOST.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "LOG process up: PgBouncer 1.18.0",
        "LOG C-0x1: verification/seatrial@unix:5432 closing because: client close request (age=0s)",
        "WARNING C-0x1: (nodb)/(nouser)@unix:5432 pooler error: unsupported startup parameter: options",
    ],
)
def test_lines_that_tell_nothing_of_their_own(line: str) -> None:
    assert not REFUSED.search(line)
    assert not LOST.search(line)


def test_a_worker_that_is_not_root_names_the_gateway_in_an_access_control_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {}
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.setxattr", lambda path, name, value: written.update({name: value}))
    _give(tmp_path, 10101, 5)
    packed = written["system.posix_acl_access"]
    assert struct.unpack_from("<I", packed) == (2,)
    entries = [struct.unpack_from("<HHI", packed, 4 + 8 * n) for n in range(5)]
    assert (2, 5, 10101) in entries
    assert (32, 0, 0xFFFFFFFF) in entries
