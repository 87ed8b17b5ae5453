"""Read recipe files: one TOML text, what it extends, and how the texts merge."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from growlm.errors import RecipeError
from growlm.recipe.keys import Key, table_at
from growlm.recipe.locate import key_lines, nearest
from growlm.recipe.presets import preset_path, presets

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Layer:
    """One file of a chain of `extends`: its raw tables and the line of each of its keys."""

    source: str
    data: dict[str, Any]
    lines: dict[Key, int] = field(repr=False)

    def place(self, key: Key) -> str:
        """`file:line` of a key or of the closest table around it."""
        return f"{self.source}:{nearest(self.lines, key)}"


def read_layers(path: Path) -> list[Layer]:
    """The file and all it extends, base first. Raises `RecipeError` for a cycle or an unreadable file."""
    layers: list[Layer] = []
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in seen:
            chain = " -> ".join(p.name for p in [*seen, current])
            raise RecipeError(
                f"`extends` goes in a circle: {chain}",
                where=layers[-1].place(("extends",)),
                fix="remove one of the `extends`",
            )
        seen.append(current.resolve())
        layers.append(_read(current))
        current = _extended(layers[-1], current)
    return layers[::-1]


def merge(base: Any, over: Any, key: Key = ()) -> Any:
    """`over` laid on `base`: tables of the schema merge; all else, also `stages` and mixtures, replaces."""
    mergeable = isinstance(base, Mapping) and isinstance(over, Mapping) and table_at(key) is not None
    if not mergeable:
        return over
    return {**base, **{name: merge(base.get(name), value, (*key, name)) for name, value in over.items()}}


def whole_value(key: Key) -> Key:
    """The shortest part of `key` that `merge` replaces as a whole."""
    return next(
        (key[:n] for n in range(1, len(key)) if table_at(key[:n]) is None or key[:n] == ("stages",)), key
    )


def _extended(layer: Layer, path: Path) -> Path | None:
    """The file that the layer's `extends` names, which is taken out of its tables."""
    named = layer.data.pop("extends", None)
    if named is None:
        return None
    where = layer.place(("extends",))
    if not isinstance(named, str):
        raise RecipeError("`extends` is not text", where=where, fix='write `extends = "other.toml"`')
    target = path.parent / named
    if target.is_file():
        return target
    if named in presets():
        return preset_path(named)
    raise RecipeError(
        f"`extends` names `{named}`, which is neither a file nor a preset",
        where=where,
        fix=f"write a path relative to {path.parent}, or a preset: {', '.join(presets())}",
    )


def _read(path: Path) -> Layer:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(
            f"cannot read the recipe: {error.strerror}",
            where=str(path),
            fix=f"write one with `growlm init PATH`, or name a preset: {', '.join(presets())}",
        ) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(
            "the recipe is larger than 1 MiB", where=str(path), fix="give a recipe, not another kind of file"
        )
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            "the recipe is not UTF-8 text", where=f"{path}:{line}", fix="save it in UTF-8"
        ) from error
    try:
        return Layer(str(path), tomllib.loads(text), key_lines(text))
    except RecursionError as error:
        raise RecipeError("the recipe is nested too deeply", where=str(path)) from error
    except ValueError as error:  # TOMLDecodeError, or a number with too many digits
        raise _syntax_error(path, text, str(error)) from error


def _syntax_error(path: Path, text: str, message: str) -> RecipeError:
    """A TOML syntax error with its line; an unquoted word, the usual cause, gets its quotes."""
    at = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = int(at[1]) if at else text.count("\n") + 1
    written = text.splitlines()[line - 1 :][:1]
    pair = re.fullmatch(r"\s*([\w.-]+)\s*=\s*([A-Za-z][\w./-]*)\s*(?:#.*)?", written[0]) if written else None
    fix = f'write {pair[1]} = "{pair[2]}", with quotes' if pair else "see https://toml.io for the syntax"
    what = message[: at.start()] if at else message.removesuffix(" (at end of document)")
    return RecipeError(f"the recipe is not valid TOML: {what}", where=f"{path}:{line}", fix=fix)
