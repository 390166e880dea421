"""The kinds of value that seatrial.yml and seatrial.toml are made of; each refusal says what is allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from runner.quantities import QuantityError, parse_duration, parse_size

# One argument of a process holds 128 KiB on Linux; half of it leaves room for what goes around a command.
MAX_COMMAND = 64 * 1024
MAX_VALUE = 32 * 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# The grammar of a reference to an image, as Docker's distribution project defines it.
_IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
    r"(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)


class Table(BaseModel):
    """A table of the file: it never changes, and holds what is known and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class SizeBetween:
    """A size in bytes, given as `4g` or a whole number, within bounds that are written the same way."""

    low: str
    high: str

    def read(self, value: Any) -> int:
        bounds = f"; allowed is {self.low} to {self.high}"
        try:
            size = parse_size(value)
        except QuantityError as error:
            raise ValueError(f"{error}{bounds}") from error
        if not parse_size(self.low) <= size <= parse_size(self.high):
            raise ValueError(f"is outside of what is allowed: {self.low} to {self.high}")
        return size

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = r"^[0-9]+(\.[0-9]+)? ?([kmgtKMGT]([iI]?[bB])?|[bB])?$"
        integer = {"type": "integer", "minimum": parse_size(self.low), "maximum": parse_size(self.high)}
        return {"anyOf": [{"type": "string", "pattern": pattern}, integer]}


@dataclass(frozen=True)
class DurationBetween:
    """A duration in seconds, given as `1h30m`, within bounds that are written the same way."""

    low: str
    high: str

    def read(self, value: Any) -> float:
        bounds = f"; allowed is {self.low} to {self.high}"
        try:
            seconds = parse_duration(value)
        except QuantityError as error:
            raise ValueError(f"{error}{bounds}") from error
        if not parse_duration(self.low) <= seconds <= parse_duration(self.high):
            raise ValueError(f"is outside of what is allowed: {self.low} to {self.high}")
        return seconds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Written with its unit, so that what was written can be read back.
        written = core_schema.plain_serializer_function_ser_schema(
            lambda seconds: f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
        )
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        part = "[0-9]+(\\.[0-9]+)?"
        units = "".join(f"({part}{unit})? ?" for unit in ("d", "h", "m", "s")) + f"({part}ms)?"
        return {"type": "string", "pattern": f"^(?=.){units}$"}


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("is not a name: lower-case letters, digits, `_` and `-`, at most 63, a letter or digit first")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("is not a variable's name: letters, digits and `_`, no digit first")
    return text


def _free_variable(text: str) -> str:
    _variable(text)
    if text.startswith("SEATRIAL_"):
        raise ValueError("is reserved: SEATRIAL_ variables tell the workspace its work; take another name")
    if text == "DATABASE_URL" or text.startswith("PG"):
        raise ValueError("is reserved: DATABASE_URL and PG* lead to the run's own clone; leave it out")
    if text == "HOME":
        raise ValueError("is reserved: HOME is the workspace's own empty directory; leave it out")
    return text


def _variable_value(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no variable can hold")
    if len(text) > MAX_VALUE:
        raise ValueError(f"is too long: at most {MAX_VALUE:,} characters; put it into a file of the repository")
    return text


def _command(text: str) -> str:
    if not text.strip():
        raise ValueError("is an empty command: write what `sh -c` is to run, or leave the key out")
    if "\0" in text:
        raise ValueError("holds a NUL character, which no command can hold")
    if len(text.encode()) > MAX_COMMAND:
        raise ValueError(f"is too long: at most {MAX_COMMAND:,} bytes; put it into a script of the repository")
    return text


def _relative(text: str) -> str:
    path = PurePosixPath(text)
    if not text or "\0" in text or len(text) > 1_000:
        raise ValueError("is not a path: 1 to 1,000 characters, relative to the repository's root")
    if path.is_absolute() or ".." in path.parts or text.startswith("~"):
        raise ValueError(
            "must be relative to the repository's root and stay inside of it: no leading `/` or `~`, no `..`"
        )
    return str(path)


def _image(text: str) -> str:
    if text.startswith("-") or len(text) > 400 or not _IMAGE.fullmatch(text):
        raise ValueError("is not an image: write it as ruby:3.3, registry.example.com/team/app:1.2 or name@sha256:…")
    return text


def _listed(value: Any) -> Any:
    if not isinstance(value, (str, tuple, list)):
        raise ValueError("must be a text or a list of texts")
    return (value,) if isinstance(value, str) else tuple(value)


def _some_text(text: str) -> str:
    if not text.strip() or "\0" in text or len(text) > 1_000:
        raise ValueError("must be text of 1 to 1,000 characters")
    return text


_ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

Text = Annotated[str, AfterValidator(_some_text), Field(json_schema_extra={"minLength": 1, "maxLength": 1_000})]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed), WithJsonSchema(_ONE_OR_MORE)]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})]
Command = Annotated[str, AfterValidator(_command), WithJsonSchema({"type": "string", "minLength": 1})]
Commands = Annotated[tuple[Command, ...], BeforeValidator(_listed), WithJsonSchema(_ONE_OR_MORE)]
RelativePath = Annotated[str, AfterValidator(_relative), WithJsonSchema({"type": "string", "minLength": 1})]
ImageName = Annotated[str, AfterValidator(_image), WithJsonSchema({"type": "string", "pattern": f"^{_IMAGE.pattern}$"})]
Variable = Annotated[str, AfterValidator(_variable)]
FreeVariable = Annotated[str, AfterValidator(_free_variable)]
VariableValue = Annotated[str, AfterValidator(_variable_value)]


def tidy_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Make a model's JSON Schema say what the file may hold: no null, durations as texts, no echoed titles."""
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            tidy[key] = {name: tidy_schema(property_) for name, property_ in value.items()}
        elif key == "default" and schema.get("type") == "string" and isinstance(value, (int, float)):
            tidy[key] = f"{value:g}s"
        elif isinstance(value, dict) and key != "default":
            tidy[key] = tidy_schema(value)
        elif key == "anyOf":
            kinds = [tidy_schema(kind) for kind in value if kind != {"type": "null"}]
            tidy |= kinds[0] if len(kinds) == 1 else {key: kinds}
        elif key != "title" and value is not None:
            tidy[key] = value
    return tidy
