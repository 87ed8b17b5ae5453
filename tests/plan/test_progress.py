"""What is left of a run is counted in its own speed, later stages as they are planned."""

from __future__ import annotations

import pytest

from growlm.plan.flops import flops_per_token
from growlm.plan.machines import load_machines
from growlm.plan.progress import planned_mfus, remaining_flops, remaining_seconds, total_tokens
from growlm.plan.run_plan import plan_recipe, setting_of
from growlm.recipe.load import load_recipe

RECIPE, MACHINES = load_recipe("flm-101b"), load_machines()


def test_a_run_at_its_planned_speed_has_the_planned_time_left() -> None:
    setting = setting_of(RECIPE, MACHINES, "a800", goodput=1.0)
    plan = plan_recipe(RECIPE, MACHINES, setting)
    mfus = planned_mfus(RECIPE, "NVIDIA A800-SXM4-80GB", 192)
    assert mfus == [stage.step.mfu for stage in plan.stages]
    speed = plan.stages[0].step.mfu * 192 * setting.gpu.peak_flops
    assert remaining_seconds(RECIPE, 0, 0, speed, mfus) == pytest.approx(plan.total.seconds)
    done = plan.stages[1].tokens / 4
    speed = plan.stages[1].step.mfu * 192 * setting.gpu.peak_flops
    left = 0.75 * plan.stages[1].cost.seconds + plan.stages[2].cost.seconds
    assert remaining_seconds(RECIPE, 1, done, speed, mfus) == pytest.approx(left)


def test_without_a_known_device_all_stages_are_as_fast() -> None:
    assert planned_mfus(RECIPE, "Abacus 9000", 192) == [1.0] * 3
    assert planned_mfus(RECIPE, "NVIDIA A800-SXM4-80GB", 7) == [1.0] * 3, "no layout"
    flops = sum(
        s.tokens * flops_per_token(RECIPE.model_config_of(i), s.seq_len)
        for i, s in enumerate(RECIPE.stages)
        if s.tokens
    )
    assert remaining_flops(RECIPE, 0, 0) == pytest.approx(flops)
    assert remaining_flops(RECIPE, 2, total_tokens(RECIPE)) == 0


@pytest.mark.parametrize(
    ("device", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("cpu", "cpu"),
    ],
)
def test_devices_are_known_by_what_torch_calls_them(device: str, key: str) -> None:
    assert MACHINES.of_device(device) == MACHINES.gpu(key)
    assert MACHINES.of_device("TPU v5") is None
