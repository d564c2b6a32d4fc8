"""Strict JSON decoding into frozen dataclasses: exact keys, no type conversion."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


def read(kind: Any, value: object, where: str) -> Any:
    """`value` as `kind`: a dataclass, tuple, mapping, enum or plain type.

    Raises ValueError, whose message calls the value `where`.
    """
    if is_dataclass(kind):
        return _read_object(kind, value, where)
    if get_origin(kind) is tuple:
        items = _require(list, value, where)
        of = get_args(kind)[0]
        return tuple(read(of, item, f"{where}[{i}]") for i, item in enumerate(items))
    if get_origin(kind) is not None:
        of = get_args(kind)[1]
        return {k: read(of, v, f"{where}.{k}") for k, v in _require(dict, value, where).items()}
    if issubclass(kind, Enum):
        return kind(_require(str, value, where))
    return _require_number(value, where) if kind is float else _require(kind, value, where)


def _read_object(kind: Any, value: object, where: str) -> Any:
    members = _require(dict, value, where)
    names = {item.name for item in fields(kind)}
    if wrong := sorted(names ^ members.keys()):
        raise ValueError(f"lacks or adds {wrong[0][:80]!r} in {where}")
    hints = _hints_of(kind)
    return kind(**{name: read(hints[name], members[name], f"{where}.{name}") for name in names})


@cache
def _hints_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _require(kind: type, value: object, where: str) -> Any:
    if type(value) is not kind:  # and not isinstance: True is no number of rows
        raise ValueError(f"has a {type(value).__name__} for {where[:200]}, not a {kind.__name__}")
    return value


def _require_number(value: object, where: str) -> float:
    if not (isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)):
        raise ValueError(f"has no finite number for {where[:200]}")
    return value
