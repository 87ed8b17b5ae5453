"""What turns rows into propositions, as TOML: families word items, tasks say where an item's fields are."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from growlm.data.signals.patterns import Pattern
from growlm.errors import RecipeError
from growlm.recipe.keys import did_you_mean

SHIPPED = Path(__file__).with_name("tasks")
CHOICE = "choice"
"""The field that stands for one of an item's choices."""
TRUTHS = ("true", "false")

Form = Literal["labels", "choices", "truth"]
Paths = str | list[str]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Form | None = None
    text: str | None = None
    """What the statements are about."""
    statements: dict[str, list[str]] | list[str] | None = None
    """Wordings: of each label (form `labels`), or of every item (forms `choices` and `truth`)."""
    label: str | None = None
    """Path of the field with the label, or with the right choice."""
    choices: Paths | None = None
    """Path of the list of choices, or of one field per choice."""
    join: str | None = None
    """Put between the words of a field that is a list."""


class Family(_Table):
    """A kind of task: how its items are worded."""


class Task(_Table):
    """A kind of file; what it does not say, its family says."""

    family: str | None = None
    fields: dict[str, Paths] = Field(default={})
    """Where a field is in a row, as `a.b`; several are tried in turn. Else it has its own name."""
    each: list[str] = []
    """Paths of lists, one inside the other, whose elements are the items."""
    keys: str | None = None
    """Path of the names that the choices have in the label; else they are 0, 1, ... or A, B, ..."""
    labels: dict[str, str] = {}
    """The label that a value of the label's field means."""
    drop: list[str] = []
    """Labels of rows that are to be left out."""
    license: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str
    families: dict[str, Family] = {}
    tasks: dict[str, Task] = {}


@dataclass(frozen=True, kw_only=True)
class Template:
    """One task with all that its family says."""

    name: str
    language: str
    form: Form
    text: Pattern
    statements: Mapping[str, tuple[Pattern, ...]]
    """Wordings by label; those of the forms `choices` and `truth` under ""."""
    label: str
    labels: Mapping[str, str]
    drop: frozenset[str]
    paths: Mapping[str, tuple[str, ...]]
    """Where each field of the wordings is in a row."""
    each: tuple[str, ...] = ()
    choices: str | tuple[str, ...] = ()
    keys: str = ""
    join: str = ", "
    license: str = ""


class Library:
    """All families and tasks: the shipped ones, and over them those of the user's files."""

    def __init__(self, *files: Path) -> None:
        """Raises RecipeError: a file that is not TOML or has another content."""
        self._families: dict[tuple[str, str], tuple[Family, Path]] = {}
        self._tasks: dict[str, tuple[str, Task, Path]] = {}
        for path in (*sorted(SHIPPED.glob("*.toml")), *files):
            read = _read(path)
            self._families |= {(read.language, name): (one, path) for name, one in read.families.items()}
            self._tasks |= {name: (read.language, task, path) for name, task in read.tasks.items()}

    def template(self, name: str, language: str = "en") -> Template:
        """The template of a task, or of a family itself in that language, with fields of their own names.

        Raises RecipeError: unknown, or a template that cannot work or gives its labels away.
        """
        if name in self._tasks:
            language, task, path = self._tasks[name]
            where = f"{path}: tasks.{name}"
        elif (language, name) in self._families:
            task, where = Task(family=name), f"{self._families[language, name][1]}: families.{name}"
        else:
            raise self._unknown(name, language)
        if task.family is None:
            return _resolve(name, language, task, Family(), where)
        if (language, task.family) not in self._families:
            raise self._no_family(task.family, language, where)
        return _resolve(name, language, task, self._families[language, task.family][0], where)

    def _unknown(self, name: str, language: str) -> RecipeError:
        families = [known for spoken, known in self._families if spoken == language]
        guess = did_you_mean(name, [*self._tasks, *families])
        return RecipeError(
            f"There is no task {name!r}",
            where="--task",
            why=f"tasks: {', '.join(self._tasks)}; families in {language}: {', '.join(families) or 'none'}",
            fix=f"did you mean {guess!r}?" if guess else "describe it in a file: --tasks my_tasks.toml",
        )

    def _no_family(self, name: str, language: str, where: str) -> RecipeError:
        families = [known for spoken, known in self._families if spoken == language]
        return RecipeError(
            f"There is no family {name!r} in {language}",
            where=f"{where}.family",
            why=f"families in {language}: {', '.join(families) or 'none'}",
            fix=f"define it: [families.{name}]",
        )


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(
            "A file of tasks has something that it cannot have",
            where=f"{path}: {place}",
            why=first["msg"],
            fix="see docs/freelm.md, Your own tasks",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            "A file of tasks cannot be read",
            where=str(path),
            why=getattr(error, "strerror", None) or str(error),
            fix="it is TOML: see docs/freelm.md, Your own tasks",
        ) from error


def _resolve(name: str, language: str, task: Task, family: Family, where: str) -> Template:
    def said(key: str, otherwise: Any = None) -> Any:
        return next((v for v in (getattr(task, key), getattr(family, key), otherwise) if v is not None), None)

    form, label = said("form"), said("label", "label")
    if form is None:
        raise RecipeError("A task has no form", where=where, fix='family = "entailment", or form = "labels"')
    text = _pattern(said("text", ""), f"{where}.text")
    statements = _statements(form, said("statements"), f"{where}.statements")
    fields = text.fields.union(*(pattern.fields for _, pattern in _wordings(statements)))
    paths = {field: _paths(task.fields.get(field, field)) for field in sorted(fields - _implied(form))}
    labels = {} if form == "choices" else dict(task.labels) or {word: word for word in statements}
    if form == "truth":
        labels = dict(task.labels) or {word: word for word in TRUTHS}
    choices = said("choices", ())
    template = Template(
        name=name,
        language=language,
        form=form,
        text=text,
        statements=statements,
        label=label,
        labels=labels,
        drop=frozenset(task.drop),
        paths=paths,
        each=tuple(task.each),
        choices=choices if isinstance(choices, str) else tuple(choices),
        keys=task.keys or "",
        join=said("join", ", "),
        license=task.license,
    )
    _check(template, where)
    return template


def _implied(form: Form) -> frozenset[str]:
    return frozenset({CHOICE}) if form == "choices" else frozenset()


def _paths(paths: Paths) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)


def _pattern(source: str, where: str) -> Pattern:
    try:
        return Pattern.parse(source)
    except ValueError as error:
        raise RecipeError(
            "A wording is not plain text with {names}",
            where=where,
            why=f"{error}, in {source!r}",
            fix="write {field} for a field, {{ and }} for braces",
        ) from error


def _statements(form: Form, given: Any, where: str) -> dict[str, tuple[Pattern, ...]]:
    """Wordings by label, or under "". Raises RecipeError: none, or wordings that give the truth away."""
    if form == "labels":
        table = given if isinstance(given, dict) else {}
    elif isinstance(given, dict):
        first = next(iter(given), "true")
        raise RecipeError(
            "A template leaks its label",
            where=f"{where}.{first}",
            why=f"a wording that belongs to {first!r} alone says what is to be judged",
            fix=f'write one list of wordings for all items, or use form = "labels" (it is {form!r})',
        )
    else:
        table = {"": given or []}
    if not table or not all(table.values()):
        raise RecipeError(
            "A task has no statements",
            where=where,
            fix='statements = { yes = ["It is so: {claim}"], no = ["It is not so: {claim}"] }'
            if form == "labels"
            else 'statements = ["The answer is: {choice}"]',
        )
    return {
        label: tuple(_pattern(source, f"{where}.{label}".rstrip(".")) for source in sources)
        for label, sources in table.items()
    }


def _wordings(statements: Mapping[str, tuple[Pattern, ...]]) -> Iterator[tuple[str, Pattern]]:
    for label, patterns in statements.items():
        for pattern in patterns:
            yield label, pattern


def _check(template: Template, where: str) -> None:
    """Raise RecipeError for labels without statements, and for what gives a label away."""
    meanings = set(template.statements) if template.form == "labels" else set(TRUTHS)
    for value, meaning in template.labels.items():
        if meaning not in meanings:
            raise RecipeError(
                f"The label {value!r} means {meaning!r}, for which there is no statement",
                where=f"{where}.labels",
                why=f"there are statements for {', '.join(sorted(meanings))}",
                fix="map it to one of them, or write statements for it",
            )
    if template.form == "choices" and not template.choices:
        raise RecipeError("A task has no choices", where=where, fix='choices = "choices"')
    _check_label_unused(template, where)
    _check_wordings_differ(template, where)


def _check_label_unused(template: Template, where: str) -> None:
    for field, paths in template.paths.items():
        if template.label in paths:
            raise RecipeError(
                "A template leaks its label",
                where=f"{where}: {{{field}}}",
                why=f"the field {template.label!r} is what is to be judged, and the wording shows it",
                fix=f"take {{{field}}} out of the text and the statements",
            )


def _check_wordings_differ(template: Template, where: str) -> None:
    """No two labels may share a wording, and every wording of a choice must name the choice."""
    seen: dict[str, str] = {}
    for label, pattern in _wordings(template.statements):
        if template.form == "choices" and CHOICE not in pattern.fields:
            raise RecipeError(
                "A statement about a choice does not name it",
                where=f"{where}.statements",
                why=f"{pattern.source!r} is the same for right and wrong choices",
                fix="write {choice} where the choice belongs",
            )
        if pattern.source in seen:
            raise RecipeError(
                "A wording occurs twice",
                where=f"{where}.statements",
                why=f"{pattern.source!r} is written for {seen[pattern.source]!r} and {label!r}",
                fix="a statement must be true for one label only",
            )
        seen[pattern.source] = label
