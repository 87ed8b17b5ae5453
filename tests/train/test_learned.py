"""A stage that grows by LiGO: it learns from the text that the stage will train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from growlm.data.mixture import Mixture
from growlm.train.restore import find_checkpoint
from growlm.train.state import OPTIMIZER_FILE
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import records, straight_run

LIGO = (
    "stages=[{name = 'small', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 3072, seq_len = 16, batch_size = 8},"
    "{name = 'large', d_model = 24, n_heads = 4, d_ff = 48, n_layers = 2, tokens = 1024, seq_len = 16,"
    " batch_size = 8, growth = {operator = 'ligo', depth = 'stack', learn_steps = STEPS}}]"
)


def loss_at_first(recipe: MakeRecipe, folder: Path, learn_steps: int) -> float:
    straight_run(recipe(LIGO.replace("STEPS", str(learn_steps))), folder)
    (growth,) = records(folder, "growth")
    assert not growth["certificate"]["exact"]
    return growth["certificate"]["loss_after"]


def test_more_steps_of_learning_begin_the_stage_at_a_lower_loss(recipe: MakeRecipe, tmp_path: Path) -> None:
    one, eight = (loss_at_first(recipe, tmp_path / str(steps), steps) for steps in (1, 8))
    assert eight < one


def test_it_learns_from_the_first_batches_of_its_stage_and_starts_without_moments(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    original = Mixture.batch

    def batch(self: Mixture, span: int, step: int) -> Any:
        read.append((span, step))
        return original(self, span, step)

    monkeypatch.setattr(Mixture, "batch", batch)
    run(recipe(LIGO.replace("STEPS", "3")), tmp_path)
    assert [step for span, step in read if span == 1] == [0, 1, 2, *range(8)]
    grown = find_checkpoint(tmp_path / "checkpoints" / "step-00000024-grown")
    assert not any(moment.any() for moment in grown.load(OPTIMIZER_FILE).values())
