"""The server's settings as frozen values: server, objects, projects, databases, pools. Reads no environment by itself."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from jobs.dsn import check_certificates, check_dsn
from jobs.pool_settings import PoolSettings
from jobs.settings_table import Table
from runner.room import Reserve
from runner.spec_fields import DurationBetween, Name, Text, Variable

DEFAULT_POOL = "local"


@dataclass(frozen=True)
class Surroundings:
    """What validation looks at beside the file: where relative paths begin, and the environment."""

    base: Path
    environ: Mapping[str, str] = field(repr=False)


def _surroundings(info: ValidationInfo) -> Surroundings:
    return info.context if isinstance(info.context, Surroundings) else Surroundings(Path.cwd(), {})


# ---- kinds of value ----------------------------------------------------------------------------------------


def absolute_path(value: object, around: Surroundings) -> Path:
    """Read a path: `~` is HOME, and a relative one begins at the settings file; raises ValueError."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("must be a path: absolute, or relative to the settings file")
    if "://" in value:
        raise ValueError('must be a path on this machine; objects go to S3 by [objects] url = "s3://bucket/prefix"')
    if value == "~" or value.startswith("~/"):
        home = around.environ.get("HOME")
        if not home:
            raise ValueError("begins with ~, and HOME is not set: write the whole path")
        return Path(home) / value[2:]
    return around.base / value


def _path(value: object, info: ValidationInfo) -> Path:
    return value if isinstance(value, Path) else absolute_path(value, _surroundings(info))


def _file(path: Path) -> Path:
    try:
        if not path.is_file():
            raise ValueError("there is no such file: make it, or correct the path")
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; change its owner or mode") from None


def _directory(path: Path) -> Path:
    try:
        if path.is_dir():
            return path
    except OSError as error:
        raise ValueError(f"cannot be looked at: {error.strerror}; change its owner or mode") from None
    raise ValueError("there is no such directory: correct the path")


def _private_file(path: Path) -> Path:
    if path.stat().st_mode & 0o077:
        raise ValueError("can be read by others, so that ssh will not use it: chmod 600 it")
    return path


def _environment_name(text: str, info: ValidationInfo) -> str:
    if not _surroundings(info).environ.get(text):
        raise ValueError("names an environment variable that is not set: set it, or correct the name")
    return text


def _dsn(text: str) -> str:
    return check_certificates(check_dsn(text))


def _dsn_variable(text: str, info: ValidationInfo) -> str:
    try:
        _dsn(_surroundings(info).environ[text])
    except ValueError as error:
        raise ValueError(f"names an environment variable whose value {error}") from None
    return text


def _dsn_content(path: Path) -> Path:
    try:
        _dsn(path.read_text("utf-8").strip())
    except UnicodeDecodeError:
        raise ValueError("names a file that is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"names a file whose content {error}") from None
    return path


def _listen(text: str) -> str:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", text)
    if match is None or not 1 <= int(match[3]) <= 65_535:
        raise ValueError("must be an address and a port from 1 to 65535: 127.0.0.1:8321")
    host = match[1] or match[2]
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            "is not a loopback address, and there is no access control yet: everyone who reaches it could run "
            "commands; listen on 127.0.0.1 and forward the port (ssh -L)"
        )
    return text


def _database_url(text: str, info: ValidationInfo) -> str:
    if text.startswith("sqlite:///") and len(text) > len("sqlite:///") and ":memory:" not in text:
        return f"sqlite:///{_surroundings(info).base / text.removeprefix('sqlite:///')}"
    if re.match(r"postgresql(\+psycopg)?://.", text):
        return text
    raise ValueError("must begin with sqlite:///PATH, postgresql:// or postgresql+psycopg://")


def _redis_url(text: str) -> str:
    if not re.match(r"(redis|rediss|unix)://.", text):
        raise ValueError("must begin with redis://, rediss:// or unix://; leave it out for the embedded Valkey")
    return text


def _reserve(text: str) -> str:
    Reserve.parse(text)
    return text


def _docker_url(text: str) -> str:
    if not re.fullmatch(r"unix:///[^\s?#]+", text):
        raise ValueError(
            "must be unix:///PATH: the engine mounts directories of this machine, so it runs on it; one of another "
            "machine gets workers of its own there"
        )
    return text


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError("must be 1 to 63 letters, digits, `_`, `.` or `-`, a letter or digit first")
    return text


_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_PREFIX = r"(?:/[A-Za-z0-9!_.*'()-]+)*"


def _objects_url(text: str) -> str:
    match = re.fullmatch(rf"s3://{_BUCKET}({_PREFIX})/?", text)
    if "@" in text or "?" in text:
        raise ValueError(f"holds more than bucket and prefix: {_NO_AWS_KEYS}")
    if match is None or any(part in (".", "..") for part in match[1].split("/")):
        raise ValueError("must be s3://bucket or s3://bucket/prefix; a directory is server.object_store")
    return text.rstrip("/")


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        bare = parts.hostname and parts.path in ("", "/") and not (parts.query or parts.fragment)
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        bare = None
    if not bare or parts.scheme not in ("https", "http") or re.search(r"[\s\x00-\x1f]", text):
        raise ValueError("must be https://host or https://host:port, of a store that speaks S3")
    if "@" in parts.netloc:
        raise ValueError(f"holds a user name or password: {_NO_AWS_KEYS}")
    return text.rstrip("/")


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,40}", text):
        raise ValueError("is not a region's name, such as eu-central-1")
    return text


_NO_AWS_KEYS = (
    "credentials are found as every AWS client finds them (instance role, AWS_PROFILE, ~/.aws, AWS_ACCESS_KEY_ID)"
)
_CREDENTIALS = "leave it out and give credentials = {token_file = …}, {token_env = …} or {ssh_key_file = …}"


def _repository(text: str) -> str:
    """Check a repository's address: nothing that git could take for an option, a helper or a credential."""
    if not text or len(text) > 2_000 or re.search(r"[\s\x00-\x1f\x7f]", unquote(text)):
        raise ValueError("must be an address of 1 to 2,000 characters without white space")
    if text.startswith("-"):
        raise ValueError("begins with `-`, which git would take for an option: write a URL or an absolute path")
    if text.startswith("/"):
        return text
    if re.match(r"[^/]*:[^/]*@", text):
        raise ValueError(f"holds a password: {_CREDENTIALS}")
    if "::" in text.split("/", 1)[0]:
        raise ValueError("names a git remote helper, which runs commands: use https://, ssh:// or a path")
    if "://" in text:
        return _repository_url(text)
    if match := re.fullmatch(r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(.+)", text):
        if match[1].startswith("-"):
            raise ValueError("has a path that begins with `-`: write it as ssh://host/path")
        return text
    raise ValueError("must be https://, ssh:// or file:// URL, git@host:path, or an absolute path")


def _repository_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if port is None and parts.netloc.endswith(":"):
            raise ValueError
    except ValueError:
        raise ValueError("is not a URL: write https://host/path or ssh://git@host/path") from None
    if parts.scheme not in ("https", "ssh", "file"):
        raise ValueError("has a scheme that is not allowed: use https, ssh or file")
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise ValueError(f"holds a user name or password: {_CREDENTIALS}")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or #: leave out what follows it")
    if (parts.username or "").startswith("-") or host.startswith("-"):
        raise ValueError("has a host or user that begins with `-`, which ssh would take for an option")
    if parts.scheme == "file" and (host or not parts.path.startswith("/")):
        raise ValueError("must name an absolute path: file:///srv/git/app.git")
    if parts.scheme != "file" and (not host or not parts.path.strip("/")):
        raise ValueError("must name a host and a path: https://host/path")
    return text


def _ref(text: str) -> str:
    if text.startswith("-") or re.search(r"[\s\x00-\x1f\x7f~^:?*\[\\]|\.\.|@\{", text):
        raise ValueError("is not the name of a branch, tag or commit")
    return text


_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,24}")


def _source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ValueError(
            "is not a database's name: it is part of the names of clones, so a lower-case letter and up to 24 letters, "
            "digits or `_`"
        )
    return text


@dataclass(frozen=True)
class KeptFrom:
    """For how long something is kept, in seconds: a duration of at least `low`, or `forever`, which is None."""

    low: str

    def read(self, value: Any) -> float | None:
        if value == "forever":
            return None
        try:
            return DurationBetween(self.low, "3650d").read(value)
        except ValueError as error:
            raise ValueError(f"{error}, or forever") from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(
            lambda seconds: "forever" if seconds is None else f"{seconds:.0f}s"
        )
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        written = DurationBetween(self.low, "3650d").__get_pydantic_json_schema__(schema, handler)
        return written | {"pattern": f"^forever$|{written['pattern']}"}


# Longer than an image stays that nobody uses (jobs.keeping): without its runs it would not be known as ours.
KeptRuns = Annotated[float | None, KeptFrom("35d")]
KeptOutputs = Annotated[float | None, KeptFrom("1h")]
# An object goes a day after it was stored at the earliest.
KeptAtLeast = Annotated[float | None, KeptFrom("1d")]


@dataclass(frozen=True)
class KeptSnapshots:
    """Which snapshots of a source stay: so many of the newest, those of so many seconds, or (both None) all."""

    count: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class _KeptSnapshots(KeptFrom):
    """A number, or what KeptFrom reads."""

    def read(self, value: Any) -> Any:
        if isinstance(value, KeptSnapshots):
            return value
        if isinstance(value, str) and value.isdecimal() and value.isascii():
            value = int(value[:9])  # from the environment, where all is text
        if type(value) is int:
            if not 1 <= value <= SNAPSHOTS_MOST:
                raise ValueError(f"is not a number from 1 to {SNAPSHOTS_MOST:,}")
            return KeptSnapshots(count=value)
        try:
            return KeptSnapshots(seconds=super().read(value))
        except ValueError as error:
            raise ValueError(f"{error}, or a number of snapshots") from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 1, "maximum": SNAPSHOTS_MOST}
        return {"anyOf": [number, super().__get_pydantic_json_schema__(schema, handler)]}


def _written(kept: KeptSnapshots) -> int | str:
    return kept.count or ("forever" if kept.seconds is None else f"{kept.seconds:.0f}s")


SNAPSHOTS_MOST = 1_000
SourceName = Annotated[
    str, AfterValidator(_source), WithJsonSchema({"type": "string", "pattern": f"^{_SOURCE.pattern}$"})
]
_PATH_SCHEMA = WithJsonSchema({"type": "string", "minLength": 1})
AnyPath = Annotated[Path, BeforeValidator(_path), _PATH_SCHEMA]
FilePath = Annotated[Path, AfterValidator(_file), BeforeValidator(_path), _PATH_SCHEMA]
SetVariable = Annotated[Variable, AfterValidator(_environment_name)]


# ---- tables ------------------------------------------------------------------------------------------------


class ServerSettings(Table):
    """This server and where it keeps its things."""

    listen: Annotated[str, AfterValidator(_listen)] = Field("127.0.0.1:8321", description="loopback address and port")
    home: AnyPath = Field(description="directory of the server's own files")
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        repr=False, description="the store: sqlite:///PATH or postgresql://…"
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None, repr=False, description="Redis or Valkey; left out: an embedded Valkey"
    )
    object_store: AnyPath = Field(description="directory of outputs and logs, where there is no [objects]")
    lease: Annotated[float, DurationBetween("1s", "10m")] = Field(
        5.0, description="how long a silent worker keeps its task"
    )
    postgres_bin: Annotated[AnyPath, AfterValidator(_directory)] | None = Field(
        None, description="directory of PostgreSQL's programs; left out: those of the embedded one"
    )
    host_name: Annotated[str, AfterValidator(_host_name)] | None = Field(
        None, description="the name that this machine's workers go by, another on each; left out: its own"
    )
    docker_url: Annotated[str, AfterValidator(_docker_url)] = Field(
        "unix:///var/run/docker.sock", description="this machine's Docker engine: unix:///PATH"
    )
    disk_reserve: Annotated[str, AfterValidator(_reserve)] = Field(
        "1g", description="a host with less free disk takes no new work: a size or a share, 1g or 5%; 0: no floor"
    )
    inode_reserve: Annotated[str, AfterValidator(_reserve)] = Field(
        "1%", description="the same of the files that can be made: a number or a share, 20000 or 1%; 0: no floor"
    )
    keep_outputs: KeptOutputs = Field(
        90 * 86_400.0,
        description="how long outputs and log of a run stay after its end, 1h to 3650d, or forever",
        json_schema_extra={"default": "90d"},
    )
    keep_outputs_at_least: KeptAtLeast = Field(
        None,
        description="where the disk of a local object store runs short, outputs of runs that ended so long ago may go "
        "before keep_outputs, 1d to 3650d; left out: none do",
    )
    keep_runs: KeptRuns = Field(
        None, description="how long a run itself stays after its end, 35d to 3650d; left out: forever"
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Give the address for a browser on this machine."""
        return f"http://{self.listen}"

    @property
    def secret_key_file(self) -> Path:
        """Give the file that holds the key of sessions and forms, made at the first start with mode 0600."""
        return self.home / "secret_key"

    @property
    def valkey_socket(self) -> Path:
        """Give the path of the embedded Valkey's socket; only this user can open it."""
        return self.home / "valkey" / "valkey.sock"


class ObjectsSettings(Table):
    """Outputs and logs on S3, or on a store that speaks it; every host of an installation has the same."""

    url: Annotated[str, AfterValidator(_objects_url)] = Field(description="s3://bucket or s3://bucket/prefix")
    region: Annotated[str, AfterValidator(_region)] | None = Field(
        None, description="the bucket's region; left out: the one that AWS clients find"
    )
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="https://host:port of another store that speaks S3"
    )

    @property
    def bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """Give what all keys begin with: empty, or text that ends with a slash."""
        prefix = self.url.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/" if prefix else ""


class CredentialSettings(Table):
    """How to reach a private repository; exactly one key."""

    ssh_key_file: Annotated[FilePath, AfterValidator(_private_file)] | None = Field(
        None, description="private key for ssh"
    )
    token_file: FilePath | None = Field(None, description="file that holds a token for https")
    token_env: SetVariable | None = Field(None, description="environment variable that holds a token for https")

    def resolve_token(self, environ: Mapping[str, str]) -> str | None:
        """Give the token as it stands now, or None for an ssh key; raises OSError, KeyError."""
        if self.token_file is not None:
            return self.token_file.read_text("utf-8").strip()
        return environ[self.token_env] if self.token_env is not None else None


class ProjectSettings(Table):
    """A repository and its defaults."""

    repository: Annotated[str, AfterValidator(_repository)] = Field(
        description="https://, ssh:// or file:// URL, git@host:path, or absolute path"
    )
    default_baseline: Annotated[Text, AfterValidator(_ref)] | None = Field(
        None, description="ref that compare runs start from"
    )
    spec: FilePath | None = Field(None, description="a seatrial.yml for commits that have none")
    pool: Name = Field(DEFAULT_POOL, description="the pool that does its work")
    database: Name | None = Field(None, description="takes the place of the spec's database.source")
    submodules: bool = Field(False, description="whether submodules are checked out")
    keep_outputs: KeptOutputs = Field(None, description="takes the place of server.keep_outputs")
    keep_runs: KeptRuns = Field(None, description="takes the place of server.keep_runs")
    credentials: CredentialSettings | None = Field(None, description="ssh_key_file, token_file or token_env")


class DatabaseSettings(Table):
    """A verification database; exactly one of dsn, dsn_env and dsn_file says where it is."""

    dsn: Annotated[str, AfterValidator(_dsn)] | None = Field(
        None, repr=False, description="postgresql://user:password@host/database"
    )
    dsn_env: Annotated[SetVariable, AfterValidator(_dsn_variable)] | None = Field(
        None, description="environment variable that holds the dsn"
    )
    dsn_file: Annotated[FilePath, AfterValidator(_dsn_content)] | None = Field(
        None, description="file that holds the dsn"
    )
    clone: Literal["auto", "template"] = Field("auto", description="how clones are made")
    owner: Text | None = Field(None, description="the application's owner role; left out: the owner of most tables")
    max_connections: int = Field(20, ge=1, le=1_000, description="connections to one clone (default 20)")
    keep_snapshots: Annotated[KeptSnapshots, _KeptSnapshots("1h")] = Field(
        KeptSnapshots(),
        description="which snapshots stay: a number of the newest, an age such as 30d, or forever (default)",
        json_schema_extra={"default": "forever"},
    )
    refresh: tuple[Text, ...] = Field((), description="commands that replace the source's data, run by `db refresh`")
    masking: tuple[FilePath, ...] = Field((), description="SQL files that `db refresh` runs in the source afterwards")

    def resolve_dsn(self, environ: Mapping[str, str]) -> str:
        """Give the connection string as it stands now; raises OSError, KeyError, ValueError (which never tell it)."""
        if self.dsn_file is not None:
            return check_dsn(self.dsn_file.read_text("utf-8").strip())
        return check_dsn(environ[self.dsn_env] if self.dsn_env is not None else self.dsn or "")


class Settings(Table):
    """All that the server is told."""

    server: ServerSettings = Field(description="this server")
    objects: ObjectsSettings | None = Field(None, description="outputs and logs on S3; left out: server.object_store")
    projects: dict[Name, ProjectSettings] = Field({}, description="repositories by name")
    databases: dict[SourceName, DatabaseSettings] = Field({}, description="verification databases by name")
    pools: dict[Name, PoolSettings] = Field({DEFAULT_POOL: PoolSettings()}, description="worker pools by name")
