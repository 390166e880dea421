"""A group of commands that imports each one when it is first used, and tells errors in words."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from jobs.cli_common import EXIT_FAILED, EXIT_INFRASTRUCTURE, EXIT_USAGE, Failure
from jobs.cli_show import plain
from runner.errors import BranchError, RequestError, SeatrialError

# What a shell gives for a command that Ctrl-C ended (128 + SIGINT): not one of our verdicts.
EXIT_STOPPED = 130


class LazyGroup(click.Group):
    """Commands by sections: title → {name: (`module:attribute`, what `--help` says of it)}.

    Docker's, SQLAlchemy's and the HTTP client's modules take longer to import than most commands run.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, tuple[str, str]]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the sections."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        for section in self.sections.values():
            if cmd_name in section:
                module, _, attribute = section[cmd_name][0].partition(":")
                command = getattr(import_module(module), attribute)
                assert isinstance(command, click.Command)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for; one that is not there names its nearest ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it cannot do ends it with words and an exit code, never a traceback."""
        try:
            return super().invoke(ctx)
        except SeatrialError as error:
            raise Failure(words_of(error), exit_code_of(error)) from None
        except KeyboardInterrupt:
            raise Failure("Stopped by Ctrl-C.", EXIT_STOPPED) from None


def exit_code_of(error: SeatrialError) -> int:
    """Give the exit code by whose fault it was: the caller's 2, the branch's 1, the world's 3."""
    if isinstance(error, RequestError):
        return EXIT_USAGE if error.status < 500 else EXIT_INFRASTRUCTURE
    if error.code == "settings_invalid":
        return EXIT_USAGE
    return EXIT_FAILED if isinstance(error, BranchError) else EXIT_INFRASTRUCTURE


def words_of(error: SeatrialError) -> str:
    """Write an error with what is wrong in particular and what to do about it."""
    lines = [error.text]
    if isinstance(error, RequestError):
        lines += [f"  {problem}" for problem in error.problems if str(problem) not in error.text]
        if error.remedy and error.remedy not in error.text:
            lines.append(f"  {error.remedy}")
    # Values of branches and of other people stand in there.
    return "\n".join(plain(line) for text in lines for line in text.splitlines())
