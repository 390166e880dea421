"""What differs between two runs of one baseline, and whether that explains a unit's difference. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jobs.causes import Share
from jobs.comparing import Compared, UnitClass
from runner.comparison import OF_A_PART, ROW_ORDER

EXAMPLES = 20  # stored differences that show how a unit moves
_CELLS = ("value", "type", "null", "format", "other")
_FLAGS = {"added_rows": "rows", "removed_rows": "rows", "other": "other"}  # of causes that name no column


@dataclass(frozen=True)
class Moves:
    """What is not the same in two outputs of one file.

    `columns`: those with changed cells; `rows`: some are there in one only; `shape`: columns come, go or change their
    type; `bytes`: all that is known of a file that is no table; `other`: what a comparison does not count.
    """

    columns: tuple[str, ...] = ()
    rows: bool = False
    shape: bool = False
    bytes: bool = False
    other: bool = False

    def covers(self, found: Moves) -> bool:
        """Tell whether all that was found moves here too."""
        if self.bytes:
            return True
        flags = ("rows", "shape", "bytes", "other")
        return set(found.columns) <= set(self.columns) and all(
            getattr(self, flag) or not getattr(found, flag) for flag in flags
        )


@dataclass(frozen=True)
class Noise:
    """What moves in a unit although nothing changed, by file ("" is the only one).

    `missing` files of the baseline were not made the second time, others were (`new`). `changed`: how many rows;
    `examples`: some of the stored differences, each with its `file` where there are several.
    """

    files: Mapping[str, Moves] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    new: bool = False
    changed: int = 0
    examples: tuple[Mapping[str, Any], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that move, of all files."""
        return tuple(dict.fromkeys(name for moves in self.files.values() for name in moves.columns))

    @property
    def whole(self) -> tuple[str, ...]:
        """Name what moves beside cells of columns: rows, shape, bytes, other, files."""
        flags = ("rows", "shape", "bytes", "other")
        found = tuple(flag for flag in flags if any(getattr(moves, flag) for moves in self.files.values()))
        return (*found, "files") if self.missing or self.new else found

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values; `noise_of` reads them back."""
        files = {name: asdict(moves) | {"columns": list(moves.columns)} for name, moves in self.files.items()}
        return {
            "files": files,
            "missing": list(self.missing),
            "new": self.new,
            "changed": self.changed,
            "examples": [dict(one) for one in self.examples],
        }


def noise_of(document: Mapping[str, Any]) -> Noise:
    """Read what `Noise.as_json` wrote."""
    files = {
        name: Moves(**dict(moves) | {"columns": tuple(moves["columns"])}) for name, moves in document["files"].items()
    }
    missing, examples = tuple(document["missing"]), tuple(document["examples"])
    return Noise(files, missing, document["new"], document["changed"], examples)


def learn(result: Mapping[str, Any], differences: Sequence[Mapping[str, Any]] = ()) -> Noise | None:
    """Say what moves between two outputs of the same baseline; None when nothing does beyond the rules.

    `result`: what their comparison found (see runner.comparison), `differences`: those that it stored. What could not be
    read, or not to its end, teaches only what was seen.
    """
    files = {}
    for file in _differing(result):
        moves = _moves(file)
        if moves is not None and not (_is_part(file) and moves.bytes):
            files[str(file.get("file", ""))] = moves
    lone = result.get("files", {})
    missing, new = tuple(lone.get("missing", ())), bool(lone.get("new"))
    if not files and not missing and not new:
        return None
    rows = result.get("rows", {})
    changed = sum(rows.get(name, 0) for name in ("changed", "added", "removed"))
    return Noise(files, missing, new, changed, tuple(differences[:EXAMPLES]))


def explains(noise: Noise, summary: Mapping[str, Any]) -> bool:
    """Tell whether all that makes a unit different moves between two runs of the baseline too.

    What could not be read, or not to its end, may differ in anything, and is not explained.
    """
    lone = summary.get("files", {})
    if not set(lone.get("missing", ())) <= set(noise.missing) or (lone.get("new") and not noise.new):
        return False
    differing = list(_differing(summary))
    if not differing and not lone.get("missing") and not lone.get("new"):
        return False
    for file in differing:
        found, known = _moves(file), noise.files.get(str(file.get("file", "")))
        if found is None or known is None or _is_part(file) or not known.covers(found):
            return False
    return True


def judged(found: Compared, noise: Noise | None) -> Compared:
    """Add what is known of a unit's noise: one that differs in nothing else does no harm.

    Failures, and units that only one leg lists, are never noise.
    """
    if noise is None:
        return found
    noisy = found.kind is UnitClass.DIFFERENT and explains(noise, found.summary)
    if noisy:
        return replace(found, noise=noise, noisy=True, causes=())
    others = tuple(share for share in found.causes if not _is_noise(noise, found.summary, share))
    return replace(found, noise=noise, causes=others or found.causes)


def words(noise: Noise) -> str:
    """Say what moves."""
    columns = noise.columns
    found = []
    if columns:
        named = ", ".join(columns[:5]) + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")
        found.append(f"cells of {named}")
    names = {
        "rows": "rows come and go",
        "shape": "columns come and go",
        "bytes": "its bytes are never the same",
        "other": "it differs otherwise",
        "files": "files come and go",
    }
    return "; ".join(found + [names[what] for what in noise.whole])


def _differing(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (file for file in result.get("results", [result]) if file.get("class") == "different")


def _moves(file: Mapping[str, Any]) -> Moves | None:
    """Give what differs in a file; None when it could not be read."""
    if any(note["code"] == "unreadable" for note in file.get("notes", ())):
        return None
    if file.get("format") == "bytes":
        return Moves(bytes=True)
    rows, columns = file.get("rows", {}), file.get("columns", {})
    found = Moves(
        columns=tuple(change["column"] for change in file.get("changes", ()) if change["changed"]),
        rows=bool(rows.get("added") or rows.get("removed")),
        shape=bool(columns.get("added") or columns.get("removed") or columns.get("types")),
        other=any(note["code"] == ROW_ORDER for note in file.get("notes", ())),
    )
    return found if found != Moves() else Moves(other=True)


def _is_part(file: Mapping[str, Any]) -> bool:
    return OF_A_PART in (file.get("truncated") or "")


def _is_noise(noise: Noise, summary: Mapping[str, Any], share: Share) -> bool:
    """Tell whether a cause is what moves anyway, in every file that differs by it: files of a unit share causes."""
    what, column = share.cause.what, share.cause.column
    flag = _FLAGS.get(what) if column is None else None
    if flag is None and what not in _CELLS:
        return False
    for file in _differing(summary):
        found, known = _moves(file) or Moves(), noise.files.get(str(file.get("file", "")), Moves())
        if column in found.columns and column not in known.columns:
            return False
        if flag is not None and getattr(found, flag) and not getattr(known, flag):
            return False
    return column in noise.columns if flag is None else flag in noise.whole
