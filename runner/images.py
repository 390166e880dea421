"""Get the workspace's image: the one that is named, or one built from the commit's own files and kept by their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import ImageBuildFailed, OutputRefused, TimedOut
from runner.files import check_directory, open_inside
from runner.model import Image
from runner.ports import Engine
from runner.quantities import format_duration
from runner.spec import Build, Spec

# Where Debian, Ubuntu, Alpine and their images look for certificate authorities.
CA_IN_IMAGE = "/etc/ssl/certs/ca-certificates.crt"
_CA_IN_CONTEXT = ".seatrial-build/ca-certificates.crt"
# The names by which common clients find a bundle. ARGs, so that they hold while the image is built and not after.
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)
# Between words of an instruction: blanks, and line ends that are escaped.
_GAP = r"(?:[ \t]|[\\`][ \t]*\n)+"
_FROM = re.compile(rf"\s*FROM{_GAP}(?:--\S+{_GAP})*([^\s\\`]+)", re.IGNORECASE)
_ARG = re.compile(rf"\s*ARG{_GAP}(\w+)(?:=(\S*))?", re.IGNORECASE)
# The instructions in which the builder itself fills in variables, for good: ENV KEPT=$HTTP_PROXY would keep it.
_EXPANDED = re.compile(r"\s*(?:ENV|ARG|LABEL|COPY|ADD|WORKDIR|USER|VOLUME|EXPOSE|STOPSIGNAL)\b", re.IGNORECASE)
_PROXY_KEPT = re.compile(r"\$(?:\{(?:https?|ftp|no|all)_proxy\b[^}]*\}|(?:https?|ftp|no|all)_proxy\b)", re.IGNORECASE)
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*`", re.IGNORECASE)
_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
DOCKERFILE_BYTES = 1 << 20


@dataclass(frozen=True)
class BuildHost:
    """What a build takes from its host: the public CA bundle, and the proxy variables, which no layer keeps."""

    ca_bundle: Path | None = None
    proxies: dict[str, str] = field(default_factory=dict, repr=False)


def acquire(
    engine: Engine,
    spec: Spec,
    tree: Path,
    host: BuildHost,
    log: Callable[[bytes], None],
    check: Callable[[], None] = lambda: None,
) -> tuple[Image, str]:
    """Give the image and how it came: `present`, `fetched`, `reused` (built before) or `built`.

    `check` is called again and again and may raise to end the work. Raises ImageMissing, ImageBuildFailed, TimedOut.
    """
    build = spec.workspace.build
    if build is None:
        assert spec.workspace.image is not None
        found = engine.image(spec.workspace.image)
        if found is not None:
            return found, "present"
        log(f"fetching {spec.workspace.image}\n".encode())
        return engine.pull(spec.workspace.image, check=check), "fetched"
    context = _context(tree, build)
    dockerfile = _dockerfile(tree, build)
    tag = f"seatrial/build:{_key(engine, context, dockerfile, build, host)}"
    found = engine.image(tag)
    if found is not None:
        return found, "reused"
    extra = {".seatrial-build/Dockerfile": _adapted(dockerfile, host).encode()}
    if host.ca_bundle is not None:
        extra[_CA_IN_CONTEXT] = host.ca_bundle.read_bytes()
    told, in_time = _timed(spec.timeouts.setup, log, check)
    image = engine.build(
        context,
        dockerfile=".seatrial-build/Dockerfile",
        tag=tag,
        args=dict(build.args) | _proxies(host, log),
        log=told,
        extra=extra,
        memory=spec.workspace.limits.memory,
        check=in_time,
    )
    return image, "built"


def _timed(
    seconds: float, log: Callable[[bytes], None], check: Callable[[], None]
) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """Check the time too: a build is preparation, and has as long as a set-up command.

    Give the log and the check to build with. What a line waits for records that are away is not taken from its time.
    """
    end = time.monotonic() + seconds

    def told(data: bytes) -> None:
        nonlocal end
        began = time.monotonic()
        log(data)
        end += time.monotonic() - began

    def in_time() -> None:
        check()
        if time.monotonic() > end:
            raise TimedOut(f"The image was not built within {format_duration(seconds)} (timeouts.setup).")

    return told, in_time


def _context(tree: Path, build: Build) -> Path:
    """Give the directory that the build sees; a link on the way there could lead to the host's own files."""
    try:
        context = check_directory(tree, build.context)
        with contextlib.suppress(FileNotFoundError):
            open_inside(context, ".dockerignore").close()
    except FileNotFoundError:
        raise ImageBuildFailed(
            f"The commit has no directory {build.context}, which workspace.build.context names."
        ) from None
    except OutputRefused as error:
        raise ImageBuildFailed(f"workspace.build.context: {error.text}") from None
    return context


def _dockerfile(tree: Path, build: Build) -> str:
    try:
        with open_inside(tree, build.dockerfile) as file:
            return file.read(DOCKERFILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        raise ImageBuildFailed(
            f"The commit has no {build.dockerfile}, which workspace.build.dockerfile names."
        ) from None
    except OutputRefused as error:
        raise ImageBuildFailed(f"workspace.build.dockerfile: {error.text}") from None


def _proxies(host: BuildHost, log: Callable[[bytes], None]) -> dict[str, str]:
    """Give the proxy variables that a build may see. A RUN could keep what it sees, so none with a password."""
    given = {}
    for name, value in host.proxies.items():
        if "@" in value:
            log(f"seatrial: {name} holds credentials, so the build does not get it; offer a proxy without\n".encode())
        else:
            given[name] = value
    return given


def _instructions(dockerfile: str) -> Iterator[str]:
    """Give the Dockerfile's instructions, comments and blank lines, each with the lines that continue it."""
    escape = "`" if _ESCAPE.match(dockerfile) else "\\"
    held: list[str] = []
    for line in dockerfile.splitlines():
        held.append(line)
        comment = line.lstrip().startswith("#") or not line.strip()
        if (comment and len(held) > 1) or (not comment and line.rstrip().endswith(escape)):
            continue  # comments and blank lines do not end an instruction that goes on
        yield "\n".join(held)
        held = []
    if held:
        yield "\n".join(held)


def _adapted(dockerfile: str, host: BuildHost) -> str:
    """Put the host's CA bundle after each FROM: behind a proxy that re-signs TLS nothing could be fetched without.

    An ARG that names a proxy is left out: the engine knows these names by itself and keeps them out of the history
    unless they are declared. Where another instruction would keep a proxy in the image, it gets an empty text.
    """
    lines = []
    for instruction in _instructions(dockerfile):
        declared = _ARG.match(instruction)
        if declared and declared[1].upper() in _PROXY_NAMES:
            continue
        lines.append(_PROXY_KEPT.sub('""', instruction) if _EXPANDED.match(instruction) else instruction)
        found = _FROM.match(instruction)
        if host.ca_bundle is not None and found and found[1].lower() != "scratch":
            lines.append(f"COPY {_CA_IN_CONTEXT} {CA_IN_IMAGE}")
            lines += [f"ARG {name}={CA_IN_IMAGE}" for name in _CA_VARIABLES]
    return "\n".join(lines) + "\n"


def _key(engine: Engine, context: Path, dockerfile: str, build: Build, host: BuildHost) -> str:
    """Digest all that goes into the image: Dockerfile, arguments, context, and the base images by their ids."""
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    add(b"3", dockerfile.encode(), repr(sorted(build.args.items())).encode())
    if host.ca_bundle is not None:
        add(host.ca_bundle.read_bytes())
    for name in _bases(dockerfile, dict(build.args)):
        base = engine.image(name)
        add(name.encode(), (base.id if base else "").encode())
    for directory, directories, files in os.walk(context):
        directories.sort()
        for name in sorted(files):
            path = Path(directory) / name
            status = path.lstat()
            content = os.readlink(path).encode("utf-8", "surrogateescape") if path.is_symlink() else b""
            if stat.S_ISREG(status.st_mode):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
            relative = str(path.relative_to(context)).encode("utf-8", "surrogateescape")
            add(relative, str(status.st_mode & 0o170111).encode(), content)
    return digest.hexdigest()[:40]


def _bases(dockerfile: str, args: dict[str, str]) -> list[str]:
    """Name the images that the Dockerfile starts from, its ARGs filled in."""
    known: dict[str, str] = {}
    found = []
    for line in _instructions(dockerfile):
        if argument := _ARG.match(line):
            known[argument[1]] = args.get(argument[1], argument[2] or "")
        elif base := _FROM.match(line):
            name = re.sub(r"\$\{?(\w+)\}?", lambda m: known.get(m[1], ""), base[1])
            if name and name.lower() != "scratch":
                found.append(name)
    return found
