"""Which steps are skipped."""

import json
import math
import random
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.recipe.running import GuardTable
from growlm.train.guard import SpikeGuard, decide


def guard(**settings: float) -> SpikeGuard:
    return SpikeGuard(GuardTable.model_validate({"window": 16, "grace_steps": 4} | settings))


def judge(one: SpikeGuard, loss: float, grad_norm: float, stage_step: int) -> str | None:
    """A step as the loop has it: decided with tensors, then taken by the host."""
    pair = torch.tensor([loss, grad_norm], dtype=torch.float64)
    skip = decide(pair[0], pair[1], one.limits(stage_step))
    return one.take(loss, grad_norm, bool(skip), stage_step)


def fill(one: SpikeGuard, count: int = 16) -> SpikeGuard:
    """So many quiet steps past the grace: loss 3.0 to 3.15, gradient norm 1.0 to 1.15."""
    for n in range(count):
        assert judge(one, 3 + n / 100, 1 + n / 100, 100 + n) is None
    return one


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_always_skipped_and_never_remembered(bad: float) -> None:
    one = fill(guard())
    before = json.dumps(one.state_dict()["losses"])
    assert "loss" in (judge(one, bad, 1.0, 0) or "")
    assert "gradient norm" in (judge(one, 3.0, bad, 0) or "")
    assert one.skips_in_row == 2
    assert json.dumps(one.state_dict()["losses"]) == before
    assert judge(one, 3.0, 1.0, 120) is None
    assert one.skips_in_row == 0


def test_the_limit_is_the_median_plus_so_many_robust_sigmas() -> None:
    losses = [3 + n / 100 for n in range(16)]
    median = (losses[7] + losses[8]) / 2
    mad = sorted(abs(x - median) for x in losses)
    sigma = max(1.4826 * (mad[7] + mad[8]) / 2, 0.02 * median)
    for factor, skipped in ((7.99, False), (8.01, True)):
        assert bool(judge(fill(guard()), median + factor * sigma, 1.0, 200)) is skipped


def test_a_spike_of_either_kind_is_skipped_a_drop_is_not() -> None:
    assert "loss 9" in (judge(fill(guard()), 9.0, 1.0, 200) or "")
    assert "gradient norm 50" in (judge(fill(guard()), 3.0, 50.0, 200) or "")
    assert judge(fill(guard()), 0.5, 0.01, 200) is None


def test_one_outlier_in_the_window_does_not_hide_the_next() -> None:
    one = fill(guard())
    one.losses[3] = one.grad_norms[3] = 1e6  # a mean and a deviation would now accept anything
    assert judge(one, 9.0, 1.0, 200)


def test_there_is_grace_after_a_start_or_growth_and_while_the_history_is_short() -> None:
    assert judge(fill(guard()), 1000.0, 1000.0, 3) is None
    assert judge(fill(guard(), 15), 1000.0, 1000.0, 200) is None
    assert judge(fill(guard()), 1000.0, 1000.0, 4)


def test_the_window_slides() -> None:
    one = fill(guard())
    for n in range(40):  # ten percent up each time: never a spike, and the old level is forgotten
        assert judge(one, 3.2 * 1.02**n, 1.2, 200 + n) is None
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
        reason = judge(one, value, value, n)
        assert judge(other, value, value, n) == reason
        skipped += reason is not None
    assert skipped == 11


def test_a_spike_that_stays_is_applied_after_some_patience_and_one_that_passes_is_not() -> None:
    one = SpikeGuard(GuardTable.model_validate({"spike_patience": 3, "grace_steps": 0}))
    for _ in range(32):
        assert judge(one, 2.0, 1.0, 100) is None
    verdicts = [judge(one, 2.0, 50.0, 100) is None for _ in range(6)]
    assert verdicts == [False, False, False, True, True, True]
    assert judge(one, 2.0, 1.0, 100) is None
    assert judge(one, 2.0, 50.0, 100) is not None  # a new one: patience starts again
    assert judge(one, float("nan"), 1.0, 100) is not None


def test_a_limit_is_compared_in_double_precision() -> None:
    """1.1 is larger than it in fp32, so a value between the two would pass."""
    limit, value = 1.1, torch.tensor(1.1)
    assert value.item() > limit
    assert decide(value, torch.ones(()), (limit, math.inf)) == 1
    assert decide(value, torch.ones(()), (value.item(), math.inf)) == 0


def test_the_decision_is_a_flag_for_fused_adamw() -> None:
    skip = decide(torch.tensor(math.nan), torch.ones(()), (math.inf, math.inf))
    assert (skip.dtype, skip.shape, skip.item()) == (torch.float32, (), 1.0)


def test_of_two_spikes_the_reason_is_the_higher() -> None:
    assert "gradient norm 50 " in (judge(fill(guard()), 9.0, 50.0, 200) or "")


def test_a_step_is_taken_as_it_was_decided() -> None:
    """The limits may have been made of an older history than the one that the step meets."""
    one = fill(guard())
    assert "sigmas" in (one.take(3.0, 1.0, True, 200) or "")
    assert (one.skips_in_row, one.spikes_in_row) == (1, 1)
    assert one.take(9.0, 1.0, False, 201) is None
    assert (one.skips_in_row, one.spikes_in_row) == (0, 2)


class Plain:
    """The rule in one piece, as it would be if the host decided."""

    def __init__(self, table: GuardTable) -> None:
        self.table = table
        self.histories: tuple[list[float], list[float]] = ([], [])
        self.skips = self.spikes = 0

    def skips_step(self, loss: float, grad_norm: float, stage_step: int) -> bool:
        values, table = (loss, grad_norm), self.table
        skip = not all(map(math.isfinite, values))
        if not skip:
            kinds = zip(values, self.histories, (0.02, 0.1), strict=True)
            sigmas = [self.sigmas(*kind) for kind in kinds]
            spike = stage_step >= table.grace_steps and max(sigmas) > table.spike_sigmas
            self.spikes = self.spikes + 1 if spike else 0
            skip = spike and self.spikes <= table.spike_patience
        self.skips = self.skips + 1 if skip else 0
        for value, history in zip(values, self.histories, strict=True):
            history.extend([] if skip else [value])
            del history[: -table.window]
        return skip

    @staticmethod
    def sigmas(value: float, history: list[float], smallest: float) -> float:
        if len(history) < 16:
            return 0.0
        median = statistics.median(history)
        mad = statistics.median(abs(x - median) for x in history)
        return (value - median) / max(1.4826 * mad, smallest * abs(median), 1e-12)


STEPS = st.lists(
    st.tuples(st.sampled_from([1.0, 1.0, 1.0, 1.13, 2.1, 40.0, math.inf, math.nan]), st.floats(0.9, 1.1)),
    min_size=20,
    max_size=90,
)


@settings(max_examples=100, deadline=None)
@given(STEPS, STEPS, st.integers(0, 3), st.integers(0, 40), st.integers(16, 30), st.floats(2, 9))
def test_limits_decision_and_record_are_the_plain_rule(
    losses: list[tuple[float, float]],
    norms: list[tuple[float, float]],
    patience: int,
    grace: int,
    window: int,
    sigmas: float,
) -> None:
    table = GuardTable.model_validate(
        {"spike_patience": patience, "grace_steps": grace, "window": window, "spike_sigmas": sigmas}
    )
    one, plain = SpikeGuard(table), Plain(table)
    for n, ((up, loss), (high, norm)) in enumerate(zip(losses, norms, strict=False)):
        step = (up * loss, high * norm, n)
        assert (judge(one, *step) is not None) is plain.skips_step(*step)
        assert (one.losses, one.grad_norms) == plain.histories
        assert (one.skips_in_row, one.spikes_in_row) == (plain.skips, plain.spikes)
