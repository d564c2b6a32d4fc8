"""`simsearch demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from simsearch.cli.common.options import Json


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="leave the server running and say how to talk to it")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a real server, ban real content, send edited copies, and show what is caught.

    Example: simsearch demo --keep
    """
    from simsearch.cli.demo.story import run_demo  # help works without the extra `demo`

    raise typer.Exit(run_demo(keep=keep, as_json=as_json))
