"""A run says where it will end, and when it leaves what it said; nothing of that touches the training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from growlm.recipe.schema import Recipe
from growlm.report.summary import summary
from growlm.scaling.curves import Curve
from growlm.train.forecast import Forecasts, forecast_stage, last_start
from growlm.train.schedule import learning_rate
from growlm.train.session import Session
from growlm.train.state import TrainState
from tests.train.conftest import MakeRecipe
from tests.train.helpers import ALONE, messages, open_session, records

STAGE = (
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 64000, seq_len = 16, batch_size = 8}]"
)
"""500 steps."""


def healthy(step: int) -> float:
    noise = float(np.random.default_rng(step).standard_normal())
    return 3.0 + 6.0 * (step + 5) ** -0.5 + 0.02 * noise


def train_to(session: Session, state: TrainState, recipe: Recipe, last: int, factor: float = 1.0) -> None:
    """Put the steps up to `last` on record as the loop does, and forecast."""
    p = state.progress
    for step in range(p.step + 1, last + 1):
        lr = learning_rate(recipe, 0, step - 1)
        tokens = step * 128
        session.recorder.append(
            "step", step=step, stage=0, tokens=tokens, loss=healthy(step) * factor, lr=lr, applied=True
        )
    p.step = p.stage_step = last
    p.tokens = last * 128
    session.forecasts.due = 0.0
    forecast_stage(session, state)


def test_forecasts_are_on_record_and_contain_the_end(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        state = TrainState.fresh(mine, ALONE)
        for last in range(50, 500, 50):
            train_to(session, state, mine, last)
    made = records(tmp_path, "forecast")
    assert [r["step"] for r in made] == list(range(50, 500, 50))
    assert messages(tmp_path) == []
    end = 3.0 + 6.0 * 505**-0.5
    for r in made[3:]:
        assert r["low"] <= end * 1.005
        assert r["high"] >= end * 0.95
        assert r["low"] < r["final_loss"] < r["high"]
        assert (r["path"]["step"][0], r["path"]["step"][-1]) == (r["step"], 500)
    assert made[-1]["high"] - made[-1]["low"] < made[2]["high"] - made[2]["low"]


def test_a_loss_that_stays_above_its_band_is_reported_once(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        state = TrainState.fresh(mine, ALONE)
        for last in (100, 150, 200, 250):
            train_to(session, state, mine, last)
        assert messages(tmp_path) == []
        train_to(session, state, mine, 260, factor=1.15)
        assert messages(tmp_path) == []
        for last in (270, 280):
            train_to(session, state, mine, last, factor=1.15)
    (warning,) = messages(tmp_path)
    assert "the loss has left its forecast" in warning
    assert "above the band" in warning


def test_a_loss_below_its_band_is_no_warning(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        state = TrainState.fresh(mine, ALONE)
        for last in (100, 150, 200, 250):
            train_to(session, state, mine, last)
        for last in (260, 270, 280):
            train_to(session, state, mine, last, factor=0.8)
    assert messages(tmp_path) == []


def test_a_sudden_fall_of_the_rate_is_a_new_start_and_a_decay_is_not() -> None:
    step = np.arange(1.0, 1001)
    drop = Curve("drop", step, np.where(step <= 500, 1e-3, 3e-4), step, step)
    assert [last_start(drop, s) for s in (400, 500, 501, 900)] == [0, 0, 501, 501]
    decay = Curve("decay", step, 1e-3 * np.minimum(1, (1000.5 - step) / 200).clip(0.1), step, step)
    assert last_start(decay, 1000) == 0


def test_a_resumed_run_goes_on_from_the_record(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        state = TrainState.fresh(mine, ALONE)
        train_to(session, state, mine, 200)
        session.forecasts = Forecasts()
        train_to(session, state, mine, 210)
        assert session.forecasts.steps == list(range(1, 211))
        assert session.forecasts.losses[0] == healthy(1)


def test_it_never_fails_a_run_and_takes_little_of_its_time(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        state = TrainState.fresh(mine, ALONE)
        train_to(session, state, mine, 100)
        assert session.forecasts.due > time.monotonic()
        session.recorder.append("step", step=101, stage=0, loss="broken", lr=1e-3, applied=True)
        train_to(session, state, mine, 150)
        assert 500 < session.forecasts.due - time.monotonic() < 700
        session.forecasts.losses.remove("broken")  # pyright: ignore[reportArgumentType]
        session.forecasts.steps.remove(101)
        train_to(session, state, mine, 200)
        assert session.forecasts.failed == 0
    assert len(records(tmp_path, "forecast")) == 2
    (event,) = records(tmp_path, "event")
    assert event["message"].startswith("no forecast: ")
    assert event["level"] == "info"


def test_the_page_gets_the_newest_forecast_of_the_stage(recipe: MakeRecipe, tmp_path: Path) -> None:
    mine = recipe(STAGE)
    with open_session(mine, tmp_path) as session:
        session.recorder.append("start", step=0, name="tiny")
        state = TrainState.fresh(mine, ALONE)
        train_to(session, state, mine, 200)
    shown = summary(tmp_path)["forecast"]
    (made,) = records(tmp_path, "forecast")
    assert (shown["loss"], shown["low"], shown["high"]) == (made["final_loss"], made["low"], made["high"])
    assert shown["pace"]["tokens"] == 128
    assert shown["path"]["high"][-1] == made["high"]
