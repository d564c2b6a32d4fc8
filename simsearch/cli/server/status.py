"""`simsearch status`: what a server searches with."""

from __future__ import annotations

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server
from simsearch.cli.common.output import plain, print_json, print_line, print_table


@asks_a_server
def status(server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """What a server searches with, and how far its searches are behind the bank.

    Example: simsearch status --server 127.0.0.1:50070
    """
    with connect(server) as client:
        answer = client.status()
    if as_json:
        print_json(plain(answer))
        return
    print_line(
        f"simsearch {answer.version} at {server}: snapshot {answer.snapshot}, searches see change "
        f"{answer.visible_seq} of {answer.durable_seq} (lag {answer.lag})"
    )
    if answer.fault:
        print_line(f"FAULT: {answer.fault}")
    if not answer.ready:
        print_line("NOT READY: it loads, drains, or its canary found a fault")
    for found in answer.canary:
        if not found.right:
            print_line(f"CANARY: {found.part} {found.signal}: {found.detail}")
    print_table(
        ("encoder", "state", "rows", "space"),
        [(s.name or "(none)", "on" if s.available else "OFF", str(s.rows), s.space or s.reason)
         for s in answer.spaces],
    )  # fmt: skip
    print_table(("signal", "rows"), [(s.signal, str(s.rows)) for s in answer.signals])
    print_table(
        ("bank", "active entries", "texts in the older form alone"),
        [(b.name, str(b.active_entries), str(b.older_form_entries)) for b in answer.banks],
    )
    if any(b.older_form_entries for b in answer.banks):
        print_line("extend the entries of the older form: see `simsearch entry backfill --help`")
