"""What .dockerignore leaves out of a build's context, however its patterns are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from runner.errors import OutputRefused

_CHARACTERS = 1_024  # whose masks are kept; more different ones are rare in names of files


class Ignore:
    """The patterns of a .dockerignore by the rules of `docker build`: the last one that matches a path decides.

    A pattern that matches a directory matches all that is below. `*`, `?` and `[a-z]` never match `/`; `**` matches any
    number of directories; `!` keeps what a pattern before it left out.

    All patterns are one automaton, whose states are the bits of one number: a path takes one step a character, where
    regular expressions could take ages. Raises OutputRefused for a pattern that is none.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._literals: dict[str, int] = {}
        self._classes: list[tuple[int, bool, list[tuple[str, str]]]] = []
        self._masks: dict[str, tuple[int, int]] = {}
        self._any = self._stars = self._rests = self._entries = self._loops = 0
        self._begin = self._ends = self._keeps = self._keeping = 0
        self._next = 0
        for line in (*lines, "!.dockerignore"):
            keeps = line.startswith("!")
            if pattern := "/".join(_parts(line.removeprefix("!"))):
                self._add(pattern, keeps=keeps)
        self._begin = self._settled(self._begin)

    def walk(self, root: Path, check: Callable[[], None] = lambda: None) -> Iterator[str]:
        """Give the paths below `root` that stay, directories too; links are not followed. `check` may end it."""
        pending = [("", self._begin, 0)]
        while pending:
            directory, begin, above = pending.pop()
            with os.scandir(root / directory) as entries:
                for entry in entries:
                    check()
                    path = directory + entry.name
                    reached = self._follow(begin, entry.name)
                    matched = above | reached & self._ends
                    last = 1 << matched.bit_length() >> 1
                    stays = not matched or bool(last & self._keeps)
                    if stays:
                        yield path
                    if entry.is_dir(follow_symlinks=False):
                        below = self._follow(reached, "/")
                        if stays or below & self._keeping:
                            pending.append((path + "/", below, matched))

    def _follow(self, states: int, text: str) -> int:
        for character in text:
            steps, stays = self._masks.get(character) or self._learn(character)
            states = self._settled((states & steps) << 1 | states & stays)
        return states

    def _settled(self, states: int) -> int:
        """Add the states that are reached without a character."""
        entries = states & self._entries
        states |= entries << 1 | entries << 2
        return states | (states & (self._stars | self._rests)) << 1

    def _learn(self, character: str) -> tuple[int, int]:
        """Give the states that a character leads on from, and those that it leaves as they are."""
        steps, stays = self._literals.get(character, 0), self._loops | self._rests
        if character == "/":
            steps |= self._loops
        else:
            steps |= self._any
            stays |= self._stars
            for bit, but, ranges in self._classes:
                if any(low <= character <= high for low, high in ranges) != but:
                    steps |= bit
        if len(self._masks) >= _CHARACTERS:
            self._masks.clear()
        self._masks[character] = steps, stays
        return steps, stays

    def _state(self) -> int:
        self._next += 1
        return 1 << (self._next - 1)

    def _add(self, pattern: str, *, keeps: bool) -> None:
        first = self._next
        self._begin |= 1 << first
        at = 0
        while at < len(pattern):
            character, at = pattern[at], at + 1
            if pattern.startswith("**", at - 1):
                at += 1
                if at < len(pattern) and pattern[at] == "/":
                    at += 1
                if at == len(pattern):
                    self._rests |= self._state()
                elif not pattern.startswith("**", at):  # twice says no more than once
                    self._entries |= self._state()
                    self._loops |= self._state()
            elif character == "*":
                self._stars |= self._state()
            elif character == "?":
                self._any |= self._state()
            elif (
                character == "[" and (end := pattern.find("]", at + 2 if pattern[at : at + 1] in "!^" else at + 1)) > 0
            ):
                self._classes.append((self._state(), *_class(pattern[at:end])))
                at = end + 1
            else:
                if character == "\\" and at < len(pattern):
                    character, at = pattern[at], at + 1
                self._literals[character] = self._literals.get(character, 0) | self._state()
        end_bit = self._state()
        self._ends |= end_bit
        if keeps:
            self._keeps |= end_bit
            self._keeping |= (end_bit << 1) - (1 << first)


def _parts(pattern: str) -> list[str]:
    """Split a pattern; slashes at its ends, `.` and `..` are resolved as docker does."""
    parts: list[str] = []
    for part in pattern.strip().split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _class(text: str) -> tuple[bool, list[tuple[str, str]]]:
    """Read what stands between [ and ]: whether it begins with ! or ^, and its ranges."""
    but = text[0] in "!^"
    rest, ranges = text[1:] if but else text, []
    while rest:
        low, high, rest = (
            (rest[0], rest[2], rest[3:]) if rest[1:2] == "-" and rest[2:] else (rest[0], rest[0], rest[1:])
        )
        if low > high:
            raise OutputRefused(f".dockerignore: [{text[:80]}] is no class of characters: {low!a} is after {high!a}.")
        ranges.append((low, high))
    return but, ranges
