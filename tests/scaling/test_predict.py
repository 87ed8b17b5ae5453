"""Predictions: close to what was measured, with intervals that hold, and warnings where they may not."""

from __future__ import annotations

import numpy as np
import pytest

from growlm.errors import DataError, RecipeError
from growlm.scaling.candidates import Target
from growlm.scaling.predict import predict
from growlm.scaling.table import Table, read_table, table_of
from tests.scaling.tables import PUBLISHED, grid_table, needs_tables, sizes_table, true_loss

FAR = Target(n=4e9, d=2e11)
FAR_LOSS = float(true_loss(np.array([4e9]), np.array([2e11]))[0])


def test_exact_losses_are_continued_exactly() -> None:
    p = predict(grid_table(), FAR)
    assert p.loss == pytest.approx(FAR_LOSS, rel=2e-3)
    assert p.low <= FAR_LOSS <= p.high
    assert (p.high - p.low) / p.loss < 0.06
    assert {law.name for law in p.laws} >= {"chinchilla", "chinchilla-vp", "over-training"}
    assert p.extrapolation == pytest.approx({"n": 4.0, "d": 4.0, "c": 16.0})


def test_every_law_by_name() -> None:
    table = grid_table()
    for name in ("chinchilla", "chinchilla-vp", "over-training"):
        (law,) = predict(table, FAR, name).laws
        assert law.name == name
        assert law.loss == pytest.approx(FAR_LOSS, rel=0.01)
    with pytest.raises(RecipeError, match="there is no law 'kaplan'"):
        predict(table, FAR, "kaplan")


def test_the_frontier_is_found_in_a_table() -> None:
    """Along N ~ C^a of the true law the best losses are a power of C, above the same floor."""
    n, ratio = np.meshgrid(np.geomspace(2e7, 2e9, 24), np.geomspace(1, 500, 24))
    n, d = n.ravel(), (n * ratio).ravel()
    table = table_of({"n": n, "d": d, "loss": true_loss(n, d)}, np.full(len(n), "t"))
    c = 1e22
    sizes = np.geomspace(1e8, 1e11, 2000)
    best = float(true_loss(sizes, c / 6 / sizes).min())
    p = predict(table, Target(c=c), "frontier")
    assert p.loss == pytest.approx(best, rel=0.01)
    assert p.low <= best <= p.high


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_intervals_hold_as_often_as_they_say(noise: float) -> None:
    inside, widths = 0, []
    for seed in range(20):
        table, actual = sizes_table(noise, seed)
        p = predict(table, Target(n=3e9))
        inside += p.low <= actual <= p.high
        widths.append((p.high - p.low) / 2 / actual)
    assert inside >= 16
    assert np.median(widths) < 0.03 + 8 * noise


def test_seeds_of_a_size_are_drawn_together_and_none_is_dropped() -> None:
    """A second run that repeats what the first lost tells nothing new; one that differs moves the middle."""
    table, _ = sizes_table(0.003, sizes=5)

    def doubled(factor: float) -> Table:
        n, loss = np.tile(table["n"], 2), np.concatenate([table["loss"], factor * table["loss"]])
        return table_of({"n": n, "loss": loss}, np.array([f"r{i}" for i in range(10)]))

    one, same, higher = (predict(t, Target(n=3e9)) for t in (table, doubled(1.0), doubled(1.01)))
    assert same.points == 10
    assert same.loss == pytest.approx(one.loss, rel=2e-3)
    assert (same.high - same.low) > 0.9 * (one.high - one.low)
    assert higher.loss / same.loss == pytest.approx(1.005, abs=2e-3)


@needs_tables
def test_mup_widths_from_the_seven_smallest() -> None:
    table = read_table(PUBLISHED / "mu-scaling.csv")
    fitted = table.where(np.argsort(table["n"])[:7])
    for n, loss in zip(table["n"], table["loss"], strict=True):
        if n > 6e8:
            p = predict(fitted, Target(n=float(n)))
            assert p.loss == pytest.approx(loss, rel=0.003)
            assert p.low <= loss <= p.high
            assert (p.high - p.low) / 2 / loss < 0.06


@needs_tables
def test_chinchilla_points_beyond_the_fitted_compute() -> None:
    table = read_table(PUBLISHED / "chinchilla-reconstructed.csv")
    fitted = table.where(table["c"] < 1e20)
    out = np.flatnonzero(table["c"] >= 3e20)[::16]
    found = [predict(fitted, Target(n=float(table["n"][i]), d=float(table["d"][i]))) for i in out]
    errors = [abs(p.loss / table["loss"][i] - 1) for p, i in zip(found, out, strict=True)]
    inside = [p.low <= table["loss"][i] <= p.high for p, i in zip(found, out, strict=True)]
    assert np.mean(errors) <= 0.02
    assert np.mean(inside) >= 0.8
    assert np.median([(p.high - p.low) / 2 / p.loss for p in found]) < 0.03


def warnings_of(table: Table, target: Target) -> str:
    return "\n".join(predict(table, target).warnings)


def test_warnings() -> None:
    table = grid_table()
    assert warnings_of(table, Target(n=1e9, d=2e10)) == ""
    assert "500 times the compute" in warnings_of(table, Target(n=2.5e10, d=1e12))
    assert "tokens per parameter" in warnings_of(table, Target(n=1e9, d=1e13))
    few, _ = sizes_table(sizes=5)
    assert "5 points" in warnings_of(few, Target(n=1e9))
    more = {**table.columns, "width": np.full(len(table), 256.0), "depth": np.full(len(table), 4.0)}
    assert "outside the blocks" in warnings_of(table_of(more, table.runs), Target(n=1e9, d=2e10))
    width = np.array([128.0, 192, 256, 384, 512, 768])
    for blocks, warned in (24 * width**2, True), (48 * width**3, False):
        n = 50_000 * width + blocks
        sizes = {"n": n, "width": width, "loss": 2 + 300 * n**-0.35}
        words = warnings_of(table_of(sizes, np.full(6, "t")), Target(n=1e8))
        assert ("94 % of the counted parameters are outside the blocks" in words) == warned
    ends = {**table.columns, "lr_end": np.full(len(table), 9e-4), "lr_peak": np.full(len(table), 1e-3)}
    assert "not decayed" in warnings_of(table_of(ends, table.runs), Target(n=1e9, d=2e10))


def test_one_size_is_predicted_over_tokens_alone_with_a_warning() -> None:
    d = np.geomspace(1e9, 5e10, 8)
    one = table_of({"n": np.full(8, 1e8), "d": d, "loss": 2.0 + 900 * d**-0.31}, np.full(8, "t"))
    p = predict(one, Target(n=1e8, d=1e11))
    assert p.loss == pytest.approx(2.0 + 900 * 1e11**-0.31, rel=0.005)
    assert [law.name for law in p.laws] == ["tokens"]
    assert any("one size" in w for w in p.warnings)


def test_what_no_law_can_do_says_why() -> None:
    table, _ = sizes_table()
    with pytest.raises(DataError, match="too few"):
        predict(table.where(np.arange(2)), Target(n=1e9))
    with pytest.raises(RecipeError, match="no law fits") as raised:
        predict(table, Target(d=1e10))
    assert "size: needs a target n=" in raised.value.why
    with pytest.raises(RecipeError) as raised:
        predict(grid_table(), Target(n=1e9))
    assert "give the target's" in raised.value.why
