"""What all commands share: the settings, and errors as words and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli_show import plain
from runner.errors import Problem

if TYPE_CHECKING:
    from jobs.settings import Settings

EXIT_PASSED, EXIT_FAILED, EXIT_USAGE, EXIT_INFRASTRUCTURE = 0, 1, 2, 3


class Failure(click.ClickException):
    """An error in words, with the exit code that scripts can go by."""

    exit_code: int  # type: ignore[misc]  # of this one, not of the class

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


def pass_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the settings file that `--config` names to a command, as its first argument."""

    @click.pass_context
    def wrapped(context: click.Context, *args: Any, **kwargs: Any) -> Any:
        config = context.find_root().params.get("config")
        return context.invoke(function, config, *args, **kwargs)

    return update_wrapper(wrapped, function)


def current_settings(config: Path | None) -> Settings:
    """Load the settings; problems end the command with exit code 2."""
    # Half a second of a loaded machine: not for those commands that need no settings.
    from jobs.settings import SettingsError, settings_from_process

    try:
        return settings_from_process(config)
    except SettingsError as error:
        raise Failure(error.text, EXIT_USAGE) from None


def current_server(config: Path | None) -> str:
    """Give the address of the server that the settings name; a problem of that part ends the command with exit code 2."""
    from jobs.settings import SettingsError, server_from_process

    try:
        return server_from_process(config).url
    except SettingsError as error:
        raise Failure(error.text, EXIT_USAGE) from None


def problem_line(file: str, problem: Problem) -> str:
    """Write a problem as compilers do, so that editors find the place."""
    place = file if problem.line is None else f"{file}:{problem.line}"
    given = "" if problem.value is None else f" (given: {problem.value})"
    return plain(f"{place}: {problem.key}: {problem.message}{given}")
