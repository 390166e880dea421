"""Read seatrial.toml and the environment into frozen settings: the only reader of both.

Each setting can come from the file or from `SEATRIAL_SECTION__KEY`, which wins. All problems are reported at once,
and no value that could be a secret is repeated in a message.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_origin

from pydantic import ValidationError

from jobs.pool_settings import PoolSettings, pool_conflicts
from jobs.settings_model import (
    DEFAULT_POOL,
    CredentialSettings,
    DatabaseSettings,
    ObjectsSettings,
    ProjectSettings,
    ServerSettings,
    Settings,
    Surroundings,
    absolute_path,
)
from runner.errors import Problem, SeatrialError
from runner.spec_fields import tidy_schema
from runner.spec_problems import annotation_at, field_at, model_at, problems_of, shown
from runner.spec_yaml import Steps, dotted, shortened

__all__ = [
    "CONTRACT_VARIABLES",
    "CredentialSettings",
    "DatabaseSettings",
    "ObjectsSettings",
    "PoolSettings",
    "ProjectSettings",
    "ServerSettings",
    "SettingProblem",
    "Settings",
    "SettingsError",
    "find_settings_file",
    "load_server",
    "load_settings",
    "server_from_process",
    "settings_from_process",
    "settings_json_schema",
]

PREFIX = "SEATRIAL_"
ALIASES: dict[str, Steps] = {
    "SEATRIAL_DATABASE_URL": ("server", "database_url"),
    "SEATRIAL_REDIS_URL": ("server", "redis_url"),
}
# What a workspace is told (docs/workspace-contract.md): set in the environment, they are no settings.
CONTRACT_VARIABLES = frozenset(
    PREFIX + name for name in ("RUN", "LEG", "COMMIT", "ATTEMPT", "UNITS", "OUTPUT", "CHECKPOINT", "RESUME_FROM")
)
_SECRETS = {"dsn", "database_url", "redis_url"}
_EXCLUSIVE = {"databases": ("dsn", "dsn_env", "dsn_file"), "credentials": ("ssh_key_file", "token_file", "token_env")}


@dataclass(frozen=True)
class SettingProblem(Problem):
    """One thing that is wrong with the settings; `file` is the file's path or `environment`."""

    file: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {super().__str__()}"


class SettingsError(SeatrialError):
    """The settings are not valid."""

    code: ClassVar[str] = "settings_invalid"

    def __init__(self, problems: tuple[SettingProblem, ...]) -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"The settings are not valid:\n{lines}")
        self.problems = problems


def settings_from_process(path: Path | None = None) -> Settings:
    """Load the settings of this process; raises SettingsError."""
    return load_settings(path, os.environ)


def server_from_process(path: Path | None = None) -> ServerSettings:
    """Load the section [server] for this process; raises SettingsError."""
    return load_server(path, os.environ)


def has_settings_file(path: Path | None = None) -> bool:
    """Tell whether this process finds a settings file: the one that `path` or SEATRIAL_CONFIG names, or ./seatrial.toml."""
    return find_settings_file(path, os.environ) is not None


def host_environment() -> Mapping[str, str]:
    """Give this process' environment, for secrets that the settings name and for a build's proxies."""
    return os.environ


def find_settings_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Give the settings file: `path`, else SEATRIAL_CONFIG, else ./seatrial.toml when there is one, else None."""
    named = path if path is not None else environ.get("SEATRIAL_CONFIG")
    if named is not None:
        return Path.cwd() / named
    usual = Path.cwd() / "seatrial.toml"
    return usual if usual.exists() else None


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings; raises SettingsError with all problems at once."""
    file = find_settings_file(path, environ)
    return _Reading(file, environ).settings()


def load_server(path: Path | None, environ: Mapping[str, str]) -> ServerSettings:
    """Read the section [server] alone; raises SettingsError with all problems of it at once.

    For what only talks to a server: the secrets of the databases, and all else, are that server's business.
    """
    file = find_settings_file(path, environ)
    return _Reading(file, environ).server()


def settings_json_schema() -> dict[str, Any]:
    """Give the JSON Schema of seatrial.toml for editors; the reader says more, and has the last word."""
    schema = tidy_schema(Settings.model_json_schema())
    schema["title"] = "seatrial.toml"
    # They have defaults, which depend on where the server runs.
    del schema["required"], schema["$defs"]["ServerSettings"]["required"]
    for table, keys in (
        ("DatabaseSettings", _EXCLUSIVE["databases"]),
        ("CredentialSettings", _EXCLUSIVE["credentials"]),
    ):
        schema["$defs"][table]["oneOf"] = [{"required": [key]} for key in keys]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _Reading:
    """One reading of file and environment: the raw data, where each value came from, and what is wrong."""

    def __init__(self, file: Path | None, environ: Mapping[str, str]) -> None:
        self.file = file
        self.environ = environ
        self.around = Surroundings(file.parent if file else Path.cwd(), environ)
        self.variables: dict[str, str] = {}
        self.problems: list[SettingProblem] = []
        self.data: dict[str, Any] = {}

    def settings(self) -> Settings:
        self.data = self._read()
        self._override()
        self._fill()
        return self._checked()

    def server(self) -> ServerSettings:
        self.data = self._read()
        self._override()
        self._fill()
        self.data = {"server": self.data["server"]}
        self.problems = [one for one in self.problems if one.key.startswith(("server", "SEATRIAL_SERVER"))]
        return self._checked().server

    def _checked(self) -> Settings:
        settings = None
        try:
            settings = Settings.model_validate(self.data, context=self.around)
        except ValidationError as error:
            for problem in problems_of(error, Settings, self.data, show=_show):
                self._report(problem.key, problem.message, problem.value)
        for key, message in _conflicts(self.data):
            self._report(key, message)
        if settings is None or self.problems:
            raise SettingsError(tuple(self.problems))
        return settings

    def _read(self) -> dict[str, Any]:
        if self.file is None:
            return {}
        try:
            content = tomllib.loads(self.file.read_bytes().decode("utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            message = "there is no such file: correct --config or SEATRIAL_CONFIG, or make it"
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            message = "is not UTF-8: save it as UTF-8"
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            message = f"is not TOML: {error}"
        else:
            tuples: dict[str, Any] = _tuples(content)
            return tuples
        raise SettingsError((SettingProblem("(file)", message, file=str(self.file)),))

    def _override(self) -> None:
        """Lay the environment's settings over those of the file."""
        others = {*CONTRACT_VARIABLES, "SEATRIAL_CONFIG", "SEATRIAL_HISTORY", *_named_variables(self.data)}
        for variable in sorted(self.environ.keys() - others):
            if not variable.startswith(PREFIX):
                continue
            value = self.environ[variable]
            steps = ALIASES.get(variable) or self._steps(variable)
            if steps is None or field_at(Settings, steps) is None or model_at(Settings, steps) is not None:
                self._refuse(variable, f"is not a setting; {_near_variable(variable)}")
            elif self.environ.get(self.variables.get(dotted(steps), variable)) != value:
                self._refuse(variable, f"differs from {self.variables[dotted(steps)]}: keep one of them")
            elif not value.strip():
                self._refuse(variable, "is empty: give it a value or unset it")
            elif not self._put(steps, value):
                self._refuse(variable, "sets a key inside of what is no table in the file: correct the file")
            else:
                self.variables[dotted(steps)] = variable

    def _steps(self, variable: str) -> Steps | None:
        """Read SEATRIAL_PROJECTS__MY_APP__POOL as projects.my_app.pool, or my-app when the file says so."""
        parts = variable.removeprefix(PREFIX).lower().split("__")
        if len(parts) < 2 or not all(parts):
            return None
        table = self.data.get(parts[0])
        if parts[0] not in ("server", "objects") and isinstance(table, dict):
            parts[1] = next((name for name in table if name.replace("-", "_") == parts[1]), parts[1])
        return tuple(parts)

    def _put(self, steps: Steps, value: str) -> bool:
        table: Any = self.data
        for step in steps[:-1]:
            table = table.setdefault(step, {})
            if not isinstance(table, dict):
                return False
        table[steps[-1]] = _typed(annotation_at(Settings, steps), value)
        return True

    def _fill(self) -> None:
        """Add the defaults that depend on where the server runs."""
        if self.data.get("pools") == {}:
            del self.data["pools"]
        server = self.data.setdefault("server", {})
        if not isinstance(server, dict):
            return
        if "home" not in server:
            server["home"] = self._usual_home()
        try:
            home = absolute_path(server["home"], self.around)
        except ValueError:
            # The model reports it; the paths below are never used.
            home = self.around.base
        server.setdefault("database_url", f"sqlite:///{home}/seatrial.db")
        if "object_store" in server and "objects" in self.data:
            self._report("server.object_store", "is not used where [objects] says where they go: keep one of them")
        server.setdefault("object_store", str(home / "objects"))

    def _usual_home(self) -> str:
        """Give the place that the XDG specification names, which says to ignore a relative one."""
        base = self.environ.get("XDG_DATA_HOME", "")
        if not base.startswith("/"):
            home = self.environ.get("HOME")
            if not home:
                self._report("server.home", "is required where neither HOME nor XDG_DATA_HOME is set")
            base = f"{home}/.local/share"
        return f"{base}/seatrial"

    def _report(self, key: str, message: str, value: str | None = None) -> None:
        """Note a problem of a setting, under the name by which it was set; the first one of a key tells most."""
        if key in self.variables:
            self._refuse(self.variables[key], message, value)
            return
        file = str(self.file) if self.file else "(no settings file)"
        if all(known.key != key for known in self.problems):
            self.problems.append(SettingProblem(key, message, value, file=file))

    def _refuse(self, variable: str, message: str, value: str | None = None) -> None:
        if all(known.key != variable for known in self.problems):
            self.problems.append(SettingProblem(variable, message, value, file="environment"))


def _conflicts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what is right alone and wrong together; in the raw data, where no other problem hides it."""
    databases, projects = _tables(data.get("databases")), _tables(data.get("projects"))
    pools = list(_tables(data["pools"])) if "pools" in data else [DEFAULT_POOL]
    for name, database in databases.items():
        yield from _one_of(database, f"databases.{name}", _EXCLUSIVE["databases"])
    for name, table in _tables(data.get("pools")).items():
        yield from pool_conflicts(name, table)
    for name, project in projects.items():
        credentials = project.get("credentials")
        if isinstance(credentials, dict):
            yield from _one_of(credentials, f"projects.{name}.credentials", _EXCLUSIVE["credentials"])
        pool, source = project.get("pool", DEFAULT_POOL), project.get("database")
        if isinstance(pool, str) and pool not in pools:
            yield f"projects.{name}.pool", f"there is no [pools.{shortened(pool)}]; defined are: {', '.join(pools)}"
        if isinstance(source, str) and source not in databases:
            defined = ", ".join(databases) or "none"
            yield f"projects.{name}.database", f"there is no [databases.{shortened(source)}]; defined are: {defined}"


def _one_of(table: dict[str, Any], key: str, choices: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    given = [choice for choice in choices if choice in table]
    if len(given) != 1:
        there = f"{' and '.join(given)} are there" if given else "none is there"
        yield key, f"needs exactly one of {', '.join(choices)}; {there}"


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    return {name: table for name, table in value.items() if isinstance(table, dict)} if isinstance(value, dict) else {}


def _named_variables(value: Any) -> Iterator[str]:
    """Find the environment variables that `dsn_env` and `token_env` name: they may begin as settings do."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield from _named_variables(item)
        elif key in ("dsn_env", "token_env") and isinstance(item, str):
            yield item


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _typed(kind: Any, value: str) -> Any:
    """Read an environment variable's text as the setting's type; what cannot be read stays text and is refused."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    if kind is int and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    return value


def _show(steps: Steps, value: Any) -> str | None:
    """Write a given value into a message, unless it is a secret or may be one in a wrong place."""
    field = field_at(Settings, steps)
    if field is None or steps[-1] in _SECRETS or model_at(Settings, steps) is not None:
        return None
    if not isinstance(value, str):
        return shown(value)
    if get_origin(annotation_at(Settings, steps)) is dict:
        return None
    variable, file = str(steps[-1]).endswith("_env"), str(steps[-1]).endswith("_file")
    if (variable and not re.fullmatch(r"[A-Z][A-Z0-9_]*", value)) or (file and ("/" not in value or "://" in value)):
        return None
    return shown(re.sub(r"\?.*", "?***", re.sub(r"^([a-z+]+://)?.*@", r"\1***@", value)))


def _near_variable(variable: str) -> str:
    """Name the nearest variable that is a setting, and how all of them are formed."""
    name = variable.removeprefix(PREFIX).partition("__")[2].partition("__")[0] or "NAME"
    known = ["SEATRIAL_CONFIG", *ALIASES, *(f"SEATRIAL_SERVER__{key.upper()}" for key in ServerSettings.model_fields)]
    known += [f"SEATRIAL_OBJECTS__{key.upper()}" for key in ObjectsSettings.model_fields]
    for table, model in (("PROJECTS", ProjectSettings), ("DATABASES", DatabaseSettings), ("POOLS", PoolSettings)):
        keys = [key for key in model.model_fields if key != "credentials"]
        known += [f"{PREFIX}{table}__{name}__{key.upper()}" for key in keys]
    known += [f"{PREFIX}PROJECTS__{name}__CREDENTIALS__{key.upper()}" for key in CredentialSettings.model_fields]
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.75)
    forms = "SEATRIAL_SERVER__KEY, SEATRIAL_OBJECTS__KEY and SEATRIAL_PROJECTS__NAME__KEY, _DATABASES__ and _POOLS__ likewise"
    return (f"did you mean `{near[0]}`? " if near else "") + f"settings are {forms}"
