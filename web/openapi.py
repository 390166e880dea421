"""The OpenAPI 3.1 document, generated from the routes, the models and this table of operations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from web import asking, links
from web import capacity_schemas as k
from web import compare_schemas as c
from web import queries as q
from web import schemas as s

blueprint = Blueprint("openapi", __name__)

JSON = "application/json"
PROBLEM = "application/problem+json"
BYTES = "application/octet-stream"
PARQUET = "application/vnd.apache.parquet"
REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Operation:
    """What the table adds to a route: its models. `media` answers with bytes of that type instead of `answer`."""

    answer: type[BaseModel] | None = None
    status: int = 200
    query: type[BaseModel] = q.NoQuery
    body: type[BaseModel] | None = None
    media: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    replay: bool = False


OPERATIONS: Mapping[str, Operation] = {
    "api.submit": Operation(s.RunOut, 201, body=q.RunBody, problems=(404, 409, 415, 503), replay=True),
    "api.runs": Operation(s.RunsOut, query=q.RunsQuery),
    "api.show": Operation(s.RunDetail, problems=(404,)),
    "api.cancel": Operation(s.RunOut, body=q.NoQuery, problems=(404, 409, 415)),
    "api.resume": Operation(s.RunOut, body=q.NoQuery, problems=(404, 409, 415)),
    "api.rerun": Operation(s.RunOut, 201, body=q.RerunBody, problems=(404, 409, 415)),
    "api.units": Operation(s.UnitsOut, query=q.UnitsQuery, problems=(404,)),
    "diffapi.comparison": Operation(c.ComparisonOut, problems=(404, 409)),
    "diffapi.heat": Operation(c.HeatOut, query=q.HeatQuery, problems=(404, 409)),
    "diffapi.diffs": Operation(c.DiffsOut, query=q.DiffsQuery, problems=(404, 409)),
    "diffapi.diffs_file": Operation(media=("text/csv",), query=q.DiffsFileQuery, problems=(404, 409)),
    "diffapi.diff": Operation(c.DiffDetail, query=q.DiffQuery, problems=(404, 409)),
    "diffapi.diff_file": Operation(media=("text/csv", JSON, PARQUET), query=q.DiffFileQuery, problems=(404, 409)),
    "api_report.html": Operation(media=("text/html",), problems=(404, 409)),
    "api_report.markdown": Operation(media=("text/markdown",), problems=(404, 409)),
    "acceptapi.groups": Operation(c.GroupsOut, problems=(404, 409)),
    "acceptapi.accept": Operation(c.AcceptedOut, body=q.AcceptBody, problems=(404, 409, 415)),
    "acceptapi.withdraw": Operation(c.AcceptedOut, body=q.NoQuery, problems=(404, 409, 415)),
    "acceptapi.acceptances": Operation(c.AcceptancesOut, problems=(404,)),
    "diffapi.noise": Operation(c.NoiseOut, query=q.NoiseQuery, problems=(404, 409)),
    "api.latency": Operation(c.LatencyOut, query=q.LatencyQuery, problems=(404, 409)),
    "api.attempts": Operation(s.AttemptsOut, problems=(404,)),
    "api.events": Operation(s.EventsOut, query=q.EventsQuery, problems=(404,)),
    "api.projects": Operation(s.ProjectsOut),
    "api.refs": Operation(s.RefsOut, query=q.RefsQuery, problems=(404,)),
    "api.known_units": Operation(s.KnownUnitsOut, query=q.KnownUnitsQuery, problems=(404,)),
    "api.preview": Operation(s.PreviewOut, query=q.PreviewQuery, problems=(404, 503)),
    "capacityapi.capacity": Operation(k.CapacityOut),
    "capacityapi.start": Operation(k.WishAnswer, 202, body=k.StartBody, problems=(404, 409, 415)),
    "capacityapi.stop": Operation(k.WishAnswer, 202, body=k.StopBody, problems=(404, 409, 415)),
    "capacityapi.hold": Operation(k.HoldAnswer, 201, body=k.HoldBody, problems=(404, 409, 415)),
    "capacityapi.release": Operation(k.HoldAnswer, body=q.NoQuery, problems=(404, 415)),
    "capacityapi.decisions": Operation(k.DecisionsOut, query=k.DecisionsQuery, problems=(404,)),
    "capacityapi.arrivals": Operation(k.ArrivalsOut, query=k.ArrivalsQuery, problems=(404,)),
    "capacityapi.money": Operation(k.MonthOut, query=k.MonthQuery, problems=(404, 409)),
    "capacityapi.run_cost": Operation(k.RunCostOut, problems=(404,)),
    "capacityapi.ledger": Operation(media=("text/csv",), query=k.MonthQuery, problems=(404, 409)),
    "files.run_log": Operation(media=(BYTES,), problems=(404,)),
    "files.task_log": Operation(media=(BYTES,), query=q.OffsetQuery, problems=(404,)),
    "files.task_lines": Operation(s.LinesOut, query=q.LinesQuery, problems=(404,)),
    "files.task_search": Operation(s.HitsOut, query=q.SearchQuery, problems=(404,)),
    "files.output": Operation(
        media=(BYTES, "text/csv", "text/plain", JSON, "application/zip"), query=q.OutputQuery, problems=(404,)
    ),
    "files.outputs": Operation(media=("application/zip", "application/x-tar"), problems=(404,)),
    "stream.stream": Operation(media=("text/event-stream",), query=q.StreamQuery, problems=(404, 503)),
    "openapi.document": Operation(media=(JSON,)),
    "health.healthz": Operation(s.HealthOut, problems=()),
}

IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body gives the same run for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": q.KEY_LIMIT, "pattern": "^[!-~]+$"},
}
LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that arrived; the stream goes on after it.",
    "schema": {"type": "string", "pattern": r"^\d{1,18};(\d{1,18}:\d{1,18}(,\d{1,18}:\d{1,18})*)?$"},
}


_PART = re.compile(r"<(?:(?P<kind>\w+)(?:\((?P<choices>[^)]*)\))?:)?(?P<name>\w+)>")


def _path(rule: Rule) -> tuple[str, list[dict[str, Any]]]:
    """Give a route's path as OpenAPI writes it, and its parameters."""
    parameters = []
    for part in _PART.finditer(rule.rule):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if part["kind"] == "id":
            schema = {"type": "integer", "minimum": 1, "maximum": s.MAX_ID}
        elif part["kind"] == "any":
            schema = {"type": "string", "enum": part["choices"].split(",")}
        parameters.append({"name": part["name"], "in": "path", "required": True, "schema": schema})
    return _PART.sub(r"{\g<name>}", rule.rule), parameters


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=REF)
    required = schema.get("required", [])
    found = []
    for name, value in schema.get("properties", {}).items():
        kept = {key: part for key, part in value.items() if key not in ("title", "description", "default")}
        if "anyOf" in kept:  # an absent parameter is how a query says null
            kept = next(part for part in kept["anyOf"] if part.get("type") != "null")
        parameter = {"name": name, "in": "query", "required": name in required, "schema": kept}
        if "description" in value:
            parameter["description"] = value["description"]
        found.append(parameter)
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    if operation.answer is not None:
        content = {JSON: {"schema": {"$ref": REF.format(model=operation.answer.__name__)}}}
    else:
        content = {media: {} for media in operation.media}
    found: dict[str, Any] = {str(operation.status): {"description": "As asked.", "content": content}}
    if operation.replay:
        found["200"] = {"description": "The run that this idempotency key made before.", "content": content}
    if operation.answer is s.HealthOut:
        found["503"] = {"description": "Something is wrong; `problems` says what.", "content": content}
    if operation.media and BYTES in operation.media:
        found["304"] = {"description": "Not changed since the ETag that was sent."}
    document = {PROBLEM: {"schema": {"$ref": REF.format(model=s.ProblemOut.__name__)}}}
    for status in sorted({400, 422, *operation.problems} | ({403, 413} if operation.body else set())):
        found[str(status)] = {"description": "A problem document says why.", "content": document}
    return found


def build(app: Flask) -> dict[str, Any]:
    """Generate the document."""
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], str] = {s.ProblemOut: "serialization"}
    for rule in app.url_map.iter_rules():
        operation = OPERATIONS.get(rule.endpoint)
        if operation is None:
            continue
        path, parameters = _path(rule)
        method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"})).lower()
        view = app.view_functions[rule.endpoint]
        item: dict[str, Any] = {
            "operationId": rule.endpoint.replace(".", "_"),
            "summary": (view.__doc__ or "").strip().split("\n")[0],
            "parameters": parameters + _query(operation.query),
            "responses": _responses(operation),
        }
        if operation.body is not None:
            models[operation.body] = "validation"
            schema = {"$ref": REF.format(model=operation.body.__name__)}
            needed = operation.body not in (q.NoQuery, q.RerunBody, q.AcceptBody)
            item["requestBody"] = {"required": needed, "content": {JSON: {"schema": schema}}}
        if operation.replay:
            item["parameters"].append(IDEMPOTENCY)
        if rule.endpoint == "stream.stream":
            item["parameters"].append(LAST_EVENT)
        if operation.answer is not None:
            models[operation.answer] = "serialization"
        paths.setdefault(path, {})[method] = item
    _, schemas = models_json_schema(list(models.items()), ref_template=REF)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Seatrial",
            "version": "1",
            "description": "Verify any branch beside a copy of production. Errors are RFC 9457 problem documents; "
            "times are RFC 3339 in UTC.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas["$defs"]},
    }


@blueprint.get(links.API + "/openapi.json")
def document() -> Response:
    """Give this document."""
    asking.query(q.NoQuery)
    return jsonify(build(current_app))
