"""A problem in a recipe, and how several of them become one error."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from growlm.errors import RecipeError
from growlm.recipe.describe import expected, toml_key, toml_value
from growlm.recipe.keys import Key, did_you_mean, field_at, show_key, table_at, types_of, words_of


@dataclass(frozen=True)
class Problem:
    """One thing to change: at `key`, `what` is wrong and what to write instead."""

    key: Key
    what: str
    fix: str
    why: str = ""


def raise_all(problems: Sequence[Problem], place: Callable[[Key], str]) -> None:
    """Raise every problem as one `RecipeError`; return if there is none. `place` says where a key is."""
    errors = [RecipeError(p.what, where=place(p.key), why=p.why, fix=p.fix) for p in problems]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RecipeError(f"{len(errors)} problems in the recipe\n\n" + "\n\n".join(map(str, errors)))


def problems_of(error: ValidationError, data: Any) -> list[Problem]:
    """The problems in pydantic's report on the raw `data`; a misspelt key is not also a missing one."""
    details = error.errors(include_url=False)
    unknown = [e["loc"] for e in details if e["type"] == "extra_forbidden"]
    return [
        _problem(e["type"], e["loc"], e["input"], data)
        for e in details
        if e["type"] != "missing" or not any(_misspelt(key, e["loc"]) for key in unknown)
    ]


def _misspelt(key: Key, meant: Key) -> bool:
    return key[:-1] == meant[:-1] and bool(did_you_mean(str(key[-1]), [str(meant[-1])]))


def _problem(kind: str, key: Key, value: Any, data: Any) -> Problem:
    if kind == "extra_forbidden":
        return _unknown_key(key, data)
    shown, field = show_key(key, data), _field(key)
    if kind == "missing":
        name = show_key(key[-1:])
        if field is None or table_at(key):
            return Problem(key, f"[{shown}] is missing", f"add the table [{shown}]")
        return Problem(
            key, f"{shown} is missing", f"write `{name} = ...`, {expected(field)}: {field.description}"
        )
    if field is None or (table_at(key) and key[-1] != "stages"):
        word = "".join(f", or {key[-1]} = {toml_value(word)}" for word in words_of(field))
        return Problem(key, f"{shown} is {_show(value)}, not a table", f"write a table: [{shown}]{word}")
    wanted = expected(field)
    return Problem(key, f"{shown} is {_show(value)}, not {wanted}", _fix(key, value, field, wanted))


def _unknown_key(key: Key, data: Any) -> Problem:
    table, name = key[:-1], str(key[len(key) - 1])
    schema = table_at(table)
    known = list(schema.model_fields) if schema else []
    around = f"[{show_key(table, data)}]" if table else "the recipe"
    close = did_you_mean(name, known)
    fix = f"did you mean `{close}`?" if close else f"the keys of {around} are: {', '.join(known)}"
    return Problem(key, f"unknown key `{show_key((name,))}` in {around}", fix)


def _field(key: Key) -> FieldInfo | None:
    """The field a value belongs to: its own, or that of the list or mapping it is in."""
    return field_at(key) or (field_at(key[:-1]) if len(key) > 1 else None)


def _fix(key: Key, value: Any, field: FieldInfo, wanted: str) -> str:
    kind = types_of(field.annotation)[0]
    name = toml_key(str(key[-1])) if isinstance(key[-1], str) else str(key[-1])
    if get_origin(kind) is Literal and isinstance(value, str):
        close = did_you_mean(value, get_args(kind))
        return f"did you mean `{name} = {toml_value(close)}`?" if close else f"write {wanted}"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"write `{name} = {toml_value(int(value))}`, without a point or exponent"
    if kind in (int, float) and isinstance(value, str) and _is_number(value):
        return f"write `{name} = {value}`, without quotes"
    if kind is str and isinstance(value, int | float):
        return f'write `{name} = "{value}"`, in quotes'
    return f"write {wanted}: {field.description}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
