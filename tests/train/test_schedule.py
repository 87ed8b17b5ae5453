"""The learning rate against the formulas, written out here."""

import math
from collections.abc import Callable

import pytest

from growlm.recipe.schema import GrowthTable, Recipe, ScheduleTable
from growlm.train.schedule import learning_rate, rewarm, shape
from tests.train.conftest import MakeRecipe

TOTAL = 29  # steps of the tiny recipe: 7 + 8 + 6 + 8


def table(kind: str, warmup: int, decay_share: float = 0.25, floor: float = 0.1) -> ScheduleTable:
    return ScheduleTable.model_validate(
        {"kind": kind, "warmup_steps": warmup, "decay_share": decay_share, "min_lr_ratio": floor}
    )


def test_warmup_rises_in_equal_steps_to_the_peak() -> None:
    for kind in ("wsd", "cosine", "linear"):
        assert [shape(table(kind, 4), n, 40) for n in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_wsd_is_flat_and_then_falls_in_a_line() -> None:
    values = [shape(table("wsd", 4), n, 40) for n in range(40)]
    assert values[4:30] == [1.0] * 26
    assert values[30:] == pytest.approx([1 - 0.9 * (n + 1) / 10 for n in range(10)], abs=1e-15)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("cosine", lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2),
        ("linear", lambda t: 1 - 0.9 * t),
    ],
)
def test_cosine_and_linear_fall_from_the_warmup_to_the_floor(
    kind: str, formula: Callable[[float], float]
) -> None:
    values = [shape(table(kind, 4), n, 40) for n in range(4, 40)]
    assert values == pytest.approx([formula((n + 1) / 36) for n in range(36)], abs=1e-15)
    assert values[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
@pytest.mark.parametrize(("warmup", "share", "total"), [(0, 0.0, 1), (0, 1.0, 7), (7, 0.5, 7), (9, 1.0, 10)])
def test_edges_stay_between_zero_and_the_peak(kind: str, warmup: int, share: float, total: int) -> None:
    values = [shape(table(kind, warmup, share), n, total) for n in range(total + 3)]
    assert all(0 < value <= 1 for value in values)


def rates(recipe: Recipe) -> list[list[float]]:
    return [[learning_rate(recipe, i, n) for n in range(s.steps)] for i, s in enumerate(recipe.stages)]


def plain(*policies: str) -> list[str]:
    """Overrides: one peak for all stages, and these policies for the stages after the first."""
    names = ("masked", "clone", "words")
    lrs = [f"stages.{name}.lr=1e-2" for name in names]
    return [
        "optim.lr=1e-2",
        *lrs,
        *(f"stages.{n}.lr_policy={p}" for n, p in zip(names, policies, strict=True)),
    ]


def test_continue_follows_one_shape_through_all_stages(recipe: MakeRecipe) -> None:
    made = recipe(*plain("continue", "continue", "continue"), "schedule.kind=cosine")
    joined = [lr for stage in rates(made) for lr in stage]
    assert joined == [1e-2 * shape(made.schedule, n, TOTAL) for n in range(TOTAL)]


def test_rewarm_multiplies_the_shape_by_a_warmup(recipe: MakeRecipe) -> None:
    made = recipe(*plain("continue", "rewarm", "continue"), "schedule.kind=linear")
    before = recipe(*plain("continue", "continue", "continue"), "schedule.kind=linear")
    warm = [1 / 3, 2 / 3, 1, 1, 1, 1]
    assert rates(made)[2] == [lr * w for lr, w in zip(rates(before)[2], warm, strict=True)]
    assert [rates(made)[i] for i in (0, 1, 3)] == [rates(before)[i] for i in (0, 1, 3)]


def test_rewind_ends_one_shape_and_starts_another(recipe: MakeRecipe) -> None:
    made = recipe(*plain("continue", "rewind", "continue"))
    joined = [lr for stage in rates(made) for lr in stage]
    first, second = joined[:15], joined[15:]
    assert first == [1e-2 * shape(made.schedule, n, 15) for n in range(15)]
    assert second == [1e-2 * shape(made.schedule, n, 14) for n in range(14)]
    assert first[-1] == pytest.approx(1e-3)


def test_a_stage_has_its_own_peak(recipe: MakeRecipe) -> None:
    made = recipe("stages.clone.lr_policy=continue")
    assert rates(made)[2] == [3e-3 * shape(made.schedule, 15 + n, TOTAL) for n in range(6)]
    assert rates(made)[3] == [5e-3 * shape(made.schedule, 21 + n, TOTAL) for n in range(8)]


def new_part(steps: int, peak: float, stage: int) -> list[float]:
    growth = GrowthTable.model_validate({"rewarm_steps": steps, "rewarm_peak": peak})
    return [rewarm(growth, n, stage) for n in range(stage)]


def test_the_new_part_warms_up_from_nothing() -> None:
    assert new_part(4, 1.0, 10) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]
    assert new_part(0, 1.0, 3) == [1, 1, 1]
    assert new_part(3, 1.0, 3) == pytest.approx([1 / 3, 2 / 3, 1])


def test_above_one_the_new_part_rises_from_the_shared_rate_and_falls_back_to_it() -> None:
    """SPARKLING, 2602.02472: to 1.3 times the rate, then a cosine to the same end."""
    factors = new_part(10, 1.3, 50)
    assert factors[:10] == pytest.approx([1 + 0.3 * (n + 1) / 10 for n in range(10)], abs=1e-15)
    cosine = [1 + 0.3 * 0.5 * (1 + math.cos(math.pi * (n + 1) / 40)) for n in range(40)]
    assert factors[10:] == pytest.approx(cosine, abs=1e-15)
    assert max(factors) == pytest.approx(1.3)
    assert factors[-1] == pytest.approx(1.0)
