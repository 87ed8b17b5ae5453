"""FLOPs, days, GPU-hours, energy and carbon as papers print them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from growlm.plan.cost import GOODPUT, Cost, cost_of, cost_of_seconds
from growlm.plan.flops import flops_per_token
from growlm.plan.machines import load_machines
from growlm.plan.paper_flops import Shape
from growlm.plan.run_plan import Setting, plan_recipe
from growlm.recipe.load import load_recipe
from growlm.recipe.shape import ModelConfig

ZETTA = 1e21
MACHINES = load_machines()
A800 = MACHINES.gpu("a800")
FLM_101B = Shape(26.54e9, 80, 10_240, 2048, 100_256)

# 2309.03852, tables 3 to 5: what a model cost in zettaFLOPs, and the range.
COSTS = [
    (Shape(300e9, 96, 12_288, 2048, 50_257), 376.41, 53.77),  # GPT-3
    (Shape(2e12, 40, 5120, 4096, 32_000), 201.37, 28.77),  # Llama-2 13B
    (Shape(2e12, 32, 4096, 4096, 32_000), 106.60, 15.23),  # Llama-2 7B
    (Shape(1e12, 40, 5120, 2048, 32_000), 94.81, 13.54),  # Llama 13B
    (Shape(1e12, 32, 4096, 2048, 32_000), 49.54, 7.08),  # Llama 7B
]


@pytest.mark.parametrize(("shape", "middle", "half"), COSTS)
def test_flops_are_the_printed_digits(shape: Shape, middle: float, half: float) -> None:
    assert [round(flops / ZETTA, 2) for flops in shape.range] == [middle, half]


def test_glm_130b_is_with_full_recomputation_and_half_for_each_language() -> None:
    glm = Shape(400e9, 70, 12_288, 2048, 150_528).flops(96) / ZETTA
    assert glm == pytest.approx(421.60, abs=0.02)
    assert glm / 2 == pytest.approx(210.80, abs=0.01)


def test_the_last_stage_of_flm_101b_and_the_languages_shares() -> None:
    assert round(FLM_101B.flops(72) / ZETTA, 2) == 16.69
    assert round(FLM_101B.flops(72, head=12) / ZETTA, 2) == 16.73
    assert round(0.535 * 52.76, 1) == 28.2  # printed: 28.22
    assert round(0.465 * 52.76, 1) == 24.5  # printed: 24.54


def test_the_exact_count_of_a_gpt_is_the_closed_form_without_recomputation() -> None:
    c = ModelConfig(
        family="flm",
        d_model=10_240,
        n_heads=80,
        n_kv_heads=80,
        head_dim=128,
        d_ff=40_960,
        n_layers=80,
        vocab_size=100_256,
    )
    assert flops_per_token(c, 2048) == pytest.approx(FLM_101B.flops(72, head=12) / FLM_101B.tokens)


def flm_101b(**changes: object) -> Setting:
    """On the paper's GPUs at the MFU of its table 2: 162, 160 and 165 of 312 TFLOP/s."""
    given = {"gpu": A800, "n_gpus": 192, "mfu": (162 / 312, 160 / 312, 165 / 312)}
    return Setting(**(given | changes))  # type: ignore[arg-type]


def test_flm_101b_takes_the_days_that_it_took() -> None:
    """Table 1: 9.63 + 5.37 + 6.54 = 21.54 days, and 76.74 for 101B on all tokens: 3.56 x, 72 % saved.

    Our 16B and 51B are not exactly the paper's, whose shapes were not published.
    """
    plan = plan_recipe(load_recipe("flm-101b"), MACHINES, flm_101b())
    assert [stage.cost.days for stage in plan.stages] == pytest.approx([9.63, 5.37, 6.54], rel=0.06)
    assert plan.stages[2].cost.days == pytest.approx(6.54, rel=0.01)
    assert plan.total.days == pytest.approx(21.54, rel=0.005)
    assert plan.static.days == pytest.approx(76.74, rel=0.01)
    assert plan.static.days / plan.total.days == pytest.approx(3.56, rel=0.01)
    assert 1 - plan.total.days / plan.static.days == pytest.approx(0.72, abs=0.005)
    assert plan.total.gpu_hours == pytest.approx(1.01e5, rel=0.02)
    assert plan.total.money == pytest.approx(100_000, rel=0.01)
    assert plan.flops.model == pytest.approx(52.76 * ZETTA, rel=0.025)
    assert [(s.layout.dp, s.layout.tp, s.layout.pp) for s in plan.stages] == [
        (96, 2, 1),
        (24, 4, 2),
        (12, 4, 4),
    ]


def test_days_of_the_table_are_of_equal_tokens() -> None:
    """26.54B tokens took 6.54 days, so 311.55B take 76.8; 192 GPUs for 21.54 days are 99,256 GPU-hours."""
    assert pytest.approx(76.74, rel=0.001) == 311.55 / 26.54 * 6.54
    total = cost_of_seconds(0.0, 21.54 * 86_400, A800, 192, MACHINES)
    assert round(total.gpu_hours) == 99_256
    assert total.money == pytest.approx(100_000, rel=0.001)


def test_goodput_is_what_was_reached_over_days_of_what_a_benchmark_reached() -> None:
    reached = FLM_101B.flops(72, head=12) / (6.54 * 86_400 * 192)
    assert reached / 165e12 == pytest.approx(GOODPUT, abs=0.005)
    cost = cost_of(FLM_101B.flops(72, head=12), A800, 192, 165 / 312, GOODPUT, MACHINES)
    assert cost.days == pytest.approx(6.54, rel=0.01)


# 2309.03852, table 3: GPU-hours, watts, and the energy in MWh (printed as MkWh).
ENERGY = [
    (3.55e6, 330, 1171),
    (3.77e6, 283, 1066),
    (8.40e6, 378.5, 3179),
    (1.11e6, 400, 444),
    (1.72e6, 400, 688),
    (1.01e5, 400, 40),
]


@pytest.mark.parametrize(("hours", "watts", "mwh"), ENERGY)
def test_energy_is_gpu_hours_times_watts(hours: float, watts: float, mwh: float) -> None:
    gpu, no_building = replace(A800, watts=watts), replace(MACHINES, pue=1.0)
    cost = cost_of_seconds(0.0, 3600 * hours, gpu, 1, no_building)
    assert cost.kwh / 1000 == pytest.approx(mwh, abs=1)


def test_carbon_is_energy_times_pue_times_intensity() -> None:
    """26 t of FLM-101B: 0.644 kg per kWh, e.g. a PUE of 1.1 and 585 g/kWh; China's 582 of 2023 is close."""
    cost = cost_of_seconds(0.0, 3600 * 1.01e5, A800, 1, MACHINES, grid="CHN")
    assert cost.co2_kg / 1000 == pytest.approx(26, abs=0.5)


def test_costs_add_up_and_an_unknown_price_stays_unknown() -> None:
    one = Cost(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert one + one == Cost(2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
    assert (one + replace(one, money=None)).money is None
