"""`growlm init` writes a recipe that loads, and overwrites nothing unasked."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from growlm.cli.init import init
from growlm.errors import DiskError, RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.presets import preset_path, presets


@pytest.mark.parametrize("preset", list(presets()))
def test_what_init_writes_loads_to_the_preset_and_explains_every_field(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.toml"
    init(path, preset)
    assert load_recipe(path) == load_recipe(preset_path(preset))
    text = path.read_text(encoding="utf-8")
    assert "# Peak learning rate." in text
    assert "# grad_clip = " in text or "grad_clip = 1.0" in text


def test_a_file_is_overwritten_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("precious")
    with pytest.raises(RecipeError, match="exists already"):
        init(path)
    assert path.read_text() == "precious"
    init(path, force=True)
    assert load_recipe(path).name == "laptop"


def test_a_folder_gets_a_recipe_inside_and_data_its_path(tmp_path: Path) -> None:
    init(tmp_path, "demo", Path("some/data"))
    assert load_recipe(tmp_path / "recipe.toml").data.path == "some/data"


def test_prepared_data_gives_its_sources_and_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pytest.importorskip("growlm.data.dataset")
    kinds = {"en": "text", "code": "text", "facts": "signals", "chat": "instructions"}
    tokens = {"facts": 300, "chat": 100}
    prepared = SimpleNamespace(
        sources=list(kinds), vocab_size=1000, kind=kinds.__getitem__, tokens=lambda name, _: tokens[name]
    )
    monkeypatch.setattr(dataset.TokenDataset, "open", lambda _: prepared)
    init(tmp_path / "r.toml", "demo", tmp_path)
    recipe = load_recipe(tmp_path / "r.toml")
    assert (recipe.data.mixture, recipe.model.vocab_size) == (
        {"en": 1.0, "code": 1.0, "facts": 0.167, "chat": 0.0556},
        1024,
    )
    assert recipe.data.document_mask


def test_an_unknown_preset_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean `laptop`") as caught:
        init(tmp_path / "r.toml", "labtop")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "r.toml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_a_disk_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DiskError, match="cannot write the recipe"):
        init(tmp_path / "r.toml")


def test_a_path_through_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot write the recipe"):
        init(tmp_path / "file" / "r.toml")
