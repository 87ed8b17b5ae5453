"""Which steps are skipped."""

import json
import math
import random

import pytest

from growlm.recipe.schema import GuardTable
from growlm.train.guard import SpikeGuard


def guard(**settings: float) -> SpikeGuard:
    return SpikeGuard(GuardTable.model_validate({"window": 16, "grace_steps": 4} | settings))


def fill(one: SpikeGuard, count: int = 16) -> SpikeGuard:
    """So many quiet steps past the grace: loss 3.0 to 3.15, gradient norm 1.0 to 1.15."""
    for n in range(count):
        assert one.judge(3 + n / 100, 1 + n / 100, 100 + n) is None
    return one


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_always_skipped_and_never_remembered(bad: float) -> None:
    one = fill(guard())
    before = json.dumps(one.state_dict()["losses"])
    assert "loss" in (one.judge(bad, 1.0, 0) or "")
    assert "gradient norm" in (one.judge(3.0, bad, 0) or "")
    assert one.skips_in_row == 2
    assert json.dumps(one.state_dict()["losses"]) == before
    assert one.judge(3.0, 1.0, 120) is None
    assert one.skips_in_row == 0


def test_the_limit_is_the_median_plus_so_many_robust_sigmas() -> None:
    losses = [3 + n / 100 for n in range(16)]
    median = (losses[7] + losses[8]) / 2
    mad = sorted(abs(x - median) for x in losses)
    sigma = max(1.4826 * (mad[7] + mad[8]) / 2, 0.02 * median)
    for factor, skipped in ((7.99, False), (8.01, True)):
        assert bool(fill(guard()).judge(median + factor * sigma, 1.0, 200)) is skipped


def test_a_spike_of_either_kind_is_skipped_a_drop_is_not() -> None:
    assert "loss 9" in (fill(guard()).judge(9.0, 1.0, 200) or "")
    assert "gradient norm 50" in (fill(guard()).judge(3.0, 50.0, 200) or "")
    assert fill(guard()).judge(0.5, 0.01, 200) is None


def test_one_outlier_in_the_window_does_not_hide_the_next() -> None:
    one = fill(guard())
    one.losses[3] = one.grad_norms[3] = 1e6  # a mean and a deviation would now accept anything
    assert one.judge(9.0, 1.0, 200)


def test_there_is_grace_after_a_start_or_growth_and_while_the_history_is_short() -> None:
    assert fill(guard()).judge(1000.0, 1000.0, 3) is None
    assert fill(guard(), 15).judge(1000.0, 1000.0, 200) is None
    assert fill(guard()).judge(1000.0, 1000.0, 4)


def test_the_window_slides() -> None:
    one = fill(guard())
    for n in range(40):  # ten percent up each time: never a spike, and the old level is forgotten
        assert one.judge(3.2 * 1.02**n, 1.2, 200 + n) is None
    assert len(one.losses) == 16
    assert min(one.losses) > 4


def test_a_restored_guard_decides_as_the_one_that_was_saved() -> None:
    draw = random.Random(1)
    one, other, skipped = guard(), guard(), 0
    for n in range(200):
        restored = guard()
        restored.load_state_dict(json.loads(json.dumps(other.state_dict())))
        other = restored
        value = draw.lognormvariate(1, 0.05) * (3 if n % 17 == 0 else 1)
        reason = one.judge(value, value, n)
        assert other.judge(value, value, n) == reason
        skipped += reason is not None
    assert skipped == 11


def test_a_spike_that_stays_is_applied_after_some_patience_and_one_that_passes_is_not() -> None:
    guard = SpikeGuard(GuardTable.model_validate({"spike_patience": 3, "grace_steps": 0}))
    for _ in range(32):
        assert guard.judge(2.0, 1.0, 100) is None
    verdicts = [guard.judge(2.0, 50.0, 100) is None for _ in range(6)]
    assert verdicts == [False, False, False, True, True, True]
    assert guard.judge(2.0, 1.0, 100) is None
    assert guard.judge(2.0, 50.0, 100) is not None  # a new one: patience starts again
    assert guard.judge(float("nan"), 1.0, 100) is not None
