"""seatrial.yml, version 1: how a branch is verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
)

from runner.errors import Problem, SpecError
from runner.spec_fields import (
    Command,
    Commands,
    DurationBetween,
    FreeVariable,
    ImageName,
    Name,
    RelativePath,
    SizeBetween,
    Table,
    Variable,
    VariableValue,
    tidy_schema,
)
from runner.spec_problems import empty_values, problems_of, shown
from runner.spec_rule import Rule, Tolerance
from runner.spec_yaml import Document, YamlRefused, dotted
from runner.units import unit_problem

__all__ = [
    "Build",
    "Compare",
    "Database",
    "Latency",
    "Limits",
    "Rule",
    "Spec",
    "Timeouts",
    "Tolerance",
    "Workspace",
    "emptied",
    "parse_spec",
    "refusal",
    "spec_json_schema",
]

_TIMEOUT = DurationBetween("1s", "30d")
_GIB = 1 << 30


class Build(Table):
    """Build the workspace's image from the commit's own files."""

    dockerfile: RelativePath = Field(description="path of the Dockerfile in the repository")
    context: RelativePath = Field(".", description="directory of the repository that the build sees")
    args: dict[Variable, VariableValue] = Field({}, description="build arguments: names and texts")


class Limits(Table):
    """What one workspace may use; what passes a limit fails and says so."""

    cpus: float = Field(2.0, ge=0.1, le=64, description="processors, 0.1 to 64 (default 2)")
    memory: Annotated[int, SizeBetween("16m", "64t")] = Field(4 * _GIB, description="memory (default 4g)")
    pids: int = Field(512, ge=16, le=1_000_000, description="processes and threads (default 512)")
    disk: Annotated[int, SizeBetween("1m", "64t")] = Field(10 * _GIB, description="bytes written (default 10g)")
    log: Annotated[int, SizeBetween("4k", "64t")] = Field(_GIB, description="bytes of log a task (default 1g)")
    file: Annotated[int, SizeBetween("1k", "64t")] = Field(4 * _GIB, description="size of one output (default 4g)")
    units: int = Field(250_000, ge=1, le=10_000_000, description="units a leg (default 250,000)")


class Workspace(Table):
    """Where the commands run."""

    image: ImageName | None = Field(None, description="an image that exists: ruby:3.3; either this or build")
    build: Build | None = Field(None, description="how to build the image; either this or image")
    limits: Limits = Field(Limits(), description="what one workspace may use")
    env: dict[FreeVariable, VariableValue] = Field({}, description="environment variables: names and texts")


class Database(Table):
    """The verification database of which every execution gets its own clone."""

    source: Name = Field(description="name of a database that the server's settings define")
    tcp: bool = Field(False, description="offer it at 127.0.0.1:5432 too, for clients without Unix sockets")
    clone_per: Literal["execution", "leg"] = Field("execution", description="who shares one clone")


class Timeouts(Table):
    """How long things may take, each 1s to 30d."""

    setup: Annotated[float, _TIMEOUT] = Field(3_600.0, description="each set-up command (default 1h)")
    migrate: Annotated[float, _TIMEOUT] = Field(3_600.0, description="each migration command (default 1h)")
    run: Annotated[float, _TIMEOUT] = Field(21_600.0, description="one execution of the run command (default 6h)")
    stall: Annotated[float, _TIMEOUT] = Field(1_200.0, description="no output and no finished unit (default 20m)")


class Latency(Table):
    """When the candidate counts as slower."""

    ratio: float = Field(1.5, ge=1, le=1_000, description="candidate / baseline, 1 to 1,000 (default 1.5)")
    floor: Annotated[float, DurationBetween("0s", "30d")] = Field(
        0.1, description="shorter ones never count (default 100ms)"
    )


class Compare(Table):
    """How the outputs of two branches are compared."""

    rules: tuple[Rule, ...] = Field((), description="the first one that matches a unit holds")
    latency: Latency = Field(Latency(), description="when the candidate counts as slower")
    fail_fast: int | None = Field(None, ge=1, le=10_000_000, description="stop after this many differing units")
    noise: int = Field(1, ge=1, le=2, description="how often the baseline runs; 2 learns what is unstable (default 1)")


def _unit(text: str) -> str:
    if message := unit_problem(text):
        raise ValueError(message)
    return text


def _distinct(units: tuple[str, ...]) -> tuple[str, ...]:
    if not units:
        raise ValueError("is an empty list: name at least one unit, or leave `units` out")
    seen: set[str] = set()
    for unit in units:
        if unit in seen:
            raise ValueError(f"the unit {shown(unit)} is listed twice: keep one of them")
        seen.add(unit)
    return units


_UnitList = Annotated[tuple[Annotated[str, AfterValidator(_unit)], ...], AfterValidator(_distinct)]
_Units = Annotated[
    Annotated[Command, Tag("<command>")] | Annotated[_UnitList, Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, (tuple, list)) else "<command>"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


def _whole(value: object) -> object:
    """Refuse `true` and 1.0, which are equal to 1."""
    if type(value) is not int:
        raise ValueError("must be 1")
    return value


class Spec(Table):
    """seatrial.yml, version 1. Sizes are in bytes, durations in seconds; commands are texts for `sh -c`."""

    version: Annotated[Literal[1], BeforeValidator(_whole)] = Field(description="1, the version of this format")
    workspace: Workspace = Field(description="where the commands run: image or build, limits, env")
    database: Database | None = Field(None, description="the database of which every execution gets a clone")
    setup: Commands = Field((), description="commands that run once a leg, on its clone, both legs")
    migrate: Commands = Field((), description="commands that run once, on the candidate leg only")
    units: _Units | None = Field(None, description="a command that prints one unit a line, or a list of units")
    run: Command = Field(description="the verification's command")
    resume: Command | None = Field(
        None, description="the command that goes on after SEATRIAL_RESUME_FROM; only without units"
    )
    timeouts: Timeouts = Field(Timeouts(), description="how long things may take")
    compare: Compare = Field(Compare(), description="how the outputs of two branches are compared")

    def canonical(self) -> str:
        """Write all that it says, defaults too, as JSON with sorted keys; `from_canonical` reads it back."""
        content = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_canonical(cls, text: str) -> Self:
        """Read what `canonical` wrote."""
        return cls.model_validate_json(text)

    def digest(self) -> str:
        """Give the SHA-256 (hex) of the canonical content: equal for all ways to write the same."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def parse_spec(text: str | bytes, *, source: str) -> Spec:
    """Read a seatrial.yml; raises SpecError with every problem at once, in the order of their lines.

    `source`: how to name the text in the message, such as `seatrial.yml of 3f2a91c`.
    """
    try:
        document = Document(text)
    except YamlRefused as error:
        raise refusal(source, [error.problem]) from error
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        message = "must be a table of keys and values: begin with `version: 1`"
        raise refusal(source, [Problem("(file)", message, shown(data), 1, 1)])
    problems = [*document.problems, *emptied(document, data)]
    spec = None
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, Spec, data, place=document.place)
    problems += _conflicts(document, data)
    if spec is not None and isinstance(spec.units, tuple) and len(spec.units) > spec.workspace.limits.units:
        allowed = f"{spec.workspace.limits.units:,} units (workspace.limits.units)"
        message = f"lists more than the {allowed} that are allowed: raise the limit or list fewer"
        problems.append(Problem("units", message, f"{len(spec.units):,} units", *document.place(("units",))))
    if spec is None or problems:
        raise refusal(source, problems)
    return spec


def spec_json_schema() -> dict[str, Any]:
    """Give the JSON Schema of seatrial.yml for editors; the parser says more, and has the last word."""
    schema = tidy_schema(Spec.model_json_schema())
    schema["title"] = "seatrial.yml, version 1"
    workspace = schema["$defs"]["Workspace"]
    workspace["oneOf"] = [{"required": ["image"]}, {"required": ["build"]}]
    schema["not"] = {"required": ["units", "resume"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _conflicts(document: Document, data: dict[str, Any]) -> Iterator[Problem]:
    """Find keys that are right alone and wrong together; in the raw data, where no other problem hides them."""
    workspace = data.get("workspace")
    if isinstance(workspace, dict):
        image, build = "image" in workspace, "build" in workspace
        if image and build:
            message = "image and build are both there: keep the one that is meant"
            yield Problem("workspace.build", message, None, *document.place(("workspace", "build")))
        if not image and not build:
            message = "needs an image: write `image: NAME` or `build: {dockerfile: PATH}`"
            yield Problem("workspace.image", message, None, *document.place(("workspace",)))
    if "resume" in data and "units" in data:
        message = "is for a script without units, as units are resumed one by one: leave out `resume` or `units`"
        yield Problem("resume", message, None, *document.place(("resume",)))


def emptied(document: Document, data: Any) -> Iterator[Problem]:
    """Find the keys without a value."""
    for path in empty_values(data):
        yield Problem(dotted(path), "is empty: give it a value or leave the key out", None, *document.place(path))


def refusal(source: str, problems: list[Problem]) -> SpecError:
    """Make the error of a text that is refused, with one problem a key: the first that was found tells most."""
    first: dict[tuple[str, int | None], Problem] = {}
    for problem in problems:
        first.setdefault((problem.key, problem.line), problem)
    ordered = tuple(sorted(first.values(), key=lambda problem: problem.line or 0))
    lines = "\n".join(f"  {problem}" for problem in ordered)
    return SpecError(f"{source} is not valid:\n{lines}", problems=ordered)
