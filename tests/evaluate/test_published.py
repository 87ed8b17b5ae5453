"""The published rows add up as their tables do, and cost what their formula says."""

import pytest

from growlm.evaluate.published import published, published_cost, published_tables
from growlm.plan.paper_flops import Shape


def test_the_first_column_is_the_mean_of_the_others() -> None:
    for table in published_tables():
        if len(table.tasks) == 1 or table.group == "ceval":  # C-Eval's average is over its subjects
            continue
        average, *parts = table.tasks
        for row in table.rows:
            mean = sum(row.values[task] for task in parts) / len(parts)
            assert row.values[average] == pytest.approx(mean, rel=0, abs=1e-4), (table.number, row.model)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("Llama-2 13B", Shape(2e12, 40, 5120, 4096, 32_000)),
        ("Llama-2 7B", Shape(2e12, 32, 4096, 4096, 32_000)),
        ("Llama 13B", Shape(1e12, 40, 5120, 2048, 32_000)),
        ("Llama 7B", Shape(1e12, 32, 4096, 2048, 32_000)),
    ],
)
def test_costs_are_those_of_the_formula(model: str, shape: Shape) -> None:
    cost = published_cost(model, "mmlu")
    assert cost is not None
    assert (cost.zettaflops, cost.half_width) == tuple(round(f / 1e21, 2) for f in shape.range)


def test_a_bilingual_model_costs_its_share_of_the_language() -> None:
    english, chinese = (published_cost("FLM-101B", task) for task in ("counting", "clue_iq_csl"))
    assert english
    assert chinese
    assert english.zettaflops + chinese.zettaflops == pytest.approx(52.76)
    last = Shape(26.54e9, 80, 10_240, 2048, 100_256).flops(72) / 1e21
    before = published_cost("FLM-101B at 51B", "mmlu")
    assert before
    assert before.derived
    assert before.zettaflops == pytest.approx(0.535 * (52.76 - last), abs=0.01)


def test_a_task_has_its_published_models_and_an_unknown_one_none() -> None:
    assert published("counting") == {"GPT-3": 0.8243, "GLM-130B": 0.6081, "FLM-101B": 0.6959}
    assert published("mmlu")["eFLM-16B"] == 0.445
    assert published("clue_iq_csl").keys() == {"GLM-130B", "FLM-101B"}
    assert published("unheard-of") == {}
    assert published_cost("GPT-4", "ceval") is None
