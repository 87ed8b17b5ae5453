"""Say in words what a field takes: one wording for error messages, docs/recipe.md and `growlm init`."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from growlm.recipe.keys import types_of

_KINDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}


def expected(field: FieldInfo) -> str:
    """What may be written for the field: `a number of at least 0 and below 1`."""
    annotation = types_of(field.annotation)[0]
    kind = _kind(annotation)
    bounds = [
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None)), None)
    if pattern:
        kind += " (letters, digits, '_', '.' and '-', starting with a letter or digit)"
    if any(getattr(m, "min_length", None) for m in field.metadata):
        kind += ", not empty"
    return f"{kind} {' and '.join(bounds)}".replace(" and of ", " and ").strip()


def default(field: FieldInfo) -> str:
    """The field's default in TOML; "" where it must be written, `unset` where there is none."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "unset" if value is None or value is PydanticUndefined else toml_value(value)


def toml_value(value: Any) -> str:
    """A value as TOML text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, int) and abs(value) >= 100_000:
        return f"{value:_}"
    return repr(value)


def toml_key(name: str) -> str:
    """A key as TOML text: bare where that is allowed, quoted otherwise."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else toml_value(name)


def _kind(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(word) for word in args)
    if origin is list:
        return "a list" if args[0] not in _KINDS else f"a list, each {_KINDS[args[0]]}"
    if origin is dict:
        return f"a table, each value {_kind(args[1])}"
    return _KINDS.get(annotation, "a table")
