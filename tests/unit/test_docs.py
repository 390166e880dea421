"""The documents: links lead somewhere, commands and options exist, codes are complete, examples parse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import click
import pytest

from jobs.cli import SECTIONS, main
from jobs.run import FAIL_FAST, LEG_FAILED, WORKER_LOST
from jobs.settings import load_settings
from runner.spec import parse_spec

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[\s(=])(?:\S*/)?seatrial(?: --config \S+)? (?P<words>[a-z][^\n|)#]*)", re.MULTILINE)
FILE = re.compile(r"(?:runner|jobs|web|docker|tests|examples|docs)/[\w./-]+\.(?:py|sh|yml|md|Dockerfile)\Z")
MAKE = re.compile(r"^(?:[A-Z]+=\S+ )*make ([a-z -]+)", re.MULTILINE)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


def without_code(text: str) -> str:
    return SPAN.sub("", FENCE.sub("", text))


def code_of(text: str) -> str:
    """Give the fenced shell lines and the code spans of a document, a line each."""
    fenced = [body for language, body in FENCE.findall(text) if language in ("", "sh", "ini")]
    return "\n".join([*fenced, *SPAN.findall(FENCE.sub("", text))])


def anchors(path: Path) -> set[str]:
    """Give the fragments that the headings of a document make, as GitHub names them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text("utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in LINK.findall(without_code(document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        there = found.is_relative_to(ROOT) and found.exists()
        if not there or (fragment and fragment not in anchors(found)):
            broken.append(target)
    assert broken == []


@each_document
def test_every_named_file_is_there(document: Path) -> None:
    spans = SPAN.findall(FENCE.sub("", document.read_text("utf-8")))
    named = {span for span in spans if FILE.fullmatch(span)}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def command_at(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """Find the command that words begin with, and the words behind it; None when there is none of that name."""
    with click.Context(main) as context:
        command: click.Command | None = main.get_command(context, words[0])
        rest = words[1:]
        while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            command, rest = command.get_command(context, rest[0]), rest[1:]
    return command, rest


@each_document
def test_every_command_and_option_exists(document: Path) -> None:
    known = {name for section in SECTIONS.values() for name in section}
    wrong = []
    for found in COMMAND.finditer(code_of(document.read_text("utf-8"))):
        words = re.sub(r"\"[^\"]*\"|'[^']*'", "TEXT", found["words"]).rstrip("`.,;:…").split()
        command, rest = command_at(words) if words[0] in known else (None, [])
        if command is None:
            wrong.append(found["words"])
            continue
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        wrong += [f"{words[0]} {word}" for word in rest if re.match(r"--?[a-z]", word) and word not in options]
    assert wrong == []


@each_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for words in MAKE.findall(code_of(document.read_text("utf-8"))) for word in words.split()}
    assert named <= targets


@each_document
def test_marked_examples_parse(document: Path, tmp_path: Path) -> None:
    for language, body in FENCE.findall(document.read_text("utf-8")):
        if language == "yaml" and body.startswith("# seatrial.yml\n"):
            parse_spec(body, source=document.name)
        if language == "toml" and body.startswith("# seatrial.toml\n"):
            dsn = "postgresql://seatrial@db.example.com/verification"
            for name in re.findall(r'dsn_file = "([\w.]+)"', body):
                (tmp_path / name).write_text(dsn)
            (tmp_path / "seatrial.toml").write_text(body)
            variables = dict.fromkeys(re.findall(r'dsn_env = "(\w+)"', body), dsn)
            load_settings(tmp_path / "seatrial.toml", {"HOME": str(tmp_path), **variables})


def codes_in_source() -> Iterator[str]:
    """Find the `code` of each class, and those that reasons and the web's refusals name themselves."""
    yield from (WORKER_LOST, FAIL_FAST, LEG_FAILED)
    for package in ("runner", "jobs", "web"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    for line in node.body:
                        yield from texts([line.value] if is_code(line) else [])
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    place = {"Reason": 0, "WebError": 1}.get(node.func.id)
                    yield from texts([] if place is None else node.args[place : place + 1])


def is_code(line: ast.stmt) -> TypeGuard[ast.Assign | ast.AnnAssign]:
    """Tell whether a line sets a class' `code`."""
    if isinstance(line, ast.Assign):
        targets = line.targets
    elif isinstance(line, ast.AnnAssign):
        targets = [line.target]
    else:
        return False
    return any(isinstance(target, ast.Name) and target.id == "code" for target in targets)


def texts(nodes: Sequence[ast.expr | None]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_code_is_documented_and_no_other() -> None:
    _, _, tables = (ROOT / "docs" / "run-states.md").read_text("utf-8").partition("## Reasons and codes")
    listed = re.findall(r"^\| `([a-z_]+)` \|", tables, re.MULTILINE)
    assert sorted(listed) == sorted(set(codes_in_source()))


def test_each_fault_of_the_catalogue_has_a_test_named_after_it() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = re.findall(r"^\| ([AB]\d+) \|", page, re.MULTILINE)
    assert len(rows) == 32
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = " ".join(re.findall(r"^def (test_(?:[ab]\d\d_)+)", tests, re.MULTILINE))
    missing = [row for row in rows if f"_{row[0].lower()}{int(row[1:]):02}_" not in named]
    assert not missing
