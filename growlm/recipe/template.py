"""The commented recipe that `growlm init` writes: every field, with its meaning, from the schema."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from growlm.recipe.describe import default, toml_value
from growlm.recipe.keys import list_item, table_of
from growlm.recipe.schema import Recipe

_WIDTH, _COLUMN = 108, 30

_HEAD = """\
# A GrowLM recipe: what a run is. Every field is here; the commented ones show their default.
# Change what you like, then:  growlm train THIS_FILE
# Any value can be overridden:  --set optim.lr=3e-4  --set stages.{first}.tokens=1_000_000
# Field by field: docs/recipe.md; for editors: growlm schema

"""


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every field explained where it first appears; loads to an equal recipe."""
    head = _HEAD.format(first=recipe.stages[0].name)
    return head + "".join(_table("", Recipe, recipe.model_dump(exclude_unset=True), set())).rstrip() + "\n"


def _table(name: str, table: type[BaseModel], values: Mapping[str, Any], seen: set[type]) -> list[str]:
    """The lines of one table: its own fields first, then the tables inside it, as TOML wants it."""
    first = table not in seen
    seen.add(table)
    lines: list[str] = []
    for key, field in table.model_fields.items():
        if not (table_of(field.annotation) or list_item(field.annotation)):
            lines += _field(key, field, values.get(key), first)
    for key, field in table.model_fields.items():
        inner = f"{name}.{key}" if name else key
        item, plain = list_item(field.annotation), table_of(field.annotation)
        if item is not None:
            for value in values[key]:
                lines += [*_header(f"[[{inner}]]", item, seen), *_table(inner, item, value, seen)]
        elif plain is not None and (key in values or not name or (first and field.default is not None)):
            lines += [*_header(f"[{inner}]", plain, seen), *_table(inner, plain, values.get(key, {}), seen)]
    return lines


def _header(header: str, table: type[BaseModel], seen: set[type]) -> list[str]:
    about = "" if table in seen else _comment(inspect.getdoc(table))
    return ["\n", about, f"{header}\n"]


def _field(key: str, field: FieldInfo, value: Any, explain: bool) -> list[str]:
    """One field: written, or commented out with its default; only the written ones after the first time."""
    if value is None and not explain:
        return []
    line = f"{key} = {toml_value(value)}" if value is not None else f"# {key} = {default(field)}"
    if not explain:
        return [line + "\n"]
    if len(line) <= _COLUMN and len(field.description or "") <= _WIDTH - _COLUMN:
        return [f"{line:<{_COLUMN}}# {field.description}\n"]
    return [_comment(field.description), line + "\n"]


def _comment(text: str | None) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text or "", _WIDTH))
