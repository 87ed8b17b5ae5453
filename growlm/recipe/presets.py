"""The recipes that come with GrowLM: `recipes/` of a checkout, `growlm/_recipes` of an installation."""

from __future__ import annotations

from pathlib import Path

from growlm.errors import RecipeError
from growlm.recipe.keys import did_you_mean

_PACKAGE = Path(__file__).resolve().parent.parent


def presets() -> dict[str, Path]:
    """Name and file of every preset, by name."""
    folders = (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes")
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def preset_path(name: str) -> Path:
    """File of the preset `name`. Raises `RecipeError` if there is none of that name."""
    known = presets()
    if name not in known:
        close = did_you_mean(name, known)
        fix = f"did you mean `{close}`?" if close else f"the presets are: {', '.join(known)}"
        raise RecipeError(f"no preset is named `{name}`", fix=fix)
    return known[name]
