from __future__ import annotations

import pytest

from runner.adapters.git_tree import TreeCheck, TreeLimits
from runner.errors import TreeRefused, TreeTooLarge

LIMITS = TreeLimits(files=4, bytes=100, blob=60, path_depth=3, path_length=40)


def entry(path: bytes, size: int = 1, mode: bytes = b"100644") -> bytes:
    return b"%s blob %s %7d\t%s\0" % (mode, b"a" * 40, size, path)


def check(listing: bytes, step: int = 7) -> TreeCheck:
    tree = TreeCheck("a" * 40, LIMITS)
    for at in range(0, len(listing), step):
        tree.take(listing[at : at + step])
    return tree


def test_a_listing_is_added_up_however_it_is_cut() -> None:
    listing = entry(b"a", 50) + b"040000 tree %s       -\tb\0" % (b"a" * 40) + entry(b"b/c", 50)
    for step in (1, 13, 1_000):
        assert (check(listing, step).files, check(listing, step).size) == (3, 100)


@pytest.mark.parametrize(
    ("listing", "limit"),
    [
        (b"".join(entry(b"%d" % n) for n in range(5)), "files"),
        (entry(b"a", 61), "blob"),
        (entry(b"a", 60) + entry(b"b", 41), "bytes"),
        (entry(b"a/b/c/d"), "path_depth"),
        (entry(b"x" * 41), "path_length"),
    ],
)
def test_each_limit_is_named(listing: bytes, limit: str) -> None:
    with pytest.raises(TreeTooLarge, match=rf"limit: {limit}\)"):
        check(listing)


def test_an_endless_path_is_not_collected() -> None:
    tree = TreeCheck("a" * 40, LIMITS)
    with pytest.raises(TreeTooLarge, match="path_length"):  # noqa: PT012  # whichever piece it is
        for _ in range(1_000):
            tree.take(b"x" * 65_536)


@pytest.mark.parametrize("path", [b".git", b"a/.GiT", b"..", b"a/..", b".", b"a//"])
def test_names_that_lead_astray_are_refused(path: bytes) -> None:
    with pytest.raises(TreeRefused, match="cannot be the name of a file"):
        check(entry(path))


def test_a_path_that_stands_twice_is_refused() -> None:
    with pytest.raises(TreeRefused, match="stands twice"):
        check(entry(b"a", mode=b"120000") + b"040000 tree %s       -\ta\0" % (b"a" * 40) + entry(b"a/passwd"))
