"""Look at the host's cache of trees from outside, and part with the least recently used of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NoReturn

from runner.adapters.tree_cache import TreeCache

_LOCK: Final = re.compile(r"\.((?:[0-9a-f]{40}|[0-9a-f]{64})(?:\.over)?)\.lock\Z")


def standing_trees(root: Path) -> dict[Path, float]:
    """Give the trees and layers that stand below the cache's directory, with their last use in seconds since 1970."""
    found = {}
    for lock in root.glob("[!.]*/.*.lock"):
        match = _LOCK.match(lock.name)
        tree = lock.with_name(match[1]) if match else None
        if tree is not None and tree.is_dir():
            try:
                found[tree] = lock.stat().st_mtime
            except FileNotFoundError:
                continue
    return found


def evict_trees(root: Path, keep: int) -> list[Path]:
    """Remove all but the `keep` trees used last, save those that are held or mounted; gives what was removed."""
    return TreeCache(root, _no_mirror, keep=keep).prune()


def _no_mirror(project: str) -> NoReturn:
    raise AssertionError(f"removing trees needs no mirror of {project}")
