"""The `simsearch-build` command: its command group, and what a failure looks like from a shell."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from index_builders.commands.build_command_table import COMMANDS
from simsearch.errors import SimsearchError
from simsearch.lazy_commands import LazyGroup


class Commands(LazyGroup):
    """The group of all commands; the module of one is imported when it is chosen."""

    def __init__(self, **options: Any) -> None:
        super().__init__(rows=COMMANDS, **options)


app = typer.Typer(
    name="simsearch-build",
    cls=Commands,
    help="The batch side: builds and checks, beside a running server or without one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def top() -> None:
    """The batch side: builds and checks, beside a running server or without one."""


def main() -> None:
    """Run one command; a refusal is one sentence on standard error and exit code 7."""
    # Read when FAISS is loaded. By default its threads spin while they wait for each other: with
    # busy cores beside it, training took 16 times the CPU, and took it from the server.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SimsearchError as error:
        sys.stderr.write(f"simsearch-build: {error.message}\n")
        sys.exit(7)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
