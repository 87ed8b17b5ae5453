"""A stage that grows by LiGO: it learns from the text that the stage will train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from growlm.data.mixture import Mixture
from growlm.errors import GrowthError
from growlm.train.offline import grow_offline
from growlm.train.restore import find_checkpoint
from growlm.train.state import OPTIMIZER_FILE
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import ONE_STAGE, records, straight_run

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

    def batch(self: Mixture, span: int, step: int, rows: Any = None) -> Any:
        read.append((span, step))
        return original(self, span, step, rows)

    monkeypatch.setattr(Mixture, "batch", batch)
    run(recipe(LIGO.replace("STEPS", "3")), tmp_path)
    assert [step for span, step in read if span == 1] == [0, 1, 2, *range(8)]
    grown = find_checkpoint(tmp_path / "checkpoints" / "step-00000024-grown")
    assert not any(moment.any() for moment in grown.load(OPTIMIZER_FILE).values())


def test_growth_by_hand_learns_from_the_data_it_is_given(
    recipe: MakeRecipe, data: Path, tmp_path: Path
) -> None:
    straight_run(recipe(*ONE_STAGE), tmp_path / "run")
    flags: Any = {"seed": 1, "certificate": "auto", "shard_bytes": 10**9}
    settings = {"operator": "ligo", "depth": "stack"}

    def loss(out: str, learn_steps: int) -> float:
        steps = settings | {"learn_steps": learn_steps}
        entry = grow_offline(tmp_path / "run", "width=2x", steps, tmp_path / out, data=data, **flags)
        return entry["certificate"]["loss_after"]

    first, second, again = loss("a", 1), loss("b", 15), loss("c", 15)
    assert second < first
    assert second == again
    with pytest.raises(GrowthError, match="nothing to learn from"):
        grow_offline(tmp_path / "run", "width=2x", settings, tmp_path / "d", data=None, **flags)
    assert not (tmp_path / "d").exists()
