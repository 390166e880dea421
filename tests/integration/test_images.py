"""The images hold what is promised, and nothing of the host that made them."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = "seatrial/base:bookworm"
GATEWAY = "seatrial/gateway:1"
GATEWAY_PACKAGES = "seatrial/gateway-packages:bookworm"
IMAGES = [BASE, GATEWAY, GATEWAY_PACKAGES]


def run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=check, timeout=300, env={**os.environ, **environment}
    )


def inside(image: str, script: str, *options: str) -> str:
    """Run a script in a sealed container as a workspace is run, and return what it printed."""
    return run(
        "docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--tmpfs=/tmp",
        "--security-opt=no-new-privileges", "--init", "--entrypoint=sh", *options, image, "-euc", script,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    run(str(ROOT / "docker/base-image.sh"))
    run(str(ROOT / "docker/gateway-image.sh"))


def test_base_speaks_to_postgres_in_python_and_ruby() -> None:
    printed = inside(
        BASE,
        "python3 -c 'import sys, psycopg2; print(sys.version_info >= (3, 11), psycopg2.__version__)';"
        "ruby -e 'require \"pg\"; puts PG::VERSION'; rake --version; psql --version; pg_dump --version;"
        "git --version; test -s /etc/ssl/certs/ca-certificates.crt",
        "--user=10001:10001",
    )
    for expected in (
        r"^True 2\.",
        r"^\d+\.\d+\.\d+$",
        r"^rake, version",
        r"^psql ",
        r"^pg_dump ",
        r"^git version",
    ):
        assert re.search(expected, printed, re.MULTILINE), (expected, printed)


def test_base_has_utf8_in_every_language() -> None:
    printed = inside(
        BASE,
        "locale charmap; python3 -c 'import sys; print(sys.getfilesystemencoding())';"
        "ruby -e 'puts Encoding.default_external'; printf 'g\\303\\266\\n' | sed 's/[^a-z]/?/g'",
    )
    # sed sees one character, not two bytes
    assert printed.split() == ["UTF-8", "utf-8", "UTF-8", "g?"]


def test_base_can_make_a_virtual_environment_with_pip() -> None:
    printed = inside(BASE, "python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version", "--user=10001:10001",
                     "--tmpfs=/tmp:exec,mode=1777", "--env=HOME=/tmp")  # fmt: skip
    assert printed.startswith("pip ")


def test_gateway_runs_as_a_uid_that_is_neither_roots_nor_a_workspaces() -> None:
    assert inside(GATEWAY, "id -u; id -g; id -un").split() == ["10101", "10101", "seatgate"]


def test_gateway_has_pgbouncer_and_socat() -> None:
    printed = run("docker", "run", "--rm", "--network=none", GATEWAY, "check").stdout
    assert re.search(r"^PgBouncer 1\.", printed, re.MULTILINE), printed
    assert re.search(r"^socat version 1\.", printed, re.MULTILINE), printed


def test_gateway_without_a_configuration_says_what_to_mount() -> None:
    result = run("docker", "run", "--rm", "--network=none", GATEWAY, check=False)
    assert result.returncode == 78
    assert "cannot read /etc/seatgate/pgbouncer.ini as uid 10101" in result.stderr


def test_gateway_names_a_mode_that_it_does_not_know() -> None:
    result = run("docker", "run", "--rm", "--network=none", GATEWAY, "shell", check=False)
    assert result.returncode == 64
    assert "unknown mode 'shell'" in result.stderr


def test_relay_carries_tcp_to_a_socket_inside_one_namespace(tmp_path: Path) -> None:
    """A workspace without a network reaches the socket at 127.0.0.1:5432, and no other address is bound."""
    tmp_path.chmod(0o777)
    names = {role: f"seatrial-test-{role}-{secrets.token_hex(4)}" for role in ("pause", "echo", "relay")}
    run("docker", "run", "-d", "--network=none", "--init", f"--name={names['pause']}", GATEWAY, "pause")
    try:
        shared = (
            "docker",
            "run",
            "-d",
            "--init",
            f"--network=container:{names['pause']}",
            f"-v{tmp_path}:/seatrial/db",
        )
        run(*shared, f"--name={names['echo']}", "--entrypoint=socat", GATEWAY,
            "UNIX-LISTEN:/seatrial/db/.s.PGSQL.5432,fork,mode=777", "EXEC:cat")  # fmt: skip
        run(*shared, f"--name={names['relay']}", GATEWAY, "relay")
        ask = (
            "import socket, time\n"
            "for _ in range(600):\n"
            "    try: s = socket.create_connection(('127.0.0.1', 5432)); break\n"
            "    except OSError: time.sleep(0.1)\n"
            "s.sendall(b'hello'); print(s.recv(5).decode())\n"
            "print(open('/proc/net/tcp').read().count(':1538 00000000:0000 0A'))\n"
            "print('0100007F:1538 00000000:0000 0A' in open('/proc/net/tcp').read())\n"
        )
        answer = run("docker", "run", "--rm", f"--network=container:{names['pause']}", BASE, "python3", "-c", ask)
        assert answer.stdout.split() == ["hello", "1", "True"]
    finally:
        run("docker", "rm", "-f", *names.values(), check=False)


@pytest.mark.parametrize("image", IMAGES)
def test_image_carries_no_proxy_credential_or_mirror(image: str) -> None:
    config = json.loads(run("docker", "image", "inspect", "--format={{json .Config}}", image).stdout)
    names = {entry.partition("=")[0] for entry in config["Env"]}
    assert names == {"LANG", "PATH"}

    history = run("docker", "image", "history", "--no-trunc", "--format={{.CreatedBy}} {{.Comment}}", image).stdout
    assert not re.search(r"proxy|passw|token|secret|://", history, re.IGNORECASE), history

    settings = inside(image, "cat /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/* "
                             "/etc/pip.conf /etc/environment 2>/dev/null || true", "--user=0")  # fmt: skip
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s\"]+", settings)}
    assert hosts == {"deb.debian.org"}
    assert not re.search(r"proxy", settings, re.IGNORECASE), settings


@pytest.mark.parametrize("image", IMAGES)
def test_image_trusts_debians_certificate_authorities_only(image: str) -> None:
    added = inside(image, "find /usr/local/share/ca-certificates -type f 2>/dev/null || true", "--user=0")
    assert added == ""


def test_image_leaves_out_documentation_and_package_lists() -> None:
    found = inside(
        BASE,
        "find /usr/share/man /usr/share/locale /usr/share/ri /var/lib/apt/lists /var/cache/apt"
        " -type f ! -name lock 2>/dev/null | head; true",
        "--user=0",
    )
    assert found == ""
    assert "copyright" in inside(BASE, "ls /usr/share/doc/ruby")


def test_the_second_make_images_does_nothing_and_is_quick() -> None:
    before = [run("docker", "image", "inspect", "--format={{.Id}}", image).stdout for image in IMAGES]
    printed = run(str(ROOT / "docker/base-image.sh")).stdout + run(str(ROOT / "docker/gateway-image.sh")).stdout
    assert printed.count("is up to date") == 3
    assert [run("docker", "image", "inspect", "--format={{.Id}}", image).stdout for image in IMAGES] == before


def test_engine_script_leaves_an_engine_that_answers_alone() -> None:
    printed = run(str(ROOT / "docker/engine.sh")).stdout
    assert printed.splitlines() == ["engine: a Docker engine answers; nothing to do"]


def test_engine_script_does_not_start_an_engine_beside_a_named_one(tmp_path: Path) -> None:
    result = run(str(ROOT / "docker/engine.sh"), check=False, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert result.returncode == 1
    assert "DOCKER_HOST" in result.stderr
    assert "unset DOCKER_HOST" in result.stderr
