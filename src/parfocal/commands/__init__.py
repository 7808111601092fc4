"""The command line: each command has a file, which parses the arguments, calls the library, and prints the result.

Nothing heavy is imported before a command runs, so that help appears at once.
"""

import sys

import typer

from parfocal.commands import (
    bench,
    check,
    compare,
    demo,
    evaluate,
    explain,
    export,
    plan,
    predict,
    prepare,
    recipes,
    serve,
    synthesize,
    train,
)
from parfocal.commands.flags import FlagCommand
from parfocal.errors import ParfocalError

app = typer.Typer(
    name="parfocal",
    help="Train, compare and use residual networks on medical images.\n\nStart with `parfocal demo`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


def _show_version(requested: bool) -> None:
    if requested:
        # Reading the metadata of the package takes a tenth of the time that help may take.
        from parfocal.version import __version__

        typer.echo(f"parfocal {__version__}")
        raise typer.Exit


@app.callback()
def _main_options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Train, compare and use residual networks on medical images."""


COMMANDS = (
    demo,
    synthesize,
    check,
    plan,
    prepare,
    train,
    evaluate,
    compare,
    predict,
    explain,
    export,
    serve,
    bench,
    recipes,
)
for command in COMMANDS:
    app.command(cls=FlagCommand)(getattr(command, command.__name__.rpartition(".")[2]))


def main() -> None:
    """Run the command line. A user's mistake ends in a message and exit code 1 (data, run) or 2 (usage)."""
    try:
        app()
    except ParfocalError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        print(f"Error: {path}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
