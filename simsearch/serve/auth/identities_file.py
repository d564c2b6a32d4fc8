"""Identities file: reads it, and finds the identity that a token or a certificate proves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from simsearch.config import CallerConfig, IdentityConfig
from simsearch.config_file import load_callers
from simsearch.errors import BadConfig, Unauthenticated
from simsearch.serve.auth.identity import LOCAL, Identity, Quota
from simsearch.serve.auth.tokens import TokenRecord, id_of, read_record
from simsearch.serve.transport.reloading_files import FileReloader
from simsearch.types import BankAccess, Role

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
PATTERN = re.compile(r"[a-z0-9_*-]{1,64}")
CERTIFICATE_NAME = re.compile(r"(URI|DNS|CN):\S(.*\S)?")
BEARER = "bearer "

AuthContext = Mapping[str, Iterable[bytes]]
"""Properties of a connection's authentication, as `context.auth_context()` returns them."""


@dataclass(frozen=True)
class Identities:
    """Every identity, by name, by token id and by certificate name."""

    by_name: Mapping[str, Identity]
    tokens: Mapping[str, tuple[TokenRecord, Identity]]
    certificates: Mapping[str, Identity]

    @classmethod
    def of(cls, callers: Mapping[str, CallerConfig], origin: str) -> Identities:
        """Raises BadConfig naming the identity and the key."""
        identities = {
            name: _identity(name, caller, f"{origin}: identities.{name}")
            for name, caller in callers.items()
        }
        tokens: dict[str, tuple[TokenRecord, Identity]] = {}
        certificates: dict[str, Identity] = {}
        for name, caller in callers.items():
            where = f"{origin}: identities.{name}"
            for record in _records(caller.tokens, where):
                if record.id in tokens:
                    raise BadConfig(f"{where}: token {record.id} stands in this file twice")
                tokens[record.id] = record, identities[name]
            for certificate in caller.certificates:
                _check_certificate_name(certificate, where)
                if certificate in certificates:
                    raise BadConfig(f"{where}: {certificate!r} stands in this file twice")
                certificates[certificate] = identities[name]
        return cls(identities, tokens, certificates)

    def by_token(self, token: str) -> Identity:
        """The token's identity. Raises Unauthenticated, with one message for every fault."""
        found = self.tokens.get(id_of(token) or "")
        if found is None or not found[0].matches(token):
            raise Unauthenticated("this token is not known here, or not any more: get a new one")
        return found[1]

    def by_certificate(self, auth: AuthContext) -> Identity | None:
        """The identity that a verified certificate names; None without a certificate.

        Raises Unauthenticated where it names none, or two.
        """
        names = certificate_names(auth)
        if not names:
            return None
        found = {i.name: i for n in names if (i := self.certificates.get(n)) is not None}
        if len(found) != 1:
            listed = ", ".join(names)[:200]
            raise Unauthenticated(
                f"this certificate's names ({listed}) belong to {len(found) or 'no'} identities "
                "here: an operator must list exactly one of them, for one identity"
            )
        return next(iter(found.values()))


def watch_identities(identity: IdentityConfig) -> FileReloader[Identities] | None:
    """The identities of the configured file, reloaded when it changes; None without a file.

    Raises BadConfig.
    """
    if not identity.file:
        return None
    path = Path(identity.file)
    return FileReloader("identities", [path], partial(load_identities, path))


def load_identities(path: Path) -> Identities:
    """The identities of a file. Raises BadConfig."""
    return Identities.of(load_callers(path), str(path))


def identify(
    identities: Identities, metadata: Iterable[tuple[str, str | bytes]], auth: AuthContext
) -> Identity:
    """The caller that a bearer token or else a client certificate proves; where there are both,
    they must agree. Raises Unauthenticated; a wrong token is never ignored."""
    token = bearer_token(metadata)
    if token is None:
        by_certificate = identities.by_certificate(auth)
        if by_certificate is None:
            raise Unauthenticated(
                "who calls? send a token (authorization: Bearer sst_…) or a client certificate"
            )
        return by_certificate
    caller = identities.by_token(token)
    names = certificate_names(auth)
    if any(identities.certificates.get(name, caller) != caller for name in names):
        raise Unauthenticated("the token and the certificate are of two identities: use one's own")
    return caller


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of the authorization header; None without one. Raises Unauthenticated."""
    headers = [value for key, value in metadata if key == "authorization"]
    if not headers:
        return None
    header = headers[0]
    if len(headers) > 1 or not isinstance(header, str) or not header.lower().startswith(BEARER):
        raise Unauthenticated("send one authorization header, and in it: Bearer sst_…")
    return header[len(BEARER) :].strip()


def certificate_names(auth: AuthContext) -> tuple[str, ...]:
    """As in "URI:spiffe://example.org/ingest", in the certificate's order; the common name
    only where there is neither a URI nor a DNS name. Empty without a verified certificate."""
    if list(auth.get("transport_security_type", ())) != [b"ssl"]:
        return ()
    uris = [f"URI:{_text(value)}" for value in auth.get("peer_uri", ())]
    hosts = [f"DNS:{_text(value).lower()}" for value in auth.get("peer_dns", ())]
    common = [f"CN:{_text(value)}" for value in auth.get("x509_common_name", ())]
    return tuple(uris + hosts or common)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


# ---------------------------------------------------------------- reading the file


def _identity(name: str, caller: CallerConfig, where: str) -> Identity:
    if NAME.fullmatch(name) is None or name == LOCAL.name:
        raise BadConfig(
            f"{where}: a name is 1 to 64 of a-z, 0-9, '.', '_', '@', '-', and not 'local'"
        )
    if not (caller.tokens or caller.certificates):
        raise BadConfig(f"{where}: needs tokens or certificates: nobody could be this one")
    return Identity(
        name,
        _roles(caller.roles, where),
        # An editor of a bank must be able to read it.
        _access((*caller.banks, *caller.edit_banks), where),
        _access(caller.edit_banks, where),
        caller.scores,
        _quota(caller, where),
        _edits_per_day(caller, where),
    )


def _roles(names: Sequence[str], where: str) -> frozenset[Role]:
    for name in names:
        if name not in list(Role):
            raise BadConfig(f"{where}: there is no role {name!r}: {', '.join(Role)}")
    if not names:
        raise BadConfig(f"{where}: roles is empty: {', '.join(Role)}")
    return frozenset(map(Role, names))


def _access(patterns: Sequence[str], where: str) -> BankAccess:
    for pattern in patterns:
        if PATTERN.fullmatch(pattern) is None:
            raise BadConfig(f"{where}: {pattern!r} is no bank's name; `*` stands for any letters")
    return BankAccess(tuple(dict.fromkeys(patterns)))


def _quota(caller: CallerConfig, where: str) -> Quota:
    for key in ("items_per_s", "in_flight_max"):
        value = getattr(caller, key)
        if value is not None and not value > 0:
            raise BadConfig(
                f"{where}: {key} must be over 0, not {value}: leave it out for no bound"
            )
    return Quota(caller.items_per_s, caller.in_flight_max)


def _edits_per_day(caller: CallerConfig, where: str) -> int | None:
    if caller.edits_per_day is not None and caller.edits_per_day < 0:
        raise BadConfig(
            f"{where}: edits_per_day is 0 (any number) or more, not {caller.edits_per_day}"
        )
    return caller.edits_per_day


def _records(texts: Sequence[str], where: str) -> list[TokenRecord]:
    try:
        return [read_record(text) for text in texts]
    except BadConfig as fault:
        raise BadConfig(f"{where}: {fault.message}") from None


def _check_certificate_name(name: str, where: str) -> None:
    if CERTIFICATE_NAME.fullmatch(name) is None:
        raise BadConfig(
            f"{where}: {name!r}: a certificate's name is URI:…, DNS:… or CN:…, as in "
            "DNS:ingest.example.org"
        )
    if name.startswith("DNS:") and name != f"DNS:{name[4:].lower()}":
        raise BadConfig(f"{where}: {name!r}: write DNS names in lower case")
