"""Outputs that are several files, compared file by file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from runner.compare import Budget, Output, OutputUnreadable, compare
from runner.compare_files import unit_of
from runner.compare_parquet import ParquetReader
from runner.compare_rules import RuleBook
from runner.comparison import Comparison, Note, Outcome, OutputsComparison
from runner.spec_rule import Rule

# Differences of all files together that are kept.
MOST_DIFFERENCES = 100_000
# What a file is read with at once when it may be the same.
_AT_ONCE = 1 << 16
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
Tell = Callable[[str, Comparison], None]


def compare_outputs(
    a: Mapping[str, Output],
    b: Mapping[str, Output],
    choose: Callable[[str], Rule | None],
    *,
    budget: Budget | None = None,
    spool: Path | None = None,
    parquet: ParquetReader | None = None,
    tell: Tell | None = None,
) -> OutputsComparison:
    """Compare outputs by their paths; those with equal digests are not read.

    `choose` gives the rule of a path, `tell` hears of each file that is not the same as soon as that is known.
    """
    found: list[tuple[str, Comparison]] = []
    same = 0
    purse = _Purse(budget or Budget())
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        if one.digest is not None and one.digest == other.digest:
            same += 1
            continue
        comparison = compare(one, other, choose(name), budget=purse.budget, spool=spool, parquet=parquet)
        if comparison.outcome is Outcome.SAME:
            same += 1
            continue
        purse.spend(comparison)
        found.append((name, comparison))
        if tell is not None:
            tell(name, comparison)
    return OutputsComparison(tuple(found), tuple(sorted(a.keys() - b.keys())), tuple(sorted(b.keys() - a.keys())), same)


def compare_trees(
    a: Path,
    b: Path,
    book: RuleBook,
    *,
    budget: Budget | None = None,
    spool: Path | None = None,
    parquet: ParquetReader | None = None,
    tell: Tell | None = None,
) -> OutputsComparison:
    """Compare the files of two directories by their paths; links are compared by where they lead, never followed."""
    found: list[tuple[str, Comparison]] = []
    missing: list[str] = []
    new: list[str] = []
    same = 0
    purse = _Purse(budget or Budget())
    for name, in_a, in_b in _both(os.fspath(a), os.fspath(b)):
        if not in_b:
            missing.append(name)
        elif not in_a:
            new.append(name)
        elif in_a == in_b == _FILE and _identical(f"{a}/{name}", f"{b}/{name}"):
            same += 1
        else:
            if in_a == in_b == _FILE:
                rule = book.choose(unit_of(name), name)
                one, other = Output(a / name, name), Output(b / name, name)
                comparison = compare(one, other, rule, budget=purse.budget, spool=spool, parquet=parquet)
            else:
                comparison = _no_files(a / name, b / name, in_a, in_b)
            if comparison.outcome is Outcome.SAME:
                same += 1
                continue
            purse.spend(comparison)
            found.append((name, comparison))
            if tell is not None:
                tell(name, comparison)
    return OutputsComparison(tuple(found), tuple(missing), tuple(new), same)


class _Purse:
    """What is left of the differences that may be kept."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._left = MOST_DIFFERENCES

    def spend(self, comparison: Comparison) -> None:
        self._left -= len(comparison.differences)
        if self._left < self.budget.differences:
            self.budget = replace(self.budget, differences=max(0, self._left))


_FILE, _LINK, _OTHER = "file", "link", "special file"


def _no_files(a: Path, b: Path, kind_a: str, kind_b: str) -> Comparison:
    """Compare what is not a file on both sides."""
    if kind_a == kind_b == _LINK:
        if a.readlink() == b.readlink():
            return Comparison(Outcome.SAME)
        text = "links lead to different places"
    else:
        text = f"a {kind_a} on the first side, a {kind_b} on the second; only files are compared"
    return Comparison(Outcome.DIFFERENT, "bytes", notes=(Note("no_file", text),))


def _identical(a: str, b: str) -> bool:
    """Tell whether two small files hold the same bytes; False when that is not known."""
    try:
        first = os.open(a, _OPEN)
        try:
            block = os.read(first, _AT_ONCE)
        finally:
            os.close(first)
        second = os.open(b, _OPEN)
        try:
            return len(block) < _AT_ONCE and block == os.read(second, _AT_ONCE)
        finally:
            os.close(second)
    except OSError:
        return False  # whoever looks closer says what is wrong


def _both(a: str, b: str, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Give each path below either directory, with what it is in both; empty where it is not."""
    in_a, in_b = _listed(a), _listed(b)
    for name in sorted(in_a.keys() | in_b.keys()):
        kind_a, kind_b = in_a.get(name, ""), in_b.get(name, "")
        if kind_a == "directory" or kind_b == "directory":
            inner_a = f"{a}/{name}" if kind_a == "directory" else ""
            inner_b = f"{b}/{name}" if kind_b == "directory" else ""
            yield from _both(inner_a, inner_b, f"{prefix}{name}/")
            kind_a, kind_b = kind_a if not inner_a else "", kind_b if not inner_b else ""
            if not kind_a and not kind_b:
                continue
        yield prefix + name, kind_a, kind_b


def _listed(directory: str) -> dict[str, str]:
    if not directory:
        return {}
    try:
        with os.scandir(directory) as entries:
            return {entry.name: _kind(entry) for entry in entries}
    except OSError as error:
        raise OutputUnreadable(f"{directory} cannot be read: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_file(follow_symlinks=False):
        return _FILE
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return _LINK if entry.is_symlink() else _OTHER


def is_directory(path: Path) -> bool:
    """Tell whether a path is a directory; raises OutputUnreadable when it is not there."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise OutputUnreadable(f"{path} cannot be read: {error.strerror}") from error
