"""Names of refs: which are legal, what a remote advertises, and what a user's name stands for."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from runner.errors import RefRefused
from runner.model import Ref, RefKind

NAME_LIMIT: Final = 255
"""Characters: a component longer than that has no file name on any common filesystem."""

NEAR_AMONG: Final = 2_000
"""Names: to look among these for a near one takes some hundredths of a second."""

FULL_SHA: Final = re.compile(r"[0-9a-f]{40}\Z|[0-9a-f]{64}\Z", re.ASCII | re.IGNORECASE)
SHORT_SHA: Final = re.compile(r"[0-9a-f]{7,39}\Z", re.ASCII | re.IGNORECASE)

_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
_PULLS: Final = ("refs/pull/", "refs/merge-requests/", "refs/pull-requests/", "refs/changes/")
_REMEDY: Final = (
    "Give the exact name of a branch or tag, a commit of at least 7 hex digits, or refs/pull/N/head; "
    "expressions such as main~1 or a..b are not understood."
)


def check_name(name: str) -> str:
    """Give the name back when git could have a ref of that name; raise RefRefused when it could not.

    The rules are those of git-check-ref-format(1), in our own code so that no user's text ever reaches git's
    revision parser, and two of ours: no leading dash, at most 255 characters.
    """
    why = _fault(name)
    if why is not None:
        shown = ascii(name if len(name) <= 80 else name[:77] + "...")
        raise RefRefused(
            f"ref: {shown} is not a name that a git ref can have: {why}. {_REMEDY}",
            field="ref",
            value=name[:NAME_LIMIT].encode("utf-8", "backslashreplace").decode(),
            remedy=_REMEDY,
        )
    return name


def _fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    if len(name) > NAME_LIMIT:
        return f"it has {len(name)} characters, at most {NAME_LIMIT} are allowed"
    if name.startswith("-"):
        return "it begins with a dash"
    bad = _FORBIDDEN.search(name)
    if bad is not None:
        return f"it contains {bad.group()!a}"
    if not name.isprintable() and any("\ud800" <= char <= "\udfff" for char in name):
        return "it is not valid Unicode"
    if ".." in name:
        return "it contains '..'"
    if "@{" in name or name == "@":
        return "it contains '@{' or is '@'"
    if name.endswith("."):
        return "it ends with a dot"
    for part in name.split("/"):
        if not part:
            return "it begins or ends with a slash or has two in a row"
        if part.startswith("."):
            return "a part of it begins with a dot"
        if part.endswith(".lock"):
            return "a part of it ends with '.lock'"
    return None


@dataclass(frozen=True)
class Advertised:
    """What a remote advertises: full ref name → object, with annotated tags peeled to what they stand for."""

    refs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, output: bytes) -> Advertised:
        """Read the output of `git ls-remote`: lines of `<sha> TAB <name>`, peeled tags as `<name>^{}`."""
        refs: dict[str, str] = {}
        for line in output.decode("utf-8", "surrogateescape").split("\n"):
            sha, _, name = line.partition("\t")
            if FULL_SHA.match(sha) and name.startswith("refs/"):
                # The peeled line follows that of its tag, so it is the one that stays.
                refs[name.removesuffix("^{}")] = sha
        return cls(refs)

    def find(self, name: str) -> Ref | None:
        """Find what a checked name stands for: the full name first, then a branch, then a tag.

        A branch wins over a tag of the same name (git's own order is the reverse): what people verify are
        branches. `refs/tags/<name>` says which one is meant.
        """
        for full in (name, f"refs/heads/{name}", f"refs/tags/{name}"):
            if full in self.refs:
                return self.ref(full)
        return None

    def near(self, name: str) -> str:
        """Ask in a sentence for the branch or tag whose name is nearest to one that there is not; empty when none is."""
        full = (one for one in self.refs if one.startswith(("refs/heads/", "refs/tags/")))
        names = [short_name(one, self.refs) for one in islice(full, NEAR_AMONG)]
        found = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        return f"Did you mean {found[0]!a}? " if found else ""

    def ref(self, full: str) -> Ref:
        """Name an advertised ref as a user would, so that `find` leads back to it."""
        return Ref(short_name(full, self.refs), kind_of(full), self.refs[full])


def kind_of(full: str) -> RefKind:
    """Tell what kind of ref a full name is."""
    if full.startswith("refs/heads/"):
        return RefKind.BRANCH
    if full.startswith("refs/tags/"):
        return RefKind.TAG
    return RefKind.PULL if full.startswith(_PULLS) else RefKind.COMMIT


def short_name(full: str, known: dict[str, str]) -> str:
    """Shorten a branch's or tag's name, except where the short one stands for another ref."""
    short = full.removeprefix("refs/heads/").removeprefix("refs/tags/")
    hidden = short in known or (full.startswith("refs/tags/") and f"refs/heads/{short}" in known)
    return full if hidden else short
