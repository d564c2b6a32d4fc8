"""`simsearch token new`."""

from __future__ import annotations

from typing import Annotated

import typer

from simsearch.cli.common.options import Json
from simsearch.cli.common.output import print_json, print_line
from simsearch.serve.auth.tokens import new_token, record_of


def new(
    name: Annotated[str, typer.Option("--name", help="of the identity that it is for")],
    as_json: Json = False,
) -> None:
    """Make a token and show it this once, with what the identities file is to hold of it.

    Example: simsearch token new --name ingest-eu
    """
    token = new_token()
    record = str(record_of(token))
    if as_json:
        print_json({"name": name, "token": token, "record": record})
        return
    print_line(f"The token, for {name} alone. It is not shown again:\n\n  {token}\n")
    print_line("Into the identities file of the server, which cannot tell the token from it:\n")
    print_line(f'  [identities."{name}"]\n  tokens = ["{record}"]')
