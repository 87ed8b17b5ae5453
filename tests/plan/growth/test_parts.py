"""Amounts, shapes, economics of a recipe, and the picture of a schedule."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from growlm.errors import RecipeError
from growlm.model.parameters import n_parameters
from growlm.plan.growth.economics import economics, economics_words, fitted_range
from growlm.plan.growth.picture import growth_picture
from growlm.plan.growth.shapes import fits_into, ladder
from growlm.plan.growth.theory import Leg
from growlm.plan.machines import load_machines
from growlm.plan.quantities import parse_amount, parse_seconds
from growlm.plan.run_plan import Setting, plan_recipe
from growlm.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("3B", 3e9), ("1T", 1e12), ("2.5e11", 2.5e11), ("3_000_000", 3e6), ("$3,360", 3360), ("$100k", 1e5)],
)
def test_amounts(text: str, value: float) -> None:
    assert parse_amount(text, "--x") == value


@pytest.mark.parametrize(
    ("text", "days"), [("14", 14), ("14 days", 14), ("2 weeks", 14), ("36h", 1.5), ("90 min", 1 / 16)]
)
def test_times(text: str, days: float) -> None:
    assert parse_seconds(text) == days * 86400


@pytest.mark.parametrize("text", ["", "-3", "0", "3Q", "three", "nan", "inf", "1e999"])
def test_what_is_no_amount(text: str) -> None:
    for parse in (lambda: parse_amount(text, "--x"), lambda: parse_seconds(text, "--x")):
        with pytest.raises(RecipeError, match="not an amount above 0"):
            parse()


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_shapes_are_of_the_llama_kind_and_by_size(head_dim: int) -> None:
    found = ladder(1e7, 2e10, vocab_size=32_768, head_dim=head_dim)
    sizes = [n_parameters(config) for config in found]
    assert sizes == sorted(sizes)
    assert all(b / a < 1.4 for a, b in pairwise(sizes) if a > 5e8)
    for config in found:
        assert config.d_model == config.n_heads * config.head_dim
        assert config.n_heads == 4 * config.n_kv_heads
        assert config.d_ff % 256 == 0
        assert 2 * config.d_model <= config.d_ff <= 4 * config.d_model
    assert fits_into(found[0], found[-1])
    assert not fits_into(found[-1], found[0])


def test_llama_2_7b_is_on_the_ladder() -> None:
    """2307.09288: d_model 4096, 32 layers, d_ff 11,008; here with a quarter of the key/value heads."""
    shapes = {(c.d_model, c.n_layers, c.d_ff) for c in ladder(5e9, 7e9, vocab_size=32_000, head_dim=128)}
    assert (4096, 32, 11_008) in shapes


def test_flm_101b_is_told_when_its_growth_pays() -> None:
    """Equal loss 1.66x and 1.99x, and the compute-optimal sizes of 21B and 10.8B, by the shapes of the
    preset.
    """
    machines = load_machines()
    setting = Setting(gpu=machines.gpu("a800"), n_gpus=192, mfu=(0.47,))
    plan = plan_recipe(load_recipe("flm-101b"), machines, setting)
    epoch, hoffmann = economics(plan)
    assert [e.speed_ups[0].equal_loss for e in (epoch, hoffmann)] == pytest.approx([1.66, 1.99], rel=0.02)
    assert [e.optimal_params / 1e9 for e in (epoch, hoffmann)] == pytest.approx([21, 10.8], rel=0.03)
    for e in (epoch, hoffmann):
        low, high = e.speed_ups
        assert low.equal_tokens == high.equal_tokens == pytest.approx(high.equal_loss)
        assert low.equal_loss < high.equal_loss
        assert low.compute_optimal < 1 < high.compute_optimal
        assert e.loss[1] == pytest.approx(e.static_loss)
    words = economics_words([epoch, hoffmann], plan.stages[-1].parameters)
    assert words[0].startswith("if 102B is needed: grow")
    assert re.search(r"do not grow, train a model of 21.*\(Epoch\) or 1.*\(Hoffmann\) instead", words[1])
    assert "70M to 16B" in fitted_range(101e9, 312e9)
    assert not fitted_range(7e9, 1e11)


def test_a_recipe_of_one_stage_has_no_growth_to_judge() -> None:
    machines = load_machines()
    recipe = load_recipe("laptop")
    one = recipe.model_copy(update={"stages": recipe.stages[:1]})
    assert economics(plan_recipe(one, machines, Setting(gpu=machines.gpu("h100"), n_gpus=1))) == []


def test_the_picture_says_what_each_stage_costs_and_saves() -> None:
    legs = [Leg(16e9, 245.37e9), Leg(51e9, 39.64e9), Leg(101e9, 26.54e9)]
    text = growth_picture("FLM-101B", legs, ["9.63 days", "5.37 days", "6.54 days"], Leg(21e9, 410e9))
    assert ET.fromstring(text).tag.endswith("svg")
    for words in ("16B on 245B: 9.63 days", "saves 50%", "this schedule: saves 73%", "alone: 21B on 410B"):
        assert words in text
