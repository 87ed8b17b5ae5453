"""Labelled items in the rows of a file, whatever the names and the nesting of its fields."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from growlm.data.reading.documents import rows
from growlm.data.reading.files import File
from growlm.data.reading.rows import START_CHARS, OnBad
from growlm.data.reading.text import check_characters
from growlm.data.signals.templates import Template
from growlm.errors import DataError, RecipeError

Row = Mapping[str, Any]


class Item(NamedTuple):
    """A text with what is known about it."""

    where: str
    license: str
    text: str
    values: Mapping[str, str]
    """What the wordings' fields hold."""
    answer: str
    """Its label; the right choice; or whether its statement is true: `true` or `false`."""
    wrong: tuple[str, ...] = ()
    """The other choices."""


def read_items(
    template: Template, files: Iterable[File], on_bad: OnBad, on_drop: Callable[[], None]
) -> Iterator[Item]:
    """The items of a task's files, in order; `on_drop` hears of each that the template leaves out.

    Bad rows: broken lines, a missing field, an answer that is none of the choices.

    Raises:
        RecipeError: a label that the template does not know. DataError: a damaged file, what `on_bad` raises.
    """
    for file in files:
        for where, row in rows(file, on_bad=on_bad):
            place = where.replace(str(file), file.name, 1)
            try:
                found = [_item(template, one, at) for at, one in _elements(template.each, row, place)]
            except DataError as error:
                on_bad(error, str(row)[:START_CHARS])
                continue
            for item in found:
                if item is None:
                    on_drop()
                else:
                    yield item


def _elements(each: Sequence[str], row: Row, where: str) -> Iterator[tuple[str, Row]]:
    """(place, row) of the elements of nested lists, each with the fields around it; else the row itself."""
    listed = _at(row, each[0]) if each else None
    if listed is None:
        yield where, row
        return
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise _malformed(f"`{each[0]}` is not a list of objects", where, listed)
    for number, one in enumerate(listed):
        yield from _elements(each[1:], {**row, **one}, f"{where}[{number}]")


def _item(template: Template, row: Row, where: str) -> Item | None:
    """The item of a row; None if its label is one to be left out."""
    label = _label(_at(row, template.label), template.label, where)
    if label in template.drop:
        return None
    values = {field: _field(row, paths, template.join, where) for field, paths in template.paths.items()}
    license = row.get("license") if isinstance(row.get("license"), str) else template.license
    text = template.text.fill(values).strip()
    if template.form == "choices":
        choices = _choices(template, row, where)
        right = choices.pop(_position(template, row, label, len(choices), where))
        if right in choices:
            raise _malformed("The right choice is also a wrong one", where, right)
        return Item(where, license or "", text, values, right, tuple(dict.fromkeys(choices)))
    if label not in template.labels:
        raise _unknown_label(template, label, where)
    return Item(where, license or "", text, values, template.labels[label])


def _label(value: object, path: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():  # pandas makes floats of integers with gaps
        value = int(value)
    if isinstance(value, str | int):
        return str(value).strip()
    raise _malformed(f"A row has no label in `{path}`", where, value)


def _field(row: Row, paths: Sequence[str], join: str, where: str) -> str:
    """The text at the first path where there is something."""
    value = next((found for path in paths if (found := _at(row, path)) is not None), None)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = join.join(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise _malformed(f"A row has no text in `{' or '.join(paths)}`", where, value)
    check_characters(value, where)
    return value.strip()


def _choices(template: Template, row: Row, where: str) -> list[str]:
    if isinstance(template.choices, tuple):
        found = [_field(row, [path], template.join, where) for path in template.choices]
    else:
        listed = _at(row, template.choices)
        if not isinstance(listed, list):
            raise _malformed(f"A row has no list of choices in `{template.choices}`", where, listed)
        found = [_field({"choice": one}, ["choice"], template.join, where) for one in listed]
    if len(found) < 2:
        raise _malformed("A row has fewer than two choices", where, found)
    return found


def _position(template: Template, row: Row, label: str, choices: int, where: str) -> int:
    """Which choice a label means: by the names of the choices, by number from 0, or by letter from A."""
    if template.keys:
        keys = _at(row, template.keys)
        names = list(map(str, keys)) if isinstance(keys, list) else []
        if label in names and len(names) == choices:
            return names.index(label)
    elif label.isdecimal() and len(label) < 9 and int(label) < choices:
        return int(label)
    elif label in (letters := list(string.ascii_uppercase[:choices])):
        return letters.index(label)
    raise _malformed(f"`{template.label}` is none of the {choices} choices", where, label)


def _at(row: Any, path: str) -> Any:
    """What is at `a.b` in objects; None if nothing is."""
    for name in path.split("."):
        if not isinstance(row, Mapping):
            return None
        row = row.get(name)
    return row


def _malformed(what: str, where: str, value: object) -> DataError:
    shown = "nothing" if value is None else repr(value)[:80]
    return DataError(what, where=where, why=f"it has {shown}", fix="repair the row, or leave it out")


def _unknown_label(template: Template, label: str, where: str) -> RecipeError:
    return RecipeError(
        f"The task {template.name!r} has no label {label!r}",
        where=where,
        why=f"its labels are {', '.join(template.labels)}",
        fix=f'say what it means in [tasks.{template.name}.labels], or leave it out: drop = ["{label}"]',
    )
