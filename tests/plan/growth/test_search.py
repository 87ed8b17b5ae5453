"""The schedule search: against brute force, in what must never get worse, and as recipes that load."""

import math
import time
import tomllib
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from growlm.errors import RecipeError
from growlm.plan.auto import choose_layout
from growlm.plan.growth.answer import Answer, answer, loss_interval
from growlm.plan.growth.answer_json import answer_json
from growlm.plan.growth.recipe import recipe_texts, schedule_recipe
from growlm.plan.growth.request import Budget, Request, request, with_seconds
from growlm.plan.growth.search import Belief, Found, search
from growlm.plan.growth.step_law import step_law_batch, step_law_lr
from growlm.plan.growth.theory import Leg, final_loss
from growlm.plan.growth.verdict import gains, verdict
from growlm.plan.machines import load_machines
from growlm.plan.run_plan import Setting
from growlm.recipe.growable import refusals
from growlm.recipe.load import load_recipe
from growlm.scaling.laws import EPOCH, HOFFMANN

DAY = 86400.0


def four_h100() -> Setting:
    return Setting(gpu=load_machines().gpu("h100"), n_gpus=4, price_per_hour=2.5, mfu=(0.4,))


@pytest.fixture(scope="module")
def asked() -> Request:
    """4 x H100 for two weeks at $2.50, at least 3B."""
    return request(four_h100(), Budget(seconds=14 * DAY), min_params=3e9, tokens_stock=1e12)


@pytest.fixture(scope="module")
def found(asked: Request) -> Answer:
    return answer(asked)


def test_two_stages_are_as_good_as_all_of_them_one_by_one(asked: Request) -> None:
    law, goal = EPOCH, replace(asked.goal, max_stages=2, min_params=0.0)
    rungs = asked.rungs()[::4][:6]
    best = search(rungs, goal, Belief({"law": law}, (0.3, 0.3))).hopeful
    losses = []
    for small, large in combinations(rungs, 2):
        if large.params > goal.max_growth * small.params:
            continue
        overhead = 600 + 12 * (small.params + 2 * large.params) / 1e9
        for share in np.linspace(0.001, 0.999, 800):
            time = goal.seconds - overhead
            d1, d2 = time * share * small.tokens_per_second, time * (1 - share) * large.tokens_per_second
            if d2 >= goal.last_share * (d1 + d2):
                legs = [Leg(small.params, d1), Leg(large.params, d2, idle_tokens=goal.idle_tokens)]
                losses.append(final_loss(law, legs, 0.3))
    assert len(best.rungs) == 2
    assert best.loss("law", 0.3) == pytest.approx(min(losses), abs=2e-4)
    assert best.loss("law", 0.3) <= min(losses) + 2e-5


def test_the_budget_is_spent_and_kept(asked: Request, found: Answer) -> None:
    for schedule in (found.schedule, found.found.static, found.found.hopeful, found.found.target):
        assert schedule.seconds == pytest.approx(14 * DAY, rel=1e-6)
        assert schedule.rungs[-1].params >= 3e9
        assert all(rung.memory <= 0.9 * asked.setting.gpu.memory_bytes for rung in schedule.rungs)
    tokens = found.schedule.tokens
    assert tokens[-1] >= 0.2 * sum(tokens) * (1 - 1e-6)
    factors = [b.params / a.params for a, b in pairwise(found.schedule.rungs)]
    assert all(1 < factor <= 4 for factor in factors)
    assert asked.money(found.schedule.seconds) == pytest.approx(14 * 24 * 4 * 2.5)


def test_growing_is_never_worse_than_one_size_even_at_the_pessimistic_end(found: Answer) -> None:
    for (low, high), (alone, _) in zip(
        found.found.safe.losses.values(), found.found.static.losses.values(), strict=True
    ):
        assert high <= low <= alone * (1 + 1e-6)


def test_more_budget_never_gives_a_worse_loss(asked: Request) -> None:
    rungs, before = asked.rungs(), math.inf
    for days in (2, 4, 7, 10, 14, 20, 28):
        goal = with_seconds(asked, days * DAY).goal
        best: Found = search(rungs, goal, Belief({"law": HOFFMANN}, (0.0, 0.0)))
        loss = best.hopeful.loss("law", 0.0)
        assert loss <= before
        assert loss <= best.static.loss("law", 0.0) + 1e-9
        before = loss


def test_no_more_tokens_than_there_are(asked: Request) -> None:
    few = replace(asked.goal, tokens_stock=30e9)
    best = search(asked.rungs(), few, asked.belief)
    for schedule in (best.static, best.safe, best.hopeful):
        assert sum(schedule.tokens) <= 30e9 * (1 + 1e-9)


def test_the_gain_of_the_best_single_size_is_one(asked: Request) -> None:
    rungs, belief = asked.rungs(), Belief({"law": EPOCH})
    found = search(rungs, asked.goal, belief)
    assert gains(found.static, rungs, asked.goal) == pytest.approx((1, 1), rel=1e-9)
    low, high = gains(found.safe, rungs, asked.goal)
    assert 1 - 1e-6 <= low <= high
    assert high <= gains(found.hopeful, rungs, asked.goal)[1]


def test_verdicts(found: Answer) -> None:
    """At a compute-optimal size growth may gain little or much: a pilot. If all carries over it pays; if
    the final size is far above the optimum it pays anyhow, as for FLM-101B."""
    assert found.verdict.kind == "run a pilot first"
    assert found.pilot is not None
    assert found.pilot.seconds == pytest.approx(0.02 * 14 * DAY)
    assert found.pilot.needs is not None
    assert 0 < found.pilot.needs < 1
    kinds = {
        rho: answer(replace(found.asked, belief=Belief(found.asked.belief.laws, rho))).verdict.kind
        for rho in ((0.0, 0.0), (0.8, 1.0))
    }
    assert kinds == {(0.0, 0.0): "do not grow", (0.8, 1.0): "grow"}
    flm = Setting(gpu=load_machines().gpu("a800"), n_gpus=192, mfu=(0.473,), goodput=1.0)
    large = answer(request(flm, Budget(seconds=21.54 * DAY), min_params=100e9))
    assert large.verdict.kind == "grow"
    assert any("if the size is not needed" in warning for warning in large.warnings)


@pytest.mark.parametrize(
    ("rho", "kind"),
    [((0.0, 0.02), "do not grow"), ((0.3, 0.4), "grow"), ((0.05, 0.3), "run a pilot first")],
)
def test_after_a_pilot_the_words_say_what_it_measured(
    asked: Request, rho: tuple[float, float], kind: str
) -> None:
    rungs, belief = asked.rungs(), Belief(asked.belief.laws, rho)
    said = verdict(search(rungs, asked.goal, belief), rungs, asked.goal, measured=True)
    assert said.kind == kind
    assert f"rho {rho[1]:.2f}" in said.words
    assert "only the loss" not in said.words
    assert "all tokens" not in said.words


def test_the_loss_has_an_interval_around_laws_and_ends(found: Answer) -> None:
    low, high = loss_interval(found.schedule)
    for pessimistic, optimistic in found.schedule.losses.values():
        assert low < optimistic <= pessimistic < high


def test_a_run_too_small_for_the_laws_gets_no_plan() -> None:
    cpu = Setting(gpu=load_machines().gpu("cpu"), n_gpus=1)
    with pytest.raises(RecipeError, match="so small a run"):
        answer(request(cpu, Budget(seconds=DAY), vocab_size=4096))


@pytest.mark.slow
def test_a_thousand_gpus_are_searched_in_seconds() -> None:
    """Under 10 s of one core's time."""
    many = Setting(gpu=load_machines().gpu("h100"), n_gpus=1024)
    before = time.process_time()
    answer(request(many, Budget(seconds=30 * DAY)))
    assert time.process_time() - before < 10


def test_what_is_said_as_json_is_finite_and_whole(found: Answer) -> None:
    said = answer_json(found)
    assert said["verdict"]["kind"] == found.verdict.kind
    assert [stage["parameters"] for stage in said["schedule"]["stages"]] == [
        rung.params for rung in found.schedule.rungs
    ]
    assert len(said["budgets"]) == 5
    assert said["schedule"]["days"] == pytest.approx(14)


def test_the_recipes_load_and_can_be_laid_out(found: Answer, tmp_path: Path) -> None:
    texts = recipe_texts(found, "my plan")
    assert list(texts) == ["my-plan", "my-plan-pilot-grown", "my-plan-pilot-alone"]
    for name, text in texts.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        assert tomllib.loads(text)["name"] == name
        recipe = load_recipe(path)
        for k in range(len(recipe.stages)):
            layout = choose_layout(recipe, k, 4, memory_bytes=80 * 10**9)
            assert layout.world == 4
    recipe = load_recipe(tmp_path / "my-plan.toml")
    assert recipe == schedule_recipe(found.schedule, found.asked, "my-plan")
    assert recipe.model.parametrization == "completep"
    assert recipe.budget.price_per_hour == 10.0
    sizes = [recipe.model_config_of(k) for k in range(len(recipe.stages))]
    for k in range(1, len(sizes)):
        assert not refusals(sizes[k - 1], sizes[k], recipe.growth_of(k))
    planned = sum(found.schedule.tokens)
    assert sum(s.steps * s.tokens_per_step for s in recipe.stages) == pytest.approx(planned, rel=1e-3)


def test_not_growing_writes_one_stage(found: Answer) -> None:
    none = answer(replace(found.asked, belief=Belief(found.asked.belief.laws, (0.0, 0.0))))
    assert len(schedule_recipe(none.schedule, none.asked, "one").stages) == 1


@pytest.mark.parametrize(
    ("budget", "least", "most", "word"),
    [
        (Budget(), 0.0, math.inf, "no budget"),
        (Budget(tokens=1e11), 0.0, math.inf, "tokens alone"),
        (Budget(seconds=DAY), 70e9, math.inf, "too few"),
        (Budget(seconds=400 * DAY), 60e9, math.inf, "fits on 4 x H100"),
        (Budget(seconds=DAY), 3e9, 1e9, "above --max-params"),
    ],
    ids=["none", "tokens-alone", "too-large-for-the-time", "too-large-for-the-memory", "empty-range"],
)
def test_what_cannot_be_met_says_what_to_change(budget: Budget, least: float, most: float, word: str) -> None:
    with pytest.raises(RecipeError, match=word) as caught:
        request(four_h100(), budget, min_params=least, max_params=most).rungs()
    assert caught.value.fix


def test_money_needs_a_price() -> None:
    gpu = replace(load_machines().gpu("h100"), price_per_hour=None)
    with pytest.raises(RecipeError, match="no price"):
        request(Setting(gpu=gpu, n_gpus=4), Budget(money=1000))


def test_the_smallest_limit_binds() -> None:
    by_money = request(four_h100(), Budget(seconds=14 * DAY, money=1000))
    assert by_money.limit == "--money"
    assert by_money.goal.seconds == pytest.approx(1000 / 2.5 / 4 * 3600)
    by_hours = request(four_h100(), Budget(gpu_hours=10, money=1000))
    assert (by_hours.limit, by_hours.goal.seconds) == ("--gpu-hours", 9000)


def test_step_law() -> None:
    """2503.04715: for 1B parameters on 100B tokens about 1.6e-3 with batches of about 1.1M tokens."""
    assert step_law_lr(1e9, 1e11) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert step_law_lr(1e9, 1e11) == pytest.approx(1.64e-3, rel=0.02)
    assert step_law_batch(1e11) == pytest.approx(1.11e6, rel=0.02)
