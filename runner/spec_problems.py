"""Say what is wrong with an input that a model refused: key, value, what is allowed, nearest known key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from runner.errors import Problem
from runner.spec_yaml import Steps, dotted, shortened

Place = Callable[[Steps], tuple[int | None, int | None]]

_KINDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
}


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    data: Any,
    *,
    place: Place = lambda path: (None, None),
    show: Callable[[Steps, Any], str | None] = lambda path, value: shown(value),
) -> Iterator[Problem]:
    """Translate each error of a validation of `data` by `model`.

    `place` gives line and column of a path, `show` the text of a given value (None keeps it secret).
    """
    for detail in error.errors(include_url=False):
        path, given = _given(detail, data)
        value = None if detail["type"] == "missing" else show(path, given)
        yield Problem(dotted(path) or "(top)", _message(detail, model, path), value, *place(path))


def empty_values(data: Any, path: Steps = ()) -> Iterator[Steps]:
    """Find the keys whose value was left empty."""
    if data is None:
        yield path
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, tuple) else ()
    for part, value in items:
        yield from empty_values(value, (*path, part))


def did_you_mean(word: str, known: list[str]) -> str:
    """Name the nearest known word, if one is near, and all of them."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return (f"did you mean `{near[0]}`? " if near else "") + f"allowed here: {', '.join(known)}"


def model_at(model: type[BaseModel], path: Steps) -> type[BaseModel] | None:
    """Give the model that stands at a path inside of another, or None when there is none."""
    found = annotation_at(model, path)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def field_at(model: type[BaseModel], path: Steps) -> FieldInfo | None:
    """Give the field that a path leads to; the path of a list item leads to the list's field."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    parent = model_at(model, path[:-1]) if path else None
    return parent.model_fields.get(str(path[-1])) if parent else None


def _given(detail: ErrorDetails, data: Any) -> tuple[Steps, Any]:
    """Give path and value as they were written.

    Pydantic adds to the path tags of a union (`<list>`), `[key]` and positions in a lone value, and its value may
    have gone through validators before.
    """
    path: list[str | int] = []
    for part in detail["loc"]:
        if part == "[key]":
            return tuple(path), detail["input"]
        if isinstance(part, int):
            if isinstance(data, (tuple, list)):
                path.append(part)
                data = data[part]
        elif not part.startswith("<"):
            path.append(part)
            data = data.get(part) if isinstance(data, Mapping) else None
    return tuple(path), data


def _message(detail: ErrorDetails, model: type[BaseModel], path: Steps) -> str:
    kind, given = detail["type"], detail["input"]
    field = field_at(model, path)
    allowed = f"; allowed: {field.description}" if field is not None and field.description else ""
    if kind == "extra_forbidden":
        parent = model_at(model, path[:-1])
        return f"is not a known key; {did_you_mean(str(path[-1]), list(parent.model_fields) if parent else [])}"
    if kind == "missing":
        return f"is required{allowed}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        here = model_at(model, path)
        keys = f" with the keys {', '.join(here.model_fields)}" if here else " of names to values"
        return f"must be a table{keys}"
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected'].replace(chr(39), '')}{allowed}"
    if kind in ("greater_than_equal", "less_than_equal") and field is not None:
        low = next((item.ge for item in field.metadata if isinstance(item, Ge)), "any")
        high = next((item.le for item in field.metadata if isinstance(item, Le)), "any")
        return f"must be from {low:,} to {high:,}" if high != "any" else f"must be {low:,} or more"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "string_type" and isinstance(given, (bool, int, float)):
        return "must be text: put the value in quotes"
    return _KINDS.get(kind, detail["msg"]) + allowed


def shown(value: Any) -> str:
    """Write a given value into a message: a table or list by its size only, a text in quotes and short."""
    if isinstance(value, (Mapping, tuple, list)):
        return f"{'a table' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    return shortened(repr(value) if isinstance(value, str) else str(value))


def annotation_at(annotation: Any, path: Steps) -> Any:
    """Give the type that stands at a path inside of a model, bare of Annotated and Optional."""
    annotation = _unwrap(annotation)
    if not path:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(path[0]))
        return annotation_at(field.annotation, path[1:]) if field else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return annotation_at(arguments[1], path[1:])
    return annotation_at(arguments[0], path[1:]) if arguments else None


def _unwrap(annotation: Any) -> Any:
    """Look through Annotated and Optional."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation
