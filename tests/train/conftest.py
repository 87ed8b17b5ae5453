from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.checkpoint.store import Checkpoint
from growlm.data.prepare import prepare
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from tests.train.helpers import ONE_STAGE, Outcome, killed, newest, straight_run

MakeRecipe = Callable[..., Recipe]
Straight = Callable[..., Outcome]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, prepared. Tests that change it copy it."""
    folder = tmp_path_factory.mktemp("tiny")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    return folder / "data"


@pytest.fixture(scope="session")
def recipe(data: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeRecipe:
    """`recipe("optim.lr=1e-3", ...)`: the tiny recipe with overrides."""
    path = write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.toml", data)
    return lambda *overrides: load_recipe(path, overrides)


@pytest.fixture(scope="session")
def straight(recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """`straight("train.precision=bf16", ...)`: what the recipe gives when nothing happens, computed once."""
    known: dict[tuple[str, ...], Outcome] = {}

    def outcome(*overrides: str) -> Outcome:
        if overrides not in known:
            known[overrides] = straight_run(recipe(*overrides), tmp_path_factory.mktemp("straight") / "run")
        return known[overrides]

    return outcome


@pytest.fixture(scope="session")
def source(recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint with moments in it. Tests that change it copy it."""
    folder = tmp_path_factory.mktemp("source")
    straight_run(recipe(*ONE_STAGE), folder)
    return newest(folder)


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """MFU is not what these tests are about, and its probe takes a third of a second for every start."""
    monkeypatch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)


@pytest.fixture
def begun(recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A run that was killed in its second stage, at step 14, when the save of step 13 had just begun.

    That of step 10 was committed before: the newest checkpoint.
    """
    killed(recipe(), tmp_path / "begun", "train.after_step:kill@14")
    return tmp_path / "begun"
