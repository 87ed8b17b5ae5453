"""What a command line names: models, each with a folder of results of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.evaluate.models import models_of
from tests.convert.folders import make_folder

ENDPOINT = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    "named", [f"..={ENDPOINT}", f".={ENDPOINT}", f"{ENDPOINT}#/etc/x", f"{ENDPOINT}#a/../../x"]
)
def test_no_name_leads_out_of_the_folder_of_results(named: str) -> None:
    with pytest.raises(RecipeError, match="no name for a folder"):
        models_of([named])


def test_names() -> None:
    names = [told["name"] for told in models_of([ENDPOINT, f"{ENDPOINT}#meta/llama", f"mine={ENDPOINT}"])]
    assert names == ["127.0.0.1:8000", "meta/llama", "mine"]
    with pytest.raises(RecipeError, match="Two models have the name"):
        models_of([ENDPOINT, ENDPOINT])


def test_what_is_no_run_has_no_stages(tmp_path: Path) -> None:
    make_folder(tmp_path / "folder")
    told = models_of([str(tmp_path / "folder"), f"mine={ENDPOINT}"], every_stage=True)
    assert [each["name"] for each in told] == ["folder", "mine"]


def test_what_is_there_is_a_model_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "lr=3e-4")
    monkeypatch.chdir(tmp_path)
    assert [told["name"] for told in models_of(["lr=3e-4", "a=lr=3e-4"])] == ["lr=3e-4", "a"]
