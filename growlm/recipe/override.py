"""`--set a.b=value`: the one form of override, typed by the schema."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from growlm.errors import RecipeError
from growlm.recipe.keys import Key, did_you_mean, field_at, show_key, takes_text, words_of


@dataclass(frozen=True)
class Override:
    """One `--set`: the text as given and the key it names."""

    text: str
    key: Key


def apply(data: dict[str, Any], text: str) -> Override:
    """Put the override `text` into the raw recipe `data`, in place."""
    dotted, equals, raw = text.partition("=")
    where, names = f"--set {text}", [name.strip() for name in dotted.split(".")]
    if not equals or not all(names):
        raise RecipeError(
            "an override is a dotted key and a value", where=where, fix="write --set optim.lr=3e-4"
        )
    *path, last = names
    parent: Any = data
    key: Key = ()
    for name in path:
        step = _step(parent, name, key, data, where)
        key = (*key, step)
        if isinstance(parent, dict) and parent.get(str(step)) in words_of(field_at(key)):
            parent[step] = {}  # `layout = "auto"` is a table that says nothing
        parent = parent[step] if isinstance(step, int) else parent.setdefault(step, {})
    step = _step(parent, last, key, data, where)
    parent[step] = _value((*key, step), raw.strip(), where)
    return Override(text, (*key, step))


def _step(parent: Any, name: str, key: Key, data: Any, where: str) -> str | int:
    """The key or index that `name` stands for in `parent`."""
    if isinstance(parent, dict):
        return name
    if not isinstance(parent, list):
        shown = show_key(key, data)
        raise RecipeError(f"`{shown}` is not a table", where=where, fix=f"write --set {shown}=...")
    known = [item.get("name") if isinstance(item, dict) else None for item in parent]
    if name in known:
        return known.index(name)
    if name.isdecimal() and int(name) < len(parent):
        return int(name)
    close = did_you_mean(name, filter(None, known))
    names = ", ".join(f"{index} ({known_name})" for index, known_name in enumerate(known))
    fix = f"did you mean `{show_key(key)}.{close}`?" if close else f"there are: {names}"
    raise RecipeError(f"`{show_key(key)}` has no `{name}`", where=where, fix=fix)


def _value(key: Key, raw: str, where: str) -> Any:
    """`raw` as TOML, or as it stands where the field takes text."""
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        parsed = {}
    understood = list(parsed) == ["value"]
    if takes_text(field_at(key)) and not (understood and isinstance(parsed["value"], str)):
        return raw
    if raw in words_of(field_at(key)):
        return raw
    if not understood and field_at(key) is not None:
        raise RecipeError(
            f"cannot read `{raw}` as a value of `{show_key(key)}`",
            where=where,
            fix='write it as in TOML: 3e-4, true, ["a", "b"], { en = 1, zh = 1 }',
        )
    return parsed["value"] if understood else raw
