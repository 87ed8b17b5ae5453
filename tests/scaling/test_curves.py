"""Laws of curves: they find the schedule's law, predict published schedules, and forecast runs under way."""

from __future__ import annotations

import time

import numpy as np
import pytest

from growlm.errors import DataError, RecipeError
from growlm.scaling.curve_laws import FITS, Annealing, MultiPower
from growlm.scaling.curve_predict import fit_curves
from growlm.scaling.curves import Curve, checked, sums
from growlm.scaling.forecast import forecast
from tests.scaling.tables import needs_tables, published_curve

FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
OTHERS = (
    "constant_72000", "cosine_72000", "wsd_20000_24000", "wsdcon_18", "wsdcon_3", "wsdld_20000_24000",
)  # fmt: skip
LAW = Annealing(L0=2.6, A=0.55, C=0.3, alpha=0.5, memory=400)
"""A fall to zero takes 0.12 nats off, 4 %."""


def schedule(kind: str, steps: int = 8000, peak: float = 1e-3, warmup: int = 200) -> Curve:
    step = np.arange(1.0, steps + 1)
    lr = peak * np.minimum(1, step / warmup)
    done = np.clip((step - warmup) / (steps - warmup), 0, 1)
    if kind == "cosine":
        lr = lr * (1 + np.cos(np.pi * done)) / 2
    if kind == "wsd":
        lr = lr * np.clip((1 - done) / 0.2, 0.01, 1)
    if kind == "drop":
        lr = np.where(done > 0.5, 0.3 * lr, lr)
    at = step[49::50]
    return Curve(kind, step, lr, at, np.ones(len(at)))


def made(kind: str, noise: float = 0.0, seed: int = 0, **shape: float) -> Curve:
    c = schedule(kind, **shape)  # pyright: ignore[reportArgumentType]
    at = c.at[c.at > 200]
    loss = LAW.loss(sums(c, at, knots=2000))
    return Curve(
        kind, c.step, c.lr, at, loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(at)))
    )


def test_sums_are_those_of_the_recurrences() -> None:
    """S1 and S2 of 2408.11029: m_t = lambda m_t-1 + (lr_t-1 - lr_t), S2 = sum of m, after the warm-up."""
    c = schedule("wsd", steps=3000)
    peak = int(np.argmax(c.lr))
    m = s2 = 0.0
    decay = 1 - 1 / 300
    expected = []
    for t in range(1, len(c.lr)):
        m = decay * m + (c.lr[t - 1] - c.lr[t] if t > peak else 0.0)
        s2 += m
        expected.append(s2)
    found = sums(c, c.step[1:], knots=3000)
    from growlm.scaling.curve_laws import momentum_area

    assert momentum_area(found, 300.0) == pytest.approx(expected, rel=0.02, abs=2e-3 * max(expected))
    assert found.area == pytest.approx(np.cumsum(c.lr)[1:], rel=0.01, abs=1e-3)


def test_gains_of_the_multi_power_law_by_its_sum() -> None:
    """2503.12811, equations 3 and 4, for one fall: B fall (1 - (1 + C after^-gamma swept)^-beta)."""
    c = Curve(
        "one fall", np.array([0.0, 100, 100.001, 200]), np.array([1e-2, 1e-2, 4e-3, 4e-3]), *[np.ones(1)] * 2
    )
    law = MultiPower(L0=2.0, A=1.0, B=50.0, C=2.0, alpha=0.5, beta=0.4, gamma=0.6)
    area, swept = 100 * 1e-2 + 100 * 4e-3, 100 * 4e-3
    gain = 50 * 6e-3 * (1 - (1 + 2.0 * 4e-3**-0.6 * swept) ** -0.4)
    assert law.loss(sums(c, np.array([200.0]))) == pytest.approx(2 + area**-0.5 - gain, rel=1e-3)


@pytest.mark.parametrize("law", FITS)
def test_a_known_law_predicts_another_schedule(law: str) -> None:
    fitted = fit_curves([made("cosine"), made("constant"), made("drop")], law)
    target = made("wsd", steps=16000)
    p = fitted.predict(target)
    assert p.loss == pytest.approx(target.loss[-1], rel=0.004)


@needs_tables
@pytest.mark.parametrize("size", ["25M", "100M"])
def test_published_schedules_from_three_of_them(size: str) -> None:
    fitted = fit_curves([published_curve(size, name) for name in FITTED])
    errors, inside, widths = [], [], []
    for name in OTHERS:
        target = published_curve(size, name)
        p = fitted.predict(target)
        path, half = np.array(p.path), np.array(p.half)
        errors.append(np.abs(path / target.loss - 1).mean())
        inside.append((np.abs(path - target.loss) <= half).mean())
        widths.append((half / path)[-1])
    assert np.mean(errors) <= 0.0025
    assert np.mean(inside) >= 0.8
    assert np.median(widths) < 0.012


def test_curves_that_cannot_be_fitted() -> None:
    good = made("cosine")
    twice = Curve("twice", good.step, good.lr, np.r_[good.at, good.at[-1]], np.r_[good.loss, 2.0])
    with pytest.raises(DataError, match="a step is there twice"):
        fit_curves([twice])
    with pytest.raises(DataError, match="cannot be fitted"):
        fit_curves([good.until(500)])
    with pytest.raises(DataError, match="never above 0"):
        fit_curves([Curve("zero", good.step, 0 * good.lr, good.at, good.loss)])
    with pytest.raises(RecipeError, match="no law 'size' of curves"):
        fit_curves([good], "size")


@pytest.mark.parametrize("kind", ["cosine", "wsd", "constant"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_a_forecast_contains_the_end(kind: str, share: float) -> None:
    inside, widths = 0, []
    for seed in range(5):
        (whole,) = checked([made(kind, 0.01, seed)])
        end = float(LAW.loss(sums(whole, whole.at[-1:], knots=2000))[0])
        f = forecast(whole.until(share * 8000))
        assert f is not None
        inside += f.low <= end <= f.high
        widths.append((f.high - f.low) / 2 / end)
    assert inside >= 4
    assert np.median(widths) < (0.06 if share < 0.8 or kind == "wsd" else 0.015)


@needs_tables
def test_forecasts_of_published_runs_hold_as_often_as_they_say() -> None:
    inside = []
    for size in ("25M", "100M"):
        for curve in checked([published_curve(size, name) for name in (*FITTED, *OTHERS)]):
            end = curve.loss[-3:].mean()
            for share in (0.35, 0.5, 0.7, 0.9):
                f = forecast(curve.until(share * curve.step[-1]))
                assert f is not None
                inside.append(f.low <= end <= f.high)
    assert np.mean(inside) >= 0.8


def test_a_run_that_breaks_leaves_its_band_and_a_healthy_one_does_not() -> None:
    (whole,) = checked([made("cosine", 0.005)])
    f = forecast(whole.until(4000))
    assert f is not None
    later = (whole.at > 4500) & (whole.at <= 5000)
    mean = float(whole.loss[later].mean())
    assert abs(f.outside(4750, mean)) < 1
    assert f.outside(4750, mean * 1.05) > 1.5
    assert f.outside(4750, mean * 0.9) < -1.5


def test_a_forecast_is_quick_and_waits_for_enough_losses() -> None:
    step = np.arange(1.0, 200_001)
    lr = np.full(len(step), 1e-3)
    (long,) = checked([Curve("long", step, lr, step, 2 + 50 * (step + 100) ** -0.5)])
    forecast(long.until(1000))
    started = time.process_time()
    assert forecast(long.until(150_000)) is not None
    assert time.process_time() - started < 0.3
    assert forecast(long.until(11)) is None
    assert forecast(long.until(0)) is None
