"""The command line as a whole: lazy commands, help, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobs.cli import SECTIONS, main
from jobs.cli_common import Failure
from jobs.cli_group import EXIT_STOPPED, LazyGroup, exit_code_of, words_of
from runner.errors import (
    DatabaseRefused,
    InfraError,
    NotFound,
    Problem,
    RemoteUnavailable,
    RequestError,
    SpecError,
)

NAMES = [name for section in SECTIONS.values() for name in section]
GROUPS = {"spec": ["check", "schema"], "settings": ["check", "schema"], "project": ["list"]}
GROUPS |= {"db": ["bless", "check", "bases", "forget"]}
COMMANDS = [[name] for name in NAMES if name not in GROUPS] + [[g, c] for g, each in GROUPS.items() for c in each]


def test_help_lists_all_commands_without_importing_any() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from jobs.cli import main; "
        "out = CliRunner().invoke(main, ['--help']).output; "
        "heavy = {'docker', 'sqlalchemy', 'psycopg', 'httpx', 'pydantic', 'git', 'redis', 'rich', 'flask'}; "
        "sys.stdout.write(' '.join(sorted(heavy & set(sys.modules))) + '|' + out)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, _, text = done.stdout.partition("|")
    assert imported == ""
    assert [name for name in NAMES if f"  {name} " not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_command_loads_and_says_of_itself_what_the_list_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    text = next(section[name][1] for section in SECTIONS.values() if name in section)
    first = " ".join((command.help or "").split("\n\n")[0].split())
    assert name == "demo" or first == text


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_has_an_example(words: list[str]) -> None:
    found = CliRunner().invoke(main, [*words, "--help"])
    assert found.exit_code == 0
    assert "Example: seatrial" in found.output


def test_a_wrong_name_is_told_the_nearest_one() -> None:
    found = CliRunner().invoke(main, ["sho", "1"])
    assert (found.exit_code, "Did you mean 'show'?" in found.output) == (2, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("no"), 2),
        (NotFound("no"), 2),
        (RemoteUnavailable("no"), 3),
        (SpecError("no"), 1),
        (InfraError("no"), 3),
        (DatabaseRefused("no"), 3),
        (KeyboardInterrupt(), EXIT_STOPPED),
        (Failure("no", 2), 2),
    ],
)
def test_errors_end_with_words_and_a_code_by_whose_fault_it_is(error: BaseException, code: int) -> None:
    @click.group(cls=LazyGroup)
    def group() -> None:
        """Hold one command."""

    @group.command()
    def fails() -> None:
        raise error

    group.get_command = lambda ctx, name: fails  # type: ignore[method-assign]
    found = CliRunner().invoke(group, ["fails"])
    assert found.exit_code == code
    assert found.output.startswith("Error: ")
    if isinstance(error, NotFound | SpecError):
        assert exit_code_of(error) == code


def test_an_error_names_field_value_and_remedy_once_and_hides_control_characters() -> None:
    problem = Problem("run", "is required", "\x1b]0;x\x07", line=3)
    words = words_of(RequestError("The file is not valid.", remedy="Mend it.", problems=(problem,)))
    assert words.splitlines() == [
        "The file is not valid.",
        "  line 3: run: is required (given: \\x1b]0;x\\x07)",
        "  Mend it.",
    ]
    assert words_of(RequestError("No. Mend it.", remedy="Mend it.")) == "No. Mend it."


def test_the_documentation_names_each_command() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    assert [words for words in COMMANDS if f"`{' '.join(words)}" not in text] == []
