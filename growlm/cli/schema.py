"""`growlm schema`: the JSON schema of a recipe, for editors."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON schema of a recipe file."""
    from growlm.recipe.docs import recipe_json_schema

    typer.echo(json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False))
