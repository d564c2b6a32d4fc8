"""`simsearch config check`: what is wrong with a configuration file, or what it means."""

from __future__ import annotations

from pathlib import Path

import msgspec

from simsearch.cli.common.options import Json
from simsearch.cli.common.output import print_json, print_line
from simsearch.config_file import load
from simsearch.serve.auth.identities_file import load_identities


def config_check(path: Path, as_json: Json = False) -> None:
    """Read a configuration file and say what is wrong with it, or what it means.

    Example: simsearch config check simsearch.toml
    """
    config = load(path)
    if config.identity.file:
        load_identities(Path(config.identity.file))
    if as_json:
        print_json(msgspec.to_builtins(config))
        return
    encoders = ", ".join(config.encoders) or "none"
    print_line(
        f"{path} is good: listens on {config.server.listen}, data in {config.server.data_dir}, "
        f"encoders: {encoders}"
    )
