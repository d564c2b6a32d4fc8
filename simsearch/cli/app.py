"""The command tree, and what a failure looks like from a shell."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, NoReturn

import typer

from simsearch import __version__
from simsearch.cli.command_table import COMMANDS
from simsearch.cli.common.options import EXIT_CODES_HELP, exit_code
from simsearch.cli.common.output import print_line, printable
from simsearch.errors import BadConfig, BadRequest, SimsearchError
from simsearch.lazy_commands import LazyGroup


class Commands(LazyGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(rows=COMMANDS, **options)


app = typer.Typer(
    name="simsearch",
    cls=Commands,
    help="Known-abuse matching: is this upload a copy or a rewording of something banned?",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print_line(f"simsearch {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="and stop")
    ] = False,
) -> None:
    """Known-abuse matching: is this upload a copy or a rewording of something banned?"""


def main() -> None:
    """Run one command; a refusal is one sentence on standard error and an exit code."""
    try:
        app()
    except SimsearchError as error:
        _refuse(error)
    except ModuleNotFoundError as missing:
        _refuse(
            BadConfig(
                f"this needs the package {missing.name!r}, which is not installed: "
                'pip install ".[cpu]" (or [gpu]; add demo for `simsearch demo`)'
            )
        )
    except UnicodeEncodeError:
        _refuse(BadRequest("an argument is not UTF-8: write it in the terminal's own encoding"))
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse(error: SimsearchError) -> NoReturn:
    if "--json" in sys.argv:
        refusal = {"error": {"reason": error.reason, "message": error.message}}
        sys.stderr.write(json.dumps(refusal) + "\n")
    else:
        sys.stderr.write(f"simsearch: {printable(error.message)}\n")
    sys.exit(exit_code(error))
