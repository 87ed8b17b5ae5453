"""Dotted keys of a recipe: how they are shown, and which field of the schema they name."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from growlm.recipe.schema import Recipe

Key = tuple[str | int, ...]

_BARE = re.compile(r"[\w.-]+")


def show_key(key: Key, data: Any = None) -> str:
    """`("stages", 1, "d_ff")` as `stages.1.d_ff`, or `stages.wide.d_ff` when `data` names the stage."""
    parts = list(key)
    if len(key) > 1 and key[0] == "stages" and isinstance(key[1], int):
        parts[1] = stage_name(data, key[1])
    return ".".join(word if _BARE.fullmatch(word) else json.dumps(word) for word in map(str, parts))


def stage_name(data: Any, index: int) -> str:
    """Name of stage `index` in a raw recipe; its index where it has no usable name."""
    try:
        name = data["stages"][index]["name"]
    except (KeyError, IndexError, TypeError):
        return str(index)
    return name if isinstance(name, str) else str(index)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that `word` most looks like, or ""."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def types_of(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, without None; the annotation itself otherwise."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(a for a in get_args(annotation) if a is not type(None))
    return (annotation,)


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The table (pydantic model) that a field holds, if it holds one."""
    return next((a for a in types_of(annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None)


def list_item(annotation: Any) -> type[BaseModel] | None:
    """The table that a field holds a list of (`stages`), if it does."""
    return next((table_of(get_args(a)[0]) for a in types_of(annotation) if get_origin(a) is list), None)


def table_at(key: Key) -> type[BaseModel] | None:
    """The table of the schema that `key` names; None for fields and unknown keys."""
    table: type[BaseModel] | None = Recipe
    rest = list(key)
    while table is not None and rest:
        field = table.model_fields.get(str(rest.pop(0)))
        if field is None:
            return None
        item = list_item(field.annotation)
        if item is not None and rest:
            rest.pop(0)
        table = item or table_of(field.annotation)
    return table


def field_at(key: Key) -> FieldInfo | None:
    """The field of the schema that `key` names, or None."""
    table = table_at(key[:-1]) if key else None
    return table.model_fields.get(str(key[-1])) if table else None


def takes_text(field: FieldInfo | None) -> bool:
    """Whether the field's value is a string (or one of several words)."""
    kinds = types_of(field.annotation) if field else ()
    return any(kind is str or get_origin(kind) is Literal for kind in kinds)


def words_of(field: FieldInfo | None) -> tuple[str, ...]:
    """The words that may stand for a table (`layout = "auto"`)."""
    inputs = (
        m.json_schema_input_type for m in (field.metadata if field else ()) if isinstance(m, BeforeValidator)
    )
    kinds = (kind for written in inputs for kind in types_of(written))
    return tuple(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))


def leaves(value: Any, key: Key = ()) -> dict[Key, Any]:
    """Every value under `value` that is not itself a table or a list of tables, by key."""
    if isinstance(value, Mapping):
        children = [((*key, str(name)), child) for name, child in value.items()]
    elif isinstance(value, Sequence) and value and all(isinstance(child, Mapping) for child in value):
        children = [((*key, index), child) for index, child in enumerate(value)]
    else:
        return {key: value}
    return {leaf: v for child_key, child in children for leaf, v in leaves(child, child_key).items()}
