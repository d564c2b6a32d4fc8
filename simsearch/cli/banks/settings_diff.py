"""A bank's settings as a flat list of fields, and what differs between two of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from simsearch.cli.common.output import plain
from simsearch.v1.bank_pb2 import Bank

_NOT_SET = ("name", "policy", "create_time", "etag", "active_entries")
_BANDS = ("block", "review", "log")


class FieldChange(NamedTuple):
    """None: it is not there."""

    field: str
    old: Any
    new: Any

    def words(self) -> str:
        return f"{_shown(self.old)} → {_shown(self.new)}"

    def plain(self) -> dict[str, Any]:
        return {"field": self.field, "old": self.old, "new": self.new}


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def changed_settings(before: Bank, after: Bank) -> list[FieldChange]:
    """By name; of a policy one field for each band of each signal."""
    return changed_fields(settings_of(before), settings_of(after))


def changed_fields(old: dict[str, Any], new: dict[str, Any]) -> list[FieldChange]:
    names = sorted(old.keys() | new.keys())
    return [
        FieldChange(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def settings_of(bank: Bank) -> dict[str, Any]:
    """What an update can set, as in {"owner": "ann", "pdq.block": 31, "sha256": "BLOCK"}."""
    shown = plain(bank)
    policy = shown.get("policy", {"cosine": [], "hamming": [], "digests": []})
    settings = {name: value for name, value in shown.items() if name not in _NOT_SET}
    for rule in policy["cosine"]:
        _add_bands(settings, f"{rule['space']} ({rule['query'].lower()})", rule)
    for rule in policy["hamming"]:
        _add_bands(settings, rule["signal"].lower(), rule)
    for rule in policy["digests"]:
        settings[rule["signal"].lower()] = rule["band"]
    return settings | {"two_descriptors": policy.get("two_descriptors", False)}


def _add_bands(settings: dict[str, Any], signal: str, rule: dict[str, Any]) -> None:
    for band in _BANDS:
        if band in rule:
            settings[f"{signal}.{band}"] = rule[band]
