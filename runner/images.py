"""Get the workspace's image: the one that is named, or one built from the commit's own files and kept by their content."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import ImageBuildFailed
from runner.files import open_inside
from runner.model import Image
from runner.ports import Engine
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
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE)
DOCKERFILE_BYTES = 1 << 20


@dataclass(frozen=True)
class BuildHost:
    """What a build takes from its host: the public CA bundle, and the proxy variables, which no layer keeps."""

    ca_bundle: Path | None = None
    proxies: dict[str, str] = field(default_factory=dict, repr=False)


def acquire(engine: Engine, spec: Spec, tree: Path, host: BuildHost, log: Callable[[bytes], None]) -> tuple[Image, str]:
    """Give the image and how it came: `present`, `fetched`, `reused` (built before) or `built`."""
    build = spec.workspace.build
    if build is None:
        assert spec.workspace.image is not None
        found = engine.image(spec.workspace.image)
        if found is not None:
            return found, "present"
        log(f"fetching {spec.workspace.image}\n".encode())
        return engine.pull(spec.workspace.image), "fetched"
    context = tree if build.context == "." else tree / build.context
    dockerfile = _dockerfile(tree, build)
    tag = f"seatrial/build:{_key(engine, context, dockerfile, build, host)}"
    found = engine.image(tag)
    if found is not None:
        return found, "reused"
    extra = {".seatrial-build/Dockerfile": _with_ca(dockerfile, host).encode()}
    if host.ca_bundle is not None:
        extra[_CA_IN_CONTEXT] = host.ca_bundle.read_bytes()
    image = engine.build(
        context,
        dockerfile=".seatrial-build/Dockerfile",
        tag=tag,
        args=dict(build.args) | host.proxies,
        log=log,
        extra=extra,
    )
    return image, "built"


def _dockerfile(tree: Path, build: Build) -> str:
    try:
        with open_inside(tree, build.dockerfile) as file:
            return file.read(DOCKERFILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        raise ImageBuildFailed(
            f"The commit has no {build.dockerfile}, which workspace.build.dockerfile names."
        ) from None


def _with_ca(dockerfile: str, host: BuildHost) -> str:
    """Put the host's CA bundle after each FROM: behind a proxy that re-signs TLS nothing could be fetched without."""
    if host.ca_bundle is None:
        return dockerfile
    lines = []
    for line in dockerfile.splitlines():
        lines.append(line)
        found = _FROM.match(line)
        if found and found[1].lower() != "scratch":
            lines.append(f"COPY {_CA_IN_CONTEXT} {CA_IN_IMAGE}")
            lines += [f"ARG {name}={CA_IN_IMAGE}" for name in _CA_VARIABLES]
    return "\n".join(lines) + "\n"


def _key(engine: Engine, context: Path, dockerfile: str, build: Build, host: BuildHost) -> str:
    """Digest all that goes into the image: Dockerfile, arguments, context, and the base images by their ids."""
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    add(b"1", dockerfile.encode(), repr(sorted(build.args.items())).encode())
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
    for line in dockerfile.splitlines():
        if argument := _ARG.match(line):
            known[argument[1]] = args.get(argument[1], argument[2] or "")
        elif base := _FROM.match(line):
            name = re.sub(r"\$\{?(\w+)\}?", lambda m: known.get(m[1], ""), base[1])
            if name and name.lower() != "scratch":
                found.append(name)
    return found
