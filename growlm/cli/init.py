"""`growlm init`: write a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from growlm.recipe.schema import Recipe


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.toml"),
    preset: Annotated[str, typer.Option(help="Preset to start from: demo, laptop, flm-base.")] = "laptop",
    data: Annotated[
        Path | None, typer.Option(help="Data folder; if prepared, its sources and vocabulary are used.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a recipe with every field explained."""
    from growlm.errors import DiskError, RecipeError
    from growlm.recipe.load import load_recipe
    from growlm.recipe.presets import preset_path
    from growlm.recipe.template import recipe_toml

    path = path / "recipe.toml" if path.is_dir() else path
    recipe = load_recipe(preset_path(preset))
    text = recipe_toml(recipe if data is None else _with_data(recipe, data))
    if path.exists() and not force:
        fix = "write to another path, or overwrite it with --force"
        raise RecipeError("the recipe exists already", where=str(path), fix=fix)
    whole = path.with_name(path.name + ".tmp")  # a full disk leaves the old recipe as it is
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text, encoding="utf-8")
        whole.replace(path)
    except OSError as error:
        fix = "write to another path, or free space"
        raise DiskError(f"cannot write the recipe: {error.strerror}", where=str(path), fix=fix) from error
    typer.echo(f"wrote {path}; next: growlm train {path}")


def _with_data(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with `folder` as its data: sources and vocabulary too, if `folder` is prepared."""
    changes: dict[str, object] = {"path": str(folder)}
    model = recipe.model
    if folder.exists():
        from growlm.data.dataset import TokenDataset
        from growlm.data.learning import usual_mixture
        from growlm.data.tokenizer import padded

        dataset = TokenDataset.open(folder)
        changes["mixture"] = usual_mixture(dataset, recipe.data.mixture)
        if any(dataset.kind(source) != "text" for source in dataset.sources):
            changes["document_mask"] = True  # an example is asked alone, so it is learnt alone
        model = model.model_copy(update={"vocab_size": padded(dataset.vocab_size)})
    return recipe.model_copy(update={"model": model, "data": recipe.data.model_copy(update=changes)})
