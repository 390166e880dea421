"""How a Dockerfile is read and adapted; which image is taken; by the engine in memory."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest

from runner.adapters.docker_calls import pack_context
from runner.adapters.docker_engine import _reference
from runner.adapters.engine_memory import MemoryEngine
from runner.errors import Cancelled, ImageBuildFailed, ImageMissing, OutputRefused, TimedOut
from runner.images import BuildHost, _adapted, _bases, _instructions, acquire
from runner.spec import Spec, parse_spec

BUILD = "version: 1\nrun: 'true'\nworkspace: {build: {dockerfile: Dockerfile}}\n"


def spec(text: str = BUILD) -> Spec:
    return parse_spec(text, source="a test")


@pytest.fixture
def host(tmp_path: Path) -> BuildHost:
    (tmp_path / "ca.crt").write_text("certificates")
    return BuildHost(tmp_path / "ca.crt")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM base\nRUN exit 0\n")
    return made


def test_the_bundle_comes_after_each_from_and_nowhere_else(host: BuildHost) -> None:
    text = (
        "# syntax\nARG V=1\nFROM --platform=linux/amd64 \\\n  base:$V AS one\n"
        'RUN psql -c "SELECT * \\\n FROM accounts" \\\n# a comment\n && true\nFROM scratch\nFROM one\nUSER x\n'
    )
    lines = _adapted(text, host).splitlines()
    copies = [index for index, line in enumerate(lines) if line.startswith("COPY .seatrial-build/")]
    assert len(copies) == 2
    assert [lines[index - 1].split()[0] for index in copies] == ["base:$V", "FROM"]
    assert ' FROM accounts" \\' in lines
    assert lines[lines.index(' FROM accounts" \\') + 1] == "# a comment"
    assert lines[lines.index("FROM scratch") + 1] == "FROM one"


def test_without_a_bundle_the_dockerfile_stays_as_it_is() -> None:
    text = "FROM base\nRUN x \\\n  y\n\n# end\n"
    assert _adapted(text, BuildHost()) == text


@pytest.mark.parametrize("line", ["ARG HTTP_PROXY", "arg https_proxy=x", "ARG \\\n  no_proxy", "ARG ALL_PROXY=$X"])
def test_declared_proxies_are_left_out(line: str) -> None:
    assert _adapted(f"FROM base\n{line}\nARG PROXY_OF_MINE\n", BuildHost()) == "FROM base\nARG PROXY_OF_MINE\n"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("ENV KEPT=$HTTP_PROXY", 'ENV KEPT=""'),
        ("env http_proxy ${http_proxy:-x}", 'env http_proxy ""'),
        ("ARG MINE=$https_proxy", 'ARG MINE=""'),
        ("ENV MINE=$HTTP_PROXY_OF_MINE", "ENV MINE=$HTTP_PROXY_OF_MINE"),
        ("RUN pip --proxy $HTTP_PROXY install x", "RUN pip --proxy $HTTP_PROXY install x"),
        ("CMD echo $HTTP_PROXY", "CMD echo $HTTP_PROXY"),
    ],
)
def test_no_instruction_keeps_a_proxy(line: str, kept: str) -> None:
    assert _adapted(f"FROM base\n{line}\n", BuildHost()) == f"FROM base\n{kept}\n"


def test_another_escape_character() -> None:
    text = "# escape=`\nFROM base\nRUN dir c:\\\nRUN x `\n FROM y\n"
    assert list(_instructions(text)) == ["# escape=`", "FROM base", "RUN dir c:\\", "RUN x `\n FROM y"]


def test_bases_with_their_arguments_filled_in() -> None:
    text = "ARG V=3.11\nARG N\nFROM python:${V}\nFROM $N:1 AS x\nFROM scratch\n"
    assert _bases(text, {"N": "mine", "V": "3.12"}) == ["python:3.12", "mine:1"]


def test_reuse_by_content(tree: Path, host: BuildHost) -> None:
    engine = MemoryEngine({"base": "sha256:1"})
    log: list[bytes] = []
    image, how = acquire(engine, spec(), tree, host, log.append)
    assert how == "built"
    assert acquire(engine, spec(), tree, host, log.append) == (image, "reused")
    changes = (
        lambda: (tree / "Dockerfile").write_text("FROM base\nRUN exit 0 \n"),
        lambda: (tree / "new").write_text("1"),
        lambda: (tree / "new").chmod(0o755),
        lambda: (tree / "link").symlink_to("new"),
        lambda: engine.images.update(base="sha256:2"),
        lambda: (host.ca_bundle or tree).write_text("others"),
    )
    for change in changes:
        change()
        assert acquire(engine, spec(), tree, host, log.append)[1] == "built"
        assert acquire(engine, spec(), tree, host, log.append)[1] == "reused"


def test_named_images(tree: Path) -> None:
    engine = MemoryEngine({"here:1": "sha256:1"}, registry={"there:1": "sha256:2"})
    named = "version: 1\nrun: 'true'\nworkspace: {image: %s}\n"
    log: list[bytes] = []
    assert acquire(engine, spec(named % "here:1"), tree, BuildHost(), log.append)[1] == "present"
    assert acquire(engine, spec(named % "there:1"), tree, BuildHost(), log.append)[1] == "fetched"
    assert log == [b"fetching there:1\n"]
    with pytest.raises(ImageMissing, match="nowhere:1"):
        acquire(engine, spec(named % "nowhere:1"), tree, BuildHost(), log.append)


def test_what_a_build_cannot_use(tree: Path, tmp_path: Path) -> None:
    engine = MemoryEngine({"base": "sha256:1"})

    def refused(text: str, match: str) -> None:
        with pytest.raises(ImageBuildFailed, match=match):
            acquire(engine, spec(text), tree, BuildHost(), lambda _: None)

    refused(BUILD.replace("Dockerfile}", "none/Dockerfile}"), "has no none/Dockerfile")
    refused(BUILD.replace("Dockerfile}", "Dockerfile, context: none}"), "has no directory none")
    refused(BUILD.replace("Dockerfile}", "Dockerfile, context: Dockerfile}"), "not a directory of this tree")
    (tree / "up").symlink_to("..")
    refused(BUILD.replace("Dockerfile}", "up/Dockerfile}"), "symbolic link")
    refused(BUILD.replace("Dockerfile}", "Dockerfile, context: up/tree}"), "symbolic link")
    (tree / ".dockerignore").mkdir()
    refused(BUILD, "a directory")


def test_time_and_cancel_end_a_build(tree: Path) -> None:
    engine = MemoryEngine({"base": "sha256:1"})

    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        acquire(engine, spec(), tree, BuildHost(), lambda _: None, cancelled)
    short = spec(BUILD + "timeouts: {setup: 1s}\n").model_copy()
    object.__setattr__(short.timeouts, "setup", -1.0)
    with pytest.raises(TimedOut, match=r"timeouts\.setup"):
        acquire(engine, short, tree, BuildHost(), lambda _: None)


def test_a_line_that_waits_for_the_records_costs_a_build_no_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, ahead = time.monotonic, [0.0]
    monkeypatch.setattr("runner.images.time.monotonic", lambda: now() + ahead[0])

    def away(_: bytes) -> None:
        ahead[0] += 100.0

    short = spec(BUILD + "timeouts: {setup: 60s}\n")
    _, how = acquire(MemoryEngine({"base": "sha256:1"}), short, tree, BuildHost(), away)
    assert how == "built"
    assert ahead[0] > 60.0


def names(root: Path, extra: dict[str, bytes]) -> dict[str, bytes | str | None]:
    with pack_context(root, extra) as packed, tarfile.open(fileobj=io.BytesIO(packed.read())) as archive:
        found: dict[str, bytes | str | None] = {}
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = member.linkname if member.issym() else file.read() if file else None
        return found


def test_a_context_holds_links_as_links_and_what_is_not_ignored(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "kept").write_text("1")
    (root / "dir" / "left").write_text("2")
    (root / "link").symlink_to("/etc/passwd")
    (root / "etc").symlink_to("/etc")
    (root / ".seatrial-build").symlink_to("/etc")
    (root / ".dockerignore").write_text("# comment\n\ndir/left\n")
    found = names(root, {".seatrial-build/Dockerfile": b"FROM x"})
    assert found["dir/kept"] == b"1"
    assert "dir/left" not in found
    assert found["link"] == "/etc/passwd"
    assert found["etc"] == "/etc"
    assert not [name for name in found if name.startswith("etc/")]
    assert ".seatrial-build" not in found
    assert found[".seatrial-build/Dockerfile"] == b"FROM x"


def test_an_ignore_file_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").symlink_to("/etc/passwd")
    with pytest.raises(OutputRefused, match="symbolic link"):
        pack_context(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ruby", ("ruby", "latest")),
        ("ruby:3.3", ("ruby", "3.3")),
        ("host:5000/ruby", ("host:5000/ruby", "latest")),
        ("host:5000/ruby:3", ("host:5000/ruby", "3")),
        ("ruby@sha256:abc", ("ruby@sha256:abc", None)),
        ("host:1/ruby:3@sha256:abc", ("host:1/ruby:3@sha256:abc", None)),
    ],
)
def test_the_parts_of_an_images_name(name: str, expected: tuple[str, str | None]) -> None:
    assert _reference(name) == expected
