from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from jobs.settings import (
    CONTRACT_VARIABLES,
    CredentialSettings,
    DatabaseSettings,
    ObjectsSettings,
    PoolSettings,
    ProjectSettings,
    ServerSettings,
    SettingProblem,
    Settings,
    SettingsError,
    find_settings_file,
    load_server,
    load_settings,
    settings_from_process,
    settings_json_schema,
)
from runner.spec import Build, Compare, Database, Latency, Limits, Rule, Spec, Timeouts, Workspace, parse_spec

DOCS = Path(__file__).parents[2] / "docs"
CANARY = "canary-8f2e"
HOME = {"HOME": "/home/someone"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that no stray seatrial.toml is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(here: Path, text: str, environ: Mapping[str, str] = HOME) -> Settings:
    file = here / "seatrial.toml"
    file.write_text(text, "utf-8")
    return load_settings(file, environ)


def refused(here: Path, text: str, environ: Mapping[str, str] = HOME) -> dict[str, SettingProblem]:
    with pytest.raises(SettingsError) as caught:
        load(here, text, environ)
    assert caught.value.code == "settings_invalid"
    assert caught.value.__cause__ is None
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)
        assert problem.file in ("environment", str(here / "seatrial.toml"))
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value.problems)
    return {problem.key: problem for problem in caught.value.problems}


# ---- what is read ------------------------------------------------------------------------------------------


def test_without_a_file_the_defaults_hold(here: Path) -> None:
    settings = load_settings(None, HOME)
    home = Path("/home/someone/.local/share/seatrial")
    assert (settings.server.listen, settings.server.host, settings.server.port) == ("127.0.0.1:8321", "127.0.0.1", 8321)
    assert settings.server.url == "http://127.0.0.1:8321"
    assert (settings.server.home, settings.server.object_store) == (home, home / "objects")
    assert settings.server.database_url == f"sqlite:///{home}/seatrial.db"
    assert settings.server.secret_key_file == home / "secret_key"
    assert (settings.server.redis_url, settings.server.lease, settings.server.postgres_bin) == (None, 5.0, None)
    assert (settings.projects, settings.databases) == ({}, {})
    assert settings.pools == {"local": PoolSettings(provider="local", slots=2)}


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"XDG_DATA_HOME": "/data"}, "/data/seatrial"),
        ({"XDG_DATA_HOME": "/data", "HOME": "/h"}, "/data/seatrial"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/seatrial"),
    ],
)
def test_home_is_where_xdg_says(here: Path, environ: dict[str, str], home: str) -> None:
    assert load_settings(None, environ).server.home == Path(home)


def test_relative_paths_begin_at_the_file(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "default.yml").touch()
    settings = load(
        here / "conf",
        '[server]\nhome = "state"\ndatabase_url = "sqlite:///runs.db"\nobject_store = "~/objects"\n'
        '[projects.a]\nrepository = "/srv/a.git"\nspec = "default.yml"\n',
    )
    assert settings.server.home == here / "conf" / "state"
    assert settings.server.database_url == f"sqlite:///{here}/conf/runs.db"
    assert settings.server.object_store == Path("/home/someone/objects")
    assert settings.projects["a"].spec == here / "conf" / "default.yml"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://team-objects", "team-objects", ""),
        ("s3://team-objects/", "team-objects", ""),
        ("s3://a.b-c/sea/trial", "a.b-c", "sea/trial/"),
    ],
)
def test_objects_on_s3(here: Path, url: str, bucket: str, prefix: str) -> None:
    environ = {**HOME, "SEATRIAL_OBJECTS__URL": url, "SEATRIAL_OBJECTS__ENDPOINT_URL": "http://127.0.0.1:9000/"}
    objects = load(here, '[objects]\nurl = "s3://other"\nregion = "eu-central-1"\n', environ).objects
    assert objects is not None
    assert (objects.bucket, objects.prefix, objects.region) == (bucket, prefix, "eu-central-1")
    assert objects.endpoint_url == "http://127.0.0.1:9000"
    assert load(here, "", {**HOME, "SEATRIAL_OBJECTS__URL": url}).objects is not None
    assert load(here, "").objects is None


def test_home_moves_the_store_and_the_objects(here: Path) -> None:
    server = load(here, '[server]\nhome = "~/sea"\n').server
    assert server.home == Path("/home/someone/sea")
    assert server.database_url == "sqlite:////home/someone/sea/seatrial.db"
    assert server.object_store == Path("/home/someone/sea/objects")


def test_the_file_is_the_one_named_first(here: Path) -> None:
    for name, port in (("seatrial.toml", 1001), ("other.toml", 1002), ("third.toml", 1003)):
        (here / name).write_text(f'[server]\nlisten = "127.0.0.1:{port}"\n')
    config = {**HOME, "SEATRIAL_CONFIG": "other.toml"}
    assert load_settings(None, HOME).server.port == 1001
    assert load_settings(None, config).server.port == 1002
    assert load_settings(Path("third.toml"), config).server.port == 1003
    assert find_settings_file(None, config) == here / "other.toml"
    assert find_settings_file(None, HOME) == here / "seatrial.toml"


def test_the_process_environment_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_SERVER__LISTEN", "127.0.0.1:7007")
    assert settings_from_process().server.port == 7007


def test_every_kind_of_setting_can_come_from_the_environment(here: Path) -> None:
    (here / "token").write_text("x\n")
    settings = load(
        here,
        '[server]\nlisten = "127.0.0.1:1"\n[projects.my-app]\nrepository = "/srv/a.git"\n'
        "[databases.d]\nmax_connections = 3\n",
        {
            **HOME,
            "SEATRIAL_SERVER__LISTEN": "[::1]:8000",
            "SEATRIAL_SERVER__LEASE": "10s",
            "SEATRIAL_SERVER__REDIS_URL": "redis://localhost/1",
            "SEATRIAL_PROJECTS__MY_APP__SUBMODULES": "true",
            "SEATRIAL_PROJECTS__MY_APP__CREDENTIALS__TOKEN_FILE": "./token",
            "SEATRIAL_PROJECTS__MY_APP__POOL": "big",
            "SEATRIAL_PROJECTS__NEW__REPOSITORY": "https://git.example.com/new.git",
            "SEATRIAL_PROJECTS__NEW__POOL": "big",
            "SEATRIAL_DATABASES__D__DSN": "postgresql://u:p@h/d",
            "SEATRIAL_DATABASES__D__MAX_CONNECTIONS": "7",
            "SEATRIAL_POOLS__BIG__SLOTS": "16",
            "NOT_SEATRIAL": "x",
        },
    )
    assert (settings.server.host, settings.server.port, settings.server.lease) == ("::1", 8000, 10.0)
    assert settings.server.redis_url == "redis://localhost/1"
    assert settings.projects["my-app"].submodules is True
    assert settings.projects["my-app"].credentials == CredentialSettings(token_file=here / "token")
    assert settings.projects["my-app"].pool == settings.projects["new"].pool == "big"
    assert settings.databases["d"].max_connections == 7
    assert settings.databases["d"].resolve_dsn({}) == "postgresql://u:p@h/d"
    assert settings.pools == {"big": PoolSettings(slots=16)}


def test_the_two_aliases_are_the_same_settings(here: Path) -> None:
    environ = {
        **HOME,
        "SEATRIAL_DATABASE_URL": "postgresql://h/store",
        "SEATRIAL_SERVER__DATABASE_URL": "postgresql://h/store",
        "SEATRIAL_REDIS_URL": "unix:///run/valkey.sock",
    }
    server = load_settings(None, environ).server
    assert (server.database_url, server.redis_url) == ("postgresql://h/store", "unix:///run/valkey.sock")


def test_what_a_workspace_is_told_is_no_setting(here: Path) -> None:
    assert {"SEATRIAL_RUN", "SEATRIAL_UNITS", "SEATRIAL_RESUME_FROM"} <= CONTRACT_VARIABLES
    assert len(CONTRACT_VARIABLES) == 8
    load_settings(None, {**HOME, **dict.fromkeys(CONTRACT_VARIABLES, "x")})


def test_who_only_talks_to_the_server_needs_no_secret_of_it(here: Path) -> None:
    text = '[server]\nlisten = "127.0.0.1:8400"\n[databases.main]\ndsn_env = "NOT_SET"\n[projects.a]\nrepository = 3\n'
    (here / "seatrial.toml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings(None, HOME)
    assert load_server(None, HOME).url == "http://127.0.0.1:8400"
    assert load_server(None, HOME | {"SEATRIAL_SERVER__LISTEN": "[::1]:8401"}).url == "http://[::1]:8401"


@pytest.mark.parametrize(
    ("text", "environ", "key"),
    [
        ('[server]\nlisten = "0.0.0.0:80"\n', {}, "server.listen"),
        ('[server]\nlisen = "127.0.0.1:80"\n', {}, "server.lisen"),
        ("server = 3\n", {}, "server"),
        ("", {"SEATRIAL_SERVER__LISEN": "127.0.0.1:80"}, "SEATRIAL_SERVER__LISEN"),
        ("[server\n", {}, "(file)"),
    ],
)
def test_what_is_wrong_with_the_server_s_part_is_told_to_all(
    here: Path, text: str, environ: dict[str, str], key: str
) -> None:
    (here / "seatrial.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_server(None, HOME | environ)
    assert [problem.key for problem in caught.value.problems] == [key]


def test_secrets_may_stand_in_a_variable_or_a_file(here: Path) -> None:
    (here / "dsn").write_text(f"postgresql://u:{CANARY}@h/three\n")
    environ = {**HOME, "SEATRIAL_MY_DSN": f"host=h dbname=two password={CANARY}", "TOKEN": CANARY}
    settings = load(
        here,
        f'[databases.one]\ndsn = "postgresql://u:{CANARY}@h/one"\n[databases.two]\ndsn_env = "SEATRIAL_MY_DSN"\n'
        '[databases.three]\ndsn_file = "dsn"\n'
        '[projects.a]\nrepository = "https://h/a"\ncredentials = {token_env = "TOKEN"}\n'
        f'[server]\ndatabase_url = "postgresql://u:{CANARY}@h/s"\nredis_url = "redis://:{CANARY}@h"\n',
        environ,
    )
    assert settings.databases["one"].resolve_dsn(environ).endswith("/one")
    assert settings.databases["two"].resolve_dsn(environ).startswith("host=h dbname=two")
    assert settings.databases["three"].resolve_dsn(environ) == f"postgresql://u:{CANARY}@h/three"
    credentials = settings.projects["a"].credentials
    assert credentials is not None
    assert credentials.resolve_token(environ) == CANARY
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)


def test_settings_cannot_be_changed(here: Path) -> None:
    settings = load_settings(None, HOME)
    with pytest.raises(ValueError, match="frozen"):
        settings.server.listen = "0.0.0.0:1"


@pytest.mark.parametrize(
    "repository",
    [
        "/srv/git/app.git",
        "file:///srv/git/app.git",
        "https://git.example.com/team/app.git",
        "https://git.example.com:8443/app",
        "ssh://git@git.example.com:22/team/app.git",
        "git@git.example.com:team/app.git",
        "git.example.com:app",
    ],
)
def test_repositories_are_urls_or_absolute_paths(here: Path, repository: str) -> None:
    assert load(here, f'[projects.a]\nrepository = "{repository}"\n').projects["a"].repository == repository


# ---- what is refused ---------------------------------------------------------------------------------------

PROJECT = '[projects.a]\nrepository = "/srv/a.git"\n'

# Each row: the file, the key that is named, the value that is shown (None: it may be a secret), the remedy.
EC2 = '[pools.a]\nprovider = "ec2"\n'  # region and account are missed too

BAD = [
    ('titel = "x"\n', "titel", None, "allowed here: server, objects, projects, databases, pools"),
    ("[sever]\n", "sever", None, "did you mean `server`?"),
    ("server = 5\n", "server", None, "must be a table with the keys listen, home"),
    ('[server]\nlisten = "0.0.0.0:8321"\n', "server.listen", "'0.0.0.0:8321'", "no access control yet"),
    ('[server]\nlisten = "192.0.2.7:80"\n', "server.listen", "'192.0.2.7:80'", "listen on 127.0.0.1"),
    ('[server]\nlisten = "[::]:80"\n', "server.listen", "'[::]:80'", "not a loopback address"),
    ('[server]\nlisten = "example.com:80"\n', "server.listen", "'example.com:80'", "not a loopback address"),
    ('[server]\nlisten = "127.0.0.1"\n', "server.listen", "'127.0.0.1'", "127.0.0.1:8321"),
    ('[server]\nlisten = "127.0.0.1:0"\n', "server.listen", "'127.0.0.1:0'", "1 to 65535"),
    ('[server]\nlisten = "127.0.0.1:65536"\n', "server.listen", "'127.0.0.1:65536'", "1 to 65535"),
    ("[server]\nlisten = 8321\n", "server.listen", "8321", "put the value in quotes"),
    ('[server]\nhome = ""\n', "server.home", "''", "must be a path"),
    ("[server]\nhome = 5\n", "server.home", "5", "must be a path"),
    ('[server]\nhome = "a\\u0000b"\n', "server.home", "'a\\x00b'", "must be a path"),
    ('[server]\nobject_store = "s3://bucket"\n', "server.object_store", "'s3://bucket'", "[objects] url = "),
    ('[server]\nhost_name = "a b"\n', "server.host_name", "'a b'", "1 to 63 letters"),
    ('[server]\nhost_name = ""\n', "server.host_name", "''", "1 to 63 letters"),
    ('[server]\ndocker_url = "tcp://h:2375"\n', "server.docker_url", "'tcp://h:2375'", "must be unix:///PATH"),
    ('[server]\ndocker_url = "unix://x"\n', "server.docker_url", "'unix://x'", "must be unix:///PATH"),
    ("objects = 5\n", "objects", None, "must be a table with the keys url, region, endpoint_url"),
    ("[objects]\n", "objects.url", None, "is required; allowed: s3://bucket"),
    ('[objects]\nregion = "eu-west-1"\n', "objects.url", None, "is required"),
    ('[objects]\nurl = "/srv/objects"\n', "objects.url", "'/srv/objects'", "a directory is server.object_store"),
    ('[objects]\nurl = "https://bucket"\n', "objects.url", "'https://bucket'", "must be s3://bucket"),
    ('[objects]\nurl = "s3://B"\n', "objects.url", "'s3://B'", "must be s3://bucket"),
    ('[objects]\nurl = "s3://bucket/../x"\n', "objects.url", "'s3://bucket/../x'", "must be s3://bucket"),
    ('[objects]\nurl = "s3://bucket/a b"\n', "objects.url", "'s3://bucket/a b'", "must be s3://bucket"),
    (f'[objects]\nurl = "s3://key:{CANARY}@bucket"\n', "objects.url", "***@bucket'", "every AWS client"),
    (f'[objects]\nurl = "s3://bucket?secret={CANARY}"\n', "objects.url", "'s3://bucket?***'", "every AWS client"),
    ('[objects]\nurl = "s3://bucket"\nregion = "Mars"\n', "objects.region", "'Mars'", "eu-central-1"),
    (
        '[objects]\nurl = "s3://bucket"\nendpoint_url = "minio:9000"\n',
        "objects.endpoint_url",
        "'minio:9000'",
        "must be https://host",
    ),
    (
        '[objects]\nurl = "s3://bucket"\nendpoint_url = "http://h:99999"\n',
        "objects.endpoint_url",
        "'http://h:99999'",
        "must be https://host",
    ),
    (
        f'[objects]\nurl = "s3://bucket"\nendpoint_url = "https://me:{CANARY}@h"\n',
        "objects.endpoint_url",
        "'https://***@h'",
        "every AWS client",
    ),
    (
        f'[objects]\nurl = "s3://bucket"\nsecret_access_key = "{CANARY}"\n',
        "objects.secret_access_key",
        None,
        "is not a known key",
    ),
    (
        '[server]\nobject_store = "o"\n[objects]\nurl = "s3://bucket"\n',
        "server.object_store",
        None,
        "keep one of them",
    ),
    ('[server]\nlease = "0s"\n', "server.lease", "'0s'", "1s to 10m"),
    ("[server]\nlease = 5\n", "server.lease", "5", "has no unit"),
    (f"[server]\npostgres_bin = '/{'x' * 300}'\n", "server.postgres_bin", "/xxx", "File name too long"),
    ('[server]\npostgres_bin = "nowhere"\n', "server.postgres_bin", "nowhere", "no such directory"),
    (
        f'[server]\ndatabase_url = "mysql://u:{CANARY}@h/d"\n',
        "server.database_url",
        None,
        "sqlite:///PATH, postgresql://",
    ),
    ('[server]\ndatabase_url = "sqlite:///:memory:"\n', "server.database_url", None, "sqlite:///PATH"),
    (f'[server]\nredis_url = "http://{CANARY}"\n', "server.redis_url", None, "redis://"),
    ('[server]\nlisen = "x"\n', "server.lisen", None, "did you mean `listen`?"),
    (f'[server]\npassword = "{CANARY}"\n', "server.password", None, "is not a known key"),
    ("projects = []\n", "projects", "a list of 0", "must be a table of names to values"),
    (f'projects = "{CANARY}"\n', "projects", None, "must be a table"),
    ('[projects.App]\nrepository = "/a"\n', "projects.App", None, "lower-case letters"),
    ('[projects."-x"]\nrepository = "/a"\n', "projects.-x", None, "a letter or digit first"),
    (f"[projects.{'x' * 64}]\nrepository = '/a'\n", f"projects.{'x' * 64}", None, "at most 63"),
    ("[projects.a]\n", "projects.a.repository", None, "is required; allowed: https://"),
    ('[projects.a]\nrepository = ""\n', "projects.a.repository", "''", "must be an address"),
    ('[projects.a]\nrepository = "srv/a"\n', "projects.a.repository", "'srv/a'", "an absolute path"),
    ('[projects.a]\nrepository = "--upload-pack=x"\n', "projects.a.repository", "'--upload-pack=x'", "begins with `-`"),
    ('[projects.a]\nrepository = "ext::sh -c x"\n', "projects.a.repository", "'ext::sh -c x'", "without white space"),
    ('[projects.a]\nrepository = "ext::x"\n', "projects.a.repository", "'ext::x'", "remote helper"),
    ('[projects.a]\nrepository = "fd::17"\n', "projects.a.repository", "'fd::17'", "remote helper"),
    ('[projects.a]\nrepository = "http://h/a"\n', "projects.a.repository", "'http://h/a'", "use https, ssh or file"),
    ('[projects.a]\nrepository = "git://h/a"\n', "projects.a.repository", "'git://h/a'", "use https, ssh or file"),
    ('[projects.a]\nrepository = "https://h"\n', "projects.a.repository", "'https://h'", "a host and a path"),
    ('[projects.a]\nrepository = "file://h/a"\n', "projects.a.repository", "'file://h/a'", "file:///srv"),
    ('[projects.a]\nrepository = "https://h:x/a"\n', "projects.a.repository", "'https://h:x/a'", "is not a URL"),
    ('[projects.a]\nrepository = "ssh://-oProxyCommand=x/a"\n', "projects.a.repository", "'ssh://", "begins with `-`"),
    ('[projects.a]\nrepository = "-h:a"\n', "projects.a.repository", "'-h:a'", "begins with `-`"),
    ('[projects.a]\nrepository = "h:-a"\n', "projects.a.repository", "'h:-a'", "begins with `-`"),
    ('[projects.a]\nrepository = "https://h/%0aa"\n', "projects.a.repository", "'https://h/%0aa'", "white space"),
    (
        f'[projects.a]\nrepository = "https://me:{CANARY}@h/a"\n',
        "projects.a.repository",
        "'https://***@h/a'",
        "give credentials = {token_file",
    ),
    (
        f'[projects.a]\nrepository = "https://{CANARY}@h/a"\n',
        "projects.a.repository",
        "'https://***@h/a'",
        "give credentials",
    ),
    (
        f'[projects.a]\nrepository = "ssh://git:{CANARY}@h/a"\n',
        "projects.a.repository",
        "'ssh://***@h/a'",
        "give credentials",
    ),
    (f'[projects.a]\nrepository = "git:{CANARY}@h:a"\n', "projects.a.repository", "'***@h:a'", "holds a password"),
    (
        f'[projects.a]\nrepository = "https://u:/{CANARY}@h/a"\n',
        "projects.a.repository",
        "'https://***@h/a'",
        "is not a URL",
    ),
    (
        f'[projects.a]\nrepository = "https://h/a?token={CANARY}"\n',
        "projects.a.repository",
        "'https://h/a?***'",
        "leave out",
    ),
    (PROJECT + 'default_baseline = "-x"\n', "projects.a.default_baseline", "'-x'", "branch, tag or commit"),
    (PROJECT + 'default_baseline = "a..b"\n', "projects.a.default_baseline", "'a..b'", "branch, tag or commit"),
    (PROJECT + 'spec = "none.yml"\n', "projects.a.spec", "none.yml", "there is no such file"),
    (PROJECT + 'spec = "."\n', "projects.a.spec", "'.'", "there is no such file"),
    (PROJECT + 'pool = "big"\n', "projects.a.pool", None, "there is no [pools.big]; defined are: local"),
    (PROJECT + "[pools.x]\n[pools.y]\n", "projects.a.pool", None, "there is no [pools.local]; defined are: x, y"),
    (PROJECT + 'database = "d"\n', "projects.a.database", None, "there is no [databases.d]; defined are: none"),
    (PROJECT + 'submodules = "no"\n', "projects.a.submodules", "'no'", "true or false"),
    (PROJECT + f'credentials = "{CANARY}"\n', "projects.a.credentials", None, "with the keys ssh_key_file, token_file"),
    (
        PROJECT + "credentials = {}\n",
        "projects.a.credentials",
        None,
        "exactly one of ssh_key_file, token_file, token_env",
    ),
    (
        PROJECT + 'credentials = {token_env = "HOME", ssh_key_file = "key"}\n',
        "projects.a.credentials",
        None,
        "ssh_key_file and token_env are there",
    ),
    (PROJECT + f'credentials = {{token = "{CANARY}"}}\n', "projects.a.credentials.token", None, "did you mean `token_"),
    (
        PROJECT + f'credentials = {{token_file = "{CANARY}"}}\n',
        "projects.a.credentials.token_file",
        None,
        "no such file",
    ),
    (PROJECT + 'credentials = {token_file = "/no/x"}\n', "projects.a.credentials.token_file", "/no/x", "no such file"),
    (PROJECT + f'credentials = {{token_env = "{CANARY}"}}\n', "projects.a.credentials.token_env", None, "variable"),
    (
        PROJECT + 'credentials = {token_env = "NOPE"}\n',
        "projects.a.credentials.token_env",
        "'NOPE'",
        "is not set: set it",
    ),
    (PROJECT + 'credentials = {ssh_key_file = "key"}\n', "projects.a.credentials.ssh_key_file", None, "chmod 600"),
    (f'[databases.my-db]\ndsn = "postgresql://u:{CANARY}@h/d"\n', "databases.my-db", None, "letters, digits or `_`"),
    ("[databases.d]\n", "databases.d", None, "exactly one of dsn, dsn_env, dsn_file; none is there"),
    (
        f'[databases.d]\ndsn = "postgresql://u:{CANARY}@h/d"\ndsn_file = "key"\n',
        "databases.d",
        None,
        "dsn and dsn_file are there",
    ),
    (f'[databases.d]\ndsn = "mysql://u:{CANARY}@h/d"\n', "databases.d.dsn", None, "must begin with postgresql://"),
    (f'[databases.d]\ndsn = "postgresql://u:{CANARY}@h"\n', "databases.d.dsn", None, "add /database at the end"),
    (f'[databases.d]\ndsn = "host=h password={CANARY}"\n', "databases.d.dsn", None, "does not name its database"),
    (f'[databases.d]\ndsn = "{CANARY}"\n', "databases.d.dsn", None, "host=… dbname=…"),
    ('[databases.d]\ndsn = ""\n', "databases.d.dsn", None, "is empty"),
    ("[databases.d]\ndsn = 5\n", "databases.d.dsn", None, "must be text"),
    ('[databases.d]\ndsn_env = "NOPE"\n', "databases.d.dsn_env", "'NOPE'", "is not set: set it"),
    ('[databases.d]\ndsn_env = "HOME"\n', "databases.d.dsn_env", "'HOME'", "whose value must be postgresql://"),
    (f'[databases.d]\ndsn_env = "postgresql://u:{CANARY}@h/d"\n', "databases.d.dsn_env", None, "not a variable's name"),
    ('[databases.d]\ndsn_file = "./none"\n', "databases.d.dsn_file", "none", "there is no such file"),
    ('[databases.d]\ndsn_file = "./key"\n', "databases.d.dsn_file", "key", "whose content must be postgresql://"),
    (
        f'[databases.d]\ndsn_file = "postgresql://u:{CANARY}@h/d"\n',
        "databases.d.dsn_file",
        None,
        "path on this machine",
    ),
    (f'[databases.d]\npasword = "{CANARY}"\n', "databases.d.pasword", None, "is not a known key"),
    ('[databases.d]\nclone = "leg"\n', "databases.d.clone", "'leg'", "must be auto or template"),
    ("[databases.d]\nmax_connections = 0\n", "databases.d.max_connections", "0", "from 1 to 1,000"),
    ("[databases.d]\nkeep_snapshots = 0\n", "databases.d.keep_snapshots", "0", "from 1 to 1,000"),
    ('[databases.d]\nkeep_snapshots = "soon"\n', "databases.d.keep_snapshots", "soon", "or a number of snapshots"),
    ('[databases.d]\nkeep_snapshots = "1m"\n', "databases.d.keep_snapshots", "1m", "or a number of snapshots"),
    ('[databases.d]\nmasking = ["gone.sql"]\n', "databases.d.masking[0]", "gone.sql", "no such file"),
    ('[databases.d]\nrefresh = "restore"\n', "databases.d.refresh", "restore", "list"),
    ('[databases.d]\nowner = ""\n', "databases.d.owner", "''", "1 to 1,000 characters"),
    ('[pools.a]\nprovider = "k8s"\n', "pools.a.provider", "'k8s'", "must be local or ec2"),
    ('[pools.a]\nprovider = "ec2"\naccount = "123456789012"\n', "pools.a.region", None, "is required with provider"),
    ('[pools.a]\nprovider = "ec2"\nregion = "eu-west-1"\n', "pools.a.account", None, "is required with provider"),
    ('[pools.a]\nidle = "5m"\n', "pools.a.idle", None, 'is for pools with provider = "ec2"'),
    (EC2 + 'region = "Frankfurt"\n', "pools.a.region", "'Frankfurt'", "not a region's name"),
    (EC2 + "account = 123456789012\n", "pools.a.account", "123456789012", "must be text"),
    (EC2 + 'account = "1234"\n', "pools.a.account", "'1234'", "12 digits"),
    (EC2 + 'instances = ["web-1"]\n', "pools.a.instances[0]", "web-1", "not an instance's id"),
    (EC2 + "idle = 0\n", "pools.a.idle", "0", "write at once, never, or a duration from 1s on"),
    (EC2 + 'idle = "0s"\n', "pools.a.idle", "0s", "write at once, never, or a duration"),
    (EC2 + 'idle = "8d"\n', "pools.a.idle", "8d", "1s to 7d, at once, or never"),
    (EC2 + 'idle = "5m"\npolicy = "learned"\n', "pools.a.idle", None, 'not used with policy = "learned"'),
    (EC2 + 'policy = "clever"\n', "pools.a.policy", "'clever'", "must be fixed, break_even or learned"),
    (EC2 + 'prewarm = "at once"\n', "pools.a.prewarm", "at once", "or never"),
    (EC2 + 'maximum_run = "0"\n', "pools.a.maximum_run", "0", "write never, or a duration from 10m on"),
    (EC2 + "min_running = 2\n", "pools.a.min_running", None, "is more than max_running, which is 1"),
    (EC2 + "max_running = 0\n", "pools.a.max_running", "0", "from 1 to 1,000"),
    (
        EC2 + 'on_hours = ["workdays 8-18"]\n',
        "pools.a.on_hours[0]",
        "workdays 8-18",
        "write it as 'mon-fri 08:00-18:00'",
    ),
    (EC2 + 'on_hours = ["mon 10:00-24:30"]\n', "pools.a.on_hours[0]", "24:30", "is no time of a day"),
    (EC2 + 'off_hours = ["may 10:00-11:00"]\n', "pools.a.off_hours[0]", "10:00", "'may' is no day"),
    (EC2 + 'time_zone = "Mars/North"\non_hours = []\n', "pools.a.time_zone", "Mars/North", "no time zone"),
    (EC2 + 'time_zone = "UTC"\n', "pools.a.time_zone", None, "is for on_hours and off_hours"),
    (EC2 + "price_per_hour = -1\n", "pools.a.price_per_hour", "-1", "from 0 to 1,000"),
    (EC2 + 'price_per_hour = "cheap"\n', "pools.a.price_per_hour", "cheap", "from 0 to 1,000"),
    (EC2 + "price_per_hour = true\n", "pools.a.price_per_hour", "true", "from 0 to 1,000"),
    (EC2 + "price_per_hour = nan\n", "pools.a.price_per_hour", "nan", "from 0 to 1,000"),
    (EC2 + 'currency = "euro"\n', "pools.a.currency", "euro", "three capital letters"),
    (EC2 + 'launch_template = "a b"\n', "pools.a.launch_template", "a b", "not a launch template's"),
    (EC2 + 'types = ["m7i.large"]\n', "pools.a.types", None, "give launch_template too"),
    (EC2 + 'types = ["large"]\n', "pools.a.types[0]", "large", "not an instance type"),
    (EC2 + 'production_tags = ["prod"]\n', "pools.a.production_tags[0]", "prod", "must be a tag and its value"),
    (EC2 + 'grow_disk = "20t"\n', "pools.a.grow_disk", "20t", "1g to 16t"),
    (EC2 + 'grow_disk = "big"\n', "pools.a.grow_disk", "big", "is not a size"),
    ("[pools.a]\nslots = 0\n", "pools.a.slots", "0", "from 1 to 256"),
    ("[pools.a]\nslots = 257\n", "pools.a.slots", "257", "from 1 to 256"),
    ("[pools.a]\nslots = 2.0\n", "pools.a.slots", "2.0", "whole number"),
    ("[pools.a]\nslots = true\n", "pools.a.slots", "true", "whole number"),
    ("[pools.a]\nslot = 1\n", "pools.a.slot", None, "did you mean `slots`?"),
]


@pytest.mark.parametrize(
    ("text", "key", "value", "remedy"), BAD, ids=[f"{row[1][:40]}-{i}" for i, row in enumerate(BAD)]
)
def test_bad_input_is_named(here: Path, text: str, key: str, value: str | None, remedy: str) -> None:
    (here / "key").write_text("not a connection string")
    (here / "key").chmod(0o640)
    problem = refused(here, text)[key]
    assert remedy in problem.message
    assert problem.file == str(here / "seatrial.toml")
    if value is None:
        assert problem.value is None
    else:
        assert value in (problem.value or "")


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"[server\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1"),
        (b"[server]\nlisten = 1\nlisten = 2\n", "is not TOML: Cannot overwrite a value (at line 3"),
        (b"[server]\nlisten = \xff\n", "save it as UTF-8"),
        (b"x = " + b"[" * 100_000, "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(here: Path, content: bytes, remedy: str) -> None:
    file = here / "seatrial.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(None, HOME)
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(file), "(file)")
    assert remedy in problem.message


@pytest.mark.parametrize(("path", "environ"), [("none.toml", {}), (None, {"SEATRIAL_CONFIG": "none.toml"}), (".", {})])
def test_a_named_file_must_exist(here: Path, path: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="there is no such file: correct --config or SEATRIAL_CONFIG"):
        load_settings(Path(path) if path else None, {**HOME, **environ})


@pytest.mark.parametrize(
    ("environ", "value", "remedy"),
    [
        ({"SEATRIAL_SERVR__LISTEN": CANARY}, None, "did you mean `SEATRIAL_SERVER__LISTEN`?"),
        ({"SEATRIAL_SERVER__LISEN": CANARY}, None, "did you mean `SEATRIAL_SERVER__LISTEN`?"),
        ({"SEATRIAL_LISTEN": CANARY}, None, "settings are SEATRIAL_SERVER__KEY"),
        ({"SEATRIAL_": CANARY}, None, "is not a setting"),
        ({"SEATRIAL_SERVER": CANARY}, None, "is not a setting"),
        ({"SEATRIAL_SERVER__": CANARY}, None, "is not a setting"),
        ({"SEATRIAL_SERVER__LISTEN__X": CANARY}, None, "did you mean `SEATRIAL_SERVER__LISTEN`?"),
        ({"SEATRIAL_PROJECTS__A": CANARY}, None, "is not a setting"),
        ({"SEATRIAL_PROJECTS__A__CREDENTIALS": CANARY}, None, "`SEATRIAL_PROJECTS__A__CREDENTIALS__TOKEN_"),
        ({"SEATRIAL_PROJECTS__A__REPO": CANARY}, None, "did you mean `SEATRIAL_PROJECTS__A__"),
        ({"SEATRIAL_REDIS": CANARY}, None, "did you mean `SEATRIAL_REDIS_URL`?"),
        ({"SEATRIAL_SERVER__LISTEN": ""}, None, "is empty: give it a value or unset it"),
        ({"SEATRIAL_REDIS_URL": " "}, None, "is empty: give it a value or unset it"),
        ({"SEATRIAL_REDIS_URL": f"http://{CANARY}"}, None, "redis://"),
        ({"SEATRIAL_DATABASE_URL": f"mysql://{CANARY}"}, None, "postgresql://"),
        ({"SEATRIAL_POOLS__LOCAL__SLOTS": "many"}, "'many'", "whole number"),
        ({"SEATRIAL_POOLS__LOCAL__SLOTS": "1000"}, "1000", "from 1 to 256"),
        ({"SEATRIAL_SERVER__LISTEN": "0.0.0.0:80"}, "'0.0.0.0:80'", "no access control yet"),
        ({"SEATRIAL_SERVER__LEASE": "5"}, "'5'", "has no unit"),
        ({"SEATRIAL_PROJECTS__A__SUBMODULES": "yes"}, "'yes'", "true or false"),
    ],
)
def test_a_bad_variable_is_named(here: Path, environ: dict[str, str], value: str | None, remedy: str) -> None:
    (name,) = environ
    problem = refused(here, PROJECT, {**HOME, **environ})[name]
    assert remedy in problem.message
    assert (problem.file, problem.value) == ("environment", value)


def test_an_alias_that_says_another_thing_is_refused(here: Path) -> None:
    environ = {"SEATRIAL_REDIS_URL": f"redis://{CANARY}", "SEATRIAL_SERVER__REDIS_URL": "redis://other"}
    problem = refused(here, "", {**HOME, **environ})["SEATRIAL_SERVER__REDIS_URL"]
    assert "differs from SEATRIAL_REDIS_URL: keep one of them" in problem.message


def test_a_variable_inside_of_what_is_no_table_is_refused(here: Path) -> None:
    problems = refused(here, "pools = 3\n", {**HOME, "SEATRIAL_POOLS__A__SLOTS": "3"})
    assert "correct the file" in problems["SEATRIAL_POOLS__A__SLOTS"].message


def test_no_home_at_all_is_told(here: Path) -> None:
    assert "neither HOME nor XDG_DATA_HOME" in refused(here, "", {})["server.home"].message
    assert (
        "HOME is not set: write the whole path" in refused(here, '[server]\nhome = "~/x"\n', {})["server.home"].message
    )


def test_all_problems_are_told_at_once(here: Path) -> None:
    problems = refused(
        here,
        '[server]\nlisten = "0.0.0.0:1"\nhom = 1\n[projects.a]\npool = "x"\nsubmodules = 1\n'
        "[databases.d]\n[pools.p]\nslots = 0\n",
        {**HOME, "SEATRIAL_FOO": "1", "SEATRIAL_REDIS_URL": "x"},
    )
    assert set(problems) == {
        "SEATRIAL_FOO",
        "SEATRIAL_REDIS_URL",
        "server.listen",
        "server.hom",
        "projects.a.repository",
        "projects.a.pool",
        "projects.a.submodules",
        "databases.d",
        "pools.p.slots",
    }


_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner, max_size=2)
    ),
    max_leaves=4,
)
_KEYS = [
    "server",
    "server.listen",
    "server.home",
    "server.redis_url",
    "projects",
    "projects.a",
    "projects.a.repository",
]
_KEYS += [
    "projects.a.credentials",
    "databases",
    "databases.d",
    "databases.d.dsn_env",
    "pools",
    "pools.p",
    "pools.p.slots",
]


@given(st.sampled_from(_KEYS), _VALUES)
def test_any_value_of_any_key_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(f"{key} = {_toml(value)}\n")
    problems: tuple[SettingProblem, ...] | None = None
    try:
        load_settings(file, HOME)
    except SettingsError as error:
        problems = error.problems
    assert problems != ()


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


# ---- the documents -----------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    text = (DOCS / "configuration.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_documented_settings_are_right(here: Path) -> None:
    (example,) = blocks("toml")
    for name in ("specs/reports.yml", "keys/reports"):
        (here / name).parent.mkdir()
        (here / name).touch(mode=0o600)
    settings = load(here, example, {**HOME, "VERIFICATION_DSN": "postgresql://u@h/d"})
    assert list(settings.projects) == ["reports", "ledger"]
    assert jsonschema_rs.Draft202012Validator(settings_json_schema()).is_valid(tomllib.loads(example))


def test_the_documented_specs_are_right() -> None:
    examples = blocks("yaml")
    assert len(examples) == 2
    for example in examples:
        parse_spec(example, source="docs/configuration.md")


@pytest.mark.parametrize(
    "model",
    [
        *(Spec, Workspace, Build, Limits, Database, Timeouts, Compare, Rule, Latency),
        *(ServerSettings, ObjectsSettings, ProjectSettings, CredentialSettings, DatabaseSettings, PoolSettings),
    ],
)
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    assert [key for key in model.model_fields if f"\n| `{key}` |" not in text] in ([], ["limits"])


def test_the_published_schema_is_up_to_date() -> None:
    text = (DOCS / "settings.schema.json").read_text("utf-8")
    assert json.loads(text) == settings_json_schema(), "run `python docs/schemas.py`"


@pytest.mark.parametrize(
    "text",
    [
        "[sever]\n",
        "[server]\nlease = 5\n",
        "[projects.a]\n",
        "[databases.d]\n",
        '[databases.d]\ndsn = "x"\ndsn_env = "X"\n',
        PROJECT + "credentials = {}\n",
        "[pools.a]\nslots = 0\n",
    ],
)
def test_the_schema_refuses_what_is_wrong(text: str) -> None:
    content: dict[str, Any] = tomllib.loads(text)
    assert not jsonschema_rs.Draft202012Validator(settings_json_schema()).is_valid(content)
