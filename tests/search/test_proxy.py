"""The proxy is the target but for its width: its ratios, its batch, its schedule and its base shape."""

from dataclasses import replace

import pytest

from growlm.errors import RecipeError
from growlm.model.parameters import parameter_table
from growlm.plan.progress import total_tokens
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.search.proxy import make_proxy, widths_of, with_base
from growlm.train.schedule import learning_rate

PRESETS = ("demo", "laptop", "flm-base", "flm-101b", "tele-flm-1t")


def single(recipe: Recipe, **model: object) -> Recipe:
    """The last stage of a recipe as a run of its own."""
    data = recipe.model_dump(exclude_unset=True)
    last = {k: v for k, v in data["stages"][-1].items() if k not in ("growth", "lr", "lr_policy")}
    data |= {"stages": [last], "model": data["model"] | model}
    return Recipe.model_validate(data)


@pytest.mark.parametrize("name", PRESETS)
def test_at_the_targets_own_width_and_length_the_proxy_is_the_targets_stage(name: str) -> None:
    target = single(load_recipe(name))
    proxy = make_proxy(target, width=target.stages[0].d_model, tokens=total_tokens(target)).recipe
    assert proxy.model_config_of(0) == target.model_config_of(0)
    assert proxy.mixture_of(0) == target.mixture_of(0)
    steps = target.stages[0].steps
    assert proxy.stages[0].steps == steps
    assert proxy.stages[0].tokens_per_step == target.stages[0].tokens_per_step
    for step in (0, 1, steps // 7, steps // 2, steps - 1):
        assert learning_rate(proxy, 0, step) == learning_rate(target, 0, step)
    kept = ("data", "optim", "guard")
    assert all(getattr(proxy, table) == getattr(target, table) for table in kept)


@pytest.mark.parametrize("d_ff", [1, 2])
@pytest.mark.parametrize("name", ["demo", "laptop", "flm-101b"])
def test_stages_of_other_ratios_have_one_base_with_the_proxy(name: str, d_ff: int) -> None:
    """Here the base is not the target's own shape, and its feed-forward layer grows more than its width."""
    data = load_recipe(name).model_dump(exclude_unset=True)
    data["stages"][-1]["d_ff"] *= d_ff
    target = Recipe.model_validate(data)
    last = target.model_config_of(len(target.stages) - 1)
    proxy = make_proxy(target, width=last.d_model).recipe.model_config_of(0)
    assert parameter_table(proxy) == parameter_table(last)
    assert proxy.logit_mult == last.logit_mult
    transferred = with_base(target)
    for index in range(len(target.stages)):
        assert transferred.model_config_of(index) == target.model_config_of(index)


@pytest.mark.parametrize("name", PRESETS)
def test_a_narrow_proxy_keeps_depth_heads_vocabulary_batch_and_base(name: str) -> None:
    recipe = load_recipe(name)
    proxy = make_proxy(recipe)
    c, t = proxy.recipe.model_config_of(0), recipe.model_config_of(proxy.target)
    assert c.d_model < t.d_model
    kept = (
        "family",
        "n_layers",
        "head_dim",
        "vocab_size",
        "tied",
        "init_std",
        "norm_eps",
        "mup_base_d_model",
    )
    assert {k: getattr(c, k) for k in kept} == {k: getattr(t, k) for k in kept}
    assert c.mup_base_n_layers == t.mup_base_n_layers
    assert c.n_heads * t.d_model == t.n_heads * c.d_model
    assert c.d_ff / c.d_model == pytest.approx(t.d_ff / t.d_model, rel=0.01)
    stage, target = proxy.recipe.stages[0], recipe.stages[proxy.target]
    assert stage.tokens_per_step == target.tokens_per_step
    assert proxy.token_share == pytest.approx(total_tokens(proxy.recipe) / total_tokens(recipe))
    share = sum(s.steps for s in recipe.stages) / recipe.schedule.warmup_steps
    assert stage.steps / proxy.recipe.schedule.warmup_steps == pytest.approx(share, rel=0.05)
    last = learning_rate(proxy.recipe, 0, stage.steps - 1)
    assert last == pytest.approx(recipe.schedule.min_lr_ratio * proxy.recipe.optim.lr, rel=1e-3)


def test_flm_101b_is_searched_at_width_256_with_two_heads_as_the_paper_did() -> None:
    c = make_proxy(load_recipe("flm-101b")).recipe.model_config_of(0)
    assert (c.d_model, c.n_heads, c.n_layers, c.d_ff) == (256, 2, 80, 1024)
    assert c.mup_base_d_model == 256  # the base shape: every multiplier is 1
    assert c.logit_mult == 2.0


@pytest.mark.parametrize("name", ["flm-base", "flm-101b"])
def test_effective_learning_rates_of_proxy_and_target_differ_by_their_widths(name: str) -> None:
    recipe = load_recipe(name)
    proxy = make_proxy(recipe)
    c, t = proxy.recipe.model_config_of(0), recipe.model_config_of(proxy.target)
    small, large = parameter_table(c), parameter_table(t)
    narrower = t.d_model / c.d_model
    for key, p in large.items():
        ratio = small[key].lr_mult / p.lr_mult
        assert ratio == pytest.approx(narrower if p.role == "hidden" else 1.0), key
    assert c.logit_mult / t.logit_mult == pytest.approx(narrower)


def test_depth_changes_only_when_asked_and_is_noted_unless_it_transfers() -> None:
    deep = single(load_recipe("flm-base"))
    assert make_proxy(deep, layers=4).recipe.stages[0].n_layers == 4
    assert not any("depth" in note for note in make_proxy(deep, layers=4).notes)
    mup = single(load_recipe("flm-base"), parametrization="mup")
    assert any("depth" in note for note in make_proxy(mup, layers=4).notes)
    sp = single(load_recipe("flm-base"), parametrization="sp")
    assert any("do not transfer over width" in note for note in make_proxy(sp).notes)


def test_widths_keep_the_ratio_of_query_to_key_value_heads() -> None:
    t = single(load_recipe("flm-base")).model_config_of(0)
    gqa = replace(t, d_model=512, n_heads=8, n_kv_heads=2, head_dim=64)
    assert widths_of(gqa) == [256, 512]
    assert widths_of(replace(gqa, n_kv_heads=8)) == [64 * n for n in range(1, 9)]
    assert widths_of(replace(gqa, n_kv_heads=1)) == [512]


def test_what_cannot_be_is_refused_with_what_can() -> None:
    recipe = load_recipe("flm-base")
    with pytest.raises(RecipeError, match="width 100") as refused:
        make_proxy(recipe, width=100)
    assert "64, 128, 192" in refused.value.fix
    with pytest.raises(RecipeError, match="no stage `deep`"):
        make_proxy(recipe, stage="deep")


def test_what_a_stage_overrides_goes_into_its_proxy() -> None:
    recipe = load_recipe("laptop", ["stages.deep.mixture={ en = 1 }", "stages.deep.vocab_size=16_512"])
    proxy = make_proxy(recipe).recipe
    assert proxy.optim.lr == recipe.stages[-1].lr == 6e-4
    assert proxy.data.mixture == {"en": 1}
    assert proxy.model.vocab_size == 16_512
    assert make_proxy(recipe, stage="small").recipe.optim.lr == 1e-3
