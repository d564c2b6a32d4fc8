"""`simsearch serve`."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from msgspec import structs

from simsearch.cli.common.options import Json
from simsearch.cli.common.output import print_line

if TYPE_CHECKING:
    from simsearch.config import Config


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
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="how much standard error says")
    ] = LogLevel.WARNING,
    as_json: Json = False,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Example: simsearch serve --data-dir ./banks --listen 127.0.0.1:50070
    """
    _set_environment()
    from simsearch.config import Config
    from simsearch.config_file import load
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


def _set_environment() -> None:
    """Before any tokenizer, CLIP library or gRPC loads: nothing at start-up may reach for a model
    hub, and gRPC reads its settings when it is imported."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would say, this server says by name
    from simsearch.serve.transport.tls_version import ENVIRONMENT

    os.environ.update(ENVIRONMENT)


def _with_options(config: Config, listen: str, data_dir: str, insecure: bool) -> Config:
    server = structs.replace(
        config.server,
        listen=listen or config.server.listen,
        data_dir=data_dir or config.server.data_dir,
        insecure_allow_remote_without_tls=(
            insecure or config.server.insecure_allow_remote_without_tls
        ),
    )
    return structs.replace(config, server=server)
