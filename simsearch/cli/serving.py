"""`simsearch serve`, `status`, `config check` and `demo`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.cli.connecting import asks_a_server, connect
from simsearch.cli.options import SERVER_DEFAULT, Json, Server
from simsearch.cli.output import plain, print_json, print_line, print_table
from simsearch.errors import BadRequest

if TYPE_CHECKING:
    from simsearch.config import Config

config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--config", envvar="SIMSEARCH_CONFIG", help="a TOML file; see the README"),
]


def serve(
    config: ConfigFile = None,
    listen: Annotated[
        str, typer.Option(help="host:port; port 0 picks a free one  [default: 127.0.0.1:50070]")
    ] = "",
    data_dir: Annotated[
        str, typer.Option(help="where the banks are kept  [default: simsearch-data]")
    ] = "",
    insecure_allow_remote_without_tls: Annotated[
        bool,
        typer.Option(
            "--insecure-allow-remote-without-tls",
            help="listen beyond this machine although anybody there could read along, and ban",
        ),
    ] = False,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", hidden=True)] = False,
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="how much standard error says")
    ] = LogLevel.WARNING,
    as_json: Json = False,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Example: simsearch serve --data-dir ./banks --listen 127.0.0.1:50070
    """
    if allow_remote:
        raise BadRequest(
            "--allow-remote is now --insecure-allow-remote-without-tls, and not needed with TLS "
            "and identities: see docs/identity.md"
        )
    # Before any tokenizer or CLIP library loads: nothing at start-up may reach for a model hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would say, this server says by name
    from simsearch.serve.transport.tls_version import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # gRPC reads it when it is imported: below
    from simsearch.config import Config, load
    from simsearch.telemetry import log_to_stderr

    read = load(config) if config else Config()
    log_to_stderr(log_level.value, read.telemetry.log_format)
    chosen = _with_options(read, listen, data_dir, insecure_allow_remote_without_tls)

    def announce(address: str) -> None:
        line = (
            json.dumps({"listening": address, "data_dir": chosen.server.data_dir})
            if as_json
            else f"simsearch serves on {address}; data in {chosen.server.data_dir}; Ctrl-C stops it"
        )
        print_line(line)
        sys.stdout.flush()

    if not as_json:
        sys.stderr.write("loading encoders and banks …\n")
    from simsearch.serve.server import run  # after the options are found good: it takes seconds

    run(chosen, announce)


def _with_options(config: Config, listen: str, data_dir: str, insecure: bool) -> Config:
    server = dataclasses.replace(
        config.server,
        listen=listen or config.server.listen,
        data_dir=data_dir or config.server.data_dir,
        insecure_allow_remote_without_tls=(
            insecure or config.server.insecure_allow_remote_without_tls
        ),
    )
    return dataclasses.replace(config, server=server)


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
    print_table(("bank", "active entries"), [(b.name, str(b.active_entries)) for b in answer.banks])


@config_app.command("check")
def config_check(path: Path, as_json: Json = False) -> None:
    """Read a configuration file and say what is wrong with it, or what it means.

    Example: simsearch config check simsearch.toml
    """
    from simsearch.config import load

    config = load(path)
    if config.identity.file:
        from simsearch.serve.auth.identities_file import load_identities

        load_identities(Path(config.identity.file))
    if as_json:
        print_json(dataclasses.asdict(config))
        return
    encoders = ", ".join(config.encoders) or "none"
    print_line(
        f"{path} is good: listens on {config.server.listen}, data in {config.server.data_dir}, "
        f"encoders: {encoders}"
    )


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="leave the server running and say how to talk to it")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a real server, ban real content, send edited copies, and show what is caught.

    Example: simsearch demo --keep
    """
    from simsearch.cli.demo.run import run_demo

    raise typer.Exit(run_demo(keep=keep, as_json=as_json))
