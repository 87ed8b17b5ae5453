"""docs/recipe.md and the JSON schema, generated from the recipe's schema."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from growlm.recipe.describe import default, expected
from growlm.recipe.keys import list_item, table_of
from growlm.recipe.schema import Recipe

_HEAD = """# The recipe, field by field

<!-- Generated from growlm/recipe/schema.py by `python -m growlm.recipe.docs > docs/recipe.md`. -->

A recipe is one TOML file that says what a run is. `growlm init` writes one with every field explained,
`growlm schema` prints its JSON schema for editors. Unknown keys, values of another type and shapes that
cannot grow into each other are refused before anything is touched, each with its line and what to write.

**Inheritance.** `extends = "other.toml"` at the top starts from another file (relative to this one) or from a
preset by name. Tables merge key by key; every other value, `stages` and mixtures too, is replaced as a whole.

**Overrides.** `--set optim.lr=3e-4` on the command line, as often as needed. Values are written as in TOML;
text needs no quotes. Stages go by name or index: `--set stages.wide.tokens=2_000_000`. An override wins
over the file, the file over what it extends, that over the defaults.
"""

_TAIL = """
## Changing the recipe of a run

The run folder remembers the recipe it was started with. When the same command comes with another one,
each difference belongs to one of three classes (the whole table is `growlm/recipe/changes.py`):

- **free**, the run goes on: `budget`, `checkpoint`, `eval`, `timeouts`, `train.device`, every `layout`;
  `tokens`, `lr`, batch, context and mixture of later stages.
- **flag**, needs `--accept-changes` and is logged: `optim`, `schedule`, `guard`, `train.precision`,
  `train.threads`, `train.deterministic`, the current stage's `tokens`, `lr` and micro-batch; later shapes
  and growth.
- **forbidden**, exit 78: `seed`, `model`, `optim.name`, shapes and growth so far, and what decides which text
  a begun stage draws: its batch, context and mixture, and the shortest and longest context of the whole
  run. Put such a change into a new stage.

Paths may change; what lies there may not: data and `init` are known by their hashes, and others need
`--accept-changes`. Once a run has a checkpoint it no longer needs `init`.
"""


def recipe_markdown() -> str:
    """The text of docs/recipe.md."""
    sections = [_HEAD, _section("At the top", Recipe)]
    for name, table in tables(Recipe):
        sections.append(_section(name, table))
    return "\n".join(sections) + _TAIL


def recipe_json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, `extends` included."""
    schema = Recipe.model_json_schema()
    extends = {"type": "string", "description": "File or preset that this recipe starts from."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    del schema["required"]  # what is missing may come from `extends`
    return schema


def tables(table: type[BaseModel], prefix: str = "") -> list[tuple[str, type[BaseModel]]]:
    """The tables inside a table with their TOML headers (`[model]`, `[[stages]]`), in order."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in table.model_fields.items():
        item = list_item(field.annotation)
        inner = item or table_of(field.annotation)
        if inner is not None:
            found.append((f"[[{prefix}{name}]]" if item else f"[{prefix}{name}]", inner))
            found.extend(tables(inner, f"{prefix}{name}."))
    return found


def _section(title: str, table: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {expected(field)} | {_default(default(field))} | {field.description} |"
        for name, field in table.model_fields.items()
        if not (table_of(field.annotation) or list_item(field.annotation))
    ]
    heading = f"## `{title}`" if title.startswith("[") else f"## {title}"
    head = "| key | value | default | meaning |\n|---|---|---|---|\n"
    return f"{heading}\n\n{inspect.getdoc(table)}\n\n{head}" + "\n".join(rows) + "\n"


def _default(text: str) -> str:
    return f"`{text}`" if text and text != "unset" else text or "**required**"


if __name__ == "__main__":
    print(recipe_markdown(), end="")
