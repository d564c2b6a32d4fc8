"""How the command line says who calls, and how it makes a token."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from simsearch.cli.common.options import edit_by
from simsearch.serve.auth.tokens import id_of, read_record
from tests.cli.shell import NOBODY, Run, commands

TOKEN = "sst_000000000000_" + "a" * 43


def test_every_command_that_asks_a_server_can_say_who_calls() -> None:
    """One without the options could not be used where identities are on."""
    options = ["--token-file", "--ca", "--cert", "--key"]
    for path, command in commands().items():
        opts = [opt for parameter in command.params for opt in parameter.opts]
        asks = "--server" in opts
        assert [opt in opts for opt in options] == [asks] * 4, path


def test_a_new_token_comes_with_what_the_server_keeps(run: Run) -> None:
    """The record fits the token and does not hold it; the next one is another."""
    made = [json.loads(run("token", "new", "--name", "x", "--json").out) for _ in range(2)]
    for each in made:
        assert read_record(each["record"]).matches(each["token"])
        assert each["token"] not in each["record"]
    assert made[0]["token"] != made[1]["token"]


def test_the_lines_to_add_are_toml(run: Run) -> None:
    """They can be copied into the file as they are."""
    lines = run("token", "new", "--name", "ann@example.org").out.splitlines()
    table = tomllib.loads("\n".join(line.strip() for line in lines if line.strip()[:1] in "[t"))
    (record,) = table["identities"]["ann@example.org"]["tokens"]
    (token,) = [line.strip() for line in lines if line.strip().startswith("sst_")]
    assert id_of(token) == read_record(record).id


def test_a_token_stays_on_this_machine_without_tls(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Refused before anything is sent, wherever the token comes from."""
    monkeypatch.setenv("SIMSEARCH_TOKEN", TOKEN)
    refused = run("status", "--server", "10.0.0.7:50070")
    assert (refused.code, "in clear text" in refused.err) == (3, True)
    assert TOKEN not in refused.err
    assert run("status", "--server", NOBODY).code == 6


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(run: Run, tmp_path: Path, content: bytes | None) -> None:
    """It does not fall back to no token, or to another one."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    refused = run("status", "--server", NOBODY, "--token-file", str(path))
    assert (refused.code, str(path) in refused.err) == (3, True)


def test_who_is_known_leaves_the_signing_to_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login name would be refused there as somebody else's; a name that was given is sent."""
    monkeypatch.setenv("LOGNAME", "ann")
    assert edit_by("", "why").actor == "ann"
    monkeypatch.setenv("SIMSEARCH_TOKEN", TOKEN)
    assert edit_by("", "why").actor == ""
    assert edit_by("bob", "why").actor == "bob"


def test_config_check_reads_the_identities_too(run: Run, tmp_path: Path) -> None:
    """What would keep a server from starting, or from taking up an edit, is found before."""
    identities, config = tmp_path / "identities.toml", tmp_path / "simsearch.toml"
    config.write_text(f'[identity]\nfile = "{identities}"\n')
    identities.write_text('[identities.x]\nroles = ["root"]\nbanks = []\ncertificates = ["CN:a"]\n')
    refused = run("config", "check", str(config))
    assert (refused.code, "no role 'root'" in refused.err) == (7, True)
    identities.write_text(identities.read_text().replace("root", "ingest"))
    assert run("config", "check", str(config)).code == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('cert = "a"', "cert and key go together"),
        ('key = "a"', "cert and key go together"),
        ('client_ca = "a"', "client_ca needs cert and key"),
        ('certificate = "a"', "unknown key 'certificate'"),
    ],
)
def test_half_a_tls_configuration_is_refused(
    run: Run, tmp_path: Path, table: str, words: str
) -> None:
    """A server must not fall back to clear text because a line is missing."""
    path = tmp_path / "simsearch.toml"
    path.write_text(f"[tls]\n{table}\n")
    refused = run("config", "check", str(path))
    assert (refused.code, words in refused.err) == (7, True)
