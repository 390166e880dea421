"""The rules of a comparison: read from a file, and chosen by unit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from pydantic import BaseModel, ConfigDict, ValidationError

from runner.errors import Problem
from runner.spec import Compare, Rule, emptied, parse_spec, refusal
from runner.spec_problems import problems_of, shown
from runner.spec_yaml import Document, YamlRefused

_SPEC_KEYS = {"version", "workspace", "run"}


class _Bare(BaseModel):
    """A file that has nothing but rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    rules: tuple[Rule, ...]


class _Nested(BaseModel):
    """A file that has the `compare` part of a seatrial.yml alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    compare: Compare


def parse_rules(text: str | bytes, *, source: str) -> tuple[Rule, ...]:
    """Read rules: a seatrial.yml, its `compare` part, `rules: […]`, or a bare list of them.

    Raises SpecError with every problem at once, as `parse_spec` does.
    """
    try:
        document = Document(text)
    except YamlRefused as error:
        raise refusal(source, [error.problem]) from error
    data = document.data
    if isinstance(data, dict) and _SPEC_KEYS & set(data):
        return parse_spec(text, source=source).compare.rules
    if not isinstance(data, (dict, tuple)):
        message = "must be a list of rules, each with `match`, or a seatrial.yml"
        raise refusal(source, [Problem("(file)", message, shown(data), 1, 1)])
    listed = isinstance(data, tuple)
    table = {"rules": data} if listed else data
    model: type[_Bare] | type[_Nested] = _Nested if "compare" in table else _Bare
    problems = [*document.problems, *emptied(document, data)]
    found: _Bare | _Nested | None = None
    try:
        found = model.model_validate(table)
    except ValidationError as error:
        problems += problems_of(error, model, table, place=lambda path: document.place(path[1:] if listed else path))
    if found is None or problems:
        raise refusal(source, problems)
    return found.compare.rules if isinstance(found, _Nested) else found.rules


class RuleBook:
    """Rules in their order; the first one that matches a unit holds. Remembers which matched nothing."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = [(re.compile(translate(rule.match)), rule) for rule in rules]
        self._used: set[int] = set()

    def choose(self, *names: str) -> Rule | None:
        """Give the rule of a unit that goes by these names, None when no rule matches."""
        for number, (pattern, rule) in enumerate(self._rules):
            if any(pattern.match(name) for name in names):
                self._used.add(number)
                return rule
        return None

    def idle(self) -> tuple[str, ...]:
        """Give the patterns of rules that held for nothing so far."""
        return tuple(rule.match for number, (_, rule) in enumerate(self._rules) if number not in self._used)
