"""Addresses of pages and of the API, in one place. Pure: also used outside of a request."""

from __future__ import annotations

from urllib.parse import quote, urlencode

API = "/api/v1"


def query(**values: object) -> str:
    """Write a query string, without what is None or empty; '' when nothing is left."""
    kept = {key: str(value) for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""


def part(text: str, *, slashes: bool = False) -> str:
    """Quote a piece of a path; a unit's own slashes stay."""
    return quote(text, safe="/" if slashes else "")


def run(run_id: int, **values: object) -> str:
    return f"/runs/{run_id}{query(**values)}"


def unit(run_id: int, leg: str, name: str) -> str:
    return f"/runs/{run_id}/units/{part(leg)}/{part(name, slashes=True)}"


def diff(run_id: int, name: str, **values: object) -> str:
    return f"/runs/{run_id}/diffs/{part(name, slashes=True)}{query(**values)}"


def api_diff(run_id: int, name: str, **values: object) -> str:
    return f"{API}/runs/{run_id}/diffs/{part(name, slashes=True)}{query(**values)}"


def group(run_id: int, key: str) -> str:
    return f"/runs/{run_id}/groups/{part(key)}"


def acceptances(project: str) -> str:
    return f"/projects/{part(project)}/acceptances"


def log_line(run_id: int, task: int, line: int | None = None) -> str:
    return run(run_id, tab="log", task=task) + (f"#L{line}" if line is not None else "")


def commit(sha: str) -> str:
    return sha[:10]


def api_run(run_id: int, rest: str = "", **values: object) -> str:
    return f"{API}/runs/{run_id}{rest}{query(**values)}"


def api_log(run_id: int, task: int) -> str:
    return api_run(run_id, f"/tasks/{task}/log")


def api_output(run_id: int, leg: str, name: str, path: str | None = None) -> str:
    rest = f"/units/{part(name, slashes=True)}/output"
    return api_run(run_id, rest, leg=None if leg == "candidate" else leg, path=path)


def api_archive(run_id: int, kind: str) -> str:
    return api_run(run_id, f"/outputs.{kind}")


def api_capacity(pool: str, rest: str, **values: object) -> str:
    return f"{API}/capacity/{part(pool)}/{rest}{query(**values)}"


def capacity(pool: str, rest: str = "", **values: object) -> str:
    return f"/capacity/{part(pool)}{rest}{query(**values)}"
