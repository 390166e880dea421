"""What .dockerignore leaves out of a context: docker's rules, and no pattern that takes ages."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker.utils.build import Pattern
from hypothesis import given
from hypothesis import strategies as st

from runner.adapters.docker_calls import IGNORE_BYTES, pack_context
from runner.adapters.docker_ignore import Ignore
from runner.errors import Cancelled, OutputRefused

FILES = ("Dockerfile", "a.md", "README.md", "b/c.md", "b/c/d.md", "b/c/e.py", "f/node_modules/g/h.js", "f/i [1].txt")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (*FILES, ".dockerignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def left_out(root: Path, *lines: str) -> set[str]:
    stays = set(Ignore(lines).walk(root))
    assert ".dockerignore" in stays
    return set(FILES) - stays


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ()),
        (("*.md",), ("a.md", "README.md")),
        (("readme.md",), ()),
        (("**/*.md",), ("a.md", "README.md", "b/c.md", "b/c/d.md")),
        (("**",), FILES),
        (("*",), FILES),
        ((".", "/", "!", "..", "b/.."), ()),
        (("/b/c/",), ("b/c/d.md", "b/c/e.py")),
        (("x/../b//./c",), ("b/c/d.md", "b/c/e.py")),
        (("b/**",), ("b/c.md", "b/c/d.md", "b/c/e.py")),
        (("b/**/d.md",), ("b/c/d.md",)),
        (("b/**/**/c.md",), ("b/c.md",)),
        (("**/node_modules",), ("f/node_modules/g/h.js",)),
        (("*/*/*",), ("b/c/d.md", "b/c/e.py", "f/node_modules/g/h.js")),
        (("?.md", "b/[c-e].md"), ("a.md", "b/c.md")),
        (("[!a].md", "b/[^c].md", "b?c.md", "b[/]c.md", "b[!x]c.md"), ()),
        (("f/i \\[1].txt",), ("f/i [1].txt",)),
        (("f/i [[]1].txt",), ("f/i [1].txt",)),
        (("f/i [1",), ()),
        (("*.md", "!README.md"), ("a.md",)),
        (("!README.md", "*.md"), ("a.md", "README.md")),
        (("b", "!b/c"), ("b/c.md",)),
        (("b", "!b/c", "b/c/e.*"), ("b/c.md", "b/c/e.py")),
        (("b", "! b/*/d.md"), ("b/c.md", "b/c/e.py")),
        (("*", "!**/d.md"), tuple(set(FILES) - {"b/c/d.md"})),
    ],
)
def test_the_last_pattern_that_matches_decides(root: Path, lines: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert left_out(root, *lines) == set(expected)


pieces = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "[ab]", "."]), min_size=1, max_size=9)
names = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4)


@given(pieces.map("".join), names)
def test_a_pattern_matches_what_the_sdk_says(pattern: str, parts: list[str]) -> None:
    theirs = Pattern(pattern)
    ignore = Ignore([pattern])
    found = ignore._follow(ignore._begin, "/".join(parts)) & ignore._ends
    assert bool(found) == (bool(theirs.dirs) and theirs.match("/".join(parts)))


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 30 + "*b", "**/a" * 30 + "/b", "**a" * 30 + "b", "?*" * 60 + "b", "[a-b]*" * 40 + "c", "*" * 1_001 + "b"],
)
def test_no_pattern_takes_ages(tmp_path: Path, pattern: str) -> None:
    (tmp_path / ("a" * 200)).touch()
    deep = tmp_path
    for _ in range(60):
        deep = deep / "a"
    deep.mkdir(parents=True)
    assert len(list(Ignore([pattern]).walk(tmp_path))) == 61


def test_patterns_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("ok\n[z-a]\n")
    with pytest.raises(OutputRefused, match=r"\.dockerignore: \[z-a\] is no class"):
        pack_context(tmp_path, {})
    (tmp_path / ".dockerignore").write_text("a" * (IGNORE_BYTES + 1))
    with pytest.raises(OutputRefused, match="more than 65,536 bytes"):
        pack_context(tmp_path, {})


@pytest.mark.parametrize("calls", [1, 4])  # while the paths are listed, and while they are packed
def test_packing_can_be_ended(tmp_path: Path, calls: int) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    left = iter(range(calls - 1))

    def check() -> None:
        if next(left, None) is None:
            raise Cancelled("The run was cancelled.")

    with pytest.raises(Cancelled):
        pack_context(tmp_path, {}, check)
    assert next(left, None) is None
