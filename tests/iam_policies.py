"""A small evaluator of IAM policy documents: what an action on a resource with certain tags comes to.

It knows what our documents use, and refuses what it does not know, so that no condition is taken for fulfilled unread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

POLICIES = Path(__file__).resolve().parents[1] / "docker" / "aws" / "policies"
VALUES = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "Pool": "trial",
    "Bucket": "team-seatrial",
    "LaunchTemplate": "lt-0123456789abcdef0",
    "WorkerRole": "seatrial-worker",
}
OPERATORS = {"StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "ArnEquals", "Null"}
_KEYS = {"Sid", "Effect", "Action", "Resource", "NotResource", "Condition"}


def resolved(text: str, values: Mapping[str, str] = VALUES) -> str:
    """Put values in for `${NAME}`; raises KeyError for an unknown name."""
    return re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: values[found[1]], text)


def policy(name: str, values: Mapping[str, str] = VALUES) -> dict[str, Any]:
    """Read one of our documents."""
    document: dict[str, Any] = json.loads(resolved((POLICIES / f"{name}.json").read_text("utf-8"), values))
    return document


def allowed(
    documents: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    *,
    tags: Mapping[str, str] | None = None,
    keys: Mapping[str, str] | None = None,
) -> bool:
    """Tell whether all these documents together allow an action: a denial wins, and nothing is allowed unsaid.

    `tags`: those of the resource. `keys`: other keys of the request.
    """
    context = {name.lower(): value for name, value in (keys or {}).items()}
    context |= {f"aws:resourcetag/{name}".lower(): value for name, value in (tags or {}).items()}
    found = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if _applies(statement, action, resource, context)
    }
    return found == {"Allow"}


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    assert statement.keys() <= _KEYS, statement.keys() - _KEYS
    if not any(fnmatchcase(action.lower(), one.lower()) for one in _listed(statement["Action"])):
        return False
    if "Resource" in statement and not any(fnmatchcase(resource, one) for one in _listed(statement["Resource"])):
        return False
    if "NotResource" in statement and any(fnmatchcase(resource, one) for one in _listed(statement["NotResource"])):
        return False
    return all(
        _holds(operator, context.get(key.lower()), _listed(wanted))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, value: str | None, wanted: Sequence[str]) -> bool:
    assert operator in OPERATORS, operator
    if operator == "Null":
        return (value is None) == (wanted == ["true"])
    if operator == "StringNotEquals":  # a key that is not there is not equal either
        return value not in wanted
    if value is None:
        return False
    if operator == "StringEqualsIgnoreCase":
        return value.lower() in {one.lower() for one in wanted}
    return value in wanted


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
