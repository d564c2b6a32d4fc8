"""Policies in words: from a file, from SIGNAL.BAND=VALUE, and back into a table."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from google.protobuf.json_format import ParseDict, ParseError

from simsearch.cli.common.output import plain
from simsearch.errors import BadPolicy
from simsearch.types import DIGESTS
from simsearch.v1.content_pb2 import MODALITY_IMAGE, MODALITY_TEXT
from simsearch.v1.policy_pb2 import Policy
from simsearch.wire import HASH_SIGNALS

_BANDS = ("block", "review", "log")


def read_policy(path: Path) -> tuple[Policy, str]:
    """A policy from JSON: either the policy itself, or a bank as `bank get --json` prints it, which
    brings the etag that it was read at."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        policy = ParseDict(_prefixed(value.get("policy", value)), Policy())
        return policy, str(value.get("etag", ""))
    except OSError as fault:
        raise BadPolicy(f"cannot read {path}: {fault.strerror}") from None
    except (ValueError, AttributeError, TypeError, KeyError, ParseError) as fault:
        raise BadPolicy(f"{path} is no policy: {fault}") from None


def _prefixed(policy: dict[str, Any]) -> dict[str, Any]:
    """Enum names as protobuf spells them: `plain` prints them without their prefix."""
    prefixes = {"query": "MODALITY_", "signal": "HASH_SIGNAL_", "band": "BAND_"}
    for rules in ("cosine", "hamming", "digests"):
        for rule in policy.get(rules, ()):
            for key, prefix in prefixes.items():
                if key in rule and not rule[key].startswith(prefix):
                    rule[key] = prefix + rule[key]
    return policy


def changed(
    base: Policy, thresholds: list[str] | None, two_descriptors: bool | None, client: Any
) -> Policy:
    policy = Policy()
    policy.CopyFrom(base)
    spaces = _spaces(client) if thresholds else {}
    for written in thresholds or ():
        _set_threshold(policy, written, spaces)
    if two_descriptors is not None:
        policy.two_descriptors = two_descriptors
    return policy


def _spaces(client: Any) -> dict[str, str]:
    """Space ids by the names that people see: the encoder's, and the model's in front of the @."""
    known = [(s.name, s.space) for s in client.status().spaces if s.name]
    models = Counter(_model(space) for _, space in known)  # two encoders may be of one model
    return {_model(s): s for _, s in known if s and models[_model(s)] == 1} | dict(known)


def _model(space: str) -> str:
    return space.partition("@")[0]


def _set_threshold(policy: Policy, written: str, spaces: dict[str, str]) -> None:
    """Apply one SIGNAL.BAND=VALUE; the signal is pdq, minhash1024, minhash, or an encoder's name
    or space."""
    target, equals, value = written.rpartition("=")
    signal, dot, band = target.rpartition(".")
    if not (equals and dot and band in ("block", "review", "log")):
        raise BadPolicy(f"{written!r}: write SIGNAL.BAND=VALUE, as in pdq.block=31")
    try:
        _set_band(_rule(policy, signal, spaces), band, value)
    except (ValueError, TypeError):
        raise BadPolicy(f"{written!r}: {value!r} is no threshold") from None
    for rules in (policy.cosine, policy.hamming):
        for rule in [r for r in rules if not any(r.HasField(b) for b in _BANDS)]:
            rules.remove(rule)  # type: ignore[arg-type]  # a rule of these very rules


def _set_band(rule: Any, band: str, value: str) -> None:
    if not value:
        rule.ClearField(band)
    else:
        setattr(rule, band, float(value) if hasattr(rule, "space") else int(value))


def _rule(policy: Policy, signal: str, spaces: dict[str, str]) -> Any:
    """The policy's rule for a signal, added where it has none yet."""
    for number, name in HASH_SIGNALS.items():
        if signal == name and name in DIGESTS:
            raise BadPolicy(f"{name} has a band and no distance: change it with --policy")
        if signal == name:
            found = next((r for r in policy.hamming if r.signal == number), None)
            return found or policy.hamming.add(signal=cast(Any, number))
    encoder, colon, query = signal.partition(":")
    space = spaces.get(encoder, encoder)
    queries = {"image": MODALITY_IMAGE, "text": MODALITY_TEXT}
    if colon and query not in queries:
        raise BadPolicy(f"{signal!r}: write {encoder}:image or {encoder}:text")
    wanted = queries.get(query)
    rules = [r for r in policy.cosine if r.space in (space, encoder) and wanted in (None, r.query)]
    if len(rules) == 1:
        return rules[0]
    if wanted is None:
        count = "two thresholds" if rules else "no threshold yet"
        if not rules and encoder not in spaces and "@" not in encoder:
            raise BadPolicy(_unknown_signal(signal, [*HASH_SIGNALS.values(), *spaces]))
        raise BadPolicy(f"{signal!r} has {count}: write {encoder}:image or {encoder}:text")
    return policy.cosine.add(space=space, query=wanted)


def _unknown_signal(signal: str, known: list[str]) -> str:
    near = difflib.get_close_matches(signal, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
    return f"there is no signal {signal!r}: {hint}"


def policy_rows(policy: Policy) -> list[tuple[str, ...]]:
    shown = plain(policy)
    rows = [
        (f"{r['space']} ({r['query'].lower()})", *(_cell("≥", r.get(b)) for b in _BANDS))
        for r in shown["cosine"]
    ]
    rows += [
        (f"{r['signal'].lower()} (bits)", *(_cell("≤", r.get(b)) for b in _BANDS))
        for r in shown["hamming"]
    ]
    rows += [
        (r["signal"].lower(), *("equal" if b.upper() == r["band"] else "" for b in _BANDS))
        for r in shown["digests"]
    ]
    return rows


def _cell(sign: str, value: float | None) -> str:
    return "" if value is None else f"{sign} {value:g}"
